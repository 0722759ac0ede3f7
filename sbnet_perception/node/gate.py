"""Headers of incoming clouds: which ones are usable, in order, and when time began anew."""

from __future__ import annotations

from typing import Any

from sbnet_perception.node.status import Dropped, Rejected

JUMP_BACK_NS = 1_000_000_000
"""Older than the last message by more than this: time began anew (a bag loops); by less: it came late."""
JUMP_FORWARD_NS = 10_000_000_000


def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time in nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


class Gate:
    """Lets clouds through in the order of their stamps."""

    def __init__(self) -> None:
        self.last_ns: int | None = None

    def check(self, header: Any) -> int:
        """How far time jumped before this cloud, in nanoseconds; 0 when it did not.

        Raises:
            Rejected: no frame_id, or no valid stamp.
            Dropped: the stamp is that of an earlier cloud, or lies a little before the last one.
        """
        if not header.frame_id:
            raise Rejected("frame_id empty", "the cloud does not say in which frame it is; set frame_id in the driver")
        sec, nanosec = header.stamp.sec, header.stamp.nanosec
        now_ns = stamp_ns(header.stamp)
        if sec < 0 or nanosec >= 10**9 or now_ns == 0:
            raise Rejected("stamp invalid", f"stamp is {sec} s {nanosec} ns; set it in the driver")
        if self.last_ns is None:
            self.last_ns = now_ns
            return 0
        step = now_ns - self.last_ns
        if step == 0:
            raise Dropped("duplicate stamp", f"a cloud of {now_ns / 1e9:.3f} s came already")
        if -JUMP_BACK_NS <= step < 0:
            raise Dropped("out of order", f"the cloud is {-step / 1e6:.1f} ms older than the one before")
        self.last_ns = now_ns
        return step if step < 0 or step > JUMP_FORWARD_NS else 0

    def clock_is(self, now_ns: int) -> bool:
        """Takes note of the node's clock after a jump; True when the clouds so far lie in its future."""
        if self.last_ns is None or self.last_ns <= now_ns + JUMP_BACK_NS:
            return False
        self.last_ns = None
        return True
