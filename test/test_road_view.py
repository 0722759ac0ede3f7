"""The road as it lies under one frame."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from road_geometry import POSES, RASTERS, RESOLUTIONS, SMALL_GRIDS, polygons_of
from sbnet_perception.masks.view import RoadView

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.road import RoadMap, road_mask

COMPACT = Grid.named("compact")


@settings(max_examples=150, deadline=None)
@given(RASTERS, RESOLUTIONS, POSES, POSES, SMALL_GRIDS, st.sampled_from([0.0, 0.5, 1.7]))
def test_a_view_of_the_map_grows_and_places_the_road_within_a_raster_cell(
    cells: np.ndarray, resolution: float, origin: SE2, map_from_grid: SE2, grid: Grid, dilation: float
) -> None:
    road = RoadMap(cells, resolution, origin)
    view = RoadView(road, map_from_grid)
    mask = view.mask(grid, dilation)
    # Nothing is lost that growing the road on the grid would have.
    assert mask[dilate(road_mask(road, map_from_grid, grid), dilation, grid.resolution)].all()
    squares, area = polygons_of(road, map_from_grid, grid)
    most = dilation + grid.resolution + resolution * (math.sqrt(2) + 2e-3)
    assert (shapely.distance(shapely.centroid(squares[mask]), area) <= most).all()
    assert view.has_road(grid) == view.mask(grid).any()


def test_the_road_is_made_once_per_pose_and_grown_once_per_map(monkeypatch: pytest.MonkeyPatch) -> None:
    road = RoadMap(np.random.default_rng(0).random((60, 80)) < 0.1, 0.5, SE2(1.0, -15.0, 0.1))
    first = RoadView(road, SE2())
    mask = first.mask(COMPACT, 0.5)
    grown = dict(road.grown)
    monkeypatch.setattr("sbnet_perception.masks.view.dilate_by_runs", None)
    assert first.mask(COMPACT, 0.5) is mask
    assert (RoadView(road, SE2(0.3, 0.1, 0.02)).mask(COMPACT, 0.5) != mask).any()
    assert road.grown == grown
