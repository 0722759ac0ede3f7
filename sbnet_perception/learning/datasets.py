"""Real frames with labels, from files: the format of docs/frames.md, and what three data sets deliver."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import VEHICLE, ObjectClass, numbered
from sbnet_perception.errors import UserError
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.simulator.geometry import count_inside
from sbnet_perception.masks.road import RoadMap, RoadView


@dataclass(frozen=True)
class DataSet:
    """How a data set delivers its clouds: height of the origin, scale of intensity, labelled view."""

    height: float
    full_reflectance: float
    half_view: float = math.pi


# KITTI's labels cover the left colour camera: 1242 pixels wide, focal length 721.5 pixels.
_CAMERA = math.atan(621.0 / 721.5)
DATA_SETS = {
    "av2": DataSet(0.33, 255.0),
    "nuscenes": DataSet(0.0, 255.0),
    "kitti": DataSet(1.73, 1.0, _CAMERA),
}
VIEWS = {"full": math.pi, "camera": _CAMERA, "front": _CAMERA}
"""Words of `label_fov` and the half view in radians that they mean."""
# Size of a cell in metres and corner of the road rasters in the files.
_RASTER = (0.1, SE2(0.0, -20.0))
_FOLDERS = ("", "real", "frames")


@dataclass(frozen=True)
class RealFrame(LabelledFrame):
    """A labelled frame from a file.

    Attributes:
        source: first word of the file's name: the data set, or whatever its user calls it.
        labels: text [M], the source's own word for each of ``boxes``.
        other_boxes: float32 [K, 7] of labelled objects of no class asked for: people, cones.
        other_labels: text [K].
        origin_height: height of the sensor frame's origin above the ground, metres.
        file: where it was read.
    """

    source: str = ""
    labels: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    other_boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 7), np.float32))
    other_labels: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    origin_height: float = 0.0
    file: Path = Path()


def real_frames(folder: Path, classes: Sequence[ObjectClass] = (VEHICLE,)) -> Iterator[RealFrame]:
    """The frames of a folder, in the order of their names; see `frame_files` and `read_frame`."""
    for file in frame_files(folder):
        yield read_frame(file, classes)


def frame_files(folder: Path) -> list[Path]:
    """`find_frames`, of which there must be some.

    Raises:
        UserError: there are none.
    """
    files = find_frames(folder)
    if not files:
        places = ", ".join(str(folder / name) for name in _FOLDERS)
        raise UserError(f"no frames (*.npz) in {places}; docs/frames.md tells what they hold")
    return files


def find_frames(folder: Path) -> list[Path]:
    """The files ``*.npz`` of a folder, or else those of its folder ``real`` or ``frames``, by name."""
    return next((files for name in _FOLDERS if (files := sorted((folder / name).glob("*.npz")))), [])


def read_frame(file: Path, classes: Sequence[ObjectClass] = (VEHICLE,)) -> RealFrame:
    """One file, in the grid frame: objects whose label is of none of the classes are the frame's others.

    Raises:
        UserError: it cannot be read, or an array is missing or of another shape; the message names it.
    """
    arrays = read_arrays(file)
    source = file.stem.split("_")[0]
    try:
        points, boxes, half_view, height = (_general if "label_fov" in arrays else _delivered)(arrays, source)
        labels = _array(arrays, "labels").astype(np.str_)
        counts = arrays.get("points_inside")
        _check(points, boxes, labels, counts)
        counts = count_inside(points, boxes) if counts is None else counts
    except ValueError as error:
        raise UserError(f"{file}: {error}; docs/frames.md tells what a file of labelled frames holds") from None
    kept, numbers = numbered(labels, source, classes)
    others = np.asarray(arrays.get("other_boxes", np.zeros((0, 7)))).astype(np.float32).reshape(-1, 7)
    other_labels = np.asarray(arrays.get("other_labels", np.full(len(others), ""))).astype(np.str_)
    return RealFrame(
        file.stem,
        points,
        _road(arrays),
        boxes[kept],
        counts[kept].astype(np.int64),
        numbers,
        half_view,
        source,
        labels[kept],
        np.concatenate([boxes[~kept], others]),
        np.concatenate([labels[~kept], other_labels]),
        height,
        file,
    )


def read_arrays(file: Path) -> dict[str, NDArray]:
    """The arrays of a file by name.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


