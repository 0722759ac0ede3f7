"""Frames of a recorded replay: cloud, detections, mask and ground truth that belong together."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bags.recorded_road import RecordedRoads
from sbnet_perception.bags.transforms import TransformTable, stamp_ns
from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.errors import UserError
from sbnet_perception.messages.detections import detections_of, raised
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import CloudError, RawCloud, read_cloud

POINTS = "/points"
DETECTIONS = "/detections"
MASK = "/computation_mask"
TRUTH = "/ground_truth"
ROAD = "/road_mask"
CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"
_BOXES = "vision_msgs/msg/Detection3DArray"
_GRID = "nav_msgs/msg/OccupancyGrid"
_TRANSFORMS = "tf2_msgs/msg/TFMessage"
_STEP = 10.0
"""Metres, to which the region is rounded where no mask tells it."""


@dataclass(frozen=True)
class RecordedFrame:
    """One answer and its clouds, in the frame of the detections; z = 0 on the ground, as far as a mask tells it.

    Attributes:
        stamp_ns: of the answer, which is that of its oldest cloud.
        time_s: since the recording's first cloud.
        points: float32 [P, 4], metres.
        detections: what the node published.
        mask: bool [h, w] over `grid`, True = computed; None when no mask was recorded.
        grid: the area the mask covers; that of another frame's mask where this one has none. In a recording without any
            mask: what holds the origin, the middle 98 % of the first cloud, and all boxes, in steps of 10 m.
        truth: labelled boxes with a score of 1, or None.
        road: bool [H, W] over `grid`, in its cells; None where no road mask counted or could be placed.
    """

    stamp_ns: int
    time_s: float
    points: npt.NDArray[np.float32]
    detections: Detections
    mask: npt.NDArray[np.bool_] | None
    grid: Grid
    truth: Detections | None
    road: npt.NDArray[np.bool_] | None = None


class Recording:
    """A recording with outputs of the node; small topics are held in memory, clouds are read one by one.

    The clouds are those of /points, as one LiDAR's are recorded, else those of all topics of clouds.

    Attributes:
        stamps: of the clouds that have detections, in order.
        counts: number of detections of each.
        computed: fraction (0-1) of the grid that was computed, by stamp.
        classes: names of the classes of detections and truth: those of the default configuration, then others as
            they come.
        warnings: what was left out, one sentence each: ground truth in a frame that the recording's transforms do not
            connect with that of the detections.

    Raises:
        UserError: the recording cannot be read, or holds no cloud with detections.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.classes = DetectorConfig().classes
        self.warnings: tuple[str, ...] = ()
        self._detections: dict[int, tuple[str, Detections]] = {}
        self._masks: dict[int, Any] = {}
        self._truth: dict[int, tuple[str, Detections]] = {}
        self._answered_ns: dict[int, int] = {}
        self._roads = RecordedRoads()
        self._transforms = TransformTable()
        with BagReader(path) as bag:
            clouds = bag.topics_of(CLOUD_TYPE)
            self._cloud_topics = [POINTS] if POINTS in clouds else clouds or [bag.find_topic(CLOUD_TYPE)]
            wanted = {
                DETECTIONS: _BOXES,
                MASK: _GRID,
                TRUTH: _BOXES,
                ROAD: _GRID,
                "/tf": _TRANSFORMS,
                "/tf_static": _TRANSFORMS,
            }
            there = [name for name, msgtype in wanted.items() if name in bag.topics_of(msgtype)]
            for message in bag.messages(there):
                self._take(message.topic, deserialize(message.raw, message.msgtype), message.stamp_ns)
        self.stamps = sorted(self._detections)
        self.counts = [len(self._detections[stamp][1]) for stamp in self.stamps]
        self.computed = {stamp: float((grid.data == 100).mean()) for stamp, grid in self._masks.items()}
        if not self.stamps:
            raise UserError(f"{path} holds no {DETECTIONS}: record it with `sbnet replay` first")
        self._placed = {stamp: self._place(stamp) for stamp in self.stamps if stamp in self._truth}
        self._grid = self._any_grid()

    def frames(self, stamps: list[int] | None = None) -> Iterator[RecordedFrame]:
        """The processed frames in order, or those with the given stamps."""
        wanted = set(self.stamps if stamps is None else stamps)
        first = next((stamp_ns(cloud.header) for _, cloud in self._clouds()), 0)
        for stamp, clouds in self._gathered():
            if stamp in wanted:
                yield self._frame(clouds, stamp, first)

    def _gathered(self) -> Iterator[tuple[int, list[RawCloud]]]:
        """Each answer's stamp with its clouds: of each topic the first between this answer's stamp and the next one."""
        gathering: dict[int, dict[str, RawCloud]] = {}
        done = {-1}
        for topic, cloud in self._clouds():
            answer = bisect.bisect(self.stamps, stamp_ns(cloud.header)) - 1
            if answer in done:
                continue
            gathering.setdefault(answer, {}).setdefault(topic, cloud)
            # Each topic is in order: with all clouds of an answer those before it are there. One may never come.
            whole = len(gathering[answer]) == len(self._cloud_topics)
            for index in [index for index in sorted(gathering) if index <= (answer if whole else answer - 2)]:
                done.add(index)
                yield from self._whole(index, gathering.pop(index))
        for index in sorted(gathering):
            yield from self._whole(index, gathering[index])

    def _whole(self, index: int, clouds: dict[str, RawCloud]) -> Iterator[tuple[int, list[RawCloud]]]:
        """Nothing where the cloud that gave the answer its stamp is missing."""
        stamp = self.stamps[index]
        if any(stamp_ns(cloud.header) == stamp for cloud in clouds.values()):
            yield stamp, [clouds[topic] for topic in self._cloud_topics if topic in clouds]

    def _clouds(self) -> Iterator[tuple[str, RawCloud]]:
        with BagReader(self._path) as bag:
            for message in bag.messages(self._cloud_topics):
                try:
                    cloud = read_cloud(message.raw)
                except CloudError:
                    # What cannot be read has no detections.
                    continue
                yield message.topic, cloud

    def _take(self, topic: str, message: Any, received_ns: int) -> None:
        if topic in ("/tf", "/tf_static"):
            for item in message.transforms:
                self._transforms.add(item)
        elif topic == MASK:
            self._masks[stamp_ns(message.header)] = message
        elif topic == ROAD:
            self._roads.add(message, received_ns)
        else:
            found, self.classes = detections_of(message, self.classes)
            boxes = self._truth if topic == TRUTH else self._detections
            boxes[stamp_ns(message.header)] = (message.header.frame_id, found)
            if topic == DETECTIONS:
                self._answered_ns[stamp_ns(message.header)] = received_ns

    def _place(self, stamp: int) -> Detections | None:
        """The truth of a stamp in the frame of its detections; None, and a warning, where that is not known."""
        target, source = self._detections[stamp][0], self._truth[stamp][0]
        truth = self._truth[stamp][1]
        try:
            matrix = self._transforms.lookup(target, source, stamp)
        except UserError as error:
            warning = f"{TRUTH} is left out: {error}"
            if warning not in self.warnings:
                self.warnings += (warning,)
            return None
        boxes = truth.boxes.copy()
        boxes[:, :3] = boxes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        boxes[:, 6] += math.atan2(matrix[1, 0], matrix[0, 0])
        return Detections(boxes, truth.scores, truth.classes)

    def _frame(self, clouds: list[RawCloud], stamp: int, first: int) -> RecordedFrame:
        frame_id, detections = self._detections[stamp]
        points = np.concatenate([self._points_in(frame_id, cloud) for cloud in clouds])
        truth = self._placed.get(stamp)
        mask, grid = None, self._grid
        if stamp in self._masks:
            # The mask lies on the ground.
            height = float(self._masks[stamp].info.origin.position.z)
            mask, grid = _mask_of(self._masks[stamp])
            points[:, 2] -= height
            detections, truth = raised(detections, -height), None if truth is None else raised(truth, -height)
        road = self._roads.on(grid, frame_id, stamp, self._answered_ns[stamp], self._transforms)
        return RecordedFrame(stamp, (stamp - first) / 1e9, points, detections, mask, grid, truth, road)

    def _points_in(self, frame_id: str, cloud: RawCloud) -> npt.NDArray[np.float32]:
        points = read_points(cloud, missing_intensity="zero").points
        matrix = self._transforms.lookup(frame_id, cloud.header.frame_id, stamp_ns(cloud.header))
        points[:, :3] = points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        return points

    def _any_grid(self) -> Grid:
        """The grid of a frame without a mask: see `RecordedFrame.grid`."""
        for message in self._masks.values():
            return _mask_of(message)[1]
        corners = [found.boxes[:, :2] for _, found in self._detections.values()]
        corners += [found.boxes[:, :2] for found in self._placed.values() if found is not None]
        first = self.stamps[0]
        cloud = next((cloud for _, cloud in self._clouds() if stamp_ns(cloud.header) == first), None)
        if cloud is not None and len(points := self._points_in(self._detections[first][0], cloud)):
            corners.append(np.percentile(points[:, :2], (1, 99), axis=0))
        every = np.concatenate([*corners, np.zeros((1, 2))])
        low, high = np.floor(every.min(axis=0) / _STEP) * _STEP, np.floor(every.max(axis=0) / _STEP + 1) * _STEP
        return Grid(float(low[0]), float(high[0]), float(low[1]), float(high[1]), resolution=0.5)


def _mask_of(message: Any) -> tuple[npt.NDArray[np.bool_], Grid]:
    info = message.info
    side = round(float(info.resolution), 6)
    x, y = float(info.origin.position.x), float(info.origin.position.y)
    grid = Grid(x, round(x + info.width * side, 6), y, round(y + info.height * side, 6), side)
    return np.asarray(message.data).reshape(info.height, info.width) == 100, grid
