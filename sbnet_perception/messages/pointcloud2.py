"""The points of a sensor_msgs/PointCloud2, trusting nothing that the message says about itself.

Takes CDR bytes and, by duck typing, messages of `raw_cloud`, rclpy and rosbags alike; ``data`` may be an
``array.array``, bytes, a memoryview or a NumPy array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.messages.fields import DATATYPES, FLOAT32, FLOAT64, describe
from sbnet_perception.messages.intensity import INTENSITY_SCALE, scale_warning
from sbnet_perception.messages.layout import Layout, layout_of
from sbnet_perception.messages.raw_cloud import CloudError, check_field_count, read_cloud
from sbnet_perception.text import quoted

NEEDED = ("x", "y", "z", "intensity")


@dataclass(frozen=True)
class CloudPoints:
    """A cloud as the pipeline takes it.

    Attributes:
        points: float32 [P, 4], columns x, y, z (metres, in the message's frame), intensity (0-1 where
            the declared scale is right). All finite; owned by the caller.
        warnings: one sentence for each thing that is suspicious but was handled.
        dropped_non_finite: points left out because one of the four values was NaN or infinite.
        has_intensity: the message has intensities; otherwise they are 0.
    """

    points: npt.NDArray[np.float32]
    warnings: tuple[str, ...] = ()
    dropped_non_finite: int = 0
    has_intensity: bool = True


def read_points(
    msg: Any,
    missing_intensity: Literal["reject", "zero"] = "reject",
    intensity_scale: float | None = INTENSITY_SCALE,
    max_points: int = DetectorConfig.max_points,
) -> CloudPoints:
    """Points of a PointCloud2 of any layout and byte order, validated before any computation.

    Args:
        msg: CDR bytes, or the message in them (of `raw_cloud.read_cloud`, rclpy or rosbags); it is not changed.
        missing_intensity: what to do without an intensity field: refuse, or take 0 and warn.
        intensity_scale: the intensity that means 1; values are divided by it. None leaves them as they are.
        max_points: a larger cloud is thinned to every n-th point, with a warning.

    Raises:
        CloudError: no PointCloud2, truncated data, a layout that contradicts itself, more than `MOST_FIELDS` fields, or
            x, y, z (or intensity) missing or of a type that cannot be used.
        ValueError: an argument is out of its range.
    """
    if missing_intensity not in ("reject", "zero"):
        raise ValueError(f"missing_intensity must be 'reject' or 'zero', was {missing_intensity!r}")
    if intensity_scale is not None and not (math.isfinite(intensity_scale) and intensity_scale > 0):
        raise ValueError(f"intensity_scale must be a positive number, was {intensity_scale}")
    if max_points < 1:
        raise ValueError(f"max_points must be at least 1, was {max_points}")

    if isinstance(msg, bytes):
        msg = read_cloud(msg)
    data = _bytes_of(msg.data)
    layout, contradictions = layout_of(msg, data.size)
    if not (count := layout.count):
        return CloudPoints(np.zeros((0, 4), np.float32))

    used, warnings = _check_fields(msg.fields, int(msg.point_step), missing_intensity)
    warnings = contradictions + warnings
    table, kept = _structured(layout, bool(msg.is_bigendian), data, used, max_points)
    if kept < count:
        warnings.append(f"{count} points exceed max_points {max_points}; every n-th was kept, {kept} in all")

    points = _columns(table, kept)
    has_intensity = len(used) == len(NEEDED)
    if intensity_scale is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            points[:, 3] *= np.float32(1.0 / intensity_scale)
    kept_points, dropped = _drop_non_finite(points)
    if has_intensity and dropped == len(points) and np.isfinite(points[:, :3]).all(axis=1).any():
        # Not the points are at fault: their intensity is as good as missing.
        if missing_intensity == "reject":
            raise CloudError("no intensity is finite (set missing_intensity to 'zero' to go on)")
        warnings.append("no intensity is finite, 0 is used")
        points[:, 3], has_intensity = 0.0, False
        kept_points, dropped = _drop_non_finite(points)
    points = kept_points
    if intensity_scale is not None and has_intensity:
        warnings += scale_warning(points[:, 3], intensity_scale)
    return CloudPoints(points, tuple(warnings), dropped, has_intensity)


def _bytes_of(data: Any) -> npt.NDArray[np.uint8]:
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    view = memoryview(data)
    return np.ndarray((view.nbytes,), np.uint8, buffer=view) if view.nbytes else np.zeros(0, np.uint8)


def _check_fields(fields: Iterable[Any], point_step: int, missing: str) -> tuple[list[Any], list[str]]:
    """The fields to read, in the order of `NEEDED`, and warnings."""
    fields = list(fields)
    check_field_count(len(fields))
    listing = describe(fields)
    for field in fields:
        # A datatype unknown here is at least one byte long; only x, y, z and intensity must be known.
        size = DATATYPES[field.datatype].itemsize if field.datatype in DATATYPES else 1
        if int(field.offset) + size * int(field.count) > point_step:
            raise CloudError(
                f"field {quoted(field.name)} at offset {field.offset} ends past point_step {point_step}; {listing}"
            )

    by_name: dict[str, Any] = {}
    for field in fields:
        if field.name in NEEDED and field.name in by_name:
            raise CloudError(f"field {quoted(field.name)} is there twice; {listing}")
        by_name[field.name] = field

    for name in ("x", "y", "z"):
        if name not in by_name:
            raise CloudError(f"field {name!r} is missing; {listing}")
        if by_name[name].datatype not in (FLOAT32, FLOAT64):
            raise CloudError(f"field {name!r} is neither float32 nor float64; {listing}")

    warnings = []
    names = list(NEEDED)
    if "intensity" not in by_name:
        if missing == "reject":
            raise CloudError(f"field 'intensity' is missing (set missing_intensity to 'zero' to go on); {listing}")
        warnings.append(f"field 'intensity' is missing, 0 is used; {listing}")
        names.remove("intensity")
    elif by_name["intensity"].datatype not in DATATYPES:
        raise CloudError(f"field 'intensity' has an unknown datatype; {listing}")

    for name in names:
        if by_name[name].count == 0:
            warnings.append(f"field {name!r} has count 0, 1 is meant")
        elif by_name[name].count != 1:
            raise CloudError(f"field {name!r} has count {by_name[name].count}, not 1; {listing}")
    return [by_name[name] for name in names], warnings


def _structured(
    layout: Layout, big: bool, data: npt.NDArray[np.uint8], used: list[Any], max_points: int
) -> tuple[npt.NDArray[Any], int]:
    """The points kept, a structured view of `data` wherever its layout allows, and their number."""
    width, height, point_step, row_step = layout.width, layout.height, layout.point_step, layout.row_step
    order: Literal["<", ">"] = ">" if big else "<"
    columns: Any = {
        "names": [field.name for field in used],
        "formats": [DATATYPES[field.datatype].newbyteorder(order) for field in used],
        "offsets": [field.offset for field in used],
        "itemsize": point_step,
    }
    dtype = np.dtype(columns)

    count = layout.count
    stride = -(-count // max_points)
    if height == 1 or row_step == width * point_step:
        table: npt.NDArray[Any] = np.ndarray((count,), dtype, buffer=data)[::stride]
    else:
        table = np.ndarray((height, width), dtype, buffer=data, strides=(row_step, point_step))
        if stride > 1:
            chosen = np.arange(0, count, stride)
            table = table[chosen // width, chosen % width]
    return table, table.size


def _columns(table: npt.NDArray[Any], count: int) -> npt.NDArray[np.float32]:
    """Copies the named columns into a fresh float32 [count, 4]; a column that is not there is 0."""
    dtype = table.dtype
    assert dtype.names is not None
    assert dtype.fields is not None
    points = np.zeros((count, 4), np.float32)
    shaped = points.reshape(*table.shape, 4)
    column = 0
    while column < len(dtype.names):
        width = _run(dtype, column)
        if width:
            # Neighbours that need no conversion are moved together, as bytes.
            together = np.dtype(f"V{4 * width}")
            target: npt.NDArray[Any] = np.ndarray(table.shape, together, points, 4 * column, shaped.strides[:-1])
            target[...] = table.getfield(together, dtype.fields[dtype.names[column]][1])
        else:
            # A float64 beyond float32 becomes infinite and is dropped with the other non-finite points.
            with np.errstate(over="ignore", invalid="ignore"):
                shaped[..., column] = table[dtype.names[column]]
        column += width or 1
    return points


def _run(dtype: np.dtype[Any], first: int) -> int:
    """How many columns from `first` on are float32 of this machine's byte order, one right behind the other."""
    assert dtype.names is not None
    assert dtype.fields is not None
    start, width = dtype.fields[dtype.names[first]][1], 0
    for name in dtype.names[first:]:
        if dtype.fields[name][:2] != (np.dtype(np.float32), start + 4 * width):
            break
        width += 1
    return width


def _drop_non_finite(points: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], int]:
    if np.isfinite(points).all():
        return points, 0
    finite = np.isfinite(points)
    keep = finite[:, 0] & finite[:, 1] & finite[:, 2] & finite[:, 3]
    kept = points[keep]
    return kept, len(points) - len(kept)
