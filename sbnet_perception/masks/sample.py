"""A raster looked up at the pixels of another one that is turned against it."""

from __future__ import annotations

import torch
from torch import Tensor

from sbnet_perception.extents import check_cells
from sbnet_perception.operation import call, register

FRACTION_BITS = 32
"""Positions on a raster are whole numbers of this part of a cell: their sums are exact."""
_FARTHEST = 1 << 29

Vector = tuple[int, int]


def sample(raster: Tensor, origin: Vector, per_row: Vector, per_column: Vector, size: Vector) -> Tensor:
    """A raster looked up at the pixels of another one.

    Args:
        raster: bool [h, w].
        origin: (y, x) of the first pixel on the raster, in 2^-32 of its cells.
        per_row: how much further that is at the next row.
        per_column: how much further at the next column.
        size: rows and columns of the result.

    Returns:
        bool ``size``; False beyond the raster.

    Raises:
        ValueError: positions leave 2^29 raster cells, or an argument is something else.
    """
    return call(_SAMPLE_RASTER, raster, origin, per_row, per_column, size)


def plain_sample(raster: Tensor, origin: Vector, per_row: Vector, per_column: Vector, size: Vector) -> Tensor:
    """What :func:`sample` computes, in PyTorch."""
    _check(raster, origin, per_row, per_column, size)
    row = torch.arange(size[0], device=raster.device)[:, None]
    column = torch.arange(size[1], device=raster.device)
    y, x = (
        (begin + row * down + column * right) >> FRACTION_BITS
        for begin, down, right in zip(origin, per_row, per_column, strict=True)
    )
    height, width = raster.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    if raster.numel() == 0:
        return inside
    return raster.flatten()[(y * width + x).where(inside, 0)] & inside


def _check(raster: Tensor, origin: Vector, per_row: Vector, per_column: Vector, size: Vector) -> None:
    found = f"{raster.dtype} {list(raster.shape)}"
    if raster.dim() != 2 or raster.dtype != torch.bool:
        raise ValueError(f"sample_raster: raster must be bool [h, w], got {found}")
    check_cells("sample_raster", "raster", *raster.shape)
    if len(size) != 2 or not all(1 <= extent < 2**31 for extent in size):
        raise ValueError(f"sample_raster: size must be 2 integers in 1 .. {2**31 - 1}, got {tuple(size)}")
    check_cells("sample_raster", "size", *size)
    steps = (("origin", origin, 1), ("per_row", per_row, 2 * size[0]), ("per_column", per_column, 2 * size[1]))
    for name, pair, times in steps:
        if len(pair) != 2 or any(abs(value) > (_FARTHEST << FRACTION_BITS) // times for value in pair):
            raise ValueError(f"sample_raster: {name} must stay within {_FARTHEST} raster cells")


def _fake_sample(raster: Tensor, origin: Vector, per_row: Vector, per_column: Vector, size: Vector) -> Tensor:
    _check(raster, origin, per_row, per_column, size)
    return raster.new_empty(size)


_SAMPLE_RASTER = register(
    "sample_raster(Tensor raster, int[2] origin, int[2] per_row, int[2] per_column, int[2] size) -> Tensor",
    plain_sample,
    _fake_sample,
)
