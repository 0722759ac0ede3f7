"""Limits of configuration fields, which stand once: in the metadata of the dataclass."""

from __future__ import annotations

import dataclasses
from typing import Any


def check_fields(config: Any) -> None:
    """Checks each field of a dataclass against its metadata ``range`` (low, high) and ``choices``.

    Each item of a tuple has to lie in the range.

    Raises:
        ValueError: a value is outside; the message names the field and what is allowed.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        low, high = item.metadata.get("range", (None, None))
        if low is not None and not all(low <= one <= high for one in (value if isinstance(value, tuple) else [value])):
            raise ValueError(f"{item.name} is {value}; it must lie in [{low:g}, {high:g}]")
        choices = item.metadata.get("choices")
        if choices is not None and value not in choices:
            raise ValueError(f"{item.name} is {value!r}; use one of {', '.join(choices)}")
