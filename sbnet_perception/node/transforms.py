"""Transforms between frames at a given time: one interface over tf2_ros and over our own listener.

Neither ever extrapolates and neither ever answers with an identity that nobody published.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time

if TYPE_CHECKING:
    from sbnet_perception.node.transform_history import TransformHistory

Matrix = npt.NDArray[np.float64]

HISTORY_S = 10.0
"""How far back transforms are kept, as in tf2."""
POLL_S = 0.01


class TransformUnavailable(Exception):
    """No transform between two frames at a time; the message says which and why."""


class Transforms(Protocol):
    """Where transforms come from.

    Attributes:
        changed: notified when transforms arrive, where the source can tell; waiters poll as well.
    """

    changed: threading.Condition

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """``target_from_source`` at the time `stamp_ns`, float64 [4, 4], metres.

        Raises:
            TransformUnavailable: not known at that time.
        """

    def time_jumped_back(self, now_ns: int) -> None:
        """Forgets moving transforms that are newer than the time that it is now; static ones stay."""


def create_transforms(node: Node) -> Transforms:
    """The source of transforms on this machine: tf2_ros where it is installed, else our own listener.

    It listens as long as the node exists (a tf2_ros.Buffer cannot be taken from its node again).
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
    while True:
        try:
            return transforms.lookup(target, source, stamp_ns)
        except TransformUnavailable:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or stop.is_set():
                raise
        with transforms.changed:
            transforms.changed.wait(min(remaining, POLL_S))


class Tf2Transforms:
    """Transforms through tf2_ros."""

    def __init__(self, node: Node) -> None:
        import tf2_ros

        self.changed = threading.Condition()
        # The buffer notices time jumps only when it knows the node.
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=HISTORY_S), node=node)
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False)
        self._errors = (
            tf2_ros.LookupException,
            tf2_ros.ConnectivityException,
            tf2_ros.ExtrapolationException,
            tf2_ros.InvalidArgumentException,
        )

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns)).transform
        except self._errors as error:
            raise TransformUnavailable(f"{target} <- {source}: {error}") from error
        return matrix(found)

    def time_jumped_back(self, now_ns: int) -> None:
        self._buffer.clear()


class TopicTransforms:
    """Transforms heard on /tf and /tf_static without tf2_ros."""

    def __init__(self, node: Node) -> None:
        from tf2_msgs.msg import TFMessage

        from sbnet_perception.node.transform_history import TransformHistory

        self.changed = threading.Condition()
        self._node = node
        self._history: TransformHistory = TransformHistory(HISTORY_S)
        self._lock = threading.Lock()
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
            return self._history.lookup(target, source, stamp_ns)

    def time_jumped_back(self, now_ns: int) -> None:
        with self._lock:
            self._history.time_jumped_back(now_ns)

    def _hear(self, msg: Any, static: bool) -> None:
        for item in msg.transforms:
            stamp = item.header.stamp
            move, turn = item.transform.translation, item.transform.rotation
            try:
                with self._lock:
                    self._history.add(
                        parent=item.header.frame_id,
                        child=item.child_frame_id,
                        stamp_ns=stamp.sec * 10**9 + stamp.nanosec,
                        pose=(move.x, move.y, move.z, turn.w, turn.x, turn.y, turn.z),
                        static=static,
                    )
            except ValueError as error:
                self._node.get_logger().warning(f"transform ignored: {error}", throttle_duration_sec=5.0)
        with self.changed:
            self.changed.notify_all()


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
