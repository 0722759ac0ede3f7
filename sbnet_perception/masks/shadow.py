"""The shadow of a mask: what a LiDAR at the origin does not see behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid
from sbnet_perception.extents import MOST_CELLS, check_cells, check_steps
from sbnet_perception.masks.dilate import check_metres
from sbnet_perception.operation import call, register

_FRACTION = 24  # bits after the point of positions on a line


def shadow(mask: Tensor, metres: float, grid: Grid) -> Tensor:
    """Grow a mask by the cells behind it: a LiDAR sees a vehicle's near sides, and the vehicle goes on behind them.

    Rays come from the origin of the grid frame. A shadow is up to one cell shorter than asked for.

    Args:
        mask: bool [H, W] on the grid.
        metres: length of the shadow, >= 0.
        grid: raster of the mask.

    Returns:
        bool [H, W], a new tensor.

    Raises:
        ValueError: metres is negative or not finite, or the mask is none.
    """
    check_metres(metres)
    # From as far away as a place may be all rays are as good as parallel.
    places = (round(-2 * low / grid.resolution) for low in (grid.y_min, grid.x_min))
    origin = [max(-2 * MOST_CELLS, min(place, 2 * MOST_CELLS)) for place in places]
    return cast_shadow(mask, origin, math.floor(metres / grid.resolution + 1e-6))


def cast_shadow(mask: Tensor, origin: Sequence[int], steps: int) -> Tensor:
    """Grow a mask by lines that lead away from a place.

    Args:
        mask: bool [H, W].
        origin: row and column of the place, in half cells; (1, 1) is the centre of the first cell.
        steps: length of the lines, >= 0, in cells.

    Returns:
        bool [H, W], a new tensor: the mask, and of each True cell the cells that hold its centre moved by 1, 2 ..
        ``steps`` sides of a cell away from the origin.

    Raises:
        ValueError: one of them is something else.
    """
    return call(_SHADOW, mask, origin, steps)


def plain_shadow(mask: Tensor, origin: Sequence[int], steps: int) -> Tensor:
    """What :func:`cast_shadow` computes, in PyTorch: whole numbers save for one length, the same on all devices."""
    _check(mask, origin, steps)
    # Lines from all cells: for a list of the True ones alone the host would wait for the device.
    rows, columns = mask.shape
    axes = [torch.arange(size, device=mask.device) for size in (rows, columns)]
    centres = torch.meshgrid(*(2 * axis + 1 for axis in axes), indexing="ij")
    away = [centre - place for centre, place in zip(centres, origin, strict=True)]
    # The origin itself has no direction, and stays where it is.
    distance = (away[0] * away[0] + away[1] * away[1]).clamp(min=1).double().sqrt()
    y, x = (centre << _FRACTION - 1 for centre in centres)
    per_step_y, per_step_x = ((part.double() / distance * (1 << _FRACTION)).floor().long() for part in away)
    # One more cell for what is not True or leaves the raster.
    result = torch.zeros(rows * columns + 1, dtype=torch.bool, device=mask.device)
    result[:-1] = mask.reshape(-1)
    for _ in range(min(steps, rows + columns)):
        y, x = y + per_step_y, x + per_step_x
        row, column = y >> _FRACTION, x >> _FRACTION
        within = mask & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        result[torch.where(within, row * columns + column, rows * columns)] = True
    return result[:-1].view(rows, columns)


def _check(mask: Tensor, origin: Sequence[int], steps: int) -> None:
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(f"shadow: mask must be bool [H, W], got {mask.dtype} {list(mask.shape)}")
    check_cells("shadow", "mask", *mask.shape)
    if len(origin) != 2 or not all(abs(place) <= 2 * MOST_CELLS for place in origin):
        raise ValueError(f"shadow: origin must be 2 integers within {MOST_CELLS} cells, got {tuple(origin)}")
    if not 0 <= steps < 2**31:
        raise ValueError(f"shadow: steps must be a whole number from 0 to {2**31 - 1}, got {steps}")
    check_steps("shadow", "steps", *mask.shape, min(steps, sum(mask.shape)))


def _fake_shadow(mask: Tensor, origin: Sequence[int], steps: int) -> Tensor:
    _check(mask, origin, steps)
    return mask.new_empty(mask.shape)


_SHADOW = register("shadow(Tensor mask, int[] origin, int steps) -> Tensor", plain_shadow, _fake_shadow)
