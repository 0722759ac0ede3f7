"""The road as it lies under one frame: grown once per map, looked up once per pose."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.bev.tensors import as_tensor
from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.blocks.operation import call as call_checked
from sbnet_perception.masks.dilate import dilate_by_runs
from sbnet_perception.masks.road import RoadMap

# Positions on the raster are whole numbers of this part of a cell: their sums are exact.
_FRACTION_BITS = 32
# What rounding those steps may add up to over a row and a column, in raster cells.
_ROUNDING = 1e-3
# Grid rows looked up at a time in search of any road.
_STRIP = 32

Vector = tuple[int, int]


@dataclass(frozen=True, eq=False)
class RoadView:
    """A road map and where the grid lies on it.

    Attributes:
        road: the map.
        map_from_grid: pose of the grid frame in the map frame.
        sampled: the masks that were asked for, by grid and dilation: while neither map nor pose changes, a mask
            is made once.
    """

    road: RoadMap
    map_from_grid: SE2
    sampled: dict[tuple[Grid, float], NDArray[np.bool_]] = field(default_factory=dict, init=False, repr=False)

    def mask(self, grid: Grid, dilation: float = 0.0) -> NDArray[np.bool_]:
        """The road, grown by ``dilation`` metres, on the grid.

        The raster is grown in its own frame, once per map, and each grid cell looks up the raster cell beneath its
        centre. Every cell is True that ``dilate(road_mask(road, map_from_grid, grid), dilation, grid.resolution)``
        makes True, so every grid cell within ``dilation`` of the road. No cell is True whose centre is further from the
        road than ``dilation``, a grid cell's side and a raster cell's diagonal together.

        Returns:
            bool [H, W]: the same array each time, not to be written to.

        Raises:
            ValueError: dilation is negative or not finite, or the grid spans more than 2^28 raster cells.
        """
        if not (math.isfinite(dilation) and dilation >= 0):
            raise ValueError(f"dilation must be finite and not negative, got {dilation}")
        found = self.sampled.get((grid, dilation))
        if found is None:
            found = self.sampled[grid, dilation] = self._sample(grid, dilation, 0, grid.height)
        return found

    def has_road(self, grid: Grid) -> bool:
        """Whether any cell of ``mask(grid)`` is True; ends at the first rows with road."""
        starts = range(0, grid.height, _STRIP)
        return any(self._sample(grid, 0.0, start, min(start + _STRIP, grid.height)).any() for start in starts)

    def _sample(self, grid: Grid, dilation: float, first: int, last: int) -> NDArray[np.bool_]:
        """Rows ``first`` to ``last`` of the mask."""
        resolution = self.road.resolution
        reach = (dilation + grid.resolution * (1 + 1e-6)) / resolution + _ROUNDING
        cells = _grown(self.road, reach)
        # Where the centre of the first cell lies on the padded raster, and the steps along rows and columns.
        raster_from_grid = self.road.origin.inverse() @ self.map_from_grid
        x, y = raster_from_grid.apply((grid.x_centres[0], grid.y_centres[first])) / resolution + _border(reach)
        scale = grid.resolution / resolution
        c, s = scale * math.cos(raster_from_grid.yaw), scale * math.sin(raster_from_grid.yaw)
        size = (last - first, grid.width)
        if _is_beside(y, c * size[0], s * size[1], cells.shape[0]) or _is_beside(
            x, -s * size[0], c * size[1], cells.shape[1]
        ):
            return np.zeros(size, dtype=np.bool_)
        return sample(cells, (_fixed(y), _fixed(x)), (_fixed(c), _fixed(-s)), (_fixed(s), _fixed(c)), size)


def _grown(road: RoadMap, reach: float) -> NDArray[np.bool_]:
    """The raster with a border of `_border` cells: True where any point of a cell is within ``reach`` of the road."""
    if reach not in road.grown:
        # Between the sides of two cells lies one cell less than between their centres.
        gaps = [max(dy - 1, 0) for dy in range(_border(reach) + 1)]
        half_widths = [1 + math.floor(math.sqrt(reach**2 - gap**2)) for gap in gaps]
        road.grown[reach] = dilate_by_runs(np.pad(road.cells, _border(reach)), half_widths)
    return road.grown[reach]


def _border(reach: float) -> int:
    """Cells from a cell of the road to the furthest that has a point within ``reach`` cells of it."""
    return 1 + math.floor(reach)


def _is_beside(begin: float, along_rows: float, along_columns: float, extent: int) -> bool:
    """Whether positions from ``begin`` on, moved by up to both steps, all lie outside of 0 .. extent."""
    low = begin + min(along_rows, 0.0) + min(along_columns, 0.0)
    high = begin + max(along_rows, 0.0) + max(along_columns, 0.0)
    return high < 0 or low >= extent


def _fixed(cells: float) -> int:
    return round(cells * 2**_FRACTION_BITS)


def sample(
    raster: NDArray[np.bool_], origin: Vector, per_row: Vector, per_column: Vector, size: Vector
) -> NDArray[np.bool_]:
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
        ValueError: positions leave 2^29 raster cells.
    """
    if UNAVAILABLE:
        return sample_in_numpy(raster, origin, per_row, per_column, size)
    operation = torch.ops.sbnet.sample_raster
    sampled: NDArray[np.bool_] = call_checked(operation, as_tensor(raster), origin, per_row, per_column, size).numpy()
    return sampled


def sample_in_numpy(
    raster: NDArray[np.bool_], origin: Vector, per_row: Vector, per_column: Vector, size: Vector
) -> NDArray[np.bool_]:
    """What :func:`sample` computes where the compiled operations are not built."""
    row, column = np.arange(size[0], dtype=np.int64)[:, None], np.arange(size[1], dtype=np.int64)
    y, x = (
        (begin + row * down + column * right) >> _FRACTION_BITS
        for begin, down, right in zip(origin, per_row, per_column, strict=True)
    )
    inside = (y >= 0) & (y < raster.shape[0]) & (x >= 0) & (x < raster.shape[1])
    sampled = np.zeros(size, dtype=np.bool_)
    sampled[inside] = raster[y[inside], x[inside]]
    return sampled
