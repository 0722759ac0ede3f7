"""What comes with a message is bounded before it costs anything, and shown so that it can do no harm."""

from __future__ import annotations

import struct
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sbnet_perception.bags.messages import occupancy_grid, point_cloud2
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap
from sbnet_perception.messages.cdr import CdrWriter
from sbnet_perception.messages.fields import FLOAT32, describe
from sbnet_perception.messages.occupancy_grid import MaskError, road_from_occupancy_grid
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import MOST_FIELDS, CloudError, Field, read_cloud
from sbnet_perception.node.status import Throttle
from sbnet_perception.text import LONGEST_NAME, one_line, printable, quoted

FORGED = "x\n[FATAL] [1700000000.0] [sbnet]: brakes released\x1b[2J\x1b]0;owned\x07\u202e\u2028\r"


def cloud_bytes(frame_id: bytes = b"lidar", names: tuple[bytes, ...] = (b"x",), repeated: int = 1) -> bytes:
    """CDR of a cloud without points."""
    out = CdrWriter()
    out.numbers(struct.Struct("<iI"), 4, 1, 1)
    out.string(frame_id)
    out.numbers(struct.Struct("<III"), 4, 1, 0, len(names) * repeated)
    for name in names * repeated:
        out.string(name)
        out.numbers(struct.Struct("<I"), 4, 0)
        out.numbers(struct.Struct("<B"), 1, FLOAT32)
        out.numbers(struct.Struct("<I"), 4, 1)
    out.numbers(struct.Struct("<?"), 1, False)
    out.numbers(struct.Struct("<II"), 4, 4, 0)
    out.data(b"")
    out.numbers(struct.Struct("<?"), 1, True)
    return out.message()


@given(st.text() | st.just(FORGED) | st.text("\x1b\n\u202e\ud800", max_size=3000))
def test_shown_text_is_one_short_printable_line(text: str) -> None:
    for shown, longest in ((quoted(text), 900), (one_line(text), 10_100)):
        assert shown.isprintable() and len(shown) <= longest
    assert quoted(text)[0] in "'\"" and (one_line(text) == text or not text.isprintable() or len(text) > 1000)


def test_a_message_for_a_terminal_keeps_its_lines_and_nothing_else_that_steers_it() -> None:
    shown = printable(f"a\nb {FORGED}")
    assert shown.count("\n") == 2 and shown.replace("\n", "").isprintable() and shown.startswith("a\nb x\n[FATAL]")


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (cloud_bytes(frame_id=b"f" * 4_000_000), "a name of 4000000 bytes begins with b'ffff.*255 are allowed"),
        (cloud_bytes(frame_id=b"f" * 256), "a name of 256 bytes"),
        (cloud_bytes(names=(b"n" * 300,)), "a name of 300 bytes"),
        (cloud_bytes(repeated=300_000), "300000 fields are announced, a point has at most 64"),
        (cloud_bytes(repeated=MOST_FIELDS + 1), "65 fields"),
        (cloud_bytes()[:20] + b"\xff" * 40, "cannot be read"),
    ],
    ids=["4 MB frame_id", "frame_id of 256", "name of 300", "300000 fields", "65 fields", "huge lengths"],
)
def test_a_cloud_with_too_many_or_too_long_names_is_refused_by_a_short_sentence_at_once(
    raw: bytes, reason: str
) -> None:
    started = time.thread_time()
    with pytest.raises(CloudError, match=reason) as refused:
        read_points(raw)
    assert len(str(refused.value)) < 300 and time.thread_time() - started < 0.5


def test_names_at_the_bounds_are_read() -> None:
    names = tuple(b"%d" % number + b"n" * (LONGEST_NAME - len(b"%d" % number)) for number in range(MOST_FIELDS))
    assert len(read_cloud(cloud_bytes(b"f" * LONGEST_NAME, names)).fields) == MOST_FIELDS


def test_a_message_object_with_too_many_fields_is_refused_too() -> None:
    message = point_cloud2(np.zeros((1, 4), np.float32), "lidar", 1)
    message.fields = message.fields * 1000
    with pytest.raises(CloudError, match="4000 fields"):
        read_points(message)


def test_the_names_of_fields_in_a_complaint_are_quoted_and_few() -> None:
    fields = [Field(FORGED, 0, FLOAT32, 1), Field("y" * 200, 4, 99, 1), *(Field("z", 8, FLOAT32, 1) for _ in range(60))]
    listing = describe(fields)
    assert listing.isprintable() and "[FATAL]" in listing and "and 50 more" in listing and len(listing) < 700
    message = point_cloud2(np.zeros((1, 4), np.float32), "lidar", 1)
    message.fields = [SimpleNamespace(name=FORGED, offset=60, datatype=FLOAT32, count=1)]
    with pytest.raises(CloudError) as refused:
        read_points(message)
    assert str(refused.value).isprintable()


ROAD = RoadMap(torch.ones(2, 2, dtype=torch.bool), 0.5, SE2())


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda m: setattr(m.info.origin.position, "x", 1e300), "origin must be finite and within 1e.08 m, got 1e.300"),
        (lambda m: setattr(m.info.origin.position, "y", -2e8), "origin must be"),
        (lambda m: setattr(m.info, "resolution", 1e-40), "road resolution must be from 0.001 to 1000 m"),
        (lambda m: setattr(m.info, "resolution", 1e30), "road resolution"),
        (lambda m: setattr(m.info, "resolution", float("inf")), "road resolution"),
        (lambda m: setattr(m.info, "resolution", float("nan")), "road resolution"),
        (lambda m: setattr(m.info, "width", 2**32 - 1), "data holds 4 cells"),
        (lambda m: setattr(m.header, "frame_id", "m" * 4_000_000), "frame_id is longer than 255 bytes"),
        (lambda m: setattr(m.header, "frame_id", "\u00e9" * 200), "frame_id is longer than 255 bytes"),
    ],
)
def test_an_occupancy_grid_that_no_map_server_sends_is_refused_by_its_field(spoil, reason) -> None:  # type: ignore[no-untyped-def]
    message = occupancy_grid(ROAD, "map", 1)
    assert road_from_occupancy_grid(message).cells.all()
    spoil(message)
    with pytest.raises(MaskError, match=reason) as refused:
        road_from_occupancy_grid(message)
    assert len(str(refused.value)) < 300


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_are_few_whatever_their_kinds_and_whoever_resets_them() -> None:
    clock = Clock()
    throttle = Throttle(seconds=5.0, most=32, clock=clock)
    said = 0
    for message in range(100_000):  # 1000 s of 100 Hz, each of another kind, every second one a time jump
        clock.now += 0.01
        said += throttle.ready(f"found in frame {message}")
        said += message % 2 and throttle.reset()
    assert len(throttle._kinds) <= 32
    assert said <= (4 + 1000 / 5) * (32 + 1) + 1000 / 5 * 32  # a line of each kind for each reset and each period


def test_a_kind_is_said_once_per_period_and_again_after_a_reset() -> None:
    clock = Clock()
    throttle = Throttle(seconds=5.0, clock=clock)
    assert throttle.ready("a") and not throttle.ready("a") and throttle.ready("b")
    assert throttle.reset() and throttle.ready("a")
    clock.now = 5.0
    assert throttle.ready("a")
    assert [throttle.ready("road", 3) for _ in range(5)] == [True] * 3 + [False] * 2
    clock.now = 10.0
    assert [throttle.ready("road", 3) for _ in range(2)] == [True, False]
