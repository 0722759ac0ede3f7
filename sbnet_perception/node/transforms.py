"""Transforms between frames at a given time: one interface over tf2_ros and over our own listener.

Neither ever extrapolates and neither ever answers with an identity that nobody published.
"""

from __future__ import annotations

import abc
import collections
import importlib.util
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time

from sbnet_perception.node.frame_names import frame_name
from sbnet_perception.node.gate import JUMP_BACK_NS, stamp_ns

Matrix = npt.NDArray[np.float64]

HISTORY_S = 10.0
"""How far back transforms are kept, as in tf2."""
POLL_S = 0.01
NORM_TOLERANCE = 1e-2
"""How far the square of a quaternion's norm may lie from 1, as in tf2."""
MOST_RECENT = 100_000
"""Samples that are kept to be said again, in the order in which they came."""


class TransformUnavailable(Exception):
    """No transform between two frames at a time; the message says which and why."""


class Transforms(Protocol):
    """Where transforms come from.

    Attributes:
        changed: notified when transforms arrive, where the source can tell; waiters poll as well.
        waiting: a lookup is being waited for.
    """

    changed: threading.Condition
    waiting: bool

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """``target_from_source`` at the time `stamp_ns`, float64 [4, 4], metres.

        Raises:
            TransformUnavailable: not known at that time.
        """

    def time_began(self, now_ns: int) -> None:
        """Forgets moving transforms that came before those of the time that it is now; static ones stay."""


def create_transforms(node: Node) -> Transforms:
    """The source of transforms on this machine: tf2_ros where it is installed, else our own listener.

    It listens as long as the node exists.
    """
    if importlib.util.find_spec("tf2_ros") is not None:
        return Tf2Transforms(node)
    return TopicTransforms(node)


def lookup_before(
    transforms: Transforms, target: str, source: str, stamp_ns: int, deadline: float, stop: threading.Event
) -> Matrix:
    """Looks up a transform, waiting for it until `deadline` (time.monotonic) or until `stop` is set.

    Equal frames give the identity. Must not run in a callback of the executor that feeds `transforms`.

    Raises:
        TransformUnavailable: it did not come in time.
    """
    if target == source:
        return np.eye(4)
    try:
        while True:
            try:
                return transforms.lookup(target, source, stamp_ns)
            except TransformUnavailable:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or stop.is_set():
                    raise
            transforms.waiting = True
            with transforms.changed:
                transforms.changed.wait(min(remaining, POLL_S))
    finally:
        transforms.waiting = False


class HeardTransforms(abc.ABC):
    """Transforms heard on /tf and /tf_static; where they are kept is a subclass's.

    The samples of the last seconds are kept here too, in the order in which they came: those of a bag's new lap come
    before anybody knows that time began anew, and no tree takes samples so much older than its newest.
    """

    def __init__(self, node: Node) -> None:
        from tf2_msgs.msg import TFMessage

        self.changed = threading.Condition()
        self.waiting = False
        self._node = node
        self._lock = threading.Lock()
        self._recent: collections.deque[tuple[float, Any]] = collections.deque(maxlen=MOST_RECENT)
        live = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(
            depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", lambda msg: self._hear(msg, static=False), live),
            node.create_subscription(TFMessage, "/tf_static", lambda msg: self._hear(msg, static=True), latched),
        ]

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        with self._lock:
            return self._lookup(target, source, stamp_ns)

    def time_began(self, now_ns: int) -> None:
        with self._lock:
            self._clear()
            begun = new_lap([item for _, item in self._recent], now_ns)
            self._recent = collections.deque(((time.monotonic(), item) for item in begun), MOST_RECENT)
            for item in begun:
                self._add(item, static=False)

    def _hear(self, msg: Any, static: bool) -> None:
        now, ignored = time.monotonic(), ""
        with self._lock:
            for item in msg.transforms:
                try:
                    self._add(item, static)
                except ValueError as error:
                    ignored = str(error)
                    continue
                if not static:
                    self._recent.append((now, item))
            while self._recent and self._recent[0][0] < now - HISTORY_S:
                self._recent.popleft()
        if ignored:
            self._node.get_logger().warning(f"transform ignored: {ignored}", throttle_duration_sec=5.0)
        with self.changed:
            self.changed.notify_all()

    @abc.abstractmethod
    def _add(self, item: Any, static: bool) -> None:
        """Takes a geometry_msgs/TransformStamped; ValueError where it is none."""

    @abc.abstractmethod
    def _lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """As `lookup`, under the lock."""

    @abc.abstractmethod
    def _clear(self) -> None:
        """Forgets what moves."""


