"""Point cloud to a coarse raster of how many points lie at which height: what the mask network sees."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid, cell_along, is_within
from sbnet_perception.bev.voxelize import ABOVE, BELOW, BIN_HEIGHT, BINS, INTENSITY, Z_MIN

FULL = 64.0
"""Points of a cell and height bin that make 1."""
_FIXED_POINT = 256
"""Intensities are added up in whole numbers, so that their sum does not depend on the order."""


def density(points: Tensor, grid: Grid, stride: int) -> Tensor:
    """Rasterise one cloud on cells of ``stride`` x ``stride`` cells of the grid. Nothing waits for the device.

    Args:
        points: float32 [P, 4], columns x, y, z (metres, grid frame, z = 0 is the ground) and intensity (0-1). Points
            out of range or with a non-finite value are ignored.
        grid: raster that the cells belong to.
        stride: cells of the grid that one of the result spans.

    Returns:
        float32 [33, ceil(H / stride), ceil(W / stride)]: log(1 + points) / log(1 + FULL) of the height bins of
        `voxelize`, and the mean intensity. Depends on the set of points alone.
    """
    rows, columns, side = -(-grid.height // stride), -(-grid.width // stride), grid.resolution * stride
    x, y, z, intensity = points.unbind(1)
    counts = is_within(x, y, grid.bounds) & points[:, 2:].isfinite().all(1)
    # The cell and the height bin of each point; those that do not count go to one cell more.
    cell = cell_along(y, grid.y_min, side, rows) * columns + cell_along(x, grid.x_min, side, columns)
    cell = torch.where(counts, cell, rows * columns)
    height_bin = ((z.clamp(Z_MIN - BIN_HEIGHT / 2, Z_MIN + (BINS + 0.5) * BIN_HEIGHT) - Z_MIN) / BIN_HEIGHT).floor()
    height_bin = torch.where(counts, height_bin, 0).long()
    channel = torch.where(height_bin < 0, BELOW, torch.where(height_bin >= BINS, ABOVE, height_bin))
    # Sums of whole numbers are the same in any order.
    cells, one = rows * columns + 1, torch.ones_like(cell, dtype=torch.int32)
    number = one.new_zeros(INTENSITY * cells).index_add_(0, channel * cells + cell, one).view(INTENSITY, cells)
    bright = torch.where(counts, intensity * _FIXED_POINT, 0).round().int()
    total = one.new_zeros(cells).index_add_(0, cell, bright)
    mean = total / (_FIXED_POINT * number.sum(0)).clamp(min=1)
    logarithms = torch.log1p(number.float()) / math.log1p(FULL)
    return torch.cat([logarithms, mean[None]])[:, :-1].view(-1, rows, columns)
