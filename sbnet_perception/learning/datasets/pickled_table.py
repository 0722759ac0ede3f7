"""Tables that pandas pickled, without pandas and without running anything that the file names.

A pickle is a program that calls whatever it names. Here the few names that a table of numbers and text consists of mean
inert classes of this module, which only keep what they are given; any other name ends the reading. Arrays are made of
their bytes here, not by NumPy's own unpickling.

Source: what pandas 0.25 to 2 write (blocks of columns and two axes).
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.errors import UserError

LARGEST = 1 << 28
"""Bytes of a table, unpacked."""


class _Kept:
    """An object that keeps its arguments and its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Type(_Kept):
    """A NumPy dtype: a plain number, or O of Python objects."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch("[<>|=]?(b1|[iuf][1248]|O8?)", str(code)):
            raise pickle.UnpicklingError(f"it has an array of {code!r}")
        super().__init__(code)
        self.code = str(code)

    def __setstate__(self, state: Any) -> None:
        # The second entry is the byte order.
        order = state[1] if state[1] in ("<", ">") else "|"
        self.code = order + self.code.lstrip("<>|=")

    @property
    def holds_objects(self) -> bool:
        return "O" in self.code

    def array(self, data: Any, shape: Sequence[int], by_columns: bool) -> NDArray[Any]:
        """Of bytes, or of the list of objects."""
        order: Any = "F" if by_columns else "C"
        if self.holds_objects:
            result = np.empty(len(data), object)
            result[:] = list(data)
            return result.reshape(shape, order=order)
        kind = np.dtype(self.code)
        if math.prod(shape) * kind.itemsize != len(data):
            raise pickle.UnpicklingError("an array has not as many bytes as its shape says")
        return np.frombuffer(data, kind).reshape(shape, order=order)


class _Array(_Kept):
    """A NumPy array: version, shape, type, order, content."""

    @property
    def value(self) -> NDArray[Any]:
        if not isinstance(self.state, tuple):
            raise pickle.UnpicklingError("an array has no content")
        _, shape, kind, by_columns, data = self.state
        return kind.array(data, shape, bool(by_columns))


class _FromBuffer(_Kept):
    """The same as pickle's protocol 5 writes it: content, type, shape, order."""

    @property
    def value(self) -> NDArray[Any]:
        data, kind, shape, order = self.arguments[:4]
        return kind.array(data, shape, order == "F")


_Name = tuple[str, str]
_NUMPY = ("numpy.core", "numpy._core")
_KNOWN: dict[_Name, Callable[..., Any]] = {
    ("pandas.core.frame", "DataFrame"): _Kept,
    ("pandas.core.internals.managers", "BlockManager"): _Kept,
    ("pandas._libs.internals", "_unpickle_block"): _Kept,
    ("pandas.core.indexes.base", "_new_Index"): _Kept,
    ("pandas.core.indexes.base", "Index"): _Kept,
    ("pandas.core.indexes.range", "RangeIndex"): _Kept,
    ("pandas.core.indexes.numeric", "Int64Index"): _Kept,
    ("builtins", "slice"): slice,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _FromBuffer for core in _NUMPY},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only the names of `_KNOWN`."""
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a table")
        return _KNOWN[module, name]


def read_table(file: Path, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Columns of a table in a file ``*.pkl.gz``: name -> [N].

    Raises:
        UserError: the file is missing, damaged, has no such column, or names anything that is no part of a table.
    """
    try:
        with gzip.open(file) as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise pickle.UnpicklingError(f"it unpacks to more than {LARGEST} bytes")
        table = _columns(_Reader(io.BytesIO(data)).load())
        return {name: table[name] for name in columns}
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing; complete the download") from error
    # Damaged pickles fail in every way there is.
    except (OSError, EOFError, zlib.error, pickle.UnpicklingError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{file} is no table with columns {', '.join(columns)}: {error}") from error
    except (AttributeError, MemoryError, OverflowError) as error:
        raise UserError(f"{file} is no table that can be read: {error!r}") from error


def _columns(frame: _Kept) -> dict[str, NDArray[Any]]:
    state: Any = frame.state
    manager = state["_mgr"] if "_mgr" in state else state["_data"]
    if manager.arguments:
        # pandas 1.3 and later: blocks and axes are arguments.
        blocks, axes = manager.arguments[:2]
        pairs = [(block.arguments[0], block.arguments[1]) for block in blocks]
    else:
        of = manager.state[3]["0.14.1"]
        axes, pairs = of["axes"], [(block["values"], block["mgr_locs"]) for block in of["blocks"]]
    names = [str(name) for name in axes[0].arguments[1]["data"].value]
    found: dict[str, NDArray[Any]] = {}
    for values, places in pairs:
        numbers = np.arange(len(names))[places if isinstance(places, slice) else places.value]
        found |= {names[number]: row for number, row in zip(numbers.tolist(), values.value, strict=True)}
    return found
