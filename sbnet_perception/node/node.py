"""The ROS 2 lifecycle node `sbnet`: clouds in, detections out."""

from __future__ import annotations

if __name__ == "__main__":
    from sbnet_perception.node import start

    start.main()

import functools
import platform
import re
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import failure_of, hardware_of
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.weights import weights_path
from sbnet_perception.errors import UserError
from sbnet_perception.node.clouds import JUMPED, Clouds
from sbnet_perception.node.diagnostics import NEWER, WAITING, Diagnostics, frame_warnings
from sbnet_perception.node.frame_names import FrameNames
from sbnet_perception.node.inbox import Inbox
from sbnet_perception.node.labels import Labels
from sbnet_perception.node.mask_topics import MaskTopics
from sbnet_perception.node.memory import give_back
from sbnet_perception.node.merge import Frame
from sbnet_perception.node.outputs import Outputs
from sbnet_perception.node.parameters import NodeConfig, ParameterError, Parameters
from sbnet_perception.node.processor import Processor
from sbnet_perception.node.qos import unused_overrides
from sbnet_perception.node.run import run
from sbnet_perception.node.status import NotProcessed, Rejected, Status, Throttle
from sbnet_perception.node.transforms import Transforms, create_transforms
from sbnet_perception.text import one_line, quoted

