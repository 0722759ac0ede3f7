"""What came back for which cloud, and when: the bookkeeping behind the report of a replay."""

from __future__ import annotations

import struct
import threading
import time
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


class Results:
    """Matches results to clouds by stamp. All methods may be called from any thread.

    Attributes:
        total: counts of the whole drive.
        unmatched: results whose stamp belongs to no cloud that was published.
    """

    def __init__(self) -> None:
        self.total = Interval()
        self.unmatched = 0
        self._second = Interval()
        self._waiting: dict[int, float] = {}
        self._changed = threading.Condition()

    def published(self, stamp_ns: int) -> None:
        """A cloud leaves for the node: call just before publishing it."""
        with self._changed:
            self._waiting[stamp_ns] = time.monotonic()
            for counts in (self.total, self._second):
                counts.frames += 1

    def detected(self, stamp_ns: int, count: int, now: float) -> None:
        """The detections of a cloud have arrived, at `now` (time.monotonic)."""
        with self._changed:
            sent = self._waiting.pop(stamp_ns, None)
            if sent is None:
                self.unmatched += 1
                return
            for counts in (self.total, self._second):
                counts.processed += 1
                counts.detections += count
                counts.latencies_ms.append(1000.0 * (now - sent))
            self._changed.notify_all()

    def computed(self, fraction: float) -> None:
        """The computation mask of a frame has arrived: the fraction (0-1) of the grid that was computed."""
        with self._changed:
            for counts in (self.total, self._second):
                counts.computed.append(fraction)

    def wait(self, stamp_ns: int, seconds: float) -> bool:
        """Waits for the result of a cloud; False when it has not come within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: stamp_ns not in self._waiting, timeout=seconds)

    def take_second(self) -> Interval:
        """Counts since the last call."""
        with self._changed:
            taken, self._second = self._second, Interval()
            return taken


def percentile(values: list[float], q: float) -> float | None:
    """The q-th percentile, or None without values."""
    return float(np.percentile(values, q)) if values else None
