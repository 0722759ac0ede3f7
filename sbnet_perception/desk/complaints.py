"""The warnings and errors of a node, once each."""

from __future__ import annotations

import re

MOST = 12
"""Complaints that are kept; a node that has more to say has said enough."""


class Complaints:
    """Keeps the first of all complaints that differ in figures alone."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._beyond = False

    def add(self, text: str) -> None:
        kind = re.sub(r"[\d.]+", "#", text)
        if len(self._first) < MOST:
            self._first.setdefault(kind, text)
        elif kind not in self._first:
            self._beyond = True

    @property
    def lines(self) -> tuple[str, ...]:
        """In the order of their first time."""
        return (*self._first.values(), *(("and others, see above",) if self._beyond else ()))
