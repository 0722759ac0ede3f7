"""Where something stands on the ground: points above it, as a foreground mask that costs no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid, cell_along
from sbnet_perception.bev.ground import check_cloud, plain_heights
from sbnet_perception.extents import check_positions, check_raster
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.frame import Frame, Source
from sbnet_perception.operation import call, register


def occupancy_mask(points: Tensor, grid: Grid, min_height: float, max_height: float) -> Tensor:
    """Cells that hold a point between two heights above the ground; `MaskConfig` has the defaults.

    The ground is estimated from the points within the grid.

    Args:
        points: float32 [P, >= 3], columns x, y, z in metres in the grid frame.
        grid: raster of the mask.
        min_height: lowest height above the estimated ground in metres, inclusive.
        max_height: highest height above the estimated ground in metres, inclusive.

    Returns:
        bool [H, W]; all False when no point stands up.

    Raises:
        ValueError: points are of another shape or dtype.
    """
    return call(_OCCUPANCY, points, min_height, max_height, grid.bounds, grid.resolution, grid.shape)


def plain_occupancy(
    points: Tensor, low: float, high: float, bounds: Sequence[float], resolution: float, size: Sequence[int]
) -> Tensor:
    """What `occupancy_mask` computes, in PyTorch."""
    _check(points, low, high, bounds, resolution, size)
    # NaN, the height of points that do not count, is not between.
    height = plain_heights(points, bounds)
    between = (height >= low) & (height <= high)
    row = cell_along(points[:, 1], bounds[2], resolution, size[0])
    column = cell_along(points[:, 0], bounds[0], resolution, size[1])
    # One more cell for the points that are not between.
    cells = torch.zeros(size[0] * size[1] + 1, dtype=torch.bool, device=points.device)
    cells[torch.where(between, row * size[1] + column, size[0] * size[1])] = True
    return cells[:-1].view(*size)


def _check(
    points: Tensor, low: float, high: float, bounds: Sequence[float], resolution: float, size: Sequence[int]
) -> None:
    check_cloud("occupancy", points, bounds)
    check_raster("occupancy", bounds, resolution, size)
    check_positions("occupancy", "low", [low], infinite=True)
    check_positions("occupancy", "high", [high], infinite=True)


def _fake_occupancy(points: Tensor, *raster: Any) -> Tensor:
    _check(points, *raster)
    return points.new_empty(raster[-1], dtype=torch.bool)


_OCCUPANCY = register(
    "occupancy(Tensor points, float low, float high, float[] range, float resolution, int[2] size) -> Tensor",
    plain_occupancy,
    _fake_occupancy,
)


def _mask(frame: Frame, dilation: float) -> Tensor:
    limits = frame.config.min_height, frame.config.max_height
    return dilate(occupancy_mask(frame.points, frame.grid, *limits), dilation, frame.grid.resolution)


OCCUPANCY = Source("occupancy", _mask)
