"""Recording a replay: inputs and outputs in one file, whatever the disk does."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from sbnet_perception.bags.writer import BagWriter

RESERVE_BYTES = 64 * 2**20
"""Recording ends while this much of the disk is still free: the index must find room, and others too."""
_CHECK_EVERY_BYTES = 8 * 2**20


class Recorder:
    """Writes messages to one MCAP file until it is closed or the disk is nearly full.

    A full disk ends the recording with one warning and never the replay; what was written stays readable.

    Attributes:
        complete: False once anything was left out.
        messages: how many were written.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self.complete = True
        self.messages = 0
        self._warn = warn
        self._lock = threading.Lock()
        self._writer: BagWriter | None = BagWriter(path, overwrite=True)
        self._unchecked = _CHECK_EVERY_BYTES

    def write(self, topic: str, msgtype: str, stamp_ns: int, raw: bytes) -> None:
        """Appends the CDR bytes of one message."""
        with self._lock:
            if self._writer is None:
                return
            try:
                if self._disk_is_full(len(raw)):
                    self._stop(f"less than {RESERVE_BYTES >> 20} MB of disk are free")
                    return
                self._writer.write(topic, raw, stamp_ns, msgtype)
                self.messages += 1
            except OSError as error:
                self._stop(error.strerror or str(error))

    def close(self) -> None:
        """Writes the index and closes the file; a second call does nothing."""
        with self._lock:
            if self._writer is None:
                return
            try:
                self._writer.close()
            except OSError as error:
                self.complete = False
                self._warn(f"{self.path} has no index ({error.strerror or error}); its messages stay readable")
            self._writer = None

    def _disk_is_full(self, size: int) -> bool:
        self._unchecked += size
        if self._unchecked < _CHECK_EVERY_BYTES:
            return False
        self._unchecked = 0
        return shutil.disk_usage(self.path.parent).free < RESERVE_BYTES

    def _stop(self, reason: str) -> None:
        """Ends the recording (the lock is held); the replay goes on."""
        assert self._writer is not None
        writer, self._writer = self._writer, None
        self.complete = False
        self._warn(
            f"recording to {self.path} ends after {self.messages} messages: {reason}. Detection goes on; "
            f"what was written stays readable."
        )
        try:
            writer.close()
        except OSError:
            # The index did not fit; BagReader reads the messages before it all the same.
            return
