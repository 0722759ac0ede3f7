"""The node's state as /diagnostics and as one message per frame."""

from __future__ import annotations

import platform
import time

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node

from sbnet_perception.node.mask_kinds import MASKS
from sbnet_perception.node.reporter import report
from sbnet_perception.node.status import Counts, FrameFacts, Status
from sbnet_perception.text import one_line

OVERLOAD_ERROR_S = 5.0
"""Dropping more clouds than are processed for this long is an error, before that a warning."""
NEWER = "newer cloud arrived"
"""Reason of clouds dropped since the detector was busy."""
WAITING = "waiting for a transform"
"""Reason of clouds dropped since the one before them waits for its transform."""


class Diagnostics:
    """Publishes one DiagnosticStatus a second, in every state of the node.

    Attributes:
        active: clouds are expected.
        state: name of the lifecycle state.
        weights: what the detector runs with.
        dtype: what the network computes with.
        hardware: what computes, and where.
        input_timeout_s: seconds without a cloud, or without one processed, that are an error.
        latency_warn_ms: milliseconds from a cloud's arrival to its detections that are no complaint yet.
    """

    def __init__(self, node: Node, status: Status) -> None:
        self._status = status
        self.active = False
        self.state = "unconfigured"
        self.weights = ""
        self.dtype = ""
        self.hardware = platform.node()
        self.input_timeout_s = 1.0
        self.latency_warn_ms = 200.0
        self._before = Counts()
        self._active_since = 0.0
        self._overloaded_since: float | None = None
        report(node, self.message)

    def activated(self) -> None:
        """Clouds are expected from now on; what was counted before is no complaint of today."""
        self.state, self.active = "active", True
        self._active_since = time.monotonic()
        self._before, self._overloaded_since = self._status.snapshot(), None
        self._status.take_slowest_ms()

    def message(self) -> DiagnosticStatus:
        """The state now; what is counted in it is what has happened since the message before."""
        counts = self._status.snapshot()
        errors, warnings = self._problems(counts) if self.active else ([], [])
        self._before = counts
        level = DiagnosticStatus.ERROR if errors else DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK
        text = "; ".join([*errors, *warnings]) or ("detecting" if self.active else self.state)
        values = {"state": self.state, "weights": self.weights, "dtype": self.dtype, **count_values(counts)}
        if self._status.last_reject:
            values["last rejected"] = self._status.last_reject
        if self._status.last_frame is not None:
            values |= frame_values(self._status.last_frame)
        return DiagnosticStatus(
            level=level,
            name="detector",
            message=one_line(text),
            hardware_id=self.hardware,
            values=_key_values(values),
        )

    def _problems(self, counts: Counts) -> tuple[list[str], list[str]]:
        """Errors and warnings of the last period."""
        status, before = self._status, self._before
        errors, warnings = [], []
        last, answered = status.last_received or 0.0, status.last_processed or 0.0
        if (silent := self._since(last)) > self.input_timeout_s:
            errors.append(f"no cloud for {silent:.1f} s")
        elif (silent := self._since(answered)) > self.input_timeout_s:
            errors.append(f"no cloud processed for {silent:.1f} s")
        elif last < self._active_since:
            warnings.append("no cloud received yet")
        if (slowest := status.take_slowest_ms()) > self.latency_warn_ms:
            warnings.append(f"latency {slowest:.0f} ms, more than latency_warn_ms {self.latency_warn_ms:g}")
        if status.last_was_rejected:
            errors.append(f"rejected: {status.last_reject}")
        if counts.failed > before.failed:
            errors.append("inference failed, see the log")
        if counts.invalid_boxes > before.invalid_boxes:
            errors.append(f"{counts.invalid_boxes - before.invalid_boxes} boxes not finite, huge or far away")
        warnings += self._load(counts, errors)
        for reason, count in (counts.dropped - before.dropped).items():
            if reason != NEWER:
                warnings.append(f"{count} clouds dropped: {reason}")
        if not status.last_was_rejected:
            for reason, count in (counts.rejected - before.rejected).items():
                warnings.append(f"{count} clouds rejected: {reason}")
        for reason, count in (counts.lost - before.lost).items():
            warnings.append(f"{count} clouds sent but not received ({reason}): see Large clouds in docs/vehicle.md")
        for kind, masks in counts.masks.items():
            for reason, count in (masks.rejected - before.masks[kind].rejected).items():
                warnings.append(f"{count} {kind.name}s rejected, the last good one counts: {reason}")
        if status.last_frame is not None:
            for topic, count in (counts.missing - before.missing).items():
                if topic not in status.last_frame.missing:
                    warnings.append(f"{count} frames without a cloud of {topic}")
            errors += status.last_frame.errors
            warnings += frame_warnings(status.last_frame)
        return errors, warnings

    def _since(self, moment: float) -> float:
        """Seconds since a moment, or since the activation after it."""
        return time.monotonic() - max(moment, self._active_since)

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
        if self._overloaded_since is not None and time.monotonic() - self._overloaded_since >= OVERLOAD_ERROR_S:
            errors.append(text)
            return []
        return [text]


