"""Detections as KITTI's benchmark sees them, beside its own labels (datasets/kitti_files.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.detector.boxes import Detections, corners_bev
from sbnet_perception.learning.datasets.frame import RealFrame
from sbnet_perception.learning.datasets.kitti_files import (
    DONT_CARE,
    HEIGHT,
    IMAGE_BOX,
    OCCLUDED,
    TRUNCATED,
    WIDTH,
    Floats,
    read_calibration,
    read_labels,
    upright_boxes,
)

_NEAREST = 0.1


@dataclass(frozen=True)
class KittiFrame:
    """One frame of the benchmark: its labels, and the detections inside the image.

    Attributes:
        types: text [K] of the labelled objects, such as Car and Van.
        truncated: float64 [K], share outside the image.
        occluded: int64 [K], 0 fully visible to 3 unknown.
        image_boxes: float64 [K, 4].
        boxes: float64 [K, 7], upright camera frame.
        dont_care: float64 [D, 4], image boxes.
        found: int64 [M], positions of those of the detections whose boxes reach into the image.
        scores: float64 [M] of these.
        found_boxes: float64 [M, 7], upright camera frame.
        found_image_boxes: float64 [M, 4], around the projected corners, cut to the image.
    """

    types: NDArray[np.str_]
    truncated: Floats
    occluded: NDArray[np.int64]
    image_boxes: Floats
    boxes: Floats
    dont_care: Floats
    found: NDArray[np.int64]
    scores: Floats
    found_boxes: Floats
    found_image_boxes: Floats


def label_files(frame: RealFrame) -> tuple[Path, Path] | None:
    """KITTI's label and calibration file of a frame, if there are such: of ``training/velodyne/NUMBER.bin`` in
    ``training``, of ``kitti_NUMBER.npz`` in ``kitti_labels`` beside it."""
    number, folder = frame.file.stem.removeprefix("kitti_"), frame.file.parent
    folder = folder.parent if frame.file.suffix == ".bin" else folder / "kitti_labels"
    files = folder / "label_2" / f"{number}.txt", folder / "calib" / f"{number}.txt"
    return files if frame.source == "kitti" and all(file.is_file() for file in files) else None


def kitti_frame(detections: Detections, frame: RealFrame) -> KittiFrame | None:
    """The frame with KITTI's own labels, or None where it has none.

    Args:
        detections: in the grid frame.
        frame: a KITTI frame; its ``origin_height`` leads from the grid frame to the velodyne's.

    Raises:
        UserError: a file of labels or of the calibration is damaged.
    """
    files = label_files(frame)
    if files is None:
        return None
    labels, calibration = files
    types, values = read_labels(labels)
    camera_from_velodyne, projection = read_calibration(calibration)
    boxes = _upright(detections.boxes, frame.origin_height, camera_from_velodyne)
    image_boxes = project(boxes, projection)
    inside = (image_boxes[:, 2] > image_boxes[:, 0]) & (image_boxes[:, 3] > image_boxes[:, 1])
    objects, ignored = types != DONT_CARE, types == DONT_CARE
    of = values[objects]
    return KittiFrame(
        types=types[objects],
        truncated=of[:, TRUNCATED],
        occluded=of[:, OCCLUDED].astype(np.int64),
        image_boxes=of[:, IMAGE_BOX],
        boxes=upright_boxes(of),
        dont_care=values[ignored][:, IMAGE_BOX],
        found=np.flatnonzero(inside),
        scores=detections.scores[inside].astype(np.float64),
        found_boxes=boxes[inside],
        found_image_boxes=image_boxes[inside],
    )


def covered_by_dont_care(frame: KittiFrame) -> Floats:
    """float64 [M]: the largest share of each detection's image box that lies in one of the DontCare regions."""
    a, b = frame.found_image_boxes[:, None], frame.dont_care[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0.0), axis=2)
    areas = np.prod(frame.found_image_boxes[:, 2:] - frame.found_image_boxes[:, :2], axis=1)
    return (shared / areas[:, None]).max(1, initial=0.0)


def project(boxes: Floats, projection: Floats) -> Floats:
    """Image boxes [M, 4] around the corners of boxes [M, 7], cut to the image; ``projection`` [3, 4] of the camera.

    What lies behind the camera counts as just before it, which is beyond the image's edge.
    """
    corners = np.repeat(corners_bev(boxes), 2, axis=1)
    heights = boxes[:, 2:3] + boxes[:, 5:6] / 2 * np.tile([-1.0, 1.0], 4)
    ahead = np.maximum(corners[..., 0], _NEAREST)
    camera = np.stack([-corners[..., 1], -heights, ahead, np.ones_like(ahead)], 2)
    image = camera @ projection.T
    pixels = image[..., :2] / image[..., 2:]
    box = np.concatenate([pixels.min(1), pixels.max(1)], 1)
    return np.clip(box, 0.0, [WIDTH - 1, HEIGHT - 1] * 2)


def _upright(boxes: NDArray, origin_height: float, camera_from_velodyne: Floats) -> Floats:
    """Boxes [M, 7] of the grid frame in the upright camera frame: the middle of the bottom moves, yaw stays."""
    result = boxes.astype(np.float64)
    bottom = result[:, :3].copy()
    bottom[:, 2] -= result[:, 5] / 2 + origin_height
    x, y, z = (bottom @ camera_from_velodyne[:, :3].T + camera_from_velodyne[:, 3]).T
    result[:, :3] = np.stack([z, -x, -y + result[:, 5] / 2], 1)
    return result
