"""Decoding PointCloud2: every layout that is right, no layout that is wrong."""

from __future__ import annotations

import array
import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bags.messages import point_cloud2
from sbnet_perception.bags.types import typestore
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import CloudError

FLOATS = {"f4": 7, "f8": 8}
CODES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, **FLOATS}


def field(name: str, offset: int, datatype: int, count: int = 1) -> Any:
    return typestore().types["sensor_msgs/msg/PointField"](name, offset, datatype, count)


def cloud(points: int = 200, **changes: Any) -> Any:
    """A valid cloud of random points with intensity 0-255, with some of its members replaced."""
    rng = np.random.default_rng(7)
    values = rng.uniform((-50, -50, -3, 0), (50, 50, 3, 1), (points, 4)).astype(np.float32)
    msg = point_cloud2(values, "lidar", 123)
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Any, np.ndarray]:
    """A message of a random layout and the points that it must decode to."""
    formats = {n: draw(st.sampled_from(list(FLOATS))) for n in "xyz"}
    formats["intensity"] = draw(st.sampled_from(list(CODES)))
    extras = draw(st.lists(st.tuples(st.sampled_from(list(CODES)), st.integers(1, 4)), max_size=3))
    entries = [(n, f, 1) for n, f in formats.items()] + [(f"extra{i}", f, c) for i, (f, c) in enumerate(extras)]
    entries = draw(st.permutations(entries))

    order = draw(st.sampled_from("<>"))
    offset, fields, spec = 0, [], {}
    for name, fmt, count in entries:
        offset += draw(st.integers(0, 5))
        fields.append(field(name, offset, CODES[fmt], count))
        spec[name] = (np.dtype(f"({count},){order}{fmt}") if count > 1 else np.dtype(order + fmt), offset)
        offset += int(fmt[1]) * count
    step = offset + draw(st.integers(0, 9))

    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    padding = draw(st.integers(0, 11))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.dtype({"names": list(spec), "formats": [s[0] for s in spec.values()],
                      "offsets": [s[1] for s in spec.values()], "itemsize": step})  # fmt: skip
    table = rng.integers(0, 256, (height, width * step), dtype=np.uint8).view(dtype)
    expected = np.zeros((height * width, 4), np.float32)
    for column, name in enumerate(("x", "y", "z", "intensity")):
        high = 127 if formats[name] == "i1" else 255
        whole = rng.integers(0, high, (height, width))
        table[name] = whole if name == "intensity" else whole + rng.normal(0, 1, (height, width))
        expected[:, column] = table[name].reshape(-1)
    expected[:, 3] *= np.float32(1 / 255)
    rows = np.pad(table.view(np.uint8), ((0, 0), (0, padding)), constant_values=255)
    msg = cloud(0, height=height, width=width, fields=fields, is_bigendian=order == ">", point_step=step,
                row_step=width * step + padding, data=rows.reshape(-1))  # fmt: skip
    return msg, expected


@pytest.mark.fault(11)
@settings(max_examples=150, deadline=None)
@given(layouts())
def test_any_layout_byte_order_and_padding_decodes_to_its_points(case: tuple[Any, np.ndarray]) -> None:
    msg, expected = case
    before = bytes(msg.data)
    result = read_points(msg)
    np.testing.assert_array_equal(result.points, expected)
    assert bytes(msg.data) == before
    assert result.points.dtype == np.float32
    assert result.points.flags.writeable


