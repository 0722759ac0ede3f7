"""Road, occupancy and computation masks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from road_geometry import POSES, RASTERS, RESOLUTIONS, SMALL_GRIDS, polygons_of, squares_of
from sbnet_perception.masks.view import RoadView
from scipy import ndimage

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.occupancy import occupancy_mask
from sbnet_perception.masks.road import RoadMap, covers, road_mask

COMPACT = Grid.named("compact")


# --- road -------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(RASTERS, RESOLUTIONS, POSES, POSES, SMALL_GRIDS)
def test_every_grid_cell_that_overlaps_road_is_road_and_none_far_from_it(
    cells: np.ndarray, resolution: float, origin: SE2, map_from_grid: SE2, grid: Grid
) -> None:
    road = RoadMap(cells, resolution, origin)
    mask = road_mask(road, map_from_grid, grid)
    squares, area = polygons_of(road, map_from_grid, grid)
    assert mask[shapely.area(shapely.intersection(squares, area)) > 1e-5].all()
    assert (shapely.distance(squares[mask], area) <= grid.resolution / 2 + 1e-6).all()


STEPS = st.integers(-100, 100).map(lambda n: n * 0.05)
QUARTERS = st.builds(lambda x, y, n: SE2(x, y, n * math.pi / 2), STEPS, STEPS, st.integers(-2, 3))


@settings(max_examples=100, deadline=None)
@given(RASTERS, RESOLUTIONS, QUARTERS, QUARTERS, SMALL_GRIDS)
def test_with_parallel_axes_the_resampling_is_exact(
    cells: np.ndarray, resolution: float, origin: SE2, map_from_grid: SE2, grid: Grid
) -> None:
    road = RoadMap(cells, resolution, origin)
    squares, area = polygons_of(road, map_from_grid, grid)
    expected = shapely.area(shapely.intersection(squares, area)) > 1e-5
    np.testing.assert_array_equal(road_mask(road, map_from_grid, grid), expected)


@settings(max_examples=100, deadline=None)
@given(RASTERS, RESOLUTIONS, POSES, POSES, SMALL_GRIDS)
def test_a_map_covers_the_grid_exactly_when_their_rectangles_overlap(
    cells: np.ndarray, resolution: float, origin: SE2, map_from_grid: SE2, grid: Grid
) -> None:
    road = RoadMap(np.ones_like(cells), resolution, origin)
    squares, area = polygons_of(road, map_from_grid, grid)
    whole = shapely.union_all(squares)
    covered = covers(road, map_from_grid, grid)
    # Rectangles that only touch may be called either way.
    assert covered or shapely.area(shapely.intersection(whole, area)) < 1e-9
    assert not covered or shapely.distance(whole, area) < 1e-9


@pytest.mark.parametrize("expression", ["road", "dilate(road, 0.5)", "dilate(road or occupancy, 0.5)"])
def test_a_view_stands_for_the_road_in_every_expression(expression: str) -> None:
    road = RoadMap(np.ones((16, 71), np.bool_), 1.0, SE2(0.0, -8.0, 0.0))
    raster = road_mask(road, SE2(), COMPACT)
    by_view = computation_mask(_scene(), COMPACT, RoadView(road, SE2()), MaskConfig(expression)).mask
    by_raster = computation_mask(_scene(), COMPACT, raster, MaskConfig(expression)).mask
    assert by_view is not None and by_raster is not None
    assert by_view[by_raster].all()
    assert not by_view[~dilate(by_raster, 1.0 + 0.2 + 0.01, 0.2)].any()


def test_far_from_the_origin_a_city_map_is_resampled_the_same() -> None:
    cells = np.random.default_rng(0).random((60, 80)) < 0.3
    near = road_mask(RoadMap(cells, 0.5, SE2(1.0, -2.0, 0.7)), SE2(10.0, 5.0, -0.4), COMPACT)
    away = SE2(4.4e6, 6.9e5, 1.1)
    far = road_mask(RoadMap(cells, 0.5, away @ SE2(1.0, -2.0, 0.7)), away @ SE2(10.0, 5.0, -0.4), COMPACT)
    assert near.any()
    assert (near != far).mean() < 1e-3


def test_a_map_elsewhere_has_no_road_and_does_not_cover_the_grid() -> None:
    road = RoadMap(np.ones((50, 50), dtype=np.bool_), 1.0, SE2(1e6, 0.0, 0.3))
    assert not road_mask(road, SE2(), COMPACT).any()
    assert not RoadView(road, SE2(-1e300, 0.0, 1.0)).mask(COMPACT, 0.5).any()
    assert not RoadView(road, SE2()).has_road(COMPACT)
    assert not covers(road, SE2(), COMPACT)


@pytest.mark.parametrize(
    ("cells", "resolution", "reason"),
    [
        (np.zeros((0, 5), np.bool_), 0.1, r"road cells .* bool \[0, 5\]"),
        (np.zeros((5, 5), np.uint8), 0.1, "road cells .* uint8"),
        (np.zeros((5, 5), np.bool_), 0.0, "road resolution .* got 0.0"),
        (np.zeros((5, 5), np.bool_), math.nan, "road resolution .* got nan"),
    ],
)
def test_a_malformed_map_is_refused(cells: np.ndarray, resolution: float, reason: str) -> None:
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
    squares = squares_of(np.ones_like(road.cells), resolution, road.origin).reshape(road.cells.shape)
    polygons = shapely.union_all([shapely.Polygon(ring) for ring in rings])
    touched = shapely.area(shapely.intersection(squares, polygons))
    apart = shapely.distance(squares, polygons)
    in_hole = np.zeros_like(road.cells)
    near_hole = np.zeros_like(road.cells)
    for hole in map(shapely.Polygon, holes):
        shrunk, grown = (shapely.buffer(hole, margin) for margin in (-1e-6, 1e-6))
        in_hole |= shapely.contains(shrunk, squares)
        near_hole |= shapely.contains(grown, squares)
    assert road.cells[(touched > 1e-6) & ~near_hole].all()
    assert not road.cells[apart > 1e-6].any()
    assert not road.cells[in_hole].any()


def test_polygons_that_cannot_be_a_map_are_refused() -> None:
    with pytest.raises(ValueError, match="polygons is empty"):
        RoadMap.from_polygons([], 0.5)
    with pytest.raises(ValueError, match=r"finite \[K >= 3, 2\] array, got shape \[2, 2\]"):
        RoadMap.from_polygons([np.zeros((2, 2))], 0.5)
    with pytest.raises(ValueError, match="coarser resolution"):
        RoadMap.from_polygons([np.array([(0, 0), (1e7, 0), (0, 1e7)])], 0.1)


# --- dilation, occupancy, combination -----------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(RASTERS, st.floats(0, 3), st.sampled_from([0.05, 0.2, 0.5]))
def test_dilation_is_scipys_by_a_disc(mask: np.ndarray, metres: float, resolution: float) -> None:
    radius = metres / resolution + 1e-6
    reach = np.arange(-math.floor(radius), math.floor(radius) + 1)
    disc = np.hypot(reach[:, None], reach) <= radius
    before = mask.copy()
    np.testing.assert_array_equal(dilate(mask, metres, resolution), ndimage.binary_dilation(mask, disc))
    np.testing.assert_array_equal(mask, before)


def test_a_dilation_that_is_not_a_length_is_refused() -> None:
    for metres in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="metres must be finite and not negative"):
            dilate(np.zeros((2, 2), np.bool_), metres, 0.2)


def _scene(lift: float = 0.0) -> np.ndarray:
    """Flat ground with a car at (20, 3), a gantry at x = 40 and a bush beside the road at (30, -15)."""
    rng = np.random.default_rng(0)

    def box(count: int, low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
        return np.column_stack([rng.uniform(low, high, (count, 3)), np.zeros(count)])

    parts = [
        box(60000, (0, -20, -0.02), (70.4, 20, 0.02)),
        box(400, (18, 2, 0.4), (22, 4, 1.5)),
        box(400, (40, -20, 5.0), (40.5, 20, 6.0)),
        box(400, (29, -16, 0.4), (31, -14, 1.5)),
    ]
    return (np.concatenate(parts) + np.array([0, 0, lift, 0])).astype(np.float32)


ROAD = np.repeat(np.abs(COMPACT.y_centres)[:, None] < 8, COMPACT.width, axis=1)


def _at(mask: np.ndarray, x: float, y: float) -> bool:
    row, col, _ = COMPACT.cells(np.array([[x, y]]))
    return bool(mask[row[0], col[0]])


@pytest.mark.parametrize("lift", [0.0, -1.73, 0.5])
def test_occupancy_keeps_what_stands_on_the_ground_at_any_sensor_height(lift: float) -> None:
    mask = _mask(_scene(lift), None, "occupancy")
    assert _at(mask, 20, 3)
    assert _at(mask, 30, -15)
    assert not _at(mask, 40.2, 0)
    assert mask.mean() < 0.02


def test_the_default_mask_is_what_stands_on_the_road() -> None:
    result = computation_mask(_scene(), COMPACT, ROAD, MaskConfig())
    assert result.used == ("road", "occupancy")
    assert not result.missing_road
    assert result.mask is not None
    assert _at(result.mask, 20, 3)
    assert not _at(result.mask, 30, -15)
    assert not _at(result.mask, 60, 0)


@pytest.mark.parametrize(
    ("expression", "road", "used", "missing"),
    [
        ("dilate(road, 0.5) and dilate(occupancy, 0.5)", None, ("occupancy",), True),
        ("dilate(road, 0.5) or dilate(occupancy, 0.5)", None, (), True),
        ("(road or occupancy) and dilate(occupancy, 0.5)", None, ("occupancy",), True),
        ("dilate(road, 0.5)", None, (), True),
        ("dilate(road, 0.5)", ROAD, ("road",), False),
        ("dilate(occupancy, 0.5)", None, ("occupancy",), False),
        ("everywhere and dilate(occupancy, 0.5)", ROAD, ("occupancy",), False),
        ("dilate(everywhere, 1) or road", ROAD, (), False),
        ("everywhere", ROAD, (), False),
        ("everywhere", None, (), False),
    ],
)
def test_a_missing_road_counts_as_everywhere_and_no_mask_at_all_means_dense(
    expression: str, road: np.ndarray | None, used: tuple[str, ...], missing: bool
) -> None:
    result = computation_mask(_scene(), COMPACT, road, MaskConfig(expression))
    assert (result.used, result.missing_road) == (used, missing)
    assert (result.mask is None) == (used == ())
    if used == ("occupancy",):
        np.testing.assert_array_equal(result.mask, dilate(occupancy_mask(_scene(), COMPACT, 0.35, 3.2), 0.5, 0.2))
    if used == ("road",):
        np.testing.assert_array_equal(result.mask, dilate(ROAD, 0.5, 0.2))


def test_a_cloud_without_points_leaves_nothing_to_compute() -> None:
    result = computation_mask(np.empty((0, 4), np.float32), COMPACT, ROAD, MaskConfig())
    assert result.mask is not None
    assert not result.mask.any()


def test_a_raster_of_another_shape_or_type_or_missing_is_refused() -> None:
    for wrong in (np.zeros((3, 3), np.bool_), np.zeros(COMPACT.shape, np.uint8)):
        with pytest.raises(ValueError, match=r"road must be bool \[200, 352\]"):
            computation_mask(_scene(), COMPACT, wrong, MaskConfig())
        with pytest.raises(ValueError, match=r"predicted must be bool \[200, 352\]"):
            computation_mask(_scene(), COMPACT, ROAD, MaskConfig(), predicted=wrong)
    with pytest.raises(ValueError, match="predicted is missing; the mask is 'road and predicted'"):
        computation_mask(_scene(), COMPACT, ROAD, MaskConfig("road and predicted"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"expression": "roads"}, "expression is 'roads'; at character 1 road, .* was expected, not 'roads'"),
        ({"min_height": math.nan}, "min_height is nan"),
        ({"min_height": 4.0}, "max_height is 3.2; it must be above min_height, 4"),
    ],
)
def test_an_impossible_mask_configuration_is_refused_by_field(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MaskConfig(**fields)  # type: ignore[arg-type]


# --- real frames ----------------------------------------------------------------------------------------

VEHICLES = [
    "REGULAR_VEHICLE",
    "BUS",
    "LARGE_VEHICLE",
    "BOX_TRUCK",
    "TRUCK",
    "Car",
    "Van",
    "Truck",
    "car",
    "truck",
]


def _frame(real_data: Path, name: str, ground: float) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Points and vehicle boxes with z = 0 on the ground, and the road on the compact grid."""
    with np.load(real_data / "frames" / f"{name}.npz") as frame:
        points = frame["points"]
        boxes = frame["boxes"][np.isin(frame["labels"], VEHICLES)]
        points[:, 2] += ground
        boxes[:, 2] += ground
        road = None
        if "road_mask" in frame:
            raster = RoadMap(frame["road_mask"].astype(np.bool_), 0.1, SE2(0.0, -20.0, 0.0))
            road = road_mask(raster, SE2(), COMPACT)
        return points, boxes, road


