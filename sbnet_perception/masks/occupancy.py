"""Where something stands on the ground: points above it, as a foreground mask that costs no network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.ground import height_above_ground, heights_in_numpy
from sbnet_perception.bev.tensors import as_tensor
from sbnet_perception.blocks.operation import UNAVAILABLE


def occupancy_mask(
    points: NDArray[np.float32], grid: Grid, min_height: float, max_height: float
) -> NDArray[np.bool_]:
    """Cells that hold a point between two heights above the ground; `MaskConfig` has the defaults.

    The ground is estimated from the points within the grid.

    Args:
        points: float32 [P, >= 3], columns x, y, z in metres in the grid frame.
        grid: raster of the mask.
        min_height: lowest height above the estimated ground in metres, inclusive.
        max_height: highest height above the estimated ground in metres, inclusive.

    Returns:
        bool [H, W]; all False when no point stands up.
    """
    points = np.asarray(points, dtype=np.float32)
    if UNAVAILABLE:
        return occupancy_in_numpy(points, grid, min_height, max_height)
    heights = torch.from_numpy(height_above_ground(points, grid))
    where = (grid.bounds, grid.resolution, grid.shape)
    mask: NDArray[np.bool_] = torch.ops.sbnet.mark_points(
        as_tensor(points), heights, min_height, max_height, *where
    ).numpy()
    return mask


def occupancy_in_numpy(
    points: NDArray[np.float32], grid: Grid, min_height: float, max_height: float
) -> NDArray[np.bool_]:
    """What :func:`occupancy_mask` computes where the compiled operations are not built."""
    row, col, inside = grid.cells(points)
    height = heights_in_numpy(points, grid)[inside]
    stands = (height >= min_height) & (height <= max_height)
    mask = np.zeros(grid.shape, dtype=np.bool_)
    mask[row[stands], col[stands]] = True
    return mask
