"""The warnings and errors of a node, once each, and how often it logged them."""

from __future__ import annotations

import collections
import re

MOST = 12
"""Complaints that are kept; a node that has more to say has said enough."""


class Complaints:
    """Keeps the first of all complaints that differ in figures alone."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._count: collections.Counter[str] = collections.Counter()
        self._beyond = False

    def add(self, text: str) -> None:
        kind = re.sub(r"[\d.]+", "#", text)
        if kind in self._first or len(self._first) < MOST:
            self._first.setdefault(kind, text)
            self._count[kind] += 1
        else:
            self._beyond = True

    @property
    def lines(self) -> tuple[str, ...]:
        """In the order of their first time."""
        told = (f"{self._count[kind]} x {text}" for kind, text in self._first.items())
        return (*told, *(("and others, see above",) if self._beyond else ()))
