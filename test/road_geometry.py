"""Roads and grids as polygons: the oracle of tests of the road, and what they draw from."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap

POSES = st.builds(SE2, st.floats(-6, 6), st.floats(-6, 6), st.floats(-4, 4))
RASTERS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(np.bool_, shape))
RESOLUTIONS = st.sampled_from([0.1, 0.25, 0.5, 0.7, 1.0, 2.5])
SMALL_GRIDS = st.sampled_from([0.3, 0.5, 1.0]).map(lambda r: Grid(1.0, 1.0 + 7 * r, -2.0, -2.0 + 5 * r, r))


def squares_of(cells: np.ndarray, resolution: float, pose: SE2) -> np.ndarray:
    """shapely polygons [K] of the True cells of a raster whose corner is at ``pose``."""
    row, col = np.nonzero(cells)
    boxes = shapely.box(col * resolution, row * resolution, (col + 1) * resolution, (row + 1) * resolution)
    return shapely.transform(boxes, pose.apply)


def polygons_of(road: RoadMap, map_from_grid: SE2, grid: Grid) -> tuple[np.ndarray, shapely.Geometry]:
    """The oracle's view, in the map frame: squares [H, W] of the grid, and the union of the road's.

    Where the outside is road that is all within 100 m of the raster, more than the grids of the tests reach.
    """
    corner = map_from_grid @ SE2(grid.x_min, grid.y_min, 0.0)
    squares = squares_of(np.ones(grid.shape, dtype=np.bool_), grid.resolution, corner).reshape(grid.shape)
    area = shapely.union_all(squares_of(road.cells.numpy(), road.resolution, road.origin))
    if road.outside:
        raster = shapely.union_all(squares_of(np.ones(road.cells.shape), road.resolution, road.origin))
        area = shapely.union(area, shapely.difference(shapely.buffer(raster, 100.0), raster))
    return squares, area