@pytest.mark.fault(9)
@settings(max_examples=60, deadline=None)
@given(layouts(), st.integers(1, 60))
def test_more_points_than_the_limit_are_thinned_evenly_with_a_warning(case: tuple[Any, np.ndarray], limit: int) -> None:
    msg, expected = case
    result = read_points(msg, max_points=limit)
    stride = -(-len(expected) // limit)
    np.testing.assert_array_equal(result.points, expected[::stride])
    assert len(result.points) <= limit
    assert any("max_points" in warning for warning in result.warnings) == (stride > 1)


def test_a_packed_cloud_beyond_the_limit_is_thinned_like_any_other() -> None:
    msg = cloud(200)
    result = read_points(msg, max_points=70)
    np.testing.assert_array_equal(result.points, read_points(msg).points[::3])
    assert any("max_points" in warning for warning in result.warnings)


def test_encode_and_decode_return_the_same_points() -> None:
    points = np.random.default_rng(3).uniform(-1, 1, (500, 4)).astype(np.float32)
    msg = point_cloud2(points, "lidar", 5_000_000_007)
    assert (msg.header.stamp.sec, msg.header.stamp.nanosec, msg.header.frame_id) == (5, 7, "lidar")
    assert (msg.point_step, msg.row_step, msg.height, msg.width) == (16, 8000, 1, 500)
    np.testing.assert_allclose(read_points(msg).points, points, rtol=1e-6)


@pytest.mark.parametrize("wrap", [bytes, memoryview, np.asarray, lambda d: array.array("B", d.tobytes())])
def test_data_may_be_bytes_memoryview_array_or_numpy(wrap: Callable[[np.ndarray], Any]) -> None:
    msg = cloud()
    expected = read_points(msg).points
    msg.data = wrap(msg.data)
    np.testing.assert_array_equal(read_points(msg).points, expected)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"row_step": 0}, "row_step 0 is wrong"),
        ({"row_step": 2**32 - 1}, "row_step 4294967295 is wrong"),
        ({"height": 4, "width": 50, "row_step": 3200}, "row_step 3200 is wrong: the data are 4 rows of 800 bytes"),
        ({"height": 0}, "width 200 x height 0 is no point; the data are 200 points"),
        ({"height": 200, "width": 0, "row_step": 0}, "width 0 x height 200 is no point; the data are 200 points"),
        ({"fields": [field(n, 4 * i, 7, 0) for i, n in enumerate(("x", "y", "z", "intensity"))]}, "'x' has count 0"),
        ({"is_dense": False}, ""),
    ],
)
def test_a_redundant_field_that_is_wrong_costs_a_warning_where_the_data_tell_what_is_meant(
    wrong: dict[str, Any], said: str
) -> None:
    msg = cloud()
    expected = read_points(msg)
    for name, value in wrong.items():
        setattr(msg, name, value)
    result = read_points(msg)
    np.testing.assert_array_equal(result.points, expected.points)
    assert (said in " ".join(result.warnings)) if said else result.warnings == expected.warnings


