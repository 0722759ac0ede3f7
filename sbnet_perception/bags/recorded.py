"""Frames of a recorded replay: cloud, detections, mask and ground truth that belong together."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.errors import UserError
from sbnet_perception.messages.pointcloud2 import decode

DETECTIONS = "/detections"
MASK = "/computation_mask"
TRUTH = "/ground_truth"
CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"
_BOXES = "vision_msgs/msg/Detection3DArray"
_GRID = "nav_msgs/msg/OccupancyGrid"
_TRANSFORMS = "tf2_msgs/msg/TFMessage"


@dataclass(frozen=True)
class RecordedFrame:
    """One processed cloud, everything in the frame of its detections.

    Attributes:
        stamp_ns: of the cloud.
        time_s: since the recording's first cloud.
        points: float32 [P, 4], metres, z = 0 on the ground.
        detections: what the node published.
        mask: bool [h, w] over `grid`, True = computed; None when no mask was recorded.
        grid: the area the mask covers.
        truth: boxes [K, 7] or None.
    """

    stamp_ns: int
    time_s: float
    points: npt.NDArray[np.float32]
    detections: Detections
    mask: npt.NDArray[np.bool_] | None
    grid: Grid
    truth: npt.NDArray[np.float32] | None


class Recording:
    """A recording with outputs of the node; small topics are held in memory, clouds are read one by one.

    Attributes:
        stamps: of the clouds that have detections, in order.
        counts: number of detections of each.
        computed: fraction (0-1) of the grid that was computed, by stamp.

    Raises:
        UserError: the recording cannot be read, or holds no cloud with detections.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._detections: dict[int, tuple[str, Detections]] = {}
        self._masks: dict[int, Any] = {}
        self._truth: dict[int, npt.NDArray[np.float32]] = {}
        self._transforms = TransformTable()
        with BagReader(path) as bag:
            self._cloud_topic = bag.find_topic(CLOUD_TYPE, preferred="/points")
            wanted = {
                DETECTIONS: _BOXES,
                MASK: _GRID,
                TRUTH: _BOXES,
                "/tf": _TRANSFORMS,
                "/tf_static": _TRANSFORMS,
            }
            there = [name for name, msgtype in wanted.items() if name in bag.topics_of(msgtype)]
            for message in bag.messages(there):
                self._take(message.topic, deserialize(message.raw, message.msgtype))
        self.stamps = sorted(self._detections)
        self.counts = [len(self._detections[stamp][1]) for stamp in self.stamps]
        self.computed = {stamp: float((grid.data == 100).mean()) for stamp, grid in self._masks.items()}
        if not self.stamps:
            raise UserError(f"{path} holds no {DETECTIONS}: record it with `sbnet replay` first")

    def frames(self, stamps: list[int] | None = None) -> Iterator[RecordedFrame]:
        """The processed frames in order, or those with the given stamps."""
        wanted = set(self.stamps if stamps is None else stamps)
        first = None
        with BagReader(self._path) as bag:
            for message in bag.messages([self._cloud_topic]):
                cloud = deserialize(message.raw, message.msgtype)
                stamp = stamp_ns(cloud.header)
                first = stamp if first is None else first
                if stamp in wanted and stamp in self._detections:
                    yield self._frame(cloud, stamp, first)

    def _take(self, topic: str, message: Any) -> None:
        if topic in ("/tf", "/tf_static"):
            for item in message.transforms:
                self._transforms.add(item)
        elif topic == MASK:
            self._masks[stamp_ns(message.header)] = message
        elif topic == TRUTH:
            self._truth[stamp_ns(message.header)] = detections_of(message).boxes
        else:
            self._detections[stamp_ns(message.header)] = (message.header.frame_id, detections_of(message))

    def _frame(self, cloud: Any, stamp: int, first: int) -> RecordedFrame:
        frame_id, detections = self._detections[stamp]
        points = decode(cloud, missing_intensity="zero").points
        matrix = self._transforms.lookup(frame_id, cloud.header.frame_id, stamp)
        points[:, :3] = points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        mask, grid = None, Grid.named("compact")
        if stamp in self._masks:
            message = self._masks[stamp]
            mask, grid = _mask_of(message)
            points[:, 2] -= message.info.origin.position.z
        return RecordedFrame(stamp, (stamp - first) / 1e9, points, detections, mask, grid, self._truth.get(stamp))


class TransformTable:
    """Transforms of a recording; a moving one counts from its stamp until its next."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._history: dict[str, list[tuple[int, npt.NDArray[np.float64]]]] = defaultdict(list)

    def add(self, item: Any) -> None:
        """Takes one geometry_msgs/TransformStamped; those of one child come in order."""
        move, turn = item.transform.translation, item.transform.rotation
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        matrix[:3, 3] = (move.x, move.y, move.z)
        child = item.child_frame_id.lstrip("/")
        self._parents[child] = item.header.frame_id.lstrip("/")
        self._history[child].append((stamp_ns(item.header), matrix))

    def lookup(self, target: str, source: str, stamp: int) -> npt.NDArray[np.float64]:
        """``target_from_source``, float64 [4, 4].

        Raises:
            UserError: the two frames are not connected.
        """
        up, down = self._to_root(source.lstrip("/"), stamp), self._to_root(target.lstrip("/"), stamp)
        for frame, matrix in up.items():
            if frame in down:
                return np.linalg.inv(down[frame]) @ matrix
        raise UserError(f"the recording has no transform from {source} to {target}")

    def _to_root(self, frame: str, stamp: int) -> dict[str, npt.NDArray[np.float64]]:
        """ancestor -> ancestor_from_frame, nearest first."""
        found = {frame: np.eye(4)}
        matrix = np.eye(4)
        while frame in self._parents:
            history = self._history[frame]
            position = bisect.bisect_right(history, stamp, key=lambda entry: entry[0])
            matrix = history[max(0, position - 1)][1] @ matrix
            frame = self._parents[frame]
            if frame in found:
                raise UserError(f"the recording's transforms go in a circle at {frame}")
            found[frame] = matrix
        return found


def stamp_ns(header: Any) -> int:
    """header.stamp in nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def detections_of(message: Any) -> Detections:
    """Boxes and scores of a vision_msgs/Detection3DArray; all get class 0."""
    boxes, scores = [], []
    for item in message.detections:
        centre, size, turn = item.bbox.center.position, item.bbox.size, item.bbox.center.orientation
        yaw = 2.0 * np.arctan2(turn.z, turn.w)
        boxes.append((centre.x, centre.y, centre.z, size.x, size.y, size.z, (yaw + np.pi) % (2 * np.pi) - np.pi))
        scores.append(item.results[0].hypothesis.score if item.results else 1.0)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 7),
        np.array(scores, np.float32),
        np.zeros(len(boxes), np.int64),
    )


def _mask_of(message: Any) -> tuple[npt.NDArray[np.bool_], Grid]:
    info = message.info
    side = round(float(info.resolution), 6)
    x, y = float(info.origin.position.x), float(info.origin.position.y)
    grid = Grid(x, round(x + info.width * side, 6), y, round(y + info.height * side, 6), side)
    return np.asarray(message.data).reshape(info.height, info.width) == 100, grid
