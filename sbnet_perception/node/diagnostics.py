"""The node's state as /diagnostics and as one message per frame."""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from sbnet_perception.node.status import Counts, FrameFacts, Status

PERIOD_S = 1.0
OVERLOAD_ERROR_S = 5.0
"""Dropping more clouds than are processed for this long is an error, before that a warning."""
NEWER = "newer cloud arrived"
"""Reason of clouds dropped since the detector was busy."""


class Diagnostics:
    """Publishes one DiagnosticStatus a second, in every state of the node.

    Attributes:
        active: clouds are expected.
        state: name of the lifecycle state.
        weights: what the detector runs with.
        input_timeout_s: seconds without a cloud that are an error.
    """

    def __init__(self, node: Node, status: Status) -> None:
        self._node = node
        self._status = status
        self.active = False
        self.state = "unconfigured"
        self.weights = ""
        self.input_timeout_s = 2.0
        self._before = Counts()
        self._active_since = 0.0
        self._overloaded_since: float | None = None
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Wall time: the state is told also while simulated time stands still.
        node.create_timer(PERIOD_S, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def activated(self) -> None:
        """Clouds are expected from now on; what was counted before is no complaint of today."""
        self.state, self.active = "active", True
        self._active_since = time.monotonic()
        self._before, self._overloaded_since = self._status.snapshot(), None

    def publish(self) -> None:
        message = DiagnosticArray(status=[self.message()])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def message(self) -> DiagnosticStatus:
        """The state now; what is counted in it is what has happened since the message before."""
        counts = self._status.snapshot()
        errors, warnings = self._problems(counts) if self.active else ([], [])
        self._before = counts
        level = (
            DiagnosticStatus.ERROR if errors else DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
        )
        text = "; ".join([*errors, *warnings]) or ("detecting" if self.active else self.state)
        values = {"state": self.state, "weights": self.weights, **count_values(counts)}
        if self._status.last_reject:
            values["last rejected"] = self._status.last_reject
        if self._status.last_frame is not None:
            values |= frame_values(self._status.last_frame)
        return DiagnosticStatus(
            level=level,
            name=f"{self._node.get_fully_qualified_name()[1:]}: detector",
            message=text,
            values=_key_values(values),
        )

    def _problems(self, counts: Counts) -> tuple[list[str], list[str]]:
        """Errors and warnings of the last period."""
        status, before = self._status, self._before
        errors, warnings = [], []
        last = status.last_received or 0.0
        if (silent := time.monotonic() - max(last, self._active_since)) > self.input_timeout_s:
            errors.append(f"no cloud for {silent:.1f} s")
        elif last < self._active_since:
            warnings.append("no cloud received yet")
        if status.last_was_rejected:
            errors.append(f"rejected: {status.last_reject}")
        if counts.failed > before.failed:
            errors.append("inference failed, see the log")
        if counts.invalid_boxes > before.invalid_boxes:
            errors.append(f"{counts.invalid_boxes - before.invalid_boxes} boxes not finite or huge")
        warnings += self._load(counts, errors)
        for reason, count in counts.dropped.items():
            if reason != NEWER and count > before.dropped[reason]:
                warnings.append(f"{count - before.dropped[reason]} clouds dropped: {reason}")
        if status.last_frame is not None:
            warnings += frame_warnings(status.last_frame)
        return errors, warnings

    def _load(self, counts: Counts, errors: list[str]) -> list[str]:
        """Warns while clouds come faster than they are processed; after a while that is an error."""
        lost = counts.dropped[NEWER] - self._before.dropped[NEWER]
        done = counts.processed - self._before.processed
        if lost <= done:
            self._overloaded_since = None
        elif self._overloaded_since is None:
            self._overloaded_since = time.monotonic()
        if not lost:
            return []
        text = f"slower than the sensor: {done} clouds processed, {lost} dropped"
        if (
            self._overloaded_since is not None
            and time.monotonic() - self._overloaded_since >= OVERLOAD_ERROR_S
        ):
            errors.append(text)
            return []
        return [text]


def frame_warnings(facts: FrameFacts) -> list[str]:
    """What is wrong with a frame that was processed all the same."""
    found = list(facts.warnings)
    if facts.road_problem:
        found.append(f"{facts.road_problem}: the road counts as everywhere")
    if facts.dense:
        found.append("no mask applies: computing densely")
    return found


def count_values(counts: Counts) -> dict[str, str]:
    values = {
        "received": counts.received,
        "processed": counts.processed,
        "failed": counts.failed,
        "dropped": counts.dropped.total(),
        "rejected": counts.rejected.total(),
        "invalid boxes": counts.invalid_boxes,
    }
    values |= {f"dropped: {reason}": count for reason, count in counts.dropped.items()}
    values |= {f"rejected: {reason}": count for reason, count in counts.rejected.items()}
    return {name: str(value) for name, value in values.items()}


def frame_values(facts: FrameFacts) -> dict[str, str]:
    values = {
        "stamp": f"{facts.stamp_ns // 10**9}.{facts.stamp_ns % 10**9:09d}",
        "points": str(facts.points),
        "points in range": str(facts.points_in_range),
        "detections": str(facts.detections),
        "latency ms": f"{facts.latency_ms:.2f}",
        "pipeline ms": f"{facts.pipeline_ms:.2f}",
        "dense": str(facts.dense).lower(),
        "road mask": facts.road_problem or "in use"
        if facts.road_age_s is not None or facts.road_problem
        else "not used",
    }
    if facts.road_age_s is not None:
        values["road mask age s"] = f"{facts.road_age_s:.1f}"
    values["ground z m"] = f"{facts.ground.z:.2f}"
    if facts.ground.measured is not None:
        values["ground measured z m"] = f"{facts.ground.measured:.2f}"
        values["ground support"] = f"{facts.ground.support:.2f}"
    scale = facts.intensity.scale
    values["intensity scale"] = "no intensity" if scale is None else f"{scale:g}"
    values["times computed"] = str(facts.times_computed)
    values |= {f"sparsity {stage}": f"{share:.3f}" for stage, share in facts.sparsity.items()}
    values |= {f"ms {step}": f"{duration:.2f}" for step, duration in facts.timings_ms.items()}
    return values


def frame_message(name: str, facts: FrameFacts) -> DiagnosticStatus:
    """One processed cloud: sparsity of each stage, milliseconds of each step."""
    warnings = frame_warnings(facts)
    return DiagnosticStatus(
        level=DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK,
        name=f"{name[1:]}: frame",
        message="; ".join(warnings),
        values=_key_values(frame_values(facts)),
    )


def _key_values(values: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value) for key, value in values.items()]
