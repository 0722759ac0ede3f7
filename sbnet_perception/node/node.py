"""The ROS 2 lifecycle node `sbnet`: clouds in, detections out."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from sbnet_perception.node import start

    sys.exit(start.main())

import functools
import re
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nav_msgs.msg import OccupancyGrid
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import failure_of
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.weights import weights_path
from sbnet_perception.errors import UserError
from sbnet_perception.node.diagnostics import NEWER, Diagnostics, frame_warnings
from sbnet_perception.node.gate import Gate
from sbnet_perception.node.inbox import Inbox
from sbnet_perception.node.outputs import Outputs
from sbnet_perception.node.parameters import NodeConfig, ParameterError, Parameters
from sbnet_perception.node.processor import Arrived, Processor, read
from sbnet_perception.node.road_layer import RoadLayer
from sbnet_perception.node.run import run
from sbnet_perception.node.status import NotProcessed, Rejected, Status, Throttle
from sbnet_perception.node.transforms import Transforms, create_transforms
from sbnet_perception.text import one_line, quoted

SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
STOP_PATIENCE_S = 1.5
"""How long a transition waits for the inference that is under way; its result is thrown away after that."""

OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


Transition = Callable[["SbnetNode", LifecycleState], TransitionCallbackReturn]


def reported(transition: Transition) -> Transition:
    """Logs what a transition raises; rclpy would turn it into an error without a word."""

    @functools.wraps(transition)
    def guarded(self: SbnetNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception:
            self.get_logger().fatal(f"{transition.__name__} failed:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR

    return guarded


def _kind(text: str) -> str:
    """The same news or complaint with other figures is the same."""
    return re.sub(r"[\d.]+", "#", text.split(":")[0])


def _complaint(error: NotProcessed) -> str:
    """The same with other figures and names is the same; what is listed behind a semicolon does not count."""
    return re.sub(r"'.*'|[\d.]+", "#", str(error).split(";")[0])[:100]


class SbnetNode(LifecycleNode):
    """Wires subscriptions, worker and publishers together; the work itself is in `Processor`.

    Attributes:
        device_lost: the detector's device does not work any more in this process, which has to end.
        on_device_lost: called in the worker thread when that happens.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("sbnet", **kwargs)
        self._settings = Parameters(self, self._set_live)
        self._status = Status()
        self._throttle = Throttle()
        self._gate = Gate()
        self._diagnostics = Diagnostics(self, self._status)
        self._inbox: Inbox[Arrived] | None = None
        self._abandoned: Inbox[Arrived] | None = None
        self._transforms: Transforms | None = None
        self._configured = False
        self.device_lost = False
        self.on_device_lost: Callable[[], None] = lambda: None

    def autostart(self) -> bool:
        """Configures and activates where the parameter `autostart` says so; False when that failed."""
        if not self.get_parameter("autostart").value:
            return True
        return self.trigger_configure() == OK and self.trigger_activate() == OK

    @property
    def is_finalized(self) -> bool:
        """No further transition is possible."""
        return self._diagnostics.state == "finalized"

    @property
    def inference_under_way(self) -> bool:
        """A worker that was stopped has not ended yet."""
        return self._abandoned is not None and not self._abandoned.stop(0.0)

    # Transitions -----------------------------------------------------------------------------------------

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        started = time.monotonic()
        try:
            config, detector = self._settings.read()
            path = weights_path(detector)
            with warnings.catch_warnings(record=True) as remarks:
                self._pipeline = Pipeline(detector)
        except (ParameterError, UserError, torch.OutOfMemoryError) as error:
            self.get_logger().fatal(f"cannot configure: {error}")
            return FAILURE
        for remark in remarks:
            self.get_logger().warning(str(remark.message))
        self._create(config, detector, path)
        made_of = f"grid {detector.grid}, mask {detector.mask.expression}, weights {path.name}"
        seconds = time.monotonic() - started
        self.get_logger().info(f"configured in {seconds:.1f} s on {self._pipeline.device}: {made_of}")
        if not detector.mask.names:
            self.get_logger().warning("mask.expression names no mask: computing densely")
        return super().on_configure(state)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.inference_under_way:
            self.get_logger().error("the inference from before is still under way: activate again in a moment")
            return FAILURE
        self._gate, self._inbox = Gate(), self._new_inbox()
        self._diagnostics.activated()
        result = super().on_activate(state)
        self._inbox.start()
        self.get_logger().info(f"active: waiting for clouds on {self._clouds.topic_name}")
        return result

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_worker()
        self._diagnostics.state = "inactive"
        return super().on_deactivate(state)

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._destroy()
        self._diagnostics.state = "unconfigured"
        return super().on_cleanup(state)

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_worker()
        self._destroy()
        self._diagnostics.state = "finalized"
        return super().on_shutdown(state)

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_worker()
        self._destroy()
        self._diagnostics.state = "unconfigured"
        return super().on_error(state)

    # Parts -----------------------------------------------------------------------------------------------

    def _create(self, config: NodeConfig, detector: DetectorConfig, weights: Path) -> None:
        self._config = config
        self._status.clear()
        self._throttle = Throttle()
        self._diagnostics.weights, self._diagnostics.input_timeout_s = weights.name, config.input_timeout
        self._diagnostics.state = "inactive"
        if self._transforms is None:
            self._transforms = create_transforms(self)
        self._road = RoadLayer(self._pipeline.grid, config.road_mask_timeout, self._pipeline.device)
        self._road_said = ""
        self._process = Processor(config, self._pipeline, self._transforms, self._road, self._now_ns)
        self._outputs = Outputs(self, detector.classes, self._pipeline.grid)
        self._clouds = self.create_subscription(PointCloud2, "points", self._on_cloud, SENSOR, raw=True)
        self._roads = self.create_subscription(OccupancyGrid, "road_mask", self._on_road, LATCHED)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(backward, post_callback=self._on_clock_jump)
        self._settings.frozen = self._configured = True

    def _destroy(self) -> None:
        if not self._configured:
            return
        self._jumps.unregister()
        self.destroy_subscription(self._clouds)
        self.destroy_subscription(self._roads)
        self._outputs.destroy()
        del self._process, self._pipeline
        self._settings.frozen = self._configured = False

    def _new_inbox(self) -> Inbox[Arrived]:
        return Inbox(
            self._config.queue_size,
            self._work,
            on_drop=lambda count: self._status.dropped(NEWER, count),
            on_failure=functools.partial(self._on_failure, self._pipeline.device),
        )

    def _stop_worker(self) -> None:
        self._diagnostics.active = False
        if self._inbox is not None:
            if not self._inbox.stop(STOP_PATIENCE_S):
                self._abandoned = self._inbox
                self.get_logger().warning("the inference under way did not end in time; its result is not published")
            self._inbox = None

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _set_live(self, detector: DetectorConfig) -> None:
        self._pipeline.config = detector
        self.get_logger().info(f"score_threshold is now {detector.score_threshold:g}")

    # Messages: callbacks of the executor -----------------------------------------------------------------

    def _on_cloud(self, raw: bytes) -> None:
        if self._inbox is None:
            return
        at, frame_id = time.monotonic(), ""
        self._status.received()
        try:
            msg = read(raw)
            frame_id = msg.header.frame_id
            jump_ns = self._gate.check(msg.header)
        except NotProcessed as error:
            self._refuse(error, frame_id)
            return
        if jump_ns:
            self._time_jumped(jump_ns / 1e9, self._gate.last_ns or 0)
        self._inbox.put(Arrived(msg, at))

    def _on_road(self, msg: OccupancyGrid) -> None:
        try:
            self._road.receive(msg, self._now_ns())
        except Rejected as error:
            self._refuse(error, msg.header.frame_id, is_cloud=False)
            return
        size = f"{msg.info.width} x {msg.info.height} cells of {msg.info.resolution:g} m"
        text = f"road mask: {size} in {quoted(msg.header.frame_id)}"
        if text != self._road_said:
            # A map that moves with the robot may come many times a second.
            self._say("info", "road mask", text, burst=10)
            self._road_said = text

    def _on_clock_jump(self, jump: TimeJump) -> None:
        now_ns = self._now_ns()
        if self._gate.clock_is(now_ns):
            self._time_jumped(jump.delta.nanoseconds / 1e9, now_ns)

    def _time_jumped(self, seconds: float, now_ns: int) -> None:
        """A bag began anew or skipped: what belongs to the old time is forgotten."""
        if self._throttle.reset():  # two clocks on one topic jump with each message
            self.get_logger().info(f"time jumped by {seconds:+.3f} s: starting afresh")
        if self._inbox is not None and (waiting := self._inbox.clear()):
            self._status.dropped("time jumped", waiting)
        if seconds < 0 and self._transforms is not None:
            self._transforms.time_jumped_back(now_ns)

    # Work: the worker thread -----------------------------------------------------------------------------

    def _work(self, arrived: Arrived, stop: Any) -> None:
        try:
            frame = self._process(arrived, stop)
        except NotProcessed as error:
            if not stop.is_set():
                self._refuse(error, arrived.msg.header.frame_id)
            return
        if stop.is_set():
            return
        self._status.processed(frame.facts)
        if frame.invalid:
            self._status.invalid_boxes(frame.invalid)
            self._say("error", "invalid boxes", f"{frame.invalid} boxes not finite or huge, not published")
        for news in filter(None, (frame.facts.ground.news, frame.facts.intensity.news)):
            self._say("info", _kind(news), f"found: {news}", burst=8)  # each of several LiDARs
        for warning in frame_warnings(frame.facts):
            self._say("warning", _kind(warning), f"{warning} (frame_id {quoted(arrived.msg.header.frame_id)})")
        self._outputs.publish(frame)

    def _on_failure(self, device: torch.device, error: Exception) -> None:
        self._status.failed()
        self._say("error", type(error).__name__, f"a cloud failed: {type(error).__name__}: {error}")
        if not self.device_lost and (reason := failure_of(device)):
            self.get_logger().fatal(
                f"{device} is lost to this process ({reason}): the node ends with exit code 1 and has to be started "
                "again, as the launch argument respawn does; if that goes on, set device to cpu"
            )
            self.device_lost = True
            self.on_device_lost()

    def _refuse(self, error: NotProcessed, frame_id: str, is_cloud: bool = True) -> None:
        self._status.not_processed(error, frame_id, is_cloud)
        word = "rejected" if isinstance(error, Rejected) else "dropped"
        self._say("warning", _complaint(error), f"{word} (frame_id {quoted(frame_id)}): {error}", burst=3)

    def _say(self, severity: str, kind: str, text: str, burst: int = 1) -> None:
        """Logs what a message gave rise to; it may come with every message, and its text with it."""
        if self._throttle.ready(kind, burst):
            text = one_line(text)
            # rclpy insists on one severity for each line of code that logs.
            if severity == "error":
                self.get_logger().error(text)
            elif severity == "info":
                self.get_logger().info(text)
            else:
                self.get_logger().warning(text)


def main(args: list[str] | None = None) -> int:
    """Runs the node until SIGINT or SIGTERM; exit code 1 when it cannot start."""
    return run(SbnetNode, args)
