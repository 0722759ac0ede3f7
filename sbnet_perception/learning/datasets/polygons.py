"""Drivable areas of vector maps, as the raster that a mask looks up."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray
from torch.nn.functional import pad

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap

RESOLUTION = 0.2
MARGIN = 100.0
"""Metres around the driven path that the raster covers."""


def union_of(polygons: Iterable[shapely.Geometry]) -> shapely.Geometry:
    """All polygons as one geometry; those that cross themselves are mended."""
    return shapely.union_all([shapely.make_valid(polygon) for polygon in polygons])


def road_around(area: shapely.Geometry, path: NDArray[np.float64]) -> RoadMap | None:
    """The raster of an area within `MARGIN` of a driven path [N, 2], both in the map frame; None without any there.

    The raster covers all of this window: what lies beyond the area is no road, not unknown.
    """
    low, high = path.min(axis=0) - MARGIN, path.max(axis=0) + MARGIN
    within = area.intersection(shapely.box(*low, *high))
    parts = [part for part in shapely.get_parts(within) if part.geom_type == "Polygon"]
    if not parts:
        return None
    road = RoadMap.from_polygons(
        [shapely.get_coordinates(part.exterior) for part in parts],
        RESOLUTION,
        holes=[shapely.get_coordinates(hole) for part in parts for hole in part.interiors],
    )
    return _covering(road, low, high)


def _covering(road: RoadMap, low: NDArray[np.float64], high: NDArray[np.float64]) -> RoadMap:
    """The map with cells that are no road around it, from x, y ``low`` to ``high`` at least (metres, map frame)."""
    origin, (h, w) = np.array([road.origin.x, road.origin.y]), road.cells.shape
    before = np.ceil((origin - low) / road.resolution).clip(min=0).astype(int)
    after = np.ceil((high - origin) / road.resolution - (w, h)).clip(min=0).astype(int)
    cells = pad(road.cells, (before[0], after[0], before[1], after[1]))
    x, y = (origin - before * road.resolution).tolist()
    return RoadMap(cells, road.resolution, SE2(x, y, 0.0))
