"""The times at which a bag's messages are played, whatever its recorder's clock has done."""

from __future__ import annotations

import struct

import pytest
from recordings import START_NS as T

from sbnet_perception.bags.reader import BagMessage
from sbnet_perception.desk.timeline import END_NS, Timeline

S = 10**9
HOUR = 3600 * S


def cloud(received: int, stamp: int | None = None) -> BagMessage:
    sec, nanosec = divmod(received if stamp is None else stamp, S)
    return BagMessage("/points", "cloud", received, b"\0\1\0\0" + struct.pack("<II", sec % 2**32, nanosec))


def other(received: int) -> BagMessage:
    return BagMessage("/tf", "tf", received, b"")


@pytest.mark.parametrize(
    ("messages", "times", "length", "said"),
    [
        ([other(T), cloud(T + 1), cloud(T + 9 * S)], [0, 1, 9 * S], 9 * S, ""),
        (
            [other(0), other(0), cloud(T), cloud(T + S)],
            [0, 0, 0, S],
            S,
            "2 messages have receive times 54 years before",
        ),
        ([other(T - HOUR), other(T), cloud(T + S)], [0, 0, S], S, "1 messages have receive times 60 minutes before"),
        (
            [other(0), cloud(0), cloud(T), cloud(T + S)],
            [0, 0, 0, S],
            S,
            "2 messages have receive times 54 years before",
        ),
        (
            [cloud(T), cloud(T + HOUR), cloud(T + HOUR + S)],
            [0, HOUR, HOUR + S],
            S,
            "nothing for 60 minutes after 0.0 s: skipped",
        ),
        (
            [cloud(T), cloud(T + S), other(T - HOUR), cloud(T + S // 2), cloud(T + 2 * S), cloud(END_NS)],
            [0, S, S, S, 2 * S, 2 * S],
            2 * S,
            "3 messages have receive times that go back or are none",
        ),
        ([other(-5), other(2**64 - 1), cloud(T)], [0, 0, 0], 0, "2 messages have receive times"),
        (
            [other(0), cloud(0, T), other(0), cloud(0, T + S)],
            [0, 0, 0, S],
            S,
            "no message has a receive time: clouds are played by their own stamps",
        ),
        ([], [], 0, ""),
    ],
)
def test_times_ascend_from_the_first_cloud_on_and_gaps_are_skipped_and_told(
    messages: list[BagMessage], times: list[int], length: int, said: str
) -> None:
    lines: list[str] = []
    timeline = Timeline(messages, ["/points"], lines.append)
    played = list(timeline)
    assert [message.raw for message in played] == [message.raw for message in messages]
    assert [message.stamp_ns - T for message in played] == times
    assert timeline.start_ns == (T if messages else 0)
    assert not played or timeline.played_ns(played[-1].stamp_ns) == length
    assert len(lines) == bool(said)
    assert said in "".join(lines)


def test_a_bag_full_of_gaps_does_not_flood_the_screen() -> None:
    lines: list[str] = []
    timeline = Timeline([cloud(T + number * HOUR) for number in range(50)], ["/points"], lines.append)
    assert timeline.played_ns(list(timeline)[-1].stamp_ns) == 0
    assert len(lines) == 3
