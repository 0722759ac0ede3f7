"""Clouds that a publisher has sent and that never came: DDS itself says nothing about them."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sbnet_perception.node.frame_names import PerSource

SEQUENCE_GAP = "gap in the publisher's numbers"
STAMP_GAP = "gap between stamps"
USUAL = 20
"""Steps between stamps whose median is a sensor's period; fewer than half of them do not tell."""
LONGEST_GAP = 100
"""More periods than this without a cloud are a pause of the sensor, not a loss."""


@dataclass
class _Publisher:
    """Number of the last cloud; `counts` is False once they went back: it numbers the clouds of several."""

    last: int | None = None
    counts: bool = True


@dataclass
class _Sensor:
    last_ns: int | None = None
    steps_ns: collections.deque[int] = field(default_factory=lambda: collections.deque(maxlen=USUAL))


class Losses:
    """Counts what was lost: by the numbers that a publisher gives its messages, where the middleware passes them on
    (rclpy's MessageInfo, from Jazzy on), else by the usual time between a sensor's stamps."""

    def __init__(self) -> None:
        self._publishers = PerSource(lambda _: _Publisher())
        self._sensors = PerSource(lambda _: _Sensor())

    def numbered(self, topic: str, info: Mapping[str, Any]) -> int | None:
        """How many clouds were lost before this one; None where its number does not tell.

        Args:
            info: rclpy's MessageInfo, empty where there is none.
        """
        number = info.get("publication_sequence_number")
        if number is None:
            return None
        gid = info.get("publisher_gid")
        known = self._publishers[topic, gid and bytes(gid["data"])]
        before, known.last = known.last, number
        if before is not None and number <= before:
            known.counts = False
        if not known.counts:
            return None
        return 0 if before is None else number - before - 1

    def stamped(self, source: Hashable, stamp_ns: int) -> int:
        """How many clouds of a sensor are missing before this one, by its usual period."""
        known = self._sensors[source]
        before, known.last_ns = known.last_ns, stamp_ns
        if before is None or stamp_ns <= before:
            return 0
        step = stamp_ns - before
        period = statistics.median_low(known.steps_ns) if len(known.steps_ns) >= USUAL // 2 else step
        known.steps_ns.append(step)
        missing = round(step / period) - 1
        return missing if 0 < missing <= LONGEST_GAP else 0
