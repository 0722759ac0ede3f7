"""Frames in files of the project's own format (docs/frames.md), and as three data sets deliver them."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import VEHICLE, ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import POINTS, Item, Objects, Reader, RealFrame, make_frame
from sbnet_perception.masks.road import RoadMap, RoadView


@dataclass(frozen=True)
class Delivery:
    """How a data set delivers its clouds: height of the origin, scale of intensity, labelled view."""

    height: float
    full_reflectance: float
    half_view: float = math.pi


# KITTI's labels cover the left colour camera: 1242 pixels wide, focal length 721.5 pixels.
_CAMERA = math.atan(621.0 / 721.5)
DELIVERIES = {
    "av2": Delivery(0.33, 255.0),
    "nuscenes": Delivery(0.0, 255.0),
    "kitti": Delivery(1.73, 1.0, _CAMERA),
}
VIEWS = {"full": math.pi, "camera": _CAMERA, "front": _CAMERA}
"""Words of `label_fov` and the half view in radians that they mean."""
# What numpy and zipfile raise for a file that is torn, damaged, encrypted or no archive at all.
_DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
# Size of a cell in metres and corner of the road rasters in the files.
_RASTER = (0.1, SE2(0.0, -20.0))
_FOLDERS = ("", "real", "frames")
VEHICLE_CLASSES = (7, 8, 9)
"""Car, truck and bus among the classes of points (docs/frames.md)."""


def frame_files(folder: Path) -> list[Path]:
    """The files ``*.npz`` of a folder, or else those of its folder ``real`` or ``frames``, by name."""
    return next((files for name in _FOLDERS if (files := sorted((folder / name).glob("*.npz")))), [])


def items(folder: Path, split: str = "") -> list[Item]:
    """The frames of a folder, or of one file, by name; the split is a source, the first word of the files' names.

    Raises:
        UserError: there are none.
    """
    files = [folder] if folder.is_file() else frame_files(folder)
    found = [Item(file.stem, _source(file), _source(file), file, partial(read_frame, file)) for file in files]
    if not found:
        places = ", ".join(str(folder / name) for name in _FOLDERS)
        raise UserError(f"no frames (*.npz) in {places}; docs/frames.md tells what they hold")
    sources = sorted({item.source for item in found})
    if split and split not in sources:
        raise UserError(f"{folder} has no frames of the source {split}; its sources: {', '.join(sources)}")
    return [item for item in found if split in ("", item.source)]


def read_frame(file: Path, classes: Sequence[ObjectClass] = (VEHICLE,)) -> RealFrame:
    """One file, in the grid frame: objects whose label is of none of the classes are the frame's others.

    Of classified points those of vehicles are left out, and there are no boxes.

    Raises:
        UserError: it cannot be read, or an array is missing or of another shape; the message names it.
    """
    arrays, source = read_arrays(file), _source(file)
    if "classes" in arrays:
        return _classified(file, arrays, classes)
    try:
        points, boxes, half_view, height = (_general if "label_fov" in arrays else _delivered)(arrays, source)
        labels = _array(arrays, "labels").astype(np.str_)
        counts = arrays.get("points_inside")
        _check(points, boxes, labels, counts)
    except ValueError as error:
        raise UserError(f"{file}: {error}; docs/frames.md tells what a file of labelled frames holds") from None
    others = np.asarray(arrays.get("other_boxes", np.zeros((0, 7)))).astype(np.float32).reshape(-1, 7)
    other_labels = np.asarray(arrays.get("other_labels", np.full(len(others), ""))).astype(np.str_)
    objects = Objects(boxes, labels, counts)
    about = {"half_view": half_view, "origin_height": height, "file": file}
    frame = make_frame(file.stem, source, points, _road(arrays), objects, classes, **about)
    return replace(
        frame,
        other_boxes=np.concatenate([frame.other_boxes, others]),
        other_labels=np.concatenate([frame.other_labels, other_labels]),
    )


def _source(file: Path) -> str:
    return file.stem.split("_")[0]


def _classified(file: Path, arrays: Mapping[str, NDArray], classes: Sequence[ObjectClass]) -> RealFrame:
    """The points that are certainly of no vehicle."""
    try:
        points = cloud(arrays)[~np.isin(arrays["classes"], VEHICLE_CLASSES)]
    except (ValueError, IndexError) as error:
        raise UserError(f"{file}: {error}; docs/frames.md tells what a file of classified points holds") from None
    about = {"labelled": POINTS, "origin_height": float(arrays.get("origin_height", np.zeros(()))), "file": file}
    return make_frame(file.stem, _source(file), points, None, Objects.none(), classes, **about)


def read_arrays(file: Path) -> dict[str, NDArray]:
    """The arrays of a file by name.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except _DAMAGE as error:
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from None


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
    if source not in DELIVERIES:
        known = ", ".join(DELIVERIES)
        raise ValueError(f"it has no label_fov, and its name does not begin with one of the data sets {known}")
    made = DELIVERIES[source]
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


NPZ = Reader(
    name="npz",
    layout="*.npz files of labelled frames (docs/frames.md), in the folder itself, in real or in frames",
    frame_id="lidar",
    licence="that of whoever made the files",
    recognizes=lambda path: path.suffix == ".npz" if path.is_file() else bool(frame_files(path)),
    items=items,
)