def _seen_boxes(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The boxes wholly within the range that hold more than 15 points."""
    kept = []
    for box in boxes:
        own = SE2(float(box[0]), float(box[1]), float(box[6]))
        offset = np.abs(np.column_stack([own.inverse().apply(points[:, :2]), points[:, 2] - box[2]]))
        corners = own.apply(np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * box[3:5] / 2)
        if (offset <= box[3:6] / 2 + 0.1).all(axis=1).sum() > 15 and COMPACT.cells(corners)[2].all():
            kept.append(box)
    return np.array(kept)


def _tiles(mask: np.ndarray, side: int) -> np.ndarray:
    """Which tiles of side x side grid cells are active."""
    h, w = mask.shape
    padded = np.pad(mask, ((0, -h % side), (0, -w % side)))
    return padded.reshape(padded.shape[0] // side, side, -1, side).any(axis=(1, 3))


def _mask(points: np.ndarray, road: np.ndarray | None, name: str = "road_and_occupancy") -> np.ndarray:
    """The compact grid's computation mask, which must not be dense."""
    mask = computation_mask(points, COMPACT, road, MaskConfig(EXPRESSIONS[name])).mask
    assert mask is not None
    return mask


@pytest.mark.parametrize(
    ("name", "ground", "vehicles"),
    [("av2_adcf7d18", 0.33, 9), ("kitti_000008", 1.7, 6), ("nuscenes_n015", 0.0, 1)],
)
def test_on_real_frames_every_vehicle_seen_well_keeps_its_centre_at_stride_4(
    real_data: Path, name: str, ground: float, vehicles: int
) -> None:
    points, boxes, road = _frame(real_data, name, ground)
    # The header's tiles: 2 pixels of stride 4.
    active = _tiles(_mask(points, road), 8)
    seen = _seen_boxes(points, boxes)
    assert len(seen) == vehicles
    row, col, _ = COMPACT.cells(seen)
    assert active[row // 8, col // 8].all()


def test_on_a_real_sweep_with_its_map_nine_tenths_of_the_tiles_need_no_computation(real_data: Path) -> None:
    points, _, road = _frame(real_data, "av2_adcf7d18", 0.33)
    assert road is not None
    only_road, both = _mask(points, road, "road"), _mask(points, road)
    # 0.8 m and 1.6 m, the tiles of 8 and 16 pixels at stride 2 of the paper's grid.
    assert 0.45 < _tiles(only_road, 4).mean() < 0.60
    assert 0.07 < _tiles(both, 4).mean() < 0.11
    assert 0.11 < _tiles(both, 8).mean() < 0.16


@pytest.mark.parametrize(
    ("name", "ground"), [("kitti_000001", 1.7), ("kitti_000008", 1.7), ("nuscenes_n015", 0.0)]
)
def test_on_real_frames_without_a_map_occupancy_alone_leaves_under_a_fifth(
    real_data: Path, name: str, ground: float
) -> None:
    points, _, _ = _frame(real_data, name, ground)
    assert 0.10 < _tiles(_mask(points, None), 4).mean() < 0.20
