"""Where the road is: a raster in the map frame, and its conservative resampling onto the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.polygons import rasterise

# Overlaps thinner than this share of a raster cell are rounding, not road.
_TOUCH = 1e-6
# Finest resolution in metres, and most cells of a map made from polygons: beyond them the input is wrong.
_FINEST = 1e-3
_MOST_CELLS = 1 << 29
# Grid cells resampled at a time, few enough for the cache.
_STRIP = 1 << 14


@dataclass(frozen=True, eq=False)
class RoadMap:
    """Raster of the road in the map frame; what was unknown is road already.

    Attributes:
        cells: bool [h, w], True = road; rows along the raster's y, columns along its x.
        resolution: side of a cell in metres, at least 1 mm.
        origin: map_from_raster, the pose of the outer corner of cell (0, 0) in the map frame.
        grown: what :class:`~sbnet_perception.masks.view.RoadView` made of the cells, by distance in cells.

    Raises:
        ValueError: cells is not a bool raster with at least one cell, or resolution is unusable.
    """

    cells: NDArray[np.bool_]
    resolution: float
    origin: SE2
    grown: dict[float, NDArray[np.bool_]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cells.ndim != 2 or self.cells.size == 0 or self.cells.dtype != np.bool_:
            raise ValueError(
                f"road cells must be a bool [h, w] raster with h, w >= 1, "
                f"got {self.cells.dtype} {list(self.cells.shape)}"
            )
        if not (math.isfinite(self.resolution) and self.resolution >= _FINEST):
            raise ValueError(f"road resolution must be at least {_FINEST} m, got {self.resolution}")

    @classmethod
    def from_polygons(
        cls,
        polygons: Sequence[NDArray[np.floating]],
        resolution: float,
        holes: Sequence[NDArray[np.floating]] = (),
    ) -> RoadMap:
        """Rasterise polygons of the map frame, aligned with the frame's axes.

        Every cell that a polygon touches is road, except cells that lie wholly within a hole.

        Args:
            polygons: arrays [K, 2] of vertices in metres, K >= 3, open or closed, any direction.
            resolution: side of a cell in metres.
            holes: the same, for areas inside the polygons that are not road.

        Raises:
            ValueError: no polygon, or one that is not a finite [K, 2] array with K >= 3.
        """
        if not polygons:
            raise ValueError("polygons is empty: a road map needs at least one")
        if not (math.isfinite(resolution) and resolution >= _FINEST):
            raise ValueError(f"road resolution must be at least {_FINEST} m, got {resolution}")
        outlines = [_checked(polygon) / resolution for polygon in polygons]
        low = np.floor(np.min([outline.min(axis=0) for outline in outlines], axis=0))
        high = np.floor(np.max([outline.max(axis=0) for outline in outlines], axis=0))
        if np.prod(high - low + 1) > _MOST_CELLS:
            raise ValueError(
                f"polygons span {(high - low) * resolution} m, more than {_MOST_CELLS} cells of "
                f"{resolution} m: give the part of the map that is driven, or a coarser resolution"
            )
        w, h = (high - low + 1).astype(np.int64).tolist()
        cells = np.zeros((h, w), dtype=np.bool_)
        for outline in outlines:
            window, inside, crossed = rasterise(outline - low, (h, w))
            cells[window] |= inside | crossed
        for hole in holes:
            window, inside, crossed = rasterise(_checked(hole) / resolution - low, (h, w))
            cells[window] &= ~inside | crossed
        return cls(cells, resolution, SE2(float(low[0]) * resolution, float(low[1]) * resolution, 0.0))


def _checked(polygon: NDArray[np.floating]) -> NDArray[np.float64]:
    """The polygon as float64 [K, 2]."""
    vertices = np.asarray(polygon, dtype=np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or len(vertices) < 3 or not np.isfinite(vertices).all():
        raise ValueError(
            f"a road polygon must be a finite [K >= 3, 2] array, got shape {list(vertices.shape)}"
        )
    return vertices


def road_mask(road: RoadMap, map_from_grid: SE2, grid: Grid) -> NDArray[np.bool_]:
    """Resample the road onto the grid, for any resolutions and rotation between them.

    Conservative: every grid cell that overlaps a road cell is True. A cell is looked up by its
    bounding box on the raster, so under rotation it may see road up to half a cell away. Outside
    the raster there is no road; ask :func:`covers` first.

    Returns:
        bool [H, W].
    """
    raster_from_grid = road.origin.inverse() @ map_from_grid
    # Bounding box of each grid cell on the raster, in raster cells: [low, low + span] on each axis.
    c, s = math.cos(raster_from_grid.yaw), math.sin(raster_from_grid.yaw)
    scale = grid.resolution / road.resolution
    span = scale * (abs(c) + abs(s)) - 2.0 * _TOUCH
    first = raster_from_grid.apply((grid.x_centres[0], grid.y_centres[0])) / road.resolution - span / 2
    along_col = np.arange(grid.width, dtype=np.float64) * scale
    along_row = np.arange(grid.height, dtype=np.float64)[:, None] * scale
    x_of_col, x_of_row = along_col * c, first[0] - along_row * s
    y_of_col, y_of_row = along_col * s, first[1] + along_row * c
    # A span covers n or n + 1 raster cells: two windows of n cells, one from either end, see them all.
    n = math.floor(max(span, 0.0)) + 1
    left, right = _seen(x_of_col, x_of_row, span, road.cells.shape[1])
    top, bottom = _seen(y_of_col, y_of_row, span, road.cells.shape[0])
    crop = np.pad(road.cells[top:bottom, left:right], n)
    windows = _any_of_next(_any_of_next(crop, n, axis=0), n, axis=1)
    mask = np.zeros(grid.shape, dtype=np.bool_)
    strip = max(_STRIP // grid.width, 1)
    for start in range(0, grid.height, strip):
        part = slice(start, start + strip)
        x, y = x_of_col + x_of_row[part], y_of_col + y_of_row[part]
        rows = [_index(y, top - n, windows.shape[0]), _index(y + span, top - 1, windows.shape[0])]
        cols = [_index(x, left - n, windows.shape[1]), _index(x + span, left - 1, windows.shape[1])]
        for row in rows:
            row *= windows.shape[1]
            for col in cols:
                mask[part] |= windows.ravel().take(row + col)
    return mask


def _seen(
    of_col: NDArray[np.float64], of_row: NDArray[np.float64], span: float, size: int
) -> tuple[int, int]:
    """First and one past the last of the raster's ``size`` cells that the grid can see along an axis."""
    low, high = of_col.min() + of_row.min(), of_col.max() + of_row.max() + span
    start = min(max(math.floor(low), 0), size)
    return start, min(max(math.floor(high) + 1, start), size)


