"""Where something stands on the ground: points above it, as a foreground mask that costs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid, cell_along, is_within
from sbnet_perception.bev.ground import check_cloud, height_above_ground
from sbnet_perception.blocks.operation import call, register
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.frame import Frame, Source


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
    heights = height_above_ground(points, grid)
    return call(_MARK_POINTS, points, heights, min_height, max_height, grid.bounds, grid.resolution, grid.shape)


def plain_marks(
    points: Tensor,
    values: Tensor,
    low: float,
    high: float,
    bounds: Sequence[float],
    resolution: float,
    size: Sequence[int],
) -> Tensor:
    """bool [H, W] in PyTorch: cells that hold a point with low <= value <= high. A value of NaN is not between."""
    _check(points, values, low, high, bounds, resolution, size)
    x, y = points[:, 0], points[:, 1]
    between = (values >= low) & (values <= high) & is_within(x, y, bounds)
    row, column = cell_along(y, bounds[2], resolution, size[0]), cell_along(x, bounds[0], resolution, size[1])
    # One more cell for the points that are not between.
    cells = torch.zeros(size[0] * size[1] + 1, dtype=torch.bool, device=points.device)
    cells[torch.where(between, row * size[1] + column, size[0] * size[1])] = True
    return cells[:-1].view(*size)


def _check(
    points: Tensor,
    values: Tensor,
    low: float,
    high: float,
    bounds: Sequence[float],
    resolution: float,
    size: Sequence[int],
) -> None:
    check_cloud("mark_points", points, bounds)
    if values.shape != points.shape[:1] or values.dtype != torch.float32:
        found = f"{values.dtype} {list(values.shape)}"
        raise ValueError(f"mark_points: values must be float32 [{len(points)}], got {found}")
    if not all(map(math.isfinite, bounds)):
        raise ValueError(f"mark_points: range must be finite, got {tuple(bounds)}")
    if not (resolution > 0 and math.isfinite(1.0 / resolution)):
        raise ValueError(f"mark_points: resolution must be positive, got {resolution}")
    if len(size) != 2 or not all(1 <= extent < 2**31 for extent in size):
        raise ValueError(f"mark_points: size must be in 1 .. {2**31 - 1}, got {tuple(size)}")


def _fake_marks(points: Tensor, *raster: Any) -> Tensor:
    _check(points, *raster)
    return points.new_empty(raster[-1], dtype=torch.bool)


_MARK_POINTS = register(
    "mark_points(Tensor points, Tensor values, float low, float high, float[] range, float resolution, int[2] size) "
    "-> Tensor",
    plain_marks,
    _fake_marks,
)


def _mask(frame: Frame, dilation: float) -> Tensor:
    limits = frame.config.min_height, frame.config.max_height
    return dilate(occupancy_mask(frame.points, frame.grid, *limits), dilation, frame.grid.resolution)


OCCUPANCY = Source("occupancy", _mask)
