"""What the node has counted and what it would complain about; written by callbacks and worker alike."""

from __future__ import annotations

import collections
import copy
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sbnet_perception.node.ground import GroundAnswer
from sbnet_perception.node.mask_kinds import MASKS, MaskKind
from sbnet_perception.text import quoted


class NotProcessed(Exception):
    """A cloud that gets no answer.

    Args:
        reason: short and constant, the name of its counter.
        detail: what exactly was wrong with this one.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Rejected(NotProcessed):
    """The message itself cannot be used."""


class Dropped(NotProcessed):
    """The message was fine, the circumstances were not."""


@dataclass(frozen=True)
class MaskFacts:
    """What became of a mask in a frame: why it is not in use, its age, and the share (0-1) of the grid that it covers.

    `age_s` and `coverage` are None where they are not known.
    """

    problem: str
    age_s: float | None
    coverage: float | None


@dataclass(frozen=True)
class FrameFacts:
    """One processed frame in figures; times in milliseconds.

    `latency_ms` runs from the arrival of the frame's first cloud in this process to its detections, `pipeline_ms` is
    the detector's part of it, and `timings_ms` are the steps of both. `masks` are those of topics that the expression
    names. `warnings` are those of all parts, `errors` say that what was computed is worth nothing,
    `news` what was found about ground and intensity, `scales` the intensity of each topic that means 1, and `missing`
    says why which topic has no part in it.
    """

    stamp_ns: int
    clouds: int
    missing: Mapping[str, str]
    points: int
    points_in_range: int
    detections: int
    latency_ms: float
    pipeline_ms: float
    dense: bool
    masks: Mapping[MaskKind, MaskFacts]
    ground: GroundAnswer
    scales: Mapping[str, float | None]
    warnings: tuple[str, ...]
    news: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    times_computed: int = 1
    sparsity: Mapping[str, float] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass
class MaskCounts:
    """Masks that came on one topic, the rejected among them by reason, and the last of these with its frame_id."""

    received: int = 0
    rejected: collections.Counter[str] = field(default_factory=collections.Counter)
    last_reject: str = ""


@dataclass
class Counts:
    """Totals since the node was configured.

    Of clouds `received`, `processed`, `dropped`, `rejected` and `lost` (sent, but never received); `frames` are what
    was answered, and `missing` counts those that a topic had no part in. `masks` are those of other topics.
    """

    received: int = 0
    processed: int = 0
    frames: int = 0
    failed: int = 0
    invalid_boxes: int = 0
    dropped: collections.Counter[str] = field(default_factory=collections.Counter)
    rejected: collections.Counter[str] = field(default_factory=collections.Counter)
    lost: collections.Counter[str] = field(default_factory=collections.Counter)
    missing: collections.Counter[str] = field(default_factory=collections.Counter)
    masks: dict[MaskKind, MaskCounts] = field(default_factory=lambda: {kind: MaskCounts() for kind in MASKS})


class Status:
    """Thread-safe record of what happened.

    Attributes:
        counts: totals; read them through `snapshot`.
        last_reject: reason, detail and frame_id of the last rejected cloud.
        last_frame: the last processed frame, None before the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Starts anew, as at configuration."""
        with self._lock:
            self.counts = Counts()
            self.last_reject = ""
            self.last_frame: FrameFacts | None = None
            self.last_received: float | None = None
            self.last_processed: float | None = None
            self._slowest_ms = 0.0
            self.last_was_rejected = False

    def received(self) -> None:
        with self._lock:
            self.counts.received += 1
            self.last_received = time.monotonic()

    def processed(self, facts: FrameFacts) -> None:
        with self._lock:
            self.counts.processed += facts.clouds
            self.counts.frames += 1
            self.counts.missing.update(facts.missing.keys())
            self.last_frame = facts
            self.last_processed = time.monotonic()
            self._slowest_ms = max(self._slowest_ms, facts.latency_ms)
            self.last_was_rejected = False

    def not_processed(self, error: NotProcessed, frame_id: str) -> None:
        """A cloud without an answer."""
        with self._lock:
            if isinstance(error, Rejected):
                self.counts.rejected[error.reason] += 1
                self.last_reject = f"{error} (frame_id {quoted(frame_id)})"
                self.last_was_rejected = True
            else:
                self.counts.dropped[error.reason] += 1

    def dropped(self, reason: str, count: int = 1) -> None:
        with self._lock:
            self.counts.dropped[reason] += count

    def lost(self, reason: str, count: int) -> None:
        """Clouds that were sent and did not come."""
        with self._lock:
            self.counts.lost[reason] += count

    def mask(self, kind: MaskKind, error: Rejected | None = None, frame_id: str = "") -> None:
        """A mask, and why it was rejected."""
        with self._lock:
            counts = self.counts.masks[kind]
            counts.received += 1
            if error is not None:
                counts.rejected[error.reason] += 1
                counts.last_reject = f"{error} (frame_id {quoted(frame_id)})"

    def failed(self) -> None:
        with self._lock:
            self.counts.failed += 1

    def invalid_boxes(self, count: int) -> None:
        with self._lock:
            self.counts.invalid_boxes += count

    def take_slowest_ms(self) -> float:
        """The greatest latency of a cloud since this was asked before; 0 where none was processed."""
        with self._lock:
            slowest, self._slowest_ms = self._slowest_ms, 0.0
            return slowest

    def snapshot(self) -> Counts:
        """A copy of the totals."""
        with self._lock:
            return copy.deepcopy(self.counts)


class Throttle:
    """Says whether a line of a kind may be logged again.

    Args:
        seconds: the period.
        most: kinds within a period; what is beyond has to wait, whatever it is.
        resets: how often in a row everything may be said again.
        clock: seconds that only grow.
    """

    def __init__(
        self, seconds: float = 5.0, most: int = 32, resets: int = 4, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._most, self._clock = seconds, most, clock
        self._kinds: dict[str, _Bucket] = {}  # the one that was asked for last at the end
        self._resets = _Bucket(resets, resets, clock())
        self._lock = threading.Lock()

    def ready(self, kind: str, burst: int = 1) -> bool:
        """True once per period for each kind, or so often in a row where nothing of it came for as many periods."""
        now = self._clock()
        with self._lock:
            # What would be ready anyway need not be remembered.
            while self._kinds and self._kinds[oldest := next(iter(self._kinds))].is_full(now, self._seconds):
                del self._kinds[oldest]
            bucket = self._kinds.pop(kind, None)
            if bucket is None and len(self._kinds) >= self._most:
                return False
            self._kinds[kind] = bucket = bucket or _Bucket(burst, burst, now)
            return bucket.take(now, self._seconds)

    def reset(self) -> bool:
        """Lets every kind be logged again; False where that was asked for too often, and once per period after that."""
        with self._lock:
            if not self._resets.take(self._clock(), self._seconds):
                return False
            self._kinds.clear()
            return True


@dataclass
class _Bucket:
    """How many lines are left, at a time; one comes back in each period."""

    most: float
    left: float
    at: float

    def take(self, now: float, period: float) -> bool:
        self.left, self.at = min(self.left + (now - self.at) / period, self.most), now
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def is_full(self, now: float, period: float) -> bool:
        return self.left + (now - self.at) / period >= self.most
