"""Where the road is: a raster in the map frame, and how it lies under one frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.extents import MOST_CELLS, check_cells, check_positions
from sbnet_perception.masks.dilate import dilate, dilate_by_runs
from sbnet_perception.masks.frame import Frame, Source
from sbnet_perception.masks.polygons import rasterise
from sbnet_perception.masks.sample import FRACTION_BITS, sample

# Resolutions in metres: beyond them the input is wrong.
_FINEST, _COARSEST = 1e-3, 1e3
# What rounding positions to steps of 2^-32 may add up to over a row and a column, in raster cells.
_ROUNDING = 1e-3
# Grid rows looked up at a time in search of any road.
_STRIP = 32


@dataclass(frozen=True, eq=False)
class RoadMap:
    """Raster of the road in the map frame; what was unknown is road already.

    Attributes:
        cells: bool [h, w], True = road; rows along the raster's y, columns along its x.
        resolution: side of a cell in metres, 1 mm to 1 km.
        origin: map_from_raster, the pose of the outer corner of cell (0, 0) in the map frame, within
            `extents.FARTHEST` metres of its origin.
        outside: whether all beyond the raster counts as road: True where it is unknown, False where the raster is the
            whole map.
        grown: what `RoadView` made of the cells, by distance in cells and by what counts outside of them.

    Raises:
        ValueError: cells is not a bool raster with at least one cell and no more than an operation takes
            (`extents.MOST_CELLS`), or resolution or origin is unusable.
    """

    cells: Tensor
    resolution: float
    origin: SE2
    outside: bool = False
    grown: dict[tuple[float, bool], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cells.dim() != 2 or self.cells.numel() == 0 or self.cells.dtype != torch.bool:
            raise ValueError(
                f"road cells must be a bool [h, w] raster with h, w >= 1, "
                f"got {self.cells.dtype} {list(self.cells.shape)}"
            )
        check_cells("road", "cells", *self.cells.shape)
        _check_resolution(self.resolution)
        check_positions("road", "origin", (self.origin.x, self.origin.y))

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
        _check_resolution(resolution)
        outlines = [_checked(polygon) / resolution for polygon in polygons]
        low = np.floor(np.min([outline.min(axis=0) for outline in outlines], axis=0))
        high = np.floor(np.max([outline.max(axis=0) for outline in outlines], axis=0))
        if np.prod(high - low + 1) > MOST_CELLS:
            raise ValueError(
                f"polygons span {(high - low) * resolution} m, more than {MOST_CELLS} cells of "
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
        x, y = (low * resolution).tolist()
        return cls(torch.from_numpy(cells), resolution, SE2(x, y, 0.0))

    def to(self, device: torch.device | str) -> RoadMap:
        """The map on a device, itself where it is there."""
        cells = self.cells.to(device)
        return self if cells is self.cells else replace(self, cells=cells)


def _check_resolution(metres: float) -> None:
    if not _FINEST <= metres <= _COARSEST:
        raise ValueError(f"road resolution must be from {_FINEST:g} to {_COARSEST:g} m, got {metres}")


def _checked(polygon: NDArray[np.floating]) -> NDArray[np.float64]:
    """The polygon as float64 [K, 2]."""
    vertices = np.asarray(polygon, dtype=np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or len(vertices) < 3 or not np.isfinite(vertices).all():
        raise ValueError(f"a road polygon must be a finite [K >= 3, 2] array, got shape {list(vertices.shape)}")
    return vertices


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
    sampled: dict[tuple[Grid, float], Tensor] = field(default_factory=dict, init=False, repr=False)

    def mask(self, grid: Grid, dilation: float = 0.0) -> Tensor:
        """The road, grown by ``dilation`` metres, on the grid.

        The raster is grown in its own frame, once per map, and each grid cell looks up the raster cell beneath its
        centre. True is every cell that overlaps road, and every cell whose centre lies within ``dilation`` of the
        centre of one that does. No cell is True whose centre is further from the road than ``dilation``, a grid cell's
        side and a raster cell's diagonal together.

        Returns:
            bool [H, W] on the device of the map: the same tensor each time, not to be written to.

        Raises:
            ValueError: dilation is negative or not finite, or the grid spans more than 2^28 raster cells.
        """
        if not (math.isfinite(dilation) and dilation >= 0):
            raise ValueError(f"dilation must be finite and not negative, got {dilation}")
        found = self.sampled.get((grid, dilation))
        if found is None:
            found = self.sampled[grid, dilation] = self._sample(grid, dilation, 0, grid.height, self.road.outside)
        return found

    def has_road(self, grid: Grid) -> bool:
        """Whether any cell of the grid overlaps road of the raster itself; ends at the first rows with some."""
        starts = range(0, grid.height, _STRIP)
        rows = ((start, min(start + _STRIP, grid.height)) for start in starts)
        return any(self._sample(grid, 0.0, first, last, outside=False).any() for first, last in rows)

    def coverage(self, grid: Grid) -> float:
        """Share (0-1) of the grid's area that lies on the raster."""
        h, w = self.road.cells.shape
        corners = self._raster_from_grid.apply(grid.corners) / self.road.resolution
        common = _clipped(_clipped(corners, 0, w), 1, h)
        x, y = common.T
        area = 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
        return min(1.0, area * (self.road.resolution / grid.resolution) ** 2 / (grid.height * grid.width))

    def mirrored(self) -> RoadView:
        """What a vehicle sees of the map in a world with left and right exchanged."""
        road, height = self.road, self.road.cells.shape[0] * self.road.resolution
        origin = road.origin.mirrored() @ SE2(0.0, -height, 0.0)
        return RoadView(
            RoadMap(road.cells.flip(0), road.resolution, origin, road.outside), self.map_from_grid.mirrored()
        )

    @property
    def _raster_from_grid(self) -> SE2:
        return self.road.origin.inverse() @ self.map_from_grid

    def _sample(self, grid: Grid, dilation: float, first: int, last: int, outside: bool) -> Tensor:
        """Rows ``first`` to ``last`` of the mask, where all beyond the raster is road or is not."""
        resolution = self.road.resolution
        reach = (dilation + grid.resolution * (1 + 1e-6)) / resolution + _ROUNDING
        cells = _grown(self.road, reach, outside)
        # Where the centre of the first cell lies on the padded raster, and the steps along rows and columns.
        raster_from_grid = self._raster_from_grid
        x, y = raster_from_grid.apply((grid.x_centres[0], grid.y_centres[first])) / resolution + _border(reach)
        scale = grid.resolution / resolution
        c, s = scale * math.cos(raster_from_grid.yaw), scale * math.sin(raster_from_grid.yaw)
        size = (last - first, grid.width)
        if _is_beside(y, c * size[0], s * size[1], cells.shape[0]) or _is_beside(
            x, -s * size[0], c * size[1], cells.shape[1]
        ):
            return torch.full(size, outside, device=cells.device)
        found = sample(cells, (_fixed(y), _fixed(x)), (_fixed(c), _fixed(-s)), (_fixed(s), _fixed(c)), size)
        return found.logical_not_() if outside else found


