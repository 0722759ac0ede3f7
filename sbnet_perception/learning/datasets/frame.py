"""What every data set gives: labelled frames in the grid frame, and the readers that make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import VEHICLE, ObjectClass, numbered
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.simulator.geometry import count_inside
from sbnet_perception.masks.road import RoadView

BOXES, POINTS, NOTHING = "boxes", "points", "nothing"
"""What is labelled in a frame: objects by boxes; points by their class, those of vehicles being left out; nothing."""


@dataclass(frozen=True)
class LabelledArea:
    """Where on the map objects are labelled.

    Attributes:
        ground: a polygon or several, in the map frame, metres.
        map_from_grid: where the frame is on that map.
    """

    ground: shapely.Geometry
    map_from_grid: SE2

    def holds(self, xy: NDArray) -> NDArray[np.bool_]:
        """bool [...]: which positions [..., 2] of the grid frame lie in the area."""
        shapely.prepare(self.ground)
        on_map = self.map_from_grid.apply(xy)
        return np.asarray(shapely.contains_xy(self.ground, on_map[..., 0], on_map[..., 1]))


@dataclass(frozen=True)
class RealFrame(LabelledFrame):
    """A labelled frame of a data set.

    Attributes:
        source: name of the data set, or whatever the user of a file calls it.
        labels: text [M], the source's own word for each of ``boxes``.
        other_boxes: float32 [K, 7] of labelled objects of no class asked for: people, cones.
        other_labels: text [K].
        origin_height: height of the sensor frame's origin above the ground, metres; that frame has the axes of the grid
            frame.
        file: where it was read.
        labelled: `BOXES`, `POINTS` or `NOTHING`.
        stamp_ns: time of the cloud in nanoseconds, or 0.
        map_from_grid: float64 [4, 4], pose of the grid frame on the map, or None.
        eye: where the LiDAR is in the grid frame, metres, or None where it is not known.
        area: where on the map objects are labelled, or None for everywhere.
        asked: bool [M], which of ``boxes`` the data set's own metric asks for by their points, or None without one.
        doubtful: bool [P], points within the view where vehicles may have no box, or None.
    """

    source: str = ""
    labels: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    other_boxes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 7), np.float32))
    other_labels: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    origin_height: float = 0.0
    file: Path = Path()
    labelled: str = BOXES
    stamp_ns: int = 0
    map_from_grid: NDArray[np.float64] | None = None
    eye: tuple[float, float, float] | None = None
    area: LabelledArea | None = None
    asked: NDArray[np.bool_] | None = None
    doubtful: NDArray[np.bool_] | None = None

    def is_labelled_at(self, xy: NDArray) -> NDArray[np.bool_]:
        """bool [...]: where objects at the positions [..., 2] have labels."""
        seen = np.abs(np.arctan2(xy[..., 1], xy[..., 0])) <= self.half_view
        return seen if self.area is None else seen & self.area.holds(xy)


@dataclass(frozen=True)
class Objects:
    """The labelled objects of a frame, whatever they are.

    Attributes:
        boxes: float [M, 7] cx, cy, cz, length, width, height, yaw in the grid frame.
        labels: text [M], the data set's words.
        point_counts: int [M] points inside each box; None counts them.
        asked: as in `RealFrame`.
    """

    boxes: NDArray
    labels: NDArray[np.str_]
    point_counts: NDArray | None = None
    asked: NDArray[np.bool_] | None = None

    @classmethod
    def none(cls) -> Objects:
        return cls(np.zeros((0, 7), np.float32), np.zeros(0, np.str_))


def make_frame(
    name: str,
    source: str,
    points: NDArray[np.float32],
    road: RoadView | None,
    objects: Objects,
    classes: Sequence[ObjectClass],
    **more: Any,
) -> RealFrame:
    """The frame with the objects of the classes as its boxes, and the others beside; ``more`` are further fields."""
    boxes, labels = objects.boxes.astype(np.float32).reshape(-1, 7), objects.labels.astype(np.str_)
    kept, numbers = numbered(labels, source, classes)
    counts = count_inside(points, boxes) if objects.point_counts is None else objects.point_counts
    return RealFrame(
        name,
        points,
        road,
        boxes[kept],
        counts[kept].astype(np.int64),
        numbers,
        source=source,
        labels=labels[kept],
        other_boxes=boxes[~kept],
        other_labels=labels[~kept],
        asked=None if objects.asked is None else objects.asked[kept],
        **more,
    )


@dataclass(frozen=True)
class Item:
    """One frame that is not read yet.

    Attributes:
        name: of the frame.
        source: as in `RealFrame`.
        recording: what it is a part of: frames of one recording have one map and ascending stamps.
        file: its cloud.
        read_as: makes the frame of the detector of these classes; raises UserError where a file is missing or damaged.
        labels_on: the topic of its labels, where they come from one.
    """

    name: str
    source: str
    recording: str
    file: Path
    read_as: Callable[[Sequence[ObjectClass]], RealFrame]
    labels_on: str = ""

    def read(self, classes: Sequence[ObjectClass] = (VEHICLE,)) -> RealFrame:
        return self.read_as(classes)


@dataclass(frozen=True)
class Reader:
    """How one data set is read.

    Attributes:
        name: in the registry and on the command line.
        layout: what its folder holds, for messages.
        frame_id: of the clouds in a bag that is made of it.
        licence: of the data, for whoever trains on it.
        recognizes: whether a folder, or a file, has this layout.
        items: the frames of a folder and a split, in the order of recordings and stamps; an empty split means all that
            is labelled, or all where nothing is. Raises UserError where something is missing.
        places: names that stand for a folder where nothing is on disk.
    """

    name: str
    layout: str
    frame_id: str
    licence: str
    recognizes: Callable[[Path], bool]
    items: Callable[[Path, str], list[Item]]
    places: tuple[str, ...] = ()
