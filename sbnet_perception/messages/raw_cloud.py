"""sensor_msgs/PointCloud2 read from its CDR bytes without copying the points.

CDR (OMG's Common Data Representation, as DDS sends it): four bytes that name the byte order, then the fields in their
order, each number aligned to its own size from there on; strings and sequences begin with their length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from sbnet_perception.messages.pointcloud2 import CloudError

ENCAPSULATION = 4
_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}


class Stamp(NamedTuple):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(NamedTuple):
    """std_msgs/Header."""

    stamp: Stamp
    frame_id: str


@dataclass(frozen=True)
class Field:
    """sensor_msgs/PointField."""

    name: str
    offset: int
    datatype: int
    count: int


@dataclass(frozen=True, eq=False)
class RawCloud:
    """sensor_msgs/PointCloud2; ``data`` is a view of the bytes that it was read from."""

    header: Header
    height: int
    width: int
    fields: tuple[Field, ...]
    is_bigendian: bool
    point_step: int
    row_step: int
    data: memoryview
    is_dense: bool


def read_cloud(raw: bytes) -> RawCloud:
    """The message of CDR bytes in either byte order; what it says about itself is left to `pointcloud2.decode`.

    Raises:
        CloudError: the bytes end too early, or are no plain CDR.
    """
    order = _ORDERS.get(raw[:2])
    if order is None:
        raise CloudError(f"the message is no plain CDR: it begins with {raw[:ENCAPSULATION].hex(' ') or 'nothing'}")
    cursor = _Cursor(raw, order)
    try:
        stamp = Stamp(*cursor.numbers("iI"))
        header = Header(stamp, cursor.string())
        height, width, count = cursor.numbers("III")
        fields = tuple(_field(cursor) for _ in range(count))
        is_bigendian = cursor.number("?") != 0
        point_step, row_step = cursor.numbers("II")
        data = cursor.view()
        is_dense = cursor.number("?") != 0
    except (struct.error, UnicodeDecodeError) as error:
        raise CloudError(f"truncated or damaged: the message of {len(raw)} bytes cannot be read ({error})") from error
    return RawCloud(header, height, width, fields, is_bigendian, point_step, row_step, data, is_dense)


def _field(cursor: _Cursor) -> Field:
    return Field(cursor.string(), cursor.number("I"), cursor.number("B"), cursor.number("I"))


class _Cursor:
    """Reads one value after the other; struct.error past the end."""

    def __init__(self, raw: bytes, order: str) -> None:
        self._body = memoryview(raw)[ENCAPSULATION:]
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
        """Length, UTF-8, and a zero that the length includes."""
        return bytes(self.view()).removesuffix(b"\0").decode()