STOP_PATIENCE_S = 1.0
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
        self._diagnostics = Diagnostics(self, self._status)
        self._inbox: Inbox[Frame] | None = None
        self._abandoned: Inbox[Frame] | None = None
        self._transforms: Transforms | None = None
        self._configured = False
        self._configurations = 0
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
        try:
            self._create(config, detector, path)
        except UserError as error:
            self.get_logger().fatal(f"cannot configure: {error}")
            return FAILURE
        made_of = f"grid {detector.grid}, mask {detector.mask.expression}, weights {path.name}"
        seconds, where = time.monotonic() - started, f"{self._pipeline.device} in {self._diagnostics.dtype}"
        self.get_logger().info(f"configured in {seconds:.1f} s on {where}: {made_of}")
        if not detector.mask.names:
            self.get_logger().warning("mask.expression names no mask: computing densely")
        return super().on_configure(state)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.inference_under_way:
            self.get_logger().error("the inference from before is still under way: activate again in a moment")
            return FAILURE
        self._inbox = self._new_inbox()
        self._clouds.begin()
        self._diagnostics.activated()
        result = super().on_activate(state)
        self._labels.publish(self._detector)
        self._inbox.start()
        self.get_logger().info(f"active: waiting for clouds on {', '.join(self._clouds.topics)}")
        return result

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_worker()
        self._outputs.clear()
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
        self._config, self._detector = config, detector
        self._configurations += 1
        self._status.clear()
        self._throttle = Throttle()
        self._diagnostics.weights = weights.name
        self._diagnostics.dtype = str(self._pipeline.network.dtype).removeprefix("torch.")
        self._diagnostics.hardware = f"{hardware_of(self._pipeline.device)} of {platform.node()}"
        self._limit(config)
        self._diagnostics.state = "inactive"
        if self._transforms is None:
            self._transforms = create_transforms(self)
        self._names = FrameNames(self.get_logger().info)
        self._masks = MaskTopics(self, config, self._pipeline, self._status, self._names, self)
        layers = self._masks.layers
        self._process = Processor(config, self._pipeline, self._transforms, layers, self._now_ns, self.refuse)
        self._outputs = Outputs(self, detector.classes, self._pipeline.grid, config.input_timeout)
        self._labels = Labels(self, weights.name, self._configurations)
        self._clouds = Clouds(self, config.points, config.merge_window, self._status, self._names, self)
        for sentence in unused_overrides(self):
            self.get_logger().warning(sentence)
        backward = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.get_clock().create_jump_callback(backward, post_callback=self._on_clock_jump)
        self._settings.frozen = self._configured = True

    def _destroy(self) -> None:
        if not self._configured:
            return
        self._jumps.unregister()
        self._clouds.destroy()
        self._masks.destroy()
        self._outputs.clear()
        self._outputs.destroy()
        self._labels.destroy()
        del self._process, self._pipeline
        give_back(self)
        self._settings.frozen = self._configured = False

    def _new_inbox(self) -> Inbox[Frame]:
        return Inbox(
            self._config.queue_size,
            self._work,
            on_drop=self._on_drop,
            on_failure=functools.partial(self._on_failure, self._pipeline.device),
        )

    def _stop_worker(self) -> None:
        self._diagnostics.active = False
        if self._configured:
            self._clouds.end()
        if self._inbox is not None:
            if not self._inbox.stop(STOP_PATIENCE_S):
                self._abandoned = self._inbox
                self.get_logger().warning("the inference under way did not end in time; its result is not published")
            self._inbox = None

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _set_live(self, config: NodeConfig, detector: DetectorConfig, changes: dict[str, Any]) -> None:
        """Parameters have changed while the node is configured: the detector takes them between two clouds."""
        self._config, self._detector = config, detector
        self._process.change(detector)
        self._limit(config)
        self._outputs.marker_lifetime_s = config.input_timeout
        if self._inbox is not None:
            self._labels.publish(detector)
        self.get_logger().info(", ".join(f"{name} is now {value}" for name, value in changes.items()))

    def _limit(self, config: NodeConfig) -> None:
        self._diagnostics.input_timeout_s = config.input_timeout
        self._diagnostics.latency_warn_ms = config.latency_warn_ms

    # Messages: callbacks of the executor -----------------------------------------------------------------

    def on_frame(self, frame: Frame) -> None:
        if self._inbox is not None:
            self._inbox.put(frame)

    def on_time_jump(self, seconds: float) -> None:
        """A bag began anew or skipped: what belongs to the old time is forgotten."""
        if self._throttle.reset():  # two clocks on one topic jump with each message
            self.get_logger().info(f"time jumped by {seconds:+.3f} s: starting afresh")
        if self._inbox is not None and (waiting := self._inbox.clear()):
            self._status.dropped(JUMPED, sum(len(frame.clouds) for frame in waiting))

    def refuse(self, error: NotProcessed, frame_id: str) -> None:
        """A cloud without an answer; also called by the worker."""
        self._status.not_processed(error, frame_id)
        self.complain(error, frame_id)

    def _on_drop(self, frame: Frame) -> None:
        """A frame had to make room: the one before it takes too long, or its transform does."""
        waiting = self._transforms is not None and self._transforms.waiting
        self._status.dropped(WAITING if waiting else NEWER, len(frame.clouds))

    def _on_clock_jump(self, jump: TimeJump) -> None:
        self._masks.clock_jumped()
        now_ns = self._now_ns()
        if self._clouds.clock_jumped(now_ns):
            self.on_time_jump(jump.delta.nanoseconds / 1e9)

    # Work: the worker thread -----------------------------------------------------------------------------

    def _work(self, frame: Frame, stop: Any) -> None:
        done = self._process(frame, stop)
        if done is None or stop.is_set():
            return
        self._status.processed(done.facts)
        if done.invalid:
            self._status.invalid_boxes(done.invalid)
            self.say("error", "invalid boxes", f"{done.invalid} boxes not finite, huge or far away, not published")
        for news in done.facts.news:
            self.say("info", _kind(news), f"found: {news}", burst=8)  # each of several LiDARs
        for fault in done.facts.errors:
            self.say("error", _kind(fault), f"{fault} (frame_id {quoted(frame.names)})")
        for warning in frame_warnings(done.facts):
            self.say("warning", _kind(warning), f"{warning} (frame_id {quoted(frame.names)})")
        self._outputs.publish(done)

    def _on_failure(self, device: torch.device, error: Exception) -> None:
        self._status.failed()
        self.say("error", type(error).__name__, f"a cloud failed: {type(error).__name__}: {error}")
        if not self.device_lost and (reason := failure_of(device)):
            self.get_logger().fatal(
                f"{device} is lost to this process ({reason}): the node ends with exit code 1 and has to be started "
                "again, as the launch argument respawn does; if that goes on, set device to cpu"
            )
            self.device_lost = True
            self.on_device_lost()

    def complain(self, error: NotProcessed, frame_id: str) -> None:
        word = "rejected" if isinstance(error, Rejected) else "dropped"
        self.say("warning", _complaint(error), f"{word} (frame_id {quoted(frame_id)}): {error}", burst=3)

    def say(self, severity: str, kind: str, text: str, burst: int = 1) -> None:
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
