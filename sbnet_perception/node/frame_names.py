"""Names of frames, and things kept for each of them."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from sbnet_perception.text import quoted

MOST_KEYS = 64
"""Sources that are told apart at a time: far more than a vehicle has LiDARs, and few enough for hostile names."""

Value = TypeVar("Value")


def frame_name(frame_id: str) -> str:
    """A frame's name without the slash that ROS 1 wrote before it and that tf2 forbids."""
    return frame_id.lstrip("/")


class PerSource(Generic[Value]):
    """One value for each source (a topic, a frame); the one unused longest goes.

    Args:
        make: the value of a source that is asked for the first time.
    """

    def __init__(self, make: Callable[[Any], Value]) -> None:
        self._make = make
        self._values: collections.OrderedDict[Hashable, Value] = collections.OrderedDict()

    def __getitem__(self, source: Hashable) -> Value:
        if source not in self._values:
            self._values[source] = self._make(source)
            if len(self._values) > MOST_KEYS:
                self._values.popitem(last=False)
        self._values.move_to_end(source)
        return self._values[source]

    def __iter__(self) -> Iterator[Value]:
        return iter(list(self._values.values()))


class FrameNames:
    """Frame ids as tf2 has them; says once for each that its slash is left out."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def __call__(self, frame_id: str) -> str:
        name = frame_name(frame_id)
        if name != frame_id and frame_id not in self._said and len(self._said) < MOST_KEYS:
            self._said.add(frame_id)
            taken = f"frame_id {quoted(frame_id)} is taken for {quoted(name)}"
            self._say(f"{taken}: tf2 forbids the slash before a frame's name")
        return name
