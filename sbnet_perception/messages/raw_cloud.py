"""sensor_msgs/PointCloud2 read from its CDR bytes without copying the points."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sbnet_perception.messages.cdr import CdrReader, Header


class CloudError(ValueError):
    """A PointCloud2 that cannot be read; the message names the field at fault."""


MOST_FIELDS = 64
"""Fields of a point; drivers send up to twenty."""


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
    """The message of CDR bytes in either byte order; what it says about itself is left to `pointcloud2.read_points`.

    Raises:
        CloudError: the bytes end too early, are no plain CDR, or have more than `MOST_FIELDS` fields or a longer name
            than `text.LONGEST_NAME`.
    """
    try:
        cursor = CdrReader(raw)
        header = cursor.header()
        height, width, count = cursor.numbers("III")
        check_field_count(count)
        fields = tuple(_field(cursor) for _ in range(count))
        is_bigendian = cursor.number("?") != 0
        point_step, row_step = cursor.numbers("II")
        data = cursor.view()
        is_dense = cursor.number("?") != 0
    except (struct.error, UnicodeDecodeError) as error:
        raise CloudError(f"truncated or damaged: the message of {len(raw)} bytes cannot be read ({error})") from error
    except ValueError as error:
        raise CloudError(str(error)) from error
    return RawCloud(header, height, width, fields, is_bigendian, point_step, row_step, data, is_dense)


def check_field_count(count: int) -> None:
    """Raises CloudError where no point has so many fields."""
    if count > MOST_FIELDS:
        raise CloudError(f"{count} fields are announced, a point has at most {MOST_FIELDS}")


def _field(cursor: CdrReader) -> Field:
    return Field(cursor.string(), cursor.number("I"), cursor.number("B"), cursor.number("I"))
