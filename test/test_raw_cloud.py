"""A PointCloud2 read from its CDR bytes is the message that rclpy would make of them."""

from __future__ import annotations

import array
import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2, PointField

from sbnet_perception.bags.messages import point_cloud2
from sbnet_perception.bags.types import typestore
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import CloudError, read_cloud

UINT8, UINT32 = st.integers(0, 2**8 - 1), st.integers(0, 2**32 - 1)
NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=9)
FIELDS = st.builds(PointField, name=NAMES, offset=UINT32, datatype=UINT8, count=UINT32)


@st.composite
def messages(draw: st.DrawFn) -> PointCloud2:
    """Any PointCloud2, sensible or not."""
    msg = PointCloud2(height=draw(UINT32), width=draw(UINT32), point_step=draw(UINT32), row_step=draw(UINT32))
    msg.header.stamp.sec = draw(st.integers(-(2**31), 2**31 - 1))
    msg.header.stamp.nanosec, msg.header.frame_id = draw(UINT32), draw(NAMES)
    msg.fields = draw(st.lists(FIELDS, max_size=11))
    msg.is_bigendian, msg.is_dense = draw(st.booleans()), draw(st.booleans())
    msg.data = array.array("B", draw(st.binary(max_size=70)))
    return msg


def plain(msg: Any) -> tuple[Any, ...]:
    stamp = msg.header.stamp
    fields = [(field.name, field.offset, field.datatype, field.count) for field in msg.fields]
    numbers = (msg.height, msg.width, msg.is_bigendian, msg.point_step, msg.row_step, msg.is_dense)
    return stamp.sec, stamp.nanosec, msg.header.frame_id, fields, numbers, bytes(msg.data)


@settings(max_examples=200, deadline=None)
@given(messages())
def test_every_message_is_read_as_rclpy_reads_it_and_every_truncation_is_refused(msg: PointCloud2) -> None:
    raw = serialize_message(msg)
    assert plain(read_cloud(raw)) == plain(deserialize_message(raw, PointCloud2)) == plain(msg)
    for end in range(len(raw)):
        with pytest.raises(CloudError):
            read_cloud(raw[:end])


@settings(max_examples=300, deadline=None)
@given(messages(), st.data())
def test_damaged_bytes_are_read_or_refused_and_nothing_else(msg: PointCloud2, data: st.DataObject) -> None:
    raw = bytearray(serialize_message(msg))
    for _ in range(3):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(UINT8)
    with contextlib.suppress(CloudError):
        read_points(bytes(raw))


@pytest.mark.parametrize("little_endian", [True, False])
def test_either_byte_order_gives_the_points_as_a_view_of_the_message(little_endian: bool) -> None:
    points = np.random.default_rng(2).uniform(-1, 1, (100, 4)).astype(np.float32)
    msg = point_cloud2(points, "lidar", 5_000_000_007)
    raw = bytes(typestore().serialize_cdr(msg, msg.__msgtype__, little_endian=little_endian))
    read = read_cloud(raw)
    assert plain(read) == plain(msg)
    assert np.shares_memory(np.frombuffer(read.data, np.uint8), np.frombuffer(raw, np.uint8))
    np.testing.assert_array_equal(read_points(raw).points, read_points(msg).points)


def test_another_encoding_than_plain_cdr_is_refused_by_its_first_bytes() -> None:
    with pytest.raises(CloudError, match="no plain CDR: it begins with 00 03 00 00"):
        read_cloud(b"\x00\x03\x00\x00" + bytes(100))