BAD = {
    "truncated": ({"data": np.zeros(3199, np.uint8)}, "truncated: data holds 3199 bytes"),
    "no step": ({"point_step": 0}, "point_step is 0"),
    "short row": ({"row_step": 3199, "data": np.zeros(3300, np.uint8)}, "row_step 3199 is less than"),
    "rows unlike the data": ({"height": 2, "width": 150}, "row_step 3200 .*|truncated"),
    "overflow": ({"width": 2**31, "height": 2**31, "row_step": 2**32 - 1}, "row_step 4294967295 is less"),
    "overflow in rows": ({"height": 2**32 - 1}, "truncated"),
    "points lost": ({"height": 0, "width": 0}, "is no point, but data holds 3200 bytes"),
    "some points lost": ({"height": 0, "width": 199}, "is no point, but data holds 3200 bytes"),
    "past step": ({"fields": [field("x", 14, 7)]}, "'x' at offset 14 ends past point_step 16"),
    "count past step": ({"fields": [field("t", 0, 2, 2**32 - 1)]}, "'t' at offset 0 ends past"),
    "no z": ({"fields": [field("x", 0, 7), field("y", 4, 7)]}, "'z' is missing; fields: x float32 at 0"),
    "no fields": ({"fields": []}, "'x' is missing; fields: none"),
    "integer": ({"fields": [field("x", 0, 7), field("y", 4, 5), field("z", 8, 7)]}, "'y' is neither float"),
    "triple": ({"fields": [field(n, 0, 7, 3) for n in "xyz"]}, "'x' has count 3"),
    "twice": ({"fields": [field(n, 0, 7) for n in "xxyz"]}, "'x' is there twice"),
    "no intensity": ({"fields": [field(n, 0, 7) for n in "xyz"]}, "'intensity' is missing .set missing"),
    "odd intensity": (
        {"fields": [*(field(n, 0, 7) for n in "xyz"), field("intensity", 0, 11)]},
        "unknown datatype; .*intensity datatype 11",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_contradicts_itself_is_rejected_with_the_reason(name: str) -> None:
    changes, reason = BAD[name]
    missing = "zero" if name == "triple" else "reject"
    with pytest.raises(CloudError, match=reason):
        read_points(cloud(200, **changes), missing_intensity=missing)


@settings(max_examples=300, deadline=None)
@given(
    *[st.integers(0, 2**32 - 1)] * 4,
    st.lists(st.tuples(st.sampled_from(["x", "y", "z", "intensity", "", "ring"]), st.integers(0, 40),
                       st.integers(0, 255), st.integers(0, 2**32 - 1)), max_size=6),
    st.binary(max_size=200), st.booleans(),
)  # fmt: skip
def test_a_hostile_message_gives_points_or_a_cloud_error(
    width: int, height: int, step: int, row: int, fields: list[Any], data: bytes, big: bool
) -> None:
    listed = [SimpleNamespace(name=n, offset=o, datatype=d, count=c) for n, o, d, c in fields]
    msg = SimpleNamespace(
        width=width, height=height, point_step=step, row_step=row, fields=listed, data=data, is_bigendian=big
    )
    with contextlib.suppress(CloudError):
        assert np.isfinite(read_points(msg).points).all()


def test_nan_and_infinity_are_dropped_even_from_a_cloud_that_calls_itself_dense() -> None:
    values = np.ones((6, 4), np.float32)
    values[[0, 2, 3, 5], [0, 3, 1, 2]] = np.nan, np.inf, -np.inf, np.nan
    msg = point_cloud2(values, "lidar", 1)
    msg.is_dense = True
    result = read_points(msg)
    assert (len(result.points), result.dropped_non_finite) == (2, 4)


def test_a_float64_beyond_float32_is_dropped_without_a_numpy_warning() -> None:
    data = np.array([[1e300, 0, 0], [1, 2, 3]])
    fields = [field(n, 8 * i, 8) for i, n in enumerate("xyz")]
    msg = cloud(0, fields=fields, width=2, point_step=24, row_step=48, data=data.view(np.uint8).reshape(-1))
    result = read_points(msg, missing_intensity="zero")
    assert result.points.tolist() == [[1, 2, 3, 0]]
    assert result.dropped_non_finite == 1


def test_an_empty_cloud_decodes_to_no_points() -> None:
    for msg in (cloud(0), cloud(0, fields=[], point_step=0, height=0)):
        result = read_points(msg)
        assert result.points.shape == (0, 4)
        assert result.warnings == ()


def test_missing_intensity_becomes_zero_with_a_warning_where_that_is_allowed() -> None:
    result = read_points(cloud(fields=[field(n, 4 * i, 7) for i, n in enumerate("xyz")]), missing_intensity="zero")
    assert not result.points[:, 3].any()
    assert "'intensity' is missing, 0 is used; fields: x float32 at 0" in result.warnings[0]


def test_an_intensity_that_is_never_finite_counts_as_missing() -> None:
    points = np.random.default_rng(1).uniform(0, 1, (50, 4)) * (1, 1, 1, np.nan)
    msg = point_cloud2(points, "lidar", 1, intensity_scale=1)
    with pytest.raises(CloudError, match=r"no intensity is finite \(set missing_intensity to 'zero' to go on\)"):
        read_points(msg)
    result = read_points(msg, missing_intensity="zero")
    assert (len(result.points), result.has_intensity, result.dropped_non_finite) == (50, False, 0)
    assert result.warnings == ("no intensity is finite, 0 is used",)
    lost = read_points(point_cloud2(points * np.nan, "lidar", 1, intensity_scale=1))
    assert (len(lost.points), lost.dropped_non_finite) == (0, 50)


@pytest.mark.parametrize(("largest", "scale", "warns"), [
    (255, 255, False), (1, 255, True), (65535, 255, True), (1, 1, False), (0, 255, True), (60, 255, False),
])  # fmt: skip
def test_an_intensity_that_does_not_fit_its_declared_scale_is_warned_about(
    largest: int, scale: int, warns: bool
) -> None:
    points = np.random.default_rng(1).uniform(0, 1, (5000, 4)) * (1, 1, 1, largest)
    result = read_points(point_cloud2(points, "lidar", 1, intensity_scale=1), intensity_scale=scale)
    assert any("declared scale looks wrong" in w for w in result.warnings) == warns
    np.testing.assert_allclose(result.points[:, 3], points[:, 3] / scale, rtol=1e-5)
