"""The road: its map, and how it lies under one frame, for the node as for training."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from road_geometry import POSES, RASTERS, RESOLUTIONS, SMALL_GRIDS, polygons_of, squares_of

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap, RoadView

COMPACT = Grid.named("compact")
RASTERS = RASTERS.map(torch.from_numpy)


def _random_road(origin: SE2) -> RoadMap:
    return RoadMap(torch.from_numpy(np.random.default_rng(0).random((60, 80)) < 0.1), 0.5, origin)


@settings(max_examples=150, deadline=None)
@given(RASTERS, RESOLUTIONS, POSES, POSES, SMALL_GRIDS, st.sampled_from([0.0, 0.5, 1.7]), st.booleans())
def test_every_cell_within_the_dilation_of_the_road_is_in_the_mask_and_none_far_from_it(
    cells: torch.Tensor,
    resolution: float,
    origin: SE2,
    map_from_grid: SE2,
    grid: Grid,
    dilation: float,
    outside: bool,
) -> None:
    road = RoadMap(cells, resolution, origin, outside)
    view = RoadView(road, map_from_grid)
    mask = view.mask(grid, dilation).numpy()
    squares, area = polygons_of(road, map_from_grid, grid)
    assert mask[shapely.area(shapely.intersection(squares, area)) > 1e-5].all()
    apart = shapely.distance(shapely.centroid(squares), area)
    assert mask[apart <= dilation].all()
    assert (apart[mask] <= dilation + grid.resolution + resolution * (math.sqrt(2) + 2e-3)).all()
    assert view.has_road(grid) == RoadView(replace(road, outside=False), map_from_grid).mask(grid).any()


@settings(max_examples=100, deadline=None)
@given(RASTERS, RESOLUTIONS, POSES, POSES, st.sampled_from([0.0, 0.5]), st.booleans())
def test_in_a_mirror_the_mask_is_mirrored(
    cells: torch.Tensor, resolution: float, origin: SE2, map_from_grid: SE2, dilation: float, outside: bool
) -> None:
    grid, view = Grid(1.0, 8.0, -2.5, 2.5, 0.5), RoadView(RoadMap(cells, resolution, origin, outside), map_from_grid)
    differs = view.mirrored().mask(grid, dilation).flip(0) != view.mask(grid, dilation)
    # A centre on the border of raster cells may see any of them.
    steps = [SE2(x, y) for x in (-1e-6, 1e-6) for y in (-1e-6, 1e-6)]
    beside = torch.stack([RoadView(view.road, map_from_grid @ step).mask(grid, dilation) for step in steps])
    assert not differs[beside.all(0) | ~beside.any(0)].any()


@settings(max_examples=100, deadline=None)
@given(RASTERS, RESOLUTIONS, POSES, POSES, SMALL_GRIDS)
def test_the_coverage_is_the_share_of_the_grid_that_lies_on_the_raster(
    cells: torch.Tensor, resolution: float, origin: SE2, map_from_grid: SE2, grid: Grid
) -> None:
    road = RoadMap(torch.ones_like(cells), resolution, origin)
    squares, area = polygons_of(road, map_from_grid, grid)
    common = shapely.area(shapely.intersection(shapely.union_all(squares), area))
    whole = grid.height * grid.width * grid.resolution**2
    assert RoadView(road, map_from_grid).coverage(grid) == pytest.approx(common / whole, abs=1e-9)


def test_the_road_is_made_once_per_pose_and_grown_once_per_map(monkeypatch: pytest.MonkeyPatch) -> None:
    road = _random_road(SE2(1.0, -15.0, 0.1))
    first = RoadView(road, SE2())
    mask = first.mask(COMPACT, 0.5)
    grown = dict(road.grown)
    monkeypatch.setattr("sbnet_perception.masks.road.dilate_by_runs", None)
    assert first.mask(COMPACT, 0.5) is mask
    assert (RoadView(road, SE2(0.3, 0.1, 0.02)).mask(COMPACT, 0.5) != mask).any()
    assert road.grown == grown


def test_far_from_the_origin_a_city_map_is_placed_the_same() -> None:
    away = SE2(4.4e6, 6.9e5, 1.1)
    near = RoadView(_random_road(SE2(1.0, -2.0, 0.7)), SE2(10.0, 5.0, -0.4)).mask(COMPACT)
    far = RoadView(_random_road(away @ SE2(1.0, -2.0, 0.7)), away @ SE2(10.0, 5.0, -0.4)).mask(COMPACT)
    assert near.any()
    assert (near != far).float().mean() < 1e-3


def test_a_map_elsewhere_has_no_road_and_does_not_cover_the_grid() -> None:
    road = RoadMap(torch.ones(50, 50, dtype=torch.bool), 1.0, SE2(1e6, 0.0, 0.3))
    assert not RoadView(road, SE2(-1e300, 0.0, 1.0)).mask(COMPACT, 0.5).any()
    assert not RoadView(road, SE2()).has_road(COMPACT)
    assert RoadView(road, SE2()).coverage(COMPACT) == 0.0
    unknown = replace(road, outside=True)
    assert RoadView(unknown, SE2(-1e300, 0.0, 1.0)).mask(COMPACT, 0.5).all()
    assert not RoadView(unknown, SE2()).has_road(COMPACT)


@pytest.mark.parametrize(
    ("cells", "resolution", "reason"),
    [
        (torch.zeros(0, 5, dtype=torch.bool), 0.1, r"road cells .* torch.bool \[0, 5\]"),
        (torch.zeros(5, 5, dtype=torch.uint8), 0.1, r"road cells .* got torch\.uint8 \[5, 5\]"),
        (torch.zeros(5, 5, dtype=torch.bool), 0.0, "road resolution .* got 0.0"),
        (torch.zeros(5, 5, dtype=torch.bool), math.nan, "road resolution .* got nan"),
    ],
)
def test_a_malformed_map_is_refused(cells: torch.Tensor, resolution: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        RoadMap(cells, resolution, SE2())


@st.composite
def _stars(draw: st.DrawFn) -> np.ndarray:
    """Simple polygons around a point, often concave."""
    radii = draw(st.lists(st.floats(0.2, 4), min_size=3, max_size=9))
    turn = draw(st.floats(0, 1))
    angles = (np.arange(len(radii)) + turn) * (2 * math.pi / len(radii))
    centre = draw(st.tuples(st.floats(-3, 3), st.floats(-3, 3)))
    ring = np.array(centre) + np.array(radii)[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    return ring[::-1] if draw(st.booleans()) else ring


@settings(max_examples=100, deadline=None)
@given(
    st.lists(_stars(), min_size=1, max_size=3),
    st.lists(_stars(), max_size=2),
    st.sampled_from([0.3, 0.5, 1.0]),
)
def test_polygons_become_exactly_the_cells_that_they_touch_outside_of_holes(
    rings: list[np.ndarray], holes: list[np.ndarray], resolution: float
) -> None:
    road = RoadMap.from_polygons(rings, resolution, holes)
    cells = road.cells.numpy()
    squares = squares_of(np.ones_like(cells), resolution, road.origin).reshape(cells.shape)
    polygons = shapely.union_all([shapely.Polygon(ring) for ring in rings])
    touched = shapely.area(shapely.intersection(squares, polygons))
    apart = shapely.distance(squares, polygons)
    in_hole = np.zeros_like(cells)
    near_hole = np.zeros_like(cells)
    for hole in map(shapely.Polygon, holes):
        shrunk, grown = (shapely.buffer(hole, margin) for margin in (-1e-6, 1e-6))
        in_hole |= shapely.contains(shrunk, squares)
        near_hole |= shapely.contains(grown, squares)
    assert cells[(touched > 1e-6) & ~near_hole].all()
    assert not cells[apart > 1e-6].any()
    assert not cells[in_hole].any()


def test_polygons_that_cannot_be_a_map_are_refused() -> None:
    with pytest.raises(ValueError, match="polygons is empty"):
        RoadMap.from_polygons([], 0.5)
    with pytest.raises(ValueError, match=r"finite \[K >= 3, 2\] array, got shape \[2, 2\]"):
        RoadMap.from_polygons([np.zeros((2, 2))], 0.5)
    with pytest.raises(ValueError, match="coarser resolution"):
        RoadMap.from_polygons([np.array([(0, 0), (1e7, 0), (0, 1e7)])], 0.1)
