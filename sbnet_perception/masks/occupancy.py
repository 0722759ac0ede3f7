"""Where something stands on the ground: points above it, as a foreground mask that costs no network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.ground import height_above_ground
from sbnet_perception.masks.dilate import dilate


def occupancy_mask(
    points: NDArray[np.float32],
    grid: Grid,
    min_height: float,
    max_height: float,
    dilation: float,
) -> NDArray[np.bool_]:
    """Cells near points between two heights above the ground; `MaskConfig` has the defaults.

    Args:
        points: float32 [P, >= 3], columns x, y, z in metres in the grid frame.
        grid: raster of the mask.
        min_height: lowest height above the estimated ground in metres, inclusive.
        max_height: highest height above the estimated ground in metres, inclusive.
        dilation: radius in metres by which the cells of such points grow.

    Returns:
        bool [H, W]; all False when no point stands up.
    """
    row, col, inside = grid.cells(points)
    height = height_above_ground(points[np.flatnonzero(inside)])
    stands = (height >= min_height) & (height <= max_height)
    mask = np.zeros(grid.shape, dtype=np.bool_)
    mask[row[stands], col[stands]] = True
    return dilate(mask, dilation, grid.resolution)
