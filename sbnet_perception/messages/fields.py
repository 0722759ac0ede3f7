"""Types of sensor_msgs/PointField, and a readable listing."""

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
