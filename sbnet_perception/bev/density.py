"""Point cloud to a coarse raster of how many points lie where and at which height: what the mask network sees."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid, cell_along, is_within
from sbnet_perception.bev.voxelize import BIN_HEIGHT, BINS, Z_MIN

LAYER_HEIGHT = 2 * BIN_HEIGHT
LAYERS = BINS // 2
FEATURES = LAYERS + 3
"""Of each part of a cell: the layers upwards from `Z_MIN`, all below, all above, and the intensity."""
FULL = 64.0
"""Points of a part and layer that make 1."""
_FIXED_POINT = 256
"""Intensities are added up in whole numbers, so that their sum does not depend on the order."""


def density(points: Tensor, grid: Grid, stride: int, parts: int) -> Tensor:
    """Rasterise one cloud on cells of ``stride`` x ``stride`` cells of the grid. Nothing waits for the device.

    Args:
        points: float32 [P, 4], columns x, y, z (metres, grid frame, z = 0 is the ground) and intensity (0-1). Points
            out of range or with a non-finite value are ignored.
        grid: raster that the cells belong to.
        stride: cells of the grid that one of the result spans.
        parts: parts of a cell along each side, a power of two; row by row, `FEATURES` of each.

    Returns:
        float32 [parts * parts * FEATURES, ceil(H / stride), ceil(W / stride)]: log(1 + points) / log(1 + FULL) of the
        layers, and the mean intensity. Depends on the set of points alone.
    """
    rows, columns, side = -(-grid.height // stride), -(-grid.width // stride), grid.resolution * stride / parts
    counts = is_within(points[:, 0], points[:, 1], grid.bounds) & points[:, 2].isfinite() & points[:, 3].isfinite()
    if points.device.type == "cpu":  # less to do; on a GPU the host would wait for their number
        points, counts = points[counts], counts[counts]
    x, y, z, intensity = points.unbind(1)
    # The part and the layer of each point; those that do not count go to one place more.
    row, column = cell_along(y, grid.y_min, side, rows * parts), cell_along(x, grid.x_min, side, columns * parts)
    shift, cells = parts.bit_length() - 1, rows * columns
    part = ((row & parts - 1) << shift) + (column & parts - 1)
    first = part * (FEATURES * cells) + (row >> shift) * columns + (column >> shift)
    above_low = z.clamp(Z_MIN - LAYER_HEIGHT / 2, Z_MIN + (LAYERS + 0.5) * LAYER_HEIGHT) - Z_MIN
    layer = (above_low * (1 / LAYER_HEIGHT)).floor().long()
    layer = torch.where(layer < 0, LAYERS, layer + (layer >= LAYERS))
    nowhere = parts * parts * FEATURES * cells
    counted = torch.where(counts, first + layer * cells, nowhere)
    lit = torch.where(counts, first + (FEATURES - 1) * cells, nowhere)
    # Sums of whole numbers are the same in any order.
    one, bright = torch.ones_like(lit, dtype=torch.int32), (intensity * _FIXED_POINT).round().int()
    number = one.new_zeros(nowhere + 1).index_add_(0, counted, one).index_add_(0, lit, one)
    total = one.new_zeros(nowhere + 1).index_add_(0, lit, bright)
    # Where no point lies there is 0.
    result = points.new_zeros(nowhere + 1)
    result.scatter_(0, counted, torch.log1p(number[counted].float()) / math.log1p(FULL))
    result.scatter_(0, lit, total[lit] / (_FIXED_POINT * number[lit]))
    return result[:-1].view(-1, rows, columns)