_Read = tuple[NDArray[np.float32], NDArray[np.float32], float, float]
"""Points and boxes in the grid frame, half view, height of the origin."""


def _general(arrays: Mapping[str, NDArray], source: str) -> _Read:
    """The format of docs/frames.md: in the grid frame already."""
    height = float(arrays.get("origin_height", np.zeros(())))
    return cloud(arrays), _array(arrays, "boxes").astype(np.float32), _half_view(arrays["label_fov"]), height


def cloud(arrays: Mapping[str, NDArray]) -> NDArray[np.float32]:
    """The points [P, 4] of a file's arrays: x, y, z in the grid frame, intensity 0-1.

    Raises:
        ValueError: an array is missing or of another shape or type.
    """
    xyz = arrays["xyz_cm"] / np.float32(100) if "xyz_cm" in arrays else _array(arrays, "points")
    intensity = _array(arrays, "intensity")
    if xyz.ndim != 2 or xyz.shape[1] < 3 or intensity.shape != xyz.shape[:1]:
        raise ValueError(f"its points have the shape {xyz.shape} and intensity {intensity.shape}, not [P, 3] and [P]")
    if intensity.dtype != np.uint8 and intensity.dtype.kind != "f":
        raise ValueError(f"its intensity is {intensity.dtype}; it must be uint8 (255 is full) or float (1 is full)")
    xyz, full = xyz[:, :3], 255.0 if intensity.dtype == np.uint8 else 1.0
    return np.column_stack([xyz, intensity / np.float32(full)]).astype(np.float32)


def _delivered(arrays: Mapping[str, NDArray], source: str) -> _Read:
    """The frame of the data set's sensor, with its scale of intensity."""
    if source not in DATA_SETS:
        known = ", ".join(DATA_SETS)
        raise ValueError(f"it has no label_fov, and its name does not begin with one of the data sets {known}")
    made = DATA_SETS[source]
    points, boxes = (_array(arrays, name).astype(np.float32) for name in ("points", "boxes"))
    points[:, 2] += made.height
    points[:, 3] /= made.full_reflectance
    boxes[:, 2] += made.height
    return points, boxes, made.half_view, made.height


def _array(arrays: Mapping[str, NDArray], name: str) -> NDArray:
    if name not in arrays:
        raise ValueError(f"it has no array {name}")
    return arrays[name]


def _half_view(value: NDArray) -> float:
    word = str(value)
    if word in VIEWS:
        return VIEWS[word]
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"label_fov is {word!r}; it must be {', '.join(VIEWS)} or half the angle in radians") from None


def _check(points: NDArray, boxes: NDArray, labels: NDArray, counts: NDArray | None) -> None:
    """Raises ValueError where shapes do not fit."""
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(f"its points have the shape {points.shape}; they must be [P, 4]")
    if boxes.ndim != 2 or boxes.shape[1] != 7:
        raise ValueError(f"its boxes have the shape {boxes.shape}; they must be [M, 7]")
    for name, values in (("labels", labels), ("points_inside", counts)):
        if values is not None and values.shape != boxes.shape[:1]:
            raise ValueError(f"it has {len(boxes)} boxes, but {name} of the shape {values.shape}")


def _road(arrays: Mapping[str, NDArray]) -> RoadView | None:
    if "road_mask" not in arrays:
        return None
    return RoadView(RoadMap(torch.from_numpy(arrays["road_mask"] > 0), *_RASTER), SE2())
