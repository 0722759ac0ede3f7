"""The times at which a bag's messages are played, whatever its recorder's clock has done.

A recorder of simulated time stamps with 0 what comes before the first /clock; a clock that is set by NTP jumps; a
recorder that was paused leaves an hour's gap. None of it is waited for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator

from sbnet_perception.bags.reader import BagMessage
from sbnet_perception.desk.results import stamp_of

GAP_NS = 10 * 10**9
"""A longer time without a message is skipped: what is played has clouds several times a second."""
END_NS = 2**31 * 10**9
"""ROS counts seconds in 31 bits; a later time is none."""
_LOOK_AHEAD_BYTES = 2**28
_SAID = 3


class Timeline:
    """Iterates over messages with usable times, ascending: 0 to 2^31 s, no gap before the first cloud.

    Args:
        messages: of the bag, as read.
        points: the topics of the clouds.
        say: is told of each gap and of what else was mended, in one line each, the first few times.

    Attributes:
        start_ns: time of the first message; known before the iteration.
        skipped_ns: the gaps passed so far, which nobody waits for.
    """

    def __init__(self, messages: Iterable[BagMessage], points: Collection[str], say: Callable[[str], None]) -> None:
        self._say = say
        self._points = points
        self._gaps = 0
        self._by_stamps = False
        self.skipped_ns = 0
        self._rest = iter(messages)
        self._ahead = self._look_ahead()
        self.start_ns = self._ahead[0].stamp_ns if self._ahead else 0

    def __iter__(self) -> Iterator[BagMessage]:
        now = self.start_ns
        backwards = 0
        for message in itertools.chain(self._ahead, self._rest):
            stamp = self._time_of(message, now)
            if not now <= stamp < END_NS:
                backwards += 1
                stamp = now
            elif stamp - now > GAP_NS:
                self._tell_gap(f"nothing for {_span(stamp - now)} after {_span(self.played_ns(now))}: skipped")
                self.skipped_ns += stamp - now
            now = stamp
            yield message._replace(stamp_ns=stamp)
        if backwards:
            self._say(f"{backwards} messages have receive times that go back or are none: played at once")

    def played_ns(self, stamp_ns: int) -> int:
        """From the first message to this time, without the gaps."""
        return stamp_ns - self.start_ns - self.skipped_ns

    def _look_ahead(self) -> list[BagMessage]:
        """The messages up to the first cloud that has a time; those before a gap get the time after it."""
        ahead: list[BagMessage] = []
        size = 0
        for message in self._rest:
            ahead.append(message)
            size += len(message.raw)
            if (message.topic in self._points and message.stamp_ns > 0) or size > _LOOK_AHEAD_BYTES:
                break
        times = [message.stamp_ns if 0 <= message.stamp_ns < END_NS else 0 for message in ahead]
        if ahead and not any(times):
            self._by_stamps = True
            first = next((message for message in ahead if message.topic in self._points), None)
            times = [0 if first is None else stamp_of(first.raw)] * len(ahead)
            self._say("no message has a receive time: clouds are played by their own stamps")
        gaps = (number for number in range(1, len(times)) if times[number] - times[number - 1] > GAP_NS)
        begin = max(gaps, default=0)
        if begin:
            earlier = _span(times[begin] - times[0])
            self._say(f"{begin} messages have receive times {earlier} before the rest: played at its beginning")
        return [m._replace(stamp_ns=times[max(begin, number)]) for number, m in enumerate(ahead)]

    def _time_of(self, message: BagMessage, now: int) -> int:
        if not self._by_stamps:
            return message.stamp_ns
        return stamp_of(message.raw) if message.topic in self._points else now

    def _tell_gap(self, text: str) -> None:
        self._gaps += 1
        if self._gaps <= _SAID:
            self._say(text + (" (further gaps are not told)" if self._gaps == _SAID else ""))


def _span(ns: int) -> str:
    """A duration for people."""
    seconds = ns / 1e9
    for unit, length in (("years", 31_557_600), ("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"