def frame_warnings(facts: FrameFacts) -> list[str]:
    """What is wrong with a frame that was processed all the same."""
    found = [*facts.warnings, *facts.missing.values()]
    found += [f"{mask.problem}: {kind.instead}" for kind, mask in facts.masks.items() if mask.problem]
    if facts.dense:
        found.append("no mask applies: computing densely")
    return found


def count_values(counts: Counts) -> dict[str, str]:
    values = {
        "received": counts.received,
        "processed": counts.processed,
        "frames": counts.frames,
        "failed": counts.failed,
        "dropped": counts.dropped.total(),
        "rejected": counts.rejected.total(),
        "lost": counts.lost.total(),
        "invalid boxes": counts.invalid_boxes,
    }
    kinds = {
        "dropped": counts.dropped,
        "rejected": counts.rejected,
        "lost": counts.lost,
        "frames without": counts.missing,
    }
    for mask, found in counts.masks.items():
        values |= {f"{mask.name}s received": found.received, f"{mask.name}s rejected": found.rejected.total()}
        kinds[f"{mask.name}s rejected"] = found.rejected
    for kind, reasons in kinds.items():
        values |= {f"{kind}: {reason}": count for reason, count in reasons.items()}
    last = {f"last {mask.name} rejected": of.last_reject for mask, of in counts.masks.items() if of.last_reject}
    return {name: str(value) for name, value in values.items()} | last


def frame_values(facts: FrameFacts) -> dict[str, str]:
    values = {
        "stamp": f"{facts.stamp_ns // 10**9}.{facts.stamp_ns % 10**9:09d}",
        "clouds": str(facts.clouds),
        "points": str(facts.points),
        "points in range": str(facts.points_in_range),
        "detections": str(facts.detections),
        "latency ms": f"{facts.latency_ms:.2f}",
        "pipeline ms": f"{facts.pipeline_ms:.2f}",
        "dense": str(facts.dense).lower(),
        **{kind.name: "not used" for kind in MASKS if kind not in facts.masks},
    }
    for kind, mask in facts.masks.items():
        values[kind.name] = mask.problem or "in use"
        if mask.age_s is not None:
            values[f"{kind.name} age s"] = f"{mask.age_s:.1f}"
        if mask.coverage is not None:
            values[f"{kind.name} coverage"] = f"{mask.coverage:.2f}"
    values["ground z m"] = f"{facts.ground.z:.2f}"
    if facts.ground.measured is not None:
        values["ground measured z m"] = f"{facts.ground.measured:.2f}"
        values["ground support"] = f"{facts.ground.support:.2f}"
    for topic, scale in facts.scales.items():
        name = "intensity scale" if len(facts.scales) == 1 else f"intensity scale {topic}"
        values[name] = "no intensity" if scale is None else f"{scale:g}"
    values["times computed"] = str(facts.times_computed)
    values |= {f"sparsity {stage}": f"{share:.3f}" for stage, share in facts.sparsity.items()}
    values |= {f"ms {step}": f"{duration:.2f}" for step, duration in facts.timings_ms.items()}
    return values


def frame_message(name: str, facts: FrameFacts) -> DiagnosticStatus:
    """One processed cloud: sparsity of each stage, milliseconds of each step."""
    errors, warnings = facts.errors, frame_warnings(facts)
    return DiagnosticStatus(
        level=DiagnosticStatus.ERROR if errors else DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK,
        name=f"{name[1:]}: frame",
        message=one_line("; ".join([*errors, *warnings])),
        values=_key_values(frame_values(facts)),
    )


def _key_values(values: dict[str, str]) -> list[KeyValue]:
    return [KeyValue(key=one_line(key), value=one_line(value)) for key, value in values.items()]