def _any_of_next(cells: NDArray[np.bool_], n: int, axis: int) -> NDArray[np.bool_]:
    """OR of each cell with its n - 1 successors along the axis (fewer at the end), in log2(n) passes."""
    result, reach = cells, 1
    while reach < n:
        step = min(reach, n - reach)
        kept, shifted = (slice(None, -step), slice(step, None))
        index = (kept, shifted) if axis == 0 else ((slice(None), kept), (slice(None), shifted))
        grown = result.copy()
        np.logical_or(result[index[0]], result[index[1]], out=grown[index[0]])
        result, reach = grown, reach + step
    return result


def _index(position: NDArray[np.float64], start: int, size: int) -> NDArray[np.int64]:
    """Index of each raster position in the padded windows; beyond them the empty first or last one."""
    index = np.floor(position)
    index -= start
    return np.clip(index, 0, size - 1, out=index).astype(np.int64)


def covers(road: RoadMap, map_from_grid: SE2, grid: Grid) -> bool:
    """Whether any part of the grid lies on the raster (two rectangles, separating axes)."""
    raster_from_grid = road.origin.inverse() @ map_from_grid
    h, w = road.cells.shape
    length, width = w * road.resolution, h * road.resolution
    on_raster = raster_from_grid.apply(grid.corners)
    if (on_raster.max(axis=0) <= 0).any() or (on_raster.min(axis=0) >= (length, width)).any():
        return False
    on_grid = raster_from_grid.inverse().apply([(0, 0), (length, 0), (length, width), (0, width)])
    low, high = grid.corners[0], grid.corners[2]
    return bool((on_grid.max(axis=0) > low).all() and (on_grid.min(axis=0) < high).all())
