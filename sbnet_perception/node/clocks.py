"""Stamps beside the node's own clock."""

from __future__ import annotations

NOTABLE_S = 1.0
"""A stamp this far from the node's clock is worth a word where a transform is missing."""


def clock_remark(stamp_ns: int, now_ns: int) -> str:
    """What to look at where a cloud's transform is not known and its stamp is far from the node's clock; else empty."""
    apart_s = (stamp_ns - now_ns) / 1e9
    if abs(apart_s) < NOTABLE_S:
        return ""
    side = "ahead of" if apart_s > 0 else "behind"
    return (
        f"; the cloud's stamp is {abs(apart_s):.1f} s {side} the node's clock: set the clocks of sensor and computer "
        "by one source (PTP, NTP), or use_sim_time where a recording plays"
    )
