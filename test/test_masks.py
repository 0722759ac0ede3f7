"""Dilation, occupancy and computation masks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from road_geometry import RASTERS
from scipy import ndimage

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.frame import Frame
from sbnet_perception.masks.occupancy import occupancy_mask
from sbnet_perception.masks.road import RoadMap, RoadView

COMPACT = Grid.named("compact")


@settings(max_examples=100, deadline=None)
@given(RASTERS, st.floats(0, 3), st.sampled_from([0.05, 0.2, 0.5]))
def test_dilation_is_scipys_by_a_disc(mask: np.ndarray, metres: float, resolution: float) -> None:
    radius = metres / resolution + 1e-6
    reach = np.arange(-math.floor(radius), math.floor(radius) + 1)
    disc = np.hypot(reach[:, None], reach) <= radius
    before = mask.copy()
    found = dilate(torch.from_numpy(mask), metres, resolution)
    np.testing.assert_array_equal(found, ndimage.binary_dilation(mask, disc))
    np.testing.assert_array_equal(mask, before)


def test_a_dilation_that_is_not_a_length_is_refused() -> None:
    for metres in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="metres must be finite and not negative"):
            dilate(torch.zeros(2, 2, dtype=torch.bool), metres, 0.2)


def _scene(lift: float = 0.0) -> torch.Tensor:
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
    return torch.from_numpy((np.concatenate(parts) + np.array([0, 0, lift, 0])).astype(np.float32))


ROAD = torch.from_numpy(np.abs(COMPACT.y_centres) < 8)[:, None].repeat(1, COMPACT.width)


def _at(mask: np.ndarray | torch.Tensor, x: float, y: float) -> bool:
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
    result = computation_mask(Frame(_scene(), COMPACT, MaskConfig(), ROAD))
    assert result.used == ("road", "occupancy")
    assert not result.missing
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
    expression: str, road: torch.Tensor | None, used: tuple[str, ...], missing: bool
) -> None:
    result = computation_mask(Frame(_scene(), COMPACT, MaskConfig(expression), road))
    assert (result.used, result.missing) == (used, ("road",) if missing else ())
    assert (result.mask is None) == (used == ())
    if used == ("occupancy",):
        np.testing.assert_array_equal(result.mask, dilate(occupancy_mask(_scene(), COMPACT, 0.35, 3.2), 0.5, 0.2))
    if used == ("road",):
        np.testing.assert_array_equal(result.mask, dilate(ROAD, 0.5, 0.2))


def test_a_cloud_without_points_leaves_nothing_to_compute() -> None:
    result = computation_mask(Frame(torch.empty(0, 4), COMPACT, MaskConfig(), ROAD))
    assert result.mask is not None
    assert not result.mask.any()


def test_a_raster_of_another_shape_or_type_or_missing_is_refused() -> None:
    for wrong in (torch.zeros(3, 3, dtype=torch.bool), torch.zeros(COMPACT.shape, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"road must be bool \[200, 352\]"):
            Frame(_scene(), COMPACT, MaskConfig(), wrong)
        with pytest.raises(ValueError, match=r"predicted must be bool \[200, 352\]"):
            Frame(_scene(), COMPACT, MaskConfig(), ROAD, predicted=wrong)
    with pytest.raises(ValueError, match="predicted is missing; the mask is 'road and predicted'"):
        computation_mask(Frame(_scene(), COMPACT, MaskConfig("road and predicted"), ROAD))


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


def _frame(real_data: Path, name: str, ground: float) -> tuple[np.ndarray, np.ndarray, RoadView | None]:
    """Points and vehicle boxes with z = 0 on the ground, and the road."""
    with np.load(real_data / "frames" / f"{name}.npz") as frame:
        points = frame["points"]
        boxes = frame["boxes"][np.isin(frame["labels"], VEHICLES)]
        points[:, 2] += ground
        boxes[:, 2] += ground
        road = None
        if "road_mask" in frame:
            cells = torch.from_numpy(frame["road_mask"] > 0)
            road = RoadView(RoadMap(cells, 0.1, SE2(0.0, -20.0, 0.0)), SE2())
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


def _mask(
    points: np.ndarray | torch.Tensor, road: RoadView | None, name: str = "road_and_occupancy"
) -> np.ndarray:
    """The compact grid's computation mask, which must not be dense."""
    mask = computation_mask(Frame(torch.as_tensor(points), COMPACT, MaskConfig(EXPRESSIONS[name]), road)).mask
    assert mask is not None
    return mask.numpy()


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
