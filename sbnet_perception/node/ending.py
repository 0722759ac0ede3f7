"""How the node's process ends: in order where it can, soon in any case."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LATEST_S = 1.9
"""Seconds after the first signal when the process leaves at once, whatever it is doing: launch_ros sends SIGTERM after
5 s, and a machine that shuts down waits no longer."""


def leave(code: int) -> NoReturn:
    """Ends the process with all its threads at once, after what was printed is written.

    The interpreter's own end takes torch and ROS apart: 0.6 s of computing, seconds beside busy processes, and no end
    at all beneath an inference that does not end, or on a device that does not answer.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Ending:
    """Turns SIGINT and SIGTERM, any number of them, into one request to end.

    A signal only writes a byte into a pipe that a thread reads: nothing is interrupted in its middle, a second signal
    changes nothing, and the thread runs while the main thread is busy in compiled code. (Blocking the signals would not
    do: libraries have started threads at import that do not block them.) If the process is still there `LATEST_S`
    after the first signal, it leaves with code 0.

    Made in the main thread.
    """

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._interrupts = False
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, name="sbnet-ending", daemon=True).start()

    def begin(self) -> None:
        """Asks for the end, from any thread."""
        self._begun.set()

    def wait(self) -> None:
        """Returns when the end is asked for."""
        self._begun.wait()

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within it a signal raises KeyboardInterrupt in the main thread: for work that may be broken off."""
        self._interrupts = True
        try:
            if self._begun.is_set():
                raise KeyboardInterrupt
            yield
        finally:
            self._interrupts = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._interrupts:
            self._interrupts = False
            raise KeyboardInterrupt

    def _watch(self) -> None:
        os.read(self._reader, 1)
        self._begun.set()
        time.sleep(LATEST_S)
        os.write(sys.stderr.fileno(), b"sbnet: something under way did not end in time; leaving at once\n")
        os._exit(0)
