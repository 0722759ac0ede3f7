"""How large the arguments of an operation of ``torch.ops.sbnet`` may be, whatever runs it: what is beyond would take
minutes, memory that no machine has, or leave the numbers that kernels count in. ops/extents.h has the same bounds.

A mask, a raster, the maps of a batch and the blocks of a batch have at most `MOST_CELLS` cells (2^28, a batch of 238 of
the paper's grid), where a row counts as no fewer than `LEAST_ROW`. An image and a result have at most `MOST_BYTES`
(4 GiB: 29 maps of 32 channels on the paper's grid in float32). Blocks that overlap, and runs that a mask is grown by,
visit at most `MOST_STEPS` (2^34) cells. Positions lie within `FARTHEST` metres of the origin, sides are from `FINEST`
to `COARSEST` metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

MOST_CELLS = 1 << 28
LEAST_ROW = 64
MOST_BYTES = 1 << 32
MOST_STEPS = 1 << 34
FARTHEST = 1e8
FINEST, COARSEST = 1e-6, 1e6


def check_cells(operation: str, name: str, *shape: Any) -> None:
    """Raises ValueError where so many images, rows and columns are too many cells; unknown ones are for the kernel."""
    if _is_traced(shape):
        return
    *others, columns = shape
    if _product([*others, max(columns, LEAST_ROW)]) > MOST_CELLS:
        raise ValueError(
            f"{operation}: {name} is too large: {' x '.join(map(str, shape))}, it must have at most {MOST_CELLS} "
            f"cells, where a row counts as no fewer than {LEAST_ROW}"
        )


def check_steps(operation: str, name: str, *sizes: Any) -> None:
    """Raises ValueError where a product of sizes is more than `MOST_STEPS`; unknown ones are for the kernel."""
    if not _is_traced(sizes) and _product(sizes) > MOST_STEPS:
        raise ValueError(f"{operation}: {name} is too large: it overlaps more than {MOST_STEPS} cells in all")


def check_bytes(name: str, shape: Sequence[Any], item: int) -> None:
    """Raises ValueError where items of so many bytes are more than `MOST_BYTES`; unknown sizes are for the kernel."""
    if not _is_traced(shape) and math.prod(shape) * item > MOST_BYTES:
        raise ValueError(f"{name} is too large, it must have at most {MOST_BYTES} bytes, got {tuple(shape)}")


def check_raster(operation: str, bounds: Sequence[float], resolution: float, size: Sequence[int]) -> None:
    """Raises ValueError unless a raster over x_min, x_max, y_min, y_max has cells of a usable side, not too many."""
    if len(bounds) != 4:
        raise ValueError(f"{operation}: range must be x_min, x_max, y_min, y_max, got {len(bounds)} numbers")
    check_positions(operation, "range", bounds)
    check_side(operation, "resolution", resolution)
    if len(size) != 2 or not all(1 <= extent < 2**31 for extent in size):
        raise ValueError(f"{operation}: size must be in 1 .. {2**31 - 1}, got {tuple(size)}")
    check_cells(operation, "size", *size)


def check_side(operation: str, name: str, metres: float) -> None:
    """Raises ValueError unless a side is positive and neither absurdly small nor large."""
    if not FINEST <= metres <= COARSEST:
        raise ValueError(
            f"{operation}: {name} must be positive, from {FINEST:g} to {COARSEST:g} m, got {metres}"
        )


def check_positions(operation: str, name: str, metres: Sequence[float], infinite: bool = False) -> None:
    """Raises ValueError unless positions are finite, or infinite where that is a limit that does not bind, and near."""
    for value in metres:
        if not (abs(value) <= FARTHEST or (infinite and math.isinf(value))):
            kind = "infinite or" if infinite else "finite and"
            raise ValueError(f"{operation}: {name} must be {kind} within {FARTHEST:g} m, got {value}")


def _is_traced(sizes: Sequence[Any]) -> bool:
    """Whether a size is the symbol of one that is known at run time only: nothing can be compared with it."""
    return any(isinstance(size, torch.SymInt) for size in sizes)


def _product(sizes: Sequence[Any]) -> Any:
    """0 counts as 1."""
    product = 1
    for size in sizes:
        product *= max(size, 1)
    return product
