"""Drivable areas of vector maps, as the raster that a mask looks up."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from numpy.typing import NDArray

from sbnet_perception.masks.road import RoadMap

RESOLUTION = 0.2
MARGIN = 100.0
"""Metres around the driven path that the raster covers."""


def union_of(polygons: Iterable[shapely.Geometry]) -> shapely.Geometry:
    """All polygons as one geometry; those that cross themselves are mended."""
    return shapely.union_all([shapely.make_valid(polygon) for polygon in polygons])


def road_around(area: shapely.Geometry, path: NDArray[np.float64]) -> RoadMap | None:
    """The raster of an area within `MARGIN` of a driven path [N, 2], both in the map frame; None without any there."""
    window = shapely.box(*(path.min(axis=0) - MARGIN), *(path.max(axis=0) + MARGIN))
    parts = [part for part in shapely.get_parts(area.intersection(window)) if part.geom_type == "Polygon"]
    if not parts:
        return None
    return RoadMap.from_polygons(
        [shapely.get_coordinates(part.exterior) for part in parts],
        RESOLUTION,
        holes=[shapely.get_coordinates(hole) for part in parts for hole in part.interiors],
    )
