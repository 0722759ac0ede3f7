"""Height of points above the local ground, from the cloud alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.tensors import as_tensor
from sbnet_perception.blocks.operation import UNAVAILABLE

CELL = 4.0
PERCENTILE = 0.05

# 128 x 128 cells about the origin; what lies beyond belongs to the outermost cells.
_SIDE = 128
# z in whole centimetres, 0 at -40.96 m: cell and height together fill 27 bits of one sortable int32.
_Z_BITS = 13
_Z_STEP = 0.01
_Z_LOW = -(1 << (_Z_BITS - 1)) * _Z_STEP


def height_above_ground(points: NDArray[np.float32], grid: Grid | None = None) -> NDArray[np.float32]:
    """Height of each point above the ground around it.

    The ground of a 4 m cell is the 5th percentile of its points' z (the lowest points may be
    reflections from below), then the lower median over the 3 x 3 cells around it that hold points
    (a cell may hold nothing but a roof). It needs no calibration: only differences of z matter,
    as long as the ground lies within 40 m of z = 0.

    Args:
        points: float [P, >= 3], columns x, y, z in metres, z up.
        grid: points outside of it, where it is given, are left out of account.

    Returns:
        float32 [P], metres; NaN for a point with a non-finite coordinate or left out of account.
    """
    points = np.asarray(points, dtype=np.float32)
    if UNAVAILABLE:
        return heights_in_numpy(points, grid)
    within = (-math.inf, math.inf) * 2 if grid is None else grid.bounds
    heights: NDArray[np.float32] = torch.ops.sbnet.height_above_ground(as_tensor(points), within).numpy()
    return heights


def heights_in_numpy(points: NDArray[np.float32], grid: Grid | None = None) -> NDArray[np.float32]:
    """What :func:`height_above_ground` computes where the compiled operations are not built."""
    counts = np.isfinite(points[:, :3]).all(axis=1)
    if grid is not None:
        counts &= grid.cells(points)[2]
    height = np.full(len(points), np.nan, dtype=np.float32)
    if counts.any():
        x, y, z = np.ascontiguousarray(points[counts, :3].T)
        cell = _cell(y) * _SIDE + _cell(x)
        height[counts] = z - _smoothed(_low_percentile(cell, z))[cell]
    return height


def _cell(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Row or column of each coordinate among the 128 cells of 4 m."""
    index = np.floor(values * np.float32(1.0 / CELL)) + _SIDE // 2
    return np.clip(index, 0, _SIDE - 1).astype(np.int32)


def _low_percentile(cell: NDArray[np.int32], z: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 [128 * 128]: 5th percentile of z per cell, +inf where the cell is empty."""
    level = np.clip(z, _Z_LOW, -_Z_LOW - _Z_STEP)
    level -= np.float32(_Z_LOW)
    level *= np.float32(1.0 / _Z_STEP)
    key = np.sort((cell << _Z_BITS) | level.astype(np.int32))
    count = np.bincount(cell, minlength=_SIDE * _SIDE)
    occupied = np.flatnonzero(count)
    start = (np.cumsum(count) - count)[occupied]
    pick = key[start + ((count[occupied] - 1) * PERCENTILE).astype(np.int64)]
    low = np.full(_SIDE * _SIDE, np.inf, dtype=np.float32)
    low[occupied] = ((pick & ((1 << _Z_BITS) - 1)) - (1 << (_Z_BITS - 1))) * np.float32(_Z_STEP)
    return low


def _smoothed(low: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower median of each occupied cell and its occupied neighbours; +inf stays where it is empty."""
    occupied = np.flatnonzero(np.isfinite(low))
    side = _SIDE + 2
    padded = np.pad(low.reshape(_SIDE, _SIDE), 1, constant_values=np.inf).ravel()
    centre = (occupied // _SIDE + 1) * side + occupied % _SIDE + 1
    around = np.array([dy * side + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    neighbours = np.sort(padded[centre[:, None] + around], axis=1)
    held = np.isfinite(neighbours).sum(axis=1)
    smooth = np.full_like(low, np.inf)
    smooth[occupied] = neighbours[np.arange(len(occupied)), (held - 1) // 2]
    return smooth
