"""Playing a bag over DDS: raw messages at the drive's own pace, /clock, and the results as they return."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from nav_msgs.msg import OccupancyGrid
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from vision_msgs.msg import Detection3DArray

from sbnet_perception.bags.reader import BagMessage
from sbnet_perception.desk.recorder import Recorder
from sbnet_perception.desk.results import Results, stamp_of
from sbnet_perception.desk.session import NODE, Session
from sbnet_perception.desk.timeline import Timeline
from sbnet_perception.desk.topics import OUTPUTS, Played
from sbnet_perception.desk.types import message_class
from sbnet_perception.node.spinner import Spinner

ACTIVE = 3  # lifecycle_msgs/msg/State.PRIMARY_STATE_ACTIVE
CLOCK_PERIOD_S = 0.01
SETTLE_S = 0.3
"""DDS matches the two ends of a topic one after the other; this covers the difference."""


class NotReady(Exception):
    """The detector cannot be played to yet; the message says what is missing."""


class Player:
    """A ROS node that publishes a bag's messages as raw CDR and collects the detector's outputs.

    Args:
        merge_window_s: the detector's parameter `merge_window`, where there are clouds of several topics.

    Attributes:
        results: which clouds had a result, and when.
        clock_ns: bag time that was last published on /clock.
        late_now_s, late_s: how far the player is behind the bag's pace, now and at worst, in seconds of
            wall clock.
    """

    def __init__(self, session: Session, played: Played, merge_window_s: float = 0.0) -> None:
        self.results = Results(merge_window_s * 1e9)
        self.clock_ns = 0
        self.late_now_s = 0.0
        self.late_s = 0.0
        self._played = played
        self._recorder: Recorder | None = None
        self._context = Context()
        with session.applied():
            rclpy.init(
                args=[],  # those of the program are not ROS arguments
                context=self._context,
                domain_id=session.domain_id,
                signal_handler_options=SignalHandlerOptions.NO,
            )
            # Each service that nobody calls would still be looked at before every message.
            self._node = rclpy.create_node("sbnet_replay", context=self._context, start_parameter_services=False)
        self._spinner = Spinner(self._node)
        clock_qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        create = self._node.create_publisher
        self._clock = self._spinner.call(lambda: create(Clock, "/clock", clock_qos))
        self._publishers = {name: self._publisher(*wire) for name, wire in played.wire.items()}
        for topic, msgtype in OUTPUTS.items():
            self.listen(topic, msgtype, functools.partial(self._receive, topic, msgtype))

    def close(self) -> None:
        """Leaves the DDS domain."""
        self._spinner.stop()
        self._node.destroy_node()
        self._context.try_shutdown()

    def wait_until_ready(self, check: Callable[[], None], start_ns: int, seconds: float, lifecycle: bool) -> None:
        """Returns when the detector is active and every end of every topic has found the other.

        Args:
            check: called all the time; raises where waiting makes no sense any more.
            start_ns: bag time that /clock shows meanwhile.
            seconds: how long to wait at most.
            lifecycle: ask the node `sbnet` for its state first.

        Raises:
            NotReady: time is over; the message says for what was waited.
        """
        deadline = time.monotonic() + seconds
        if lifecycle:
            states = self._spinner.call(lambda: self._node.create_client(GetState, f"{NODE}/get_state"))
            self._wait(lambda: self._is_active(states), check, deadline, start_ns, "is not active")
        topics = " and ".join(self._played.heard)
        self._wait(self._is_heard, check, deadline, start_ns, f"does not subscribe to {topics}")
        # A topic that this node does not use never matches: give the rest a short time only.
        extra = min(deadline, time.monotonic() + 2.0)
        while not self._is_matched() and time.monotonic() < extra:
            self._tick(start_ns)
            time.sleep(0.02)
        time.sleep(SETTLE_S)

    def listen(self, topic: str, msgtype: str, receive: Callable[[bytes], None]) -> None:
        """Calls `receive` with the CDR bytes of each message of a topic, in the thread that takes all of them in."""
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        create, kind = self._node.create_subscription, message_class(msgtype)
        self._spinner.call(lambda: create(kind, topic, receive, qos, raw=True))

    def publish(self, message: BagMessage) -> None:
        """Sends one message of the bag and records it; topics that are only carried along are recorded."""
        topic, msgtype = message.topic, self._played.carried.get(message.topic, "")
        if message.topic in self._played.wire:
            topic, msgtype, _ = self._played.wire[message.topic]
            if message.topic in self._played.points:
                self.results.published(message.topic, stamp_of(message.raw))
            self._publishers[message.topic].publish(message.raw)
        if self._recorder is not None:
            self._recorder.write(topic, msgtype, message.stamp_ns, message.raw)

    def send_again(self, message: BagMessage) -> None:
        """Sends a cloud that was perhaps lost once more; it is neither counted nor recorded again."""
        self._publishers[message.topic].publish(message.raw)

    def paced(self, timeline: Timeline, rate: float, check: Callable[[], None]) -> Iterator[BagMessage]:
        """Yields each message at its moment, `rate` times the recorded pace, and keeps /clock going.

        A player that is late skips no message; `late_s` says how late it was. `check` is called all the time.
        """
        begin = None
        for message in timeline:
            check()
            # The clock starts when the first message is at hand: opening the bag takes its time.
            begin = time.monotonic() if begin is None else begin
            due = begin + timeline.played_ns(message.stamp_ns) / 1e9 / rate
            while (remaining := due - time.monotonic()) > 0:
                self._tick(message.stamp_ns - int(remaining * rate * 1e9))
                time.sleep(min(remaining, CLOCK_PERIOD_S))
                check()
            self.late_now_s = -remaining
            self.late_s = max(self.late_s, self.late_now_s)
            self._tick(message.stamp_ns)
            yield message

    def unpaced(self, timeline: Timeline) -> Iterator[BagMessage]:
        """Yields the messages at once, each with its time on /clock."""
        for message in timeline:
            self._tick(message.stamp_ns)
            yield message

    def record(self, recorder: Recorder) -> None:
        """What is published and received from now on is recorded."""
        self._recorder = recorder

    def stop_recording(self) -> None:
        """What follows is played only."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def settle(self, topic: str) -> None:
        """Waits until a message has surely been taken in: DDS keeps no order between topics."""
        self._publishers[topic].wait_for_all_acked(Duration(seconds=2.0))
        time.sleep(SETTLE_S)

    def drain(self) -> None:
        """Gives the outputs that come beside the last detections the time to arrive."""
        time.sleep(SETTLE_S)

    def _tick(self, now_ns: int) -> None:
        self._spinner.check()
        self.clock_ns = now_ns
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, 10**9)
        self._clock.publish(message)

    def _publisher(self, topic: str, msgtype: str, latched: bool) -> Any:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        depth = 100 if topic.startswith("/tf") else 1 if latched else 5
        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=durability)
        return self._spinner.call(lambda: self._node.create_publisher(message_class(msgtype), topic, qos))

    def _receive(self, topic: str, msgtype: str, raw: bytes) -> None:
        now = time.monotonic()
        if topic == "/detections":
            message = deserialize_message(raw, Detection3DArray)
            self.results.detected(stamp_of(raw), len(message.detections), now)
        elif topic == "/computation_mask":
            data = np.asarray(deserialize_message(raw, OccupancyGrid).data)
            self.results.computed(float((data == 100).mean()) if data.size else 0.0)
        elif topic == "/diagnostics":
            for status in deserialize_message(raw, DiagnosticArray).status:
                if status.name == f"{NODE[1:]}: detector":
                    self.results.told({item.key: item.value for item in status.values})
        if self._recorder is not None:
            self._recorder.write(topic, msgtype, self.clock_ns, raw)

    def _wait(
        self,
        ready: Callable[[], bool],
        check: Callable[[], None],
        deadline: float,
        start_ns: int,
        problem: str,
    ) -> None:
        while not ready():
            check()
            if time.monotonic() > deadline:
                domain = self._context.get_domain_id()
                raise NotReady(f"the node {problem} within the time given, on ROS_DOMAIN_ID {domain}")
            self._tick(start_ns)
            time.sleep(0.05)

    def _is_active(self, client: Any) -> bool:
        if not client.service_is_ready():
            return False
        future = client.call_async(GetState.Request())
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        return done.wait(1.0) and future.result().current_state.id == ACTIVE

    def _is_heard(self) -> bool:
        return all(self._publishers[name].get_subscription_count() for name in self._played.points)

    def _is_matched(self) -> bool:
        heard = all(p.get_subscription_count() for p in (self._clock, *self._publishers.values()))
        return heard and all(map(self._node.count_publishers, ("/detections", "/computation_mask")))