def _grown(road: RoadMap, reach: float, outside: bool) -> Tensor:
    """The raster with a border of `_border` cells: where any point of a cell is within ``reach`` of the road.

    The other way round where ``outside`` is road: a sample beyond the border is False.
    """
    if (reach, outside) not in road.grown:
        # Between the sides of two cells lies one cell less than between their centres.
        gaps = [max(dy - 1, 0) for dy in range(_border(reach) + 1)]
        half_widths = [1 + math.floor(math.sqrt(reach**2 - gap**2)) for gap in gaps]
        grown = dilate_by_runs(pad(road.cells, (_border(reach),) * 4, value=outside), half_widths)
        road.grown[reach, outside] = grown.logical_not_() if outside else grown
    return road.grown[reach, outside]


def _clipped(polygon: NDArray[np.float64], axis: int, extent: float) -> NDArray[np.float64]:
    """The part of a convex polygon [K, 2] with 0 <= coordinate <= extent along an axis; [0, 2] where there is none."""
    for sign, border in ((1.0, 0.0), (-1.0, extent)):
        inside = sign * (polygon[:, axis] - border)
        kept = []
        for here, following, at, then in zip(
            polygon, np.roll(polygon, -1, 0), inside, np.roll(inside, -1), strict=True
        ):
            if at >= 0:
                kept.append(here)
            if (at >= 0) != (then >= 0):
                kept.append(here + (following - here) * (at / (at - then)))
        polygon = np.array(kept).reshape(-1, 2)
    return polygon


def _border(reach: float) -> int:
    """Cells from a cell of the road to the furthest that has a point within ``reach`` cells of it."""
    return 1 + math.floor(reach)


def _is_beside(begin: float, along_rows: float, along_columns: float, extent: int) -> bool:
    """Whether positions from ``begin`` on, moved by up to both steps, all lie outside of 0 .. extent."""
    low = begin + min(along_rows, 0.0) + min(along_columns, 0.0)
    high = begin + max(along_rows, 0.0) + max(along_columns, 0.0)
    return high < 0 or low >= extent


def _fixed(cells: float) -> int:
    return round(cells * 2**FRACTION_BITS)


def on_grid(raster: RoadView | Tensor | None, frame: Frame, dilation: float) -> Tensor | None:
    """A raster of a frame, grown by ``dilation`` metres: bool [H, W] on the device of the points, or None."""
    if raster is None:
        return None
    if isinstance(raster, RoadView):
        return raster.mask(frame.grid, dilation).to(frame.points.device)
    return dilate(raster, dilation, frame.grid.resolution).to(frame.points.device)


ROAD = Source("road", lambda frame, dilation: on_grid(frame.road, frame, dilation))
