"""The way of clouds from their topics to frames: what is usable, in order, and belongs together."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import PointCloud2

from sbnet_perception.errors import UserError
from sbnet_perception.node.frame_names import FrameNames
from sbnet_perception.node.gate import Gate, stamp_ns
from sbnet_perception.node.losses import SEQUENCE_GAP, STAMP_GAP, Losses
from sbnet_perception.node.merge import PATIENCE, Arrived, Frame, Merge
from sbnet_perception.node.processor import read
from sbnet_perception.node.qos import OVERRIDABLE, of_sensors
from sbnet_perception.node.status import NotProcessed, Status

JUMPED = "time jumped"


class Listener(Protocol):
    """Who is told of frames; its methods run in callbacks of the executor."""

    def on_frame(self, frame: Frame) -> None:
        """Clouds that are to be answered together."""

    def on_time_jump(self, seconds: float) -> None:
        """Time began anew, or skipped so far."""

    def refuse(self, error: NotProcessed, frame_id: str) -> None:
        """A cloud that cannot be used."""


class Clouds:
    """Subscribes to clouds.

    Args:
        node: its executor calls everything here.
        topics: names as the parameter `points` has them.
        window_s: the parameter `merge_window`.
        names: makes names of frame_ids.

    Attributes:
        topics: the names after remapping.

    Raises:
        UserError: a name is none, or two are the same topic.
    """

    def __init__(
        self,
        node: Node,
        topics: tuple[str, ...],
        window_s: float,
        status: Status,
        names: FrameNames,
        listener: Listener,
    ) -> None:
        self.topics = resolved(node, topics)
        self._node = node
        self._window_s = window_s
        self._status = status
        self._names = names
        self._listener = listener
        self._active = False
        self._gate, self._losses, self._merge = Gate(), Losses(), Merge(self.topics, window_s)
        self._subscriptions = [
            node.create_subscription(
                PointCloud2,
                name,
                _callback(self._on_cloud, topic),
                of_sensors(),
                raw=True,
                qos_overriding_options=OVERRIDABLE,
            )
            for name, topic in zip(topics, self.topics, strict=True)
        ]
        # Wall time: a missing cloud is not waited for while simulated time stands still.
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(PATIENCE * window_s, self._on_due, clock=clock)
        self._timer.cancel()
        self._due: float | None = None

    def begin(self) -> None:
        """Frames are wanted from now on; what came before has nothing to do with them, a bag may have begun anew."""
        self._gate, self._losses = Gate(self._gate.era + 1), Losses()
        self._merge = Merge(self.topics, self._window_s)
        self._active = True

    def end(self) -> None:
        """No frame is wanted any more."""
        self._active = False
        self._merge.clear()
        self._watch_due()

    def destroy(self) -> None:
        self._node.destroy_timer(self._timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def clock_jumped(self, now_ns: int) -> bool:
        """Whether the clouds so far lie in the future of the node's clock, which has jumped back."""
        if not self._gate.clock_is(now_ns):
            return False
        self._forget()
        return True

    def _on_cloud(self, topic: str, raw: bytes, info: Mapping[str, Any]) -> None:
        if not self._active:
            return
        at, frame_id = time.monotonic(), ""
        self._status.received()
        lost, reason = self._losses.numbered(topic, info), SEQUENCE_GAP
        frames: list[Frame] = []
        try:
            msg = read(raw)
            frame_id = self._names(msg.header.frame_id)
            arrived = Arrived(replace(msg, header=msg.header._replace(frame_id=frame_id)), at, topic)
            jump_ns = self._gate.check(arrived.msg.header, arrived.source)
            if lost is None:
                lost, reason = self._losses.stamped(arrived.source, stamp_ns(msg.header.stamp)), STAMP_GAP
            if jump_ns:
                self._forget()
                self._listener.on_time_jump(jump_ns / 1e9)
            frames = self._merge.put(arrived, self._gate.era)
        except NotProcessed as error:
            self._listener.refuse(error, frame_id)
        if lost:
            self._status.lost(reason, lost)
        for frame in frames:
            self._listener.on_frame(frame)
        self._watch_due()

    def _forget(self) -> None:
        """What waits to be merged is of the time before."""
        if waiting := self._merge.clear():
            self._status.dropped(JUMPED, waiting)

    def _on_due(self) -> None:
        if self._merge.due is not None:
            self._listener.on_frame(self._merge.close(self._gate.era))
        self._watch_due()

    def _watch_due(self) -> None:
        """The timer runs while a frame is being gathered, from its first cloud on."""
        if self._merge.due == self._due:
            return
        self._due = self._merge.due
        self._timer.cancel()
        if self._due is not None:
            self._timer.reset()


def resolved(node: Node, topics: tuple[str, ...]) -> tuple[str, ...]:
    """Names of topics after remapping, with the node's namespace.

    Raises:
        UserError: a name is none, or two are the same topic.
    """
    try:
        found = tuple(node.resolve_topic_name(name) for name in topics)
    except NameValidationException as error:
        raise UserError(f"parameter 'points' is {list(topics)!r}: {error}") from error
    if len(set(found)) < len(found):
        raise UserError(f"parameter 'points' is {list(topics)!r}, which is {', '.join(found)}: name each topic once")
    return found


def _callback(function: Callable[[str, bytes, Mapping[str, Any]], None], topic: str) -> Callable[..., None]:
    """Called with the message, and with what rclpy knows of it where it does that (Iron and later)."""
    if hasattr(Subscription, "CallbackType"):
        return functools.partial(function, topic)
    return lambda raw: function(topic, raw, {})
