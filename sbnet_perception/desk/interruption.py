"""Ctrl-C at safe points only: nothing that is being written is ever broken off."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """The user, or who started the program, wants it to end."""


class Interruption:
    """Context manager under which SIGINT and SIGTERM, any number of them, only take effect in `check`.

    In a thread other than the main one it changes nothing: Python delivers signals to the main thread.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raises Interrupted once a signal has come."""
        if self._asked:
            raise Interrupted

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in ENDING}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
