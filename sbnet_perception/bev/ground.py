"""Height of points above the local ground, from the cloud alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sbnet_perception.bev.grid import Grid, is_within
from sbnet_perception.extents import check_positions
from sbnet_perception.operation import call, register

CELL = 4.0
PERCENTILE = 0.05

# 128 x 128 cells about the origin; what lies beyond belongs to the outermost cells. One more for points left out.
_SIDE = 128
_CELLS = _SIDE * _SIDE
# z in whole centimetres, 0 at -40.96 m: cell and height together fill 28 bits of one sortable int32.
_Z_BITS = 13
_Z_STEP = 0.01
_ZERO_LEVEL = 1 << (_Z_BITS - 1)
_Z_LOW, _Z_HIGH = -_ZERO_LEVEL * _Z_STEP, (_ZERO_LEVEL - 1) * _Z_STEP


def height_above_ground(points: Tensor, grid: Grid | None = None) -> Tensor:
    """Height of each point above the ground around it.

    The ground of a 4 m cell is the 5th percentile of its points' z (the lowest points may be
    reflections from below), then the lower median over the 3 x 3 cells around it that hold points
    (a cell may hold nothing but a roof). It needs no calibration: only differences of z matter,
    as long as the ground lies within 40 m of z = 0.

    Args:
        points: float32 [P, >= 3], columns x, y, z in metres, z up.
        grid: points outside of it, where it is given, are left out of account.

    Returns:
        float32 [P], metres; NaN for a point with a non-finite coordinate or left out of account.

    Raises:
        ValueError: points are of another shape or dtype.
    """
    return call(_HEIGHT_ABOVE_GROUND, points, (-math.inf, math.inf) * 2 if grid is None else grid.bounds)


def plain_heights(points: Tensor, bounds: Sequence[float]) -> Tensor:
    """What :func:`height_above_ground` computes, in PyTorch."""
    check_cloud("height_above_ground", points, bounds)
    x, y, z = points[:, :3].unbind(1)
    counts = is_within(x, y, bounds) & x.isfinite() & y.isfinite() & z.isfinite()
    cell = torch.where(counts, _cell(y) * _SIDE + _cell(x), _CELLS)
    ground = _smoothed(_low_percentile(cell, z.where(counts, 0.0)))
    return z - pad(ground, (0, 1), value=math.nan)[cell]


def _cell(metres: Tensor) -> Tensor:
    """int64: row or column of each coordinate among the cells."""
    return (metres * (1.0 / CELL)).floor().clamp(-_SIDE // 2, _SIDE // 2 - 1).long() + _SIDE // 2


def _low_percentile(cell: Tensor, z: Tensor) -> Tensor:
    """float32 [128 * 128]: 5th percentile of z per cell, +inf where the cell is empty."""
    level = ((z.clamp(_Z_LOW, _Z_HIGH) - _Z_LOW) * (1.0 / _Z_STEP)).int()
    key = (cell.int() << _Z_BITS | level).sort().values
    count = torch.zeros(_CELLS + 1, dtype=torch.int64, device=cell.device)
    count = count.index_add_(0, cell, torch.ones_like(cell))
    start = count.cumsum(0) - count
    # An empty cell picks anything, perhaps what stands behind the last key.
    pick = pad(key, (0, 1))[start + ((count - 1).double() * PERCENTILE).long()]
    low = ((pick & (1 << _Z_BITS) - 1) - _ZERO_LEVEL).float() * _Z_STEP
    return torch.where(count > 0, low, math.inf)[:_CELLS]


def _smoothed(low: Tensor) -> Tensor:
    """Lower median of each occupied cell and its occupied neighbours; NaN where it is empty."""
    padded = pad(low.view(_SIDE, _SIDE), (1, 1, 1, 1), value=math.inf)
    neighbours = padded.unfold(0, 3, 1).unfold(1, 3, 1).reshape(_CELLS, 9).sort(1).values
    middle = (neighbours.isfinite().sum(1) - 1).div(2, rounding_mode="floor").clamp(min=0)
    return torch.where(low.isfinite(), neighbours.gather(1, middle[:, None])[:, 0], math.nan)


def check_cloud(operation: str, points: Tensor, bounds: Sequence[float]) -> None:
    """Raises ValueError unless ``points`` are float32 [P, >= 3] and ``bounds`` four numbers, which may be infinite."""
    if points.dim() != 2 or points.shape[1] < 3 or points.dtype != torch.float32:
        found = f"{points.dtype} {list(points.shape)}"
        raise ValueError(f"{operation}: points must be float32 [P, >= 3], got {found}")
    if len(bounds) != 4:
        raise ValueError(f"{operation}: range must be x_min, x_max, y_min, y_max, got {len(bounds)} numbers")
    check_positions(operation, "range", bounds, infinite=True)


def _fake_heights(points: Tensor, bounds: Sequence[float]) -> Tensor:
    check_cloud("height_above_ground", points, bounds)
    return points.new_empty(points.shape[0])


_HEIGHT_ABOVE_GROUND = register(
    "height_above_ground(Tensor points, float[] range) -> Tensor", plain_heights, _fake_heights
)
