"""Types of sensor_msgs/PointField, and a readable listing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sbnet_perception.text import quoted

# Codes of sensor_msgs/PointField.datatype.
DATATYPES = {
    code: np.dtype(name)
    for code, name in enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"), start=1)
}
FLOAT32, FLOAT64 = 7, 8
_LISTED, _PLAIN = 12, 32


def describe(fields: Iterable[Any]) -> str:
    """Listing for error messages, for example ``fields: x float32 at 0, ring uint16 at 16``; it ends after a dozen."""
    items, fields = [], list(fields)
    for field in fields[:_LISTED]:
        dtype = (
            DATATYPES[field.datatype].name if field.datatype in DATATYPES else f"datatype {field.datatype}"
        )
        times = f" x{field.count}" if field.count != 1 else ""
        name = field.name if field.name.isidentifier() and len(field.name) <= _PLAIN else quoted(field.name, _PLAIN)
        items.append(f"{name} {dtype}{times} at {field.offset}")
    if len(fields) > _LISTED:
        items.append(f"and {len(fields) - _LISTED} more")
    return "fields: " + (", ".join(items) or "none")
