"""Recordings with labels: a rosbag2 with clouds and vision_msgs/Detection3DArray of the same stamps.

The grid frame is base_link where the recording's transforms lead there; else the cloud's own, with the ground that is
found in each cloud at z = 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bags.recorded import CLOUD_TYPE, DETECTIONS, ROAD, TRUTH
from sbnet_perception.bags.transforms import TransformTable, stamp_ns
from sbnet_perception.bev.ground_level import LEAST_SUPPORT, ground_level
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import (
    BOXES,
    NOTHING,
    Item,
    LabelledArea,
    Objects,
    Reader,
    RealFrame,
    make_frame,
)
from sbnet_perception.learning.datasets.labelled_part import labelled_part
from sbnet_perception.learning.datasets.poses import Matrices, moved, yaws
from sbnet_perception.masks.road import RoadMap, RoadView
from sbnet_perception.messages.detections import detections_of
from sbnet_perception.messages.intensity import INTENSITY_SCALE, find_scale
from sbnet_perception.messages.occupancy_grid import MaskError, road_from_occupancy_grid
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import CloudError, RawCloud, read_cloud

BASE, MAP = "base_link", "map"
SOURCE = "bag"
_BOXES, _GRID, _TRANSFORMS = (
    "vision_msgs/msg/Detection3DArray",
    "nav_msgs/msg/OccupancyGrid",
    "tf2_msgs/msg/TFMessage",
)
_SUFFIXES = (".mcap", ".db3")


class Recording:
    """A labelled recording; clouds are read one by one.

    Attributes:
        stamps: of the clouds that have labels, ascending; of all clouds where there is no topic of labels.
        labelled: whether there is one.
        labels_on: its name, or empty.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        """``topic`` is that of the labels; empty takes /ground_truth, or the only one that the node does not publish.

        Raises:
            UserError: the recording cannot be read, has no cloud, or no such labels.
        """
        self.path = path
        self._transforms, self._labels = TransformTable(), dict[int, Any]()
        self._road: tuple[str, RoadMap] | None = None
        self._part = labelled_part(path)
        with BagReader(path) as bag:
            self._topic = bag.find_topic(CLOUD_TYPE, preferred="/points")
            labels = _topic_of_labels(bag, topic)
            self.labelled, self.labels_on = bool(labels), "".join(labels)
            wanted = [*labels, *bag.topics_of(_TRANSFORMS), *(ROAD for _ in range(ROAD in bag.topics_of(_GRID)))]
            for message in bag.messages(wanted) if wanted else ():
                self._take(deserialize(message.raw, message.msgtype), message.topic in labels)
        there = {stamp_ns(cloud.header) for cloud in self._clouds()}
        self.stamps = sorted(there & self._labels.keys() if self.labelled else there)
        if not self.stamps:
            raise UserError(f"{path}: no message on {labels[0]} has the stamp of a cloud on {self._topic}")
        self._cursor: Iterator[RawCloud] = iter(())
        self._scale = _scale_of(self._cloud(self.stamps[0]))

    def _take(self, message: Any, is_labels: bool) -> None:
        if is_labels:
            self._labels[stamp_ns(message.header)] = message
        elif hasattr(message, "transforms"):
            for item in message.transforms:
                self._transforms.add(item)
        elif self._road is None:
            try:
                self._road = message.header.frame_id, road_from_occupancy_grid(message)
            except MaskError as error:
                raise UserError(f"{self.path}: {ROAD} is no road mask: {error}") from error

    def _clouds(self) -> Iterator[RawCloud]:
        with BagReader(self.path) as bag:
            for message in bag.messages([self._topic]):
                try:
                    yield read_cloud(message.raw)
                except CloudError as error:
                    raise UserError(f"{self.path}: a cloud on {self._topic} cannot be read: {error}") from error

    def _cloud(self, stamp: int) -> RawCloud:
        """On from the last one that was read, where it comes after that; else from the beginning."""
        for _ in range(2):
            for cloud in self._cursor:
                if stamp_ns(cloud.header) == stamp:
                    return cloud
            self._cursor = self._clouds()
        raise UserError(f"{self.path} has changed: its cloud at {stamp} is gone")

    def read(self, stamp: int, classes: Sequence[ObjectClass]) -> RealFrame:
        cloud = self._cloud(stamp)
        points = read_points(cloud, missing_intensity="zero", intensity_scale=self._scale).points
        frame_id = cloud.header.frame_id
        grid_from_cloud, grid_frame = self._grid_from(frame_id, points, stamp)
        objects = Objects.none()
        if self.labelled:
            message = self._labels[stamp]
            found, names = detections_of(message, ())
            target = self._lookup(frame_id, message.header.frame_id, stamp)
            boxes = _moved_boxes(found, grid_from_cloud @ target)
            objects = Objects(boxes, np.array(names, np.str_)[found.classes] if names else np.zeros(0, np.str_))
        road, on_map = self._placed(grid_frame, stamp)
        return make_frame(
            f"{SOURCE}_{self.path.stem}_{stamp}",
            SOURCE,
            moved(points, grid_from_cloud).astype(np.float32),
            road,
            objects,
            classes,
            origin_height=float(grid_from_cloud[2, 3]),
            file=self.path,
            labelled=BOXES if self.labelled else NOTHING,
            stamp_ns=stamp,
            map_from_grid=on_map,
            eye=tuple(grid_from_cloud[:3, 3].tolist()),
            half_view=self._part.half_view,
            area=self._area(grid_frame, stamp),
        )

    def _grid_from(self, frame_id: str, points: NDArray[np.float32], stamp: int) -> tuple[Matrices, str]:
        """grid_from_cloud, and the frame that the grid frame is, or lies beneath."""
        try:
            return self._transforms.lookup(BASE, frame_id, stamp), BASE
        except UserError:
            ground = ground_level(torch.from_numpy(points))
        if ground is None or ground.support < LEAST_SUPPORT:
            raise UserError(
                f"{self.path}: no ground is found in the cloud at {stamp}, and no transform leads from {frame_id} to "
                f"{BASE}, which lies on it; record /tf_static"
            )
        matrix = np.eye(4)
        matrix[2, 3] = -ground.z
        return matrix, frame_id

    def _lookup(self, target: str, source: str, stamp: int) -> Matrices:
        return np.eye(4) if target == source else self._transforms.lookup(target, source, stamp)

    def _area(self, grid_frame: str, stamp: int) -> LabelledArea | None:
        if self._part.area is None:
            return None
        return LabelledArea(self._part.area, SE2.from_matrix(self._lookup(MAP, grid_frame, stamp)))

    def _placed(self, grid_frame: str, stamp: int) -> tuple[RoadView | None, Matrices | None]:
        """The road beneath the frame and its pose on the map; None where there is no mask, or nothing leads to it."""
        if self._road is None:
            return None, None
        try:
            map_from_grid = self._lookup(self._road[0], grid_frame, stamp)
            return RoadView(self._road[1], SE2.from_matrix(map_from_grid)), map_from_grid
        except (UserError, ValueError):
            return None, None