class Tf2Transforms(HeardTransforms):
    """Transforms kept by tf2_ros; its own listener could not say again what it heard before time began anew."""

    def __init__(self, node: Node) -> None:
        import tf2_ros

        self._buffer = tf2_ros.BufferCore(Duration(seconds=HISTORY_S))
        self._errors = (
            tf2_ros.LookupException,
            tf2_ros.ConnectivityException,
            tf2_ros.ExtrapolationException,
            tf2_ros.InvalidArgumentException,
        )
        super().__init__(node)

    def _add(self, item: Any, static: bool) -> None:
        # tf2 itself refuses what is no transform, with a line on the console.
        (self._buffer.set_transform_static if static else self._buffer.set_transform)(item, "sbnet")

    def _lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        try:
            found = self._buffer.lookup_transform_core(target, source, Time(nanoseconds=stamp_ns)).transform
        except self._errors as error:
            raise TransformUnavailable(f"{target} <- {source}: {error}") from error
        return matrix(found)

    def _clear(self) -> None:
        self._buffer.clear()


class TopicTransforms(HeardTransforms):
    """Transforms kept without tf2_ros."""

    def __init__(self, node: Node) -> None:
        from sbnet_perception.node.transform_history import TransformHistory

        self._history = TransformHistory(HISTORY_S)
        super().__init__(node)

    def _add(self, item: Any, static: bool) -> None:
        move, turn = item.transform.translation, item.transform.rotation
        self._history.add(
            parent=frame_name(item.header.frame_id),
            child=frame_name(item.child_frame_id),
            stamp_ns=stamp_ns(item.header.stamp),
            pose=(move.x, move.y, move.z, turn.w, turn.x, turn.y, turn.z),
            static=static,
        )

    def _lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        return self._history.lookup(target, source, stamp_ns)

    def _clear(self) -> None:
        self._history.clear()


def new_lap(heard: Sequence[Any], now_ns: int) -> list[Any]:
    """Of geometry_msgs/TransformStamped in the order in which they came those that came after time began anew.

    Args:
        heard: moving transforms.
        now_ns: a time of the new lap. What lies far ahead of it is of the old one, and so is all of the same frame that
            came before.
    """
    old: set[str] = set()
    found = []
    for item in reversed(heard):
        if stamp_ns(item.header.stamp) > now_ns + JUMP_BACK_NS:
            old.add(item.child_frame_id)
        elif item.child_frame_id not in old:
            found.append(item)
    return found[::-1]


def matrix(transform: Any) -> Matrix:
    """geometry_msgs/Transform or Pose as float64 [4, 4]."""
    move = transform.translation if hasattr(transform, "translation") else transform.position
    turn = transform.rotation if hasattr(transform, "rotation") else transform.orientation
    return matrix_from_pose((move.x, move.y, move.z, turn.w, turn.x, turn.y, turn.z))


def matrix_from_pose(pose: tuple[float, float, float, float, float, float, float]) -> Matrix:
    """Position x, y, z (metres) and unit quaternion w, x, y, z as float64 [4, 4]."""
    px, py, pz, w, x, y, z = pose
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), px],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), py],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), pz],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
