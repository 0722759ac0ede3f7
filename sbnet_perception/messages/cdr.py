"""Messages as the CDR bytes that DDS sends: as Python objects they take several times as long to make, send and read.

CDR is OMG's Common Data Representation: four bytes that name the byte order, then the fields in their order, each
number aligned to its own size from there on; strings and sequences begin with their length.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from sbnet_perception.text import LONGEST_NAME

_ENCAPSULATION = b"\x00\x01\x00\x00"
_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}
_LENGTH = struct.Struct("<I")
_STAMP = struct.Struct("<iI")


class Stamp(NamedTuple):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(NamedTuple):
    """std_msgs/Header."""

    stamp: Stamp
    frame_id: str


class CdrWriter:
    """Appends little-endian fields in the order of a message's definition."""

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

    def header(self, header: Any) -> None:
        """std_msgs/Header, or what looks like one."""
        self.numbers(_STAMP, 4, header.stamp.sec, header.stamp.nanosec)
        self.string(header.frame_id.encode())

    def message(self) -> bytes:
        """All of it."""
        return bytes(self._out)

    def _align(self, size: int) -> None:
        self._out += b"\0" * ((len(_ENCAPSULATION) - len(self._out)) % size)


class CdrReader:
    """Reads one field after the other, in either byte order.

    Raises:
        ValueError: the bytes are no plain CDR, or a name is too long. Past the end reading raises struct.error.
    """

    def __init__(self, raw: bytes) -> None:
        order = _ORDERS.get(raw[:2])
        if order is None:
            raise ValueError(f"the message is no plain CDR: it begins with {raw[:4].hex(' ') or 'nothing'}")
        self._body = memoryview(raw)[len(_ENCAPSULATION) :]
        self._order = order
        self._at = 0

    def numbers(self, kinds: str) -> tuple[int, ...]:
        """Numbers of one size (letters of `struct`), aligned to it."""
        layout = self._order + kinds
        size = struct.calcsize(layout)
        each = size // len(kinds)
        start = -(-self._at // each) * each
        values = struct.unpack_from(layout, self._body, start)
        self._at = start + size
        return values

    def number(self, kind: str) -> int:
        return self.numbers(kind)[0]

    def view(self) -> memoryview:
        """A sequence of bytes."""
        size = self.number("I")
        if size > len(self._body) - self._at:
            raise struct.error(f"{size} bytes announced, {len(self._body) - self._at} are there")
        self._at += size
        return self._body[self._at - size : self._at]

    def string(self) -> str:
        """A name: length, UTF-8, and a zero that the length includes.

        Raises:
            ValueError: it is longer than `LONGEST_NAME`.
        """
        raw = self.view()
        if len(raw) > LONGEST_NAME + 1:
            begin = bytes(raw[:20])
            raise ValueError(f"a name of {len(raw) - 1} bytes begins with {begin!r}, {LONGEST_NAME} are allowed")
        return bytes(raw).removesuffix(b"\0").decode()

    def header(self) -> Header:
        """std_msgs/Header."""
        return Header(Stamp(*self.numbers("iI")), self.string())
