"""PointField lists: NumPy layout and readable listing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

# Codes of sensor_msgs/PointField.datatype.
DATATYPES = {
    code: np.dtype(name)
    for code, name in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"), start=1)
}
FLOAT32, FLOAT64 = 7, 8


def dtype_from_fields(fields: Iterable[Any], point_step: int | None = None) -> np.dtype[Any]:
    """Structured dtype of PointFields, equal to that of sensor_msgs_py.point_cloud2.dtype_from_fields.

    A field with count n > 1 becomes ``name_0`` to ``name_{n-1}``; one without a name ``unnamed_field_{i}``.

    Raises:
        KeyError: a datatype is unknown.
        ValueError: the fields do not fit into `point_step`, or a name is there twice.
    """
    names, formats, offsets = [], [], []
    for i, field in enumerate(fields):
        dtype = DATATYPES[field.datatype]
        name = field.name or f"unnamed_field_{i}"
        for k in range(field.count):
            names.append(name if field.count == 1 else f"{name}_{k}")
            formats.append(dtype)
            offsets.append(field.offset + k * dtype.itemsize)
    layout: Any = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def describe(fields: Iterable[Any]) -> str:
    """Listing for error messages, for example ``fields: x float32 at 0, ring uint16 at 16``."""
    items = []
    for field in fields:
        dtype = (
            DATATYPES[field.datatype].name if field.datatype in DATATYPES else f"datatype {field.datatype}"
        )
        times = f" x{field.count}" if field.count != 1 else ""
        items.append(f"{field.name} {dtype}{times} at {field.offset}")
    return "fields: " + (", ".join(items) or "none")
