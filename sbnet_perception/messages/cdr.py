"""Messages written as the CDR bytes that DDS sends: as Python objects they take several times as long to make and send.

Little-endian; behind the four bytes that say so, every number is aligned to its own size.
"""

from __future__ import annotations

import struct

_ENCAPSULATION = b"\x00\x01\x00\x00"
_LENGTH = struct.Struct("<I")


class CdrWriter:
    """Appends fields in the order of a message's definition."""

    def __init__(self) -> None:
        self._out = bytearray(_ENCAPSULATION)

    def numbers(self, layout: struct.Struct, alignment: int, *values: float) -> None:
        """A run of little-endian numbers without gaps, the first of them `alignment` bytes large."""
        self._align(alignment)
        self._out += layout.pack(*values)

    def length(self, count: int) -> None:
        """What a sequence begins with; its items follow."""
        self.numbers(_LENGTH, 4, count)

    def data(self, values: bytes) -> None:
        """A whole sequence of single bytes."""
        self.length(len(values))
        self._out += values

    def string(self, text: bytes) -> None:
        """UTF-8; the zero behind it counts."""
        self.data(text + b"\0")

    def message(self) -> bytes:
        """All of it."""
        return bytes(self._out)

    def _align(self, size: int) -> None:
        self._out += b"\0" * ((len(_ENCAPSULATION) - len(self._out)) % size)
