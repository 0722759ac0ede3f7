"""What the device says of the wrappers in ``ops/cuda/device.h``, beside what the header for the CPU says."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """Values of one wrapper that are not the same.

    Attributes:
        name: of the wrapper.
        values: how many it has.
        different: how many of them differ, or are missing on one side.
        first: the first of these: its number, what the device says and what is expected.
    """

    name: str
    values: int
    different: int
    first: tuple[int, str | None, str | None] | None


def values_of(said: str) -> dict[str, list[str]]:
    """Name -> values of the output of ``wrappers``."""
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        if parts := re.fullmatch(r"(.+)\[\d+\]((?: [0-9a-f]+)+)", line):
            found.setdefault(parts[1], []).extend(parts[2].split())
    return found


def compare(device: str, expected: str) -> list[Difference]:
    """One entry for each wrapper of the expected output, then those that only the device has."""
    ours, theirs = values_of(device), values_of(expected)
    return [_difference(name, ours.get(name, []), theirs.get(name, [])) for name in {**theirs, **ours}]


def _difference(name: str, ours: list[str], theirs: list[str]) -> Difference:
    pairs = list(enumerate(itertools.zip_longest(ours, theirs)))
    wrong = [(number, *pair) for number, pair in pairs if pair[0] != pair[1]]
    return Difference(name, len(pairs), len(wrong), wrong[0] if wrong else None)