def _topic_of_labels(bag: BagReader, name: str) -> list[str]:
    """The topic of the labels in a list, which is empty where there is none."""
    found = bag.topics_of(_BOXES)
    if name:
        return [bag.find_topic(_BOXES, name)]
    if TRUTH in found:
        return [TRUTH]
    # A node in a namespace publishes its own there.
    others = [topic for topic in found if not topic.endswith(DETECTIONS)]
    if len(others) > 1:
        raise UserError(f"{bag.path} has several topics of boxes, name one: {bag.path}:TOPIC of {', '.join(others)}")
    return others


def _scale_of(cloud: RawCloud) -> float:
    points = read_points(cloud, missing_intensity="zero", intensity_scale=1.0).points
    return find_scale(points[:, 3]) or INTENSITY_SCALE


def _moved_boxes(found: Detections, target_from_source: Matrices) -> NDArray[np.float64]:
    boxes = moved(found.boxes.astype(np.float64), target_from_source)
    boxes[:, 6] += yaws(target_from_source[None])[0]
    return boxes


def items(path: Path, split: str = "") -> list[Item]:
    """The labelled clouds of a recording, or all of one without labels; the split is the topic of the labels.

    Raises:
        UserError: as `Recording`.
    """
    recording = Recording(path, split)
    name, topic = path.stem, recording.labels_on
    return [
        Item(f"{SOURCE}_{name}_{stamp}", SOURCE, name, path, partial(recording.read, stamp), topic)
        for stamp in recording.stamps
    ]


def _is_recording(path: Path) -> bool:
    if path.is_file():
        return path.suffix in _SUFFIXES
    return (path / "metadata.yaml").is_file() or any(child.suffix in _SUFFIXES for child in path.iterdir())


BAG = Reader(
    name=SOURCE,
    layout="a rosbag2 (MCAP or sqlite3) with clouds and vision_msgs/Detection3DArray of the same stamps",
    frame_id="lidar",
    licence="that of whoever recorded it",
    recognizes=_is_recording,
    items=items,
)
