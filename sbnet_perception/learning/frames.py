"""Frames with labels: what training and evaluation read, simulated or real."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import SIMULATOR, VEHICLE, ObjectClass, numbered
from sbnet_perception.errors import UserError
from sbnet_perception.learning.simulator import Drive, SimulatedFrame
from sbnet_perception.learning.simulator.geometry import count_inside
from sbnet_perception.masks.road import RoadMap, RoadView

FULL_REFLECTANCE = 255.0
"""Intensity in drivers' clouds (Argoverse 2, nuScenes, simulator) that is 1 inside the core."""


@dataclass(frozen=True)
class LabelledFrame:
    """One cloud with the labelled objects in it, in the grid frame.

    Attributes:
        name: where it comes from.
        points: float32 [P, 4] x, y, z (z = 0 is the ground), intensity 0-1.
        road: the map under the frame, or None where none is known.
        boxes: float32 [M, 7] of all objects of the classes asked for, in the grid or not.
        point_counts: int64 [M] points inside each box.
        classes: int64 [M] positions in the list of those classes.
        half_view: objects are labelled where |atan2(y, x)| is below this, radians.
    """

    name: str
    points: NDArray[np.float32]
    road: RoadView | None
    boxes: NDArray[np.float32]
    point_counts: NDArray[np.int64]
    classes: NDArray[np.int64]
    half_view: float = math.pi


def in_grid(boxes: NDArray, grid: Grid) -> NDArray[np.bool_]:
    """Which boxes [M, 7] have their centre in the grid."""
    return grid.cells(boxes)[2]


def simulated_frame(
    frame: SimulatedFrame, road: RoadMap, name: str, classes: Sequence[ObjectClass] = (VEHICLE,)
) -> LabelledFrame:
    """A simulated scan as the detector of ``classes`` sees it."""
    points = frame.points.copy()
    points[:, 3] /= FULL_REFLECTANCE
    kept, numbers = numbered(frame.labels, SIMULATOR, classes)
    view = RoadView(road, frame.map_from_base)
    return LabelledFrame(name, points, view, frame.boxes[kept], frame.point_counts[kept], numbers)


def drive_frames(
    seed: int, seconds: float, rate_hz: float, sensor: str, classes: Sequence[ObjectClass] = (VEHICLE,)
) -> Iterator[LabelledFrame]:
    """The frames of a simulated drive."""
    drive = Drive(seed, seconds, rate_hz, sensor)
    road = drive.road_map
    for index, frame in enumerate(drive.frames()):
        yield simulated_frame(frame, road, f"drive {seed} {sensor} frame {index}", classes)


@dataclass(frozen=True)
class _Source:
    """How a data set delivers its clouds: height of the origin, scale of intensity, labelled view."""

    height: float
    full_reflectance: float
    half_view: float = math.pi


# KITTI's labels cover the left colour camera: 1242 pixels wide, focal length 721.5 pixels.
_SOURCES = {
    "av2": _Source(0.33, 255.0),
    "nuscenes": _Source(0.0, 255.0),
    "kitti": _Source(1.7, 1.0, math.atan(621.0 / 721.5)),
}
# Size of a cell in metres and corner of the road rasters in the files.
_RASTER = (0.1, SE2(0.0, -20.0))


def real_frames(folder: Path, classes: Sequence[ObjectClass] = (VEHICLE,)) -> Iterator[LabelledFrame]:
    """The frames ``folder/frames/*.npz`` of Argoverse 2, KITTI and nuScenes.

    Raises:
        UserError: there are none, or a file is of an unknown data set.
    """
    files = sorted((folder / "frames").glob("*.npz"))
    if not files:
        raise UserError(f"no frames at {folder / 'frames'}; name a folder that has frames/*.npz")
    for file in files:
        dataset = file.stem.split("_")[0]
        if dataset not in _SOURCES:
            raise UserError(f"{file} is of none of the data sets {', '.join(_SOURCES)}; its name must start with one")
        yield _real_frame(file, dataset, classes)


def _real_frame(file: Path, data_set: str, classes: Sequence[ObjectClass]) -> LabelledFrame:
    source = _SOURCES[data_set]
    with np.load(file, allow_pickle=False) as data:
        points, boxes, labels = (
            data["points"].astype(np.float32),
            data["boxes"].astype(np.float32),
            data["labels"],
        )
        road = RoadMap(torch.from_numpy(data["road_mask"] > 0), *_RASTER) if "road_mask" in data else None
    # Into the grid frame: the ground at z = 0, intensity from 0 to 1.
    points[:, 2] += source.height
    points[:, 3] /= source.full_reflectance
    boxes[:, 2] += source.height
    kept, numbers = numbered(labels, data_set, classes)
    boxes = boxes[kept]
    view = None if road is None else RoadView(road, SE2())
    return LabelledFrame(file.stem, points, view, boxes, count_inside(points, boxes), numbers, source.half_view)
