"""What came back for which cloud, and when: the bookkeeping behind the report of a replay."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from sbnet_perception.errors import UserError


def stamp_of(raw: bytes) -> int:
    """header.stamp in ns of the CDR bytes of any message that starts with a std_msgs/Header.

    Raises:
        UserError: there are too few bytes for a header.
    """
    if len(raw) < 12:
        raise UserError(f"a message of {len(raw)} bytes has no header: the bag is damaged")
    sec, nanosec = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(sec) * 10**9 + int(nanosec)


@dataclass
class Interval:
    """Counts of one second of the drive."""

    frames: int = 0
    processed: int = 0
    detections: int = 0
    computed: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def answers(self) -> int:
        """Results that came; fewer than the clouds processed where several LiDARs become one cloud."""
        return len(self.latencies_ms)


class Results:
    """Matches results to clouds by stamp. All methods may be called from any thread.

    A result has the stamp of its oldest cloud. It is the answer to one cloud of each other topic too, as far as these
    are later by no more than the window.

    Args:
        window_ns: the node's parameter `merge_window`.

    Attributes:
        total: counts of the whole drive.
        unmatched: results whose stamp belongs to no cloud that was published.
    """

    def __init__(self, window_ns: float = 0.0) -> None:
        self._window_ns = window_ns
        self._topics: set[str] = set()
        self.total = Interval()
        self.unmatched = 0
        self._told: dict[str, int] | None = None
        self._told_before: dict[str, int] = {}
        self._second = Interval()
        self._waiting: dict[tuple[str, int], float] = {}
        self._changed = threading.Condition()

    def published(self, topic: str, stamp_ns: int) -> None:
        """A cloud leaves for the node: call just before publishing it."""
        with self._changed:
            if not self.total.frames:
                self._told, self._told_before = None, self._told or {}
            self._topics.add(topic)
            self._waiting[topic, stamp_ns] = time.monotonic()
            for counts in (self.total, self._second):
                counts.frames += 1

    def detected(self, stamp_ns: int, count: int, now: float) -> None:
        """Detections have arrived, at `now` (time.monotonic)."""
        with self._changed:
            answered = self._answered_by(stamp_ns)
            if not answered:
                self.unmatched += 1
                return
            sent = max(self._waiting.pop(cloud) for cloud in answered)
            for counts in (self.total, self._second):
                counts.processed += len(answered)
                counts.detections += count
                counts.latencies_ms.append(1000.0 * (now - sent))
            self._changed.notify_all()

    def computed(self, fraction: float) -> None:
        """The computation mask of a frame has arrived: the fraction (0-1) of the grid that was computed."""
        with self._changed:
            for counts in (self.total, self._second):
                counts.computed.append(fraction)

    def told(self, values: Mapping[str, str]) -> None:
        """The node has told its counts on /diagnostics; what is no count is left out."""
        with self._changed:
            self._told = {name: int(value) for name, value in values.items() if value.isdecimal()}
            self._changed.notify_all()

    @property
    def none_received(self) -> bool:
        """The node has told since the first cloud was sent that none has arrived."""
        with self._changed:
            return self._told is not None and not self._counted("received")

    def not_processed(self) -> dict[str, int]:
        """By the node's own words, since the first cloud: ``dropped: reason``, ``rejected: reason`` and ``failed``."""
        with self._changed:
            names = [
                name for name in self._told or {} if name.startswith(("dropped: ", "rejected: ")) or name == "failed"
            ]
            return {name: count for name in names if (count := self._counted(name)) > 0}

    def unexplained(self) -> int:
        """Clouds that have neither a result nor a place in `not_processed`."""
        explained = sum(self.not_processed().values())
        with self._changed:
            # An answer comes without a LiDAR's cloud that was lost: of how many it was made the node alone knows.
            merged = len(self._topics) > 1 and self._told is not None
            answered = self._counted("processed") if merged else self.total.processed
            return max(0, self.total.frames - answered - explained)

    def wait_for_explanations(self, seconds: float) -> None:
        """Waits until the node has told what became of every cloud."""
        deadline = time.monotonic() + seconds
        while self.unexplained() and (remaining := deadline - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait(min(remaining, 0.2))

    def _counted(self, name: str) -> int:
        return (self._told or {}).get(name, 0) - self._told_before.get(name, 0)

    def _answered_by(self, stamp_ns: int) -> list[tuple[str, int]]:
        """The clouds, (topic, stamp) each, that a result is the answer to; none where none has its stamp."""
        found: dict[str, int] = {}
        for topic, stamp in sorted(self._waiting, key=lambda cloud: cloud[1]):
            if 0 <= stamp - stamp_ns <= self._window_ns:
                found.setdefault(topic, stamp)
        return list(found.items()) if stamp_ns in found.values() else []

    def wait(self, clouds: Collection[tuple[str, int]], seconds: float) -> bool:
        """Waits for the result of clouds, (topic, stamp) each; False when one has none within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting.keys() & set(clouds), timeout=seconds)

    def take_second(self) -> Interval:
        """Counts since the last call."""
        with self._changed:
            taken, self._second = self._second, Interval()
            return taken


def percentile(values: list[float], q: float) -> float | None:
    """The q-th percentile, or None without values."""
    return float(np.percentile(values, q)) if values else None
