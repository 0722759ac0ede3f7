"""Headers of incoming clouds: which ones are usable, in order, and when time began anew."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from sbnet_perception.node.frame_names import PerSource
from sbnet_perception.node.status import Dropped, Rejected

JUMP_BACK_NS = 1_000_000_000
"""Older than the last message by more than this: time began anew (a bag loops); by less: it came late."""
JUMP_FORWARD_NS = 10_000_000_000
SETTLED = 10
"""Clouds in order after which a jump of time lies behind a source."""
PERSISTENT = 3
"""Clouds in a row that go on where the time before a jump ended: there was no jump, but a wrong stamp or two."""


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


@dataclass
class _Source:
    """The clouds of one LiDAR.

    Attributes:
        last_ns: stamp of the last one that was let through; None before the first.
        era: the jumps of time that it has made, or that were over before it came.
        in_order: clouds let through since the last jump.
        behind: those let through since another LiDAR made a jump that this one has not made.
        before_ns: where its time was before the last jump; None once that is long ago.
        strays: clouds in a row that went on from there.
    """

    last_ns: int | None = None
    era: int = 0
    in_order: int = 0
    behind: int = 0
    before_ns: int | None = None
    strays: int = 0


class Gate:
    """Lets clouds through in the order of their stamps, each LiDAR's for itself.

    Args:
        era: where to go on counting.

    Attributes:
        era: how often time has jumped. All LiDARs of a looping bag jump, each when its next cloud comes: that is one.
    """

    def __init__(self, era: int = 0) -> None:
        self.era = era
        self._sources = PerSource(lambda _: _Source())

    def check(self, header: Any, source: Hashable) -> int:
        """How far time jumped before this cloud, in nanoseconds; 0 when it did not, or when that is known already.

        Args:
            header: std_msgs/Header.
            source: what tells a LiDAR from the others: its topic and frame_id.

        Raises:
            Rejected: no frame_id, or no valid stamp.
            Dropped: the stamp is that of an earlier cloud of this source, lies a little before its last one, or is of
                another clock.
        """
        if not header.frame_id:
            raise Rejected("frame_id empty", "the cloud does not say in which frame it is; set frame_id in the driver")
        sec, nanosec = header.stamp.sec, header.stamp.nanosec
        now_ns = stamp_ns(header.stamp)
        if sec < 0 or nanosec >= 10**9 or now_ns == 0:
            raise Rejected("stamp invalid", f"stamp is {sec} s {nanosec} ns; set it in the driver")
        known = self._sources[source]
        if known.last_ns is None:
            known.last_ns, known.era = now_ns, self.era
            return 0
        step = now_ns - known.last_ns
        if step == 0:
            raise Dropped("duplicate stamp", f"a cloud of {now_ns / 1e9:.3f} s came already")
        if -JUMP_BACK_NS <= step < 0:
            raise Dropped("out of order", f"the cloud is {-step / 1e6:.1f} ms older than the one before")
        if 0 < step <= JUMP_FORWARD_NS:
            self._in_order(known, now_ns)
            return 0
        self._refuse_stray(known, now_ns, step)
        return self._jumped(known, now_ns, step)

    def _in_order(self, known: _Source, now_ns: int) -> None:
        known.last_ns = now_ns
        known.strays = 0
        known.in_order += 1
        if known.in_order >= SETTLED:
            known.before_ns = None
        if known.era < self.era:
            known.behind += 1
            if known.behind >= SETTLED:
                known.era, known.behind = self.era, 0

    def _refuse_stray(self, known: _Source, now_ns: int, step: int) -> None:
        """A cloud that goes on where the time before the last jump ended is no jump back again, unless they persist."""
        if known.before_ns is None or not 0 <= now_ns - known.before_ns <= JUMP_FORWARD_NS:
            return
        known.strays += 1
        if known.strays < PERSISTENT:
            known.before_ns, known.in_order = now_ns, 0
            other = f"stamps jump to and fro by {abs(step) / 1e9:.3f} s: two publishers with two clocks on one topic?"
            raise Dropped("stamp of another clock", other)

    def _jumped(self, known: _Source, now_ns: int, step: int) -> int:
        known.before_ns, known.last_ns = known.last_ns, now_ns
        known.in_order = known.strays = known.behind = 0
        if known.era < self.era:
            # Another LiDAR has told it.
            known.era = self.era
            return 0
        self.era += 1
        known.era = self.era
        return step

    def clock_is(self, now_ns: int) -> bool:
        """Takes note of the node's clock after a jump; True when clouds so far lie in its future.

        Where the clouds then jump too, it is the same jump.
        """
        current = (known.last_ns for known in self._sources if known.era == self.era and known.last_ns is not None)
        if not any(last_ns > now_ns + JUMP_BACK_NS for last_ns in current):
            return False
        self.era += 1
        return True
