"""Frames with labels: what training and evaluation read, simulated or real."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.classes import SIMULATOR, VEHICLE, ObjectClass, numbered
from sbnet_perception.learning.simulator import Drive, SimulatedFrame
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
    seed: int,
    seconds: float,
    rate_hz: float,
    sensor: str,
    classes: Sequence[ObjectClass] = (VEHICLE,),
    setting: str = "",
) -> Iterator[LabelledFrame]:
    """The frames of a simulated drive."""
    drive = Drive(seed, seconds, rate_hz, sensor, setting)
    road = drive.road_map
    for index, frame in enumerate(drive.frames()):
        yield simulated_frame(frame, road, f"drive {seed} {sensor} frame {index}", classes)
