"""Pipeline results as ROS messages in CDR bytes. Every array that is published carries the header it is given."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.messages.cdr import CdrWriter

LONGEST_SIDE = 50.0
"""No road vehicle is longer, in metres; a longer box is a fault of the network."""
COMPUTED = 100
_STAMP = struct.Struct("<iI")
_POSE = struct.Struct("<7d")
_HYPOTHESIS = struct.Struct("<d7d36d")
_BOX = struct.Struct("<7d3d")
_NO_COVARIANCE = (0.0,) * 36
_MAP = struct.Struct("<iIfII")
_IDS = struct.Struct("<3i")
_BODY = struct.Struct("<10d4fiI?")
_ARROW = struct.Struct("<6d")
_BOOL = struct.Struct("<?")
_NOWHERE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
# visualization_msgs/Marker: types and actions.
_ARROW_TYPE, _CUBE, _TEXT_VIEW_FACING = 0, 1, 9
_ADD, _DELETEALL = 0, 3


def split_invalid(detections: Detections) -> tuple[Detections, int]:
    """The detections that may be published, and how many may not: not finite, a side not in (0, 50] m."""
    sides = detections.boxes[:, 3:6]
    with np.errstate(invalid="ignore"):
        good = (
            np.isfinite(detections.boxes).all(axis=1)
            & np.isfinite(detections.scores)
            & (sides > 0).all(axis=1)
            & (sides <= LONGEST_SIDE).all(axis=1)
        )
    kept = Detections(detections.boxes[good], detections.scores[good], detections.classes[good])
    return kept, int((~good).sum())


def raised(detections: Detections, ground_z: float) -> Detections:
    """The same detections with their boxes moved up by `ground_z` metres."""
    boxes = detections.boxes.copy()
    boxes[:, 2] += ground_z
    return Detections(boxes, detections.scores, detections.classes)


def detections_message(header: Any, detections: Detections, classes: tuple[str, ...]) -> bytes:
    """vision_msgs/Detection3DArray; `id` stays empty, since nothing is tracked.

    Args:
        header: std_msgs/Header, or what looks like one.
        detections: boxes in its frame.
        classes: their names, by number.
    """
    names = [name.encode() for name in classes]
    out, stamp, frame_id = CdrWriter(), *_parts(header)
    _header(out, stamp, frame_id)
    out.length(len(detections))
    for box, score, label in _rows(detections):
        pose = _pose(box)
        _header(out, stamp, frame_id)
        # The one hypothesis: class, score, pose with an unknown covariance.
        out.length(1)
        out.string(names[label])
        out.numbers(_HYPOTHESIS, 8, score, *pose, *_NO_COVARIANCE)
        # The box, and no id.
        out.numbers(_BOX, 8, *pose, *box[3:6])
        out.string(b"")
    return out.message()


def markers_message(header: Any, detections: Detections, classes: tuple[str, ...]) -> bytes:
    """visualization_msgs/MarkerArray: boxes, heading arrows and labels; the first deletes those of the frame before."""
    markers = _Markers(header, 1 + 3 * len(detections))
    markers.add(b"", 0, _ARROW_TYPE, _DELETEALL, _NOWHERE, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    for number, (box, score, label) in enumerate(_rows(detections)):
        x, y, z, length, width, height, _ = box
        pose, top = _pose(box), (x, y, z + height / 2 + 0.7, 0.0, 0.0, 0.0, 1.0)
        dim, bright = _color(score, 0.45), _color(score, 1.0)
        nose = (0.0, 0.0, 0.0, length / 2 + 1.0, 0.0, 0.0)
        text = f"{classes[label]} {score:.2f}".encode()
        markers.add(b"boxes", number, _CUBE, _ADD, pose, (length, width, height), dim)
        markers.add(b"heading", number, _ARROW_TYPE, _ADD, pose, (0.15, 0.4, 0.4), bright, points=nose)
        markers.add(b"labels", number, _TEXT_VIEW_FACING, _ADD, top, (0.0, 0.0, 0.9), bright, text=text)
    return markers.out.message()


def computation_mask_message(header: Any, computed: npt.NDArray[np.bool_], grid: Grid, ground_z: float) -> bytes:
    """nav_msgs/OccupancyGrid of which pixels of a feature map were computed: 100 = computed, 0 = not.

    Args:
        header: stamp of the cloud and the frame of the grid.
        computed: bool [h, w] at a whole stride of the grid, row 0 at y_min.
        grid: the grid it lies on.
        ground_z: height of the raster in metres.
    """
    out, stamp, frame_id = CdrWriter(), *_parts(header)
    _header(out, stamp, frame_id)
    height, width = computed.shape
    resolution = grid.resolution * math.ceil(grid.width / width)
    out.numbers(_MAP, 4, *stamp, resolution, width, height)
    out.numbers(_POSE, 8, grid.x_min, grid.y_min, ground_z, 0.0, 0.0, 0.0, 1.0)
    out.data((computed.view(np.int8) * np.int8(COMPUTED)).tobytes())
    return out.message()


class _Markers:
    """Writes visualization_msgs/Marker after Marker."""

    def __init__(self, header: Any, count: int) -> None:
        self.out = CdrWriter()
        self.out.length(count)
        self._stamp, self._frame_id = _parts(header)

    def add(
        self,
        namespace: bytes,
        number: int,
        kind: int,
        action: int,
        pose: tuple[float, ...],
        scale: tuple[float, ...],
        color: tuple[float, ...],
        points: tuple[float, ...] = (),
        text: bytes = b"",
    ) -> None:
        out = self.out
        _header(out, self._stamp, self._frame_id)
        out.string(namespace)
        out.numbers(_IDS, 4, number, kind, action)
        # It stays until it is deleted (no lifetime), and where it is (not locked to its frame).
        out.numbers(_BODY, 8, *pose, *scale, *color, 0, 0, False)
        out.length(len(points) // 3)
        if points:
            out.numbers(_ARROW, 8, *points)
        # Colours of points, and the texture: resource, image (header, format, data), coordinates.
        out.length(0)
        out.string(b"")
        _header(out, (0, 0), b"")
        out.string(b"")
        out.data(b"")
        out.length(0)
        out.string(text)
        # The mesh: resource, file (name, data), whether its own materials are used.
        out.string(b"")
        out.string(b"")
        out.data(b"")
        out.numbers(_BOOL, 1, False)


def _rows(detections: Detections) -> Iterable[tuple[list[float], float, int]]:
    return zip(detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True)


def _parts(header: Any) -> tuple[tuple[int, int], bytes]:
    return (header.stamp.sec, header.stamp.nanosec), header.frame_id.encode()


def _header(out: CdrWriter, stamp: tuple[int, int], frame_id: bytes) -> None:
    out.numbers(_STAMP, 4, *stamp)
    out.string(frame_id)


def _pose(box: list[float]) -> tuple[float, ...]:
    """Position and quaternion x, y, z, w."""
    yaw = box[6]
    return (*box[:3], 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))


def _color(score: float, alpha: float) -> tuple[float, float, float, float]:
    """From orange (doubtful) to green (sure)."""
    sure = min(max(score, 0.0), 1.0)
    return 1.0 - 0.8 * sure, 0.45 + 0.4 * sure, 0.15, alpha
