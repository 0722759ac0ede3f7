"""The compiled operations of masks and tiles answer exactly as their plain forms, for any number of threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sbnet_perception.masks.view import sample, sample_in_numpy

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.ground import height_above_ground, heights_in_numpy
from sbnet_perception.blocks import Tiles, plain
from sbnet_perception.blocks import operation as ops
from sbnet_perception.masks.dilate import dilate_by_runs, dilate_in_numpy
from sbnet_perception.masks.occupancy import occupancy_in_numpy, occupancy_mask

pytestmark = pytest.mark.skipif(bool(ops.UNAVAILABLE), reason=ops.UNAVAILABLE or "built")

GRIDS = st.sampled_from(
    [Grid.named("compact"), Grid(-3.0, 4.0, -2.5, 2.5, 0.5), Grid(1e5, 1e5 + 8, -20.0, -19.0, 1.0), Grid(0, 1, 0, 1, 1)]
)
# Cell edges of the ground and of the grids, heights at the limits, what is not finite or does not fit.
COORDINATES = st.one_of(
    st.sampled_from([0.0, -0.0, 4.0, -4.0, 1e-30, -1e-30, 70.4, 20.0, -20.0, 252.0, -256.0, 1e5, 1e5 + 1]),
    st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -3e38, 1e9, -40.96, 40.95, 50.0, -50.0]),
    st.integers(-300, 300).map(lambda n: n * 0.05),
    st.floats(-30, 80, width=32),
)
CLOUDS = st.integers(0, 60).flatmap(lambda count: arrays(np.float32, (count, 4), elements=COORDINATES))


@pytest.fixture(params=[1, 2, 5], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def _drive(seed: int, count: int) -> np.ndarray:
    """Enough points for every thread: a rough hill with boxes on it."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-90, -90, 0, 0), (90, 90, 1, 1), (count, 4)).astype(np.float32)
    points[:, 2] = np.sin(points[:, 0] / 9) + (rng.random(count) < 0.2) * rng.uniform(0, 4, count)
    points[rng.integers(0, count, 50), rng.integers(0, 3, 50)] = np.nan
    return points


@settings(max_examples=150, deadline=None)
@given(CLOUDS, st.none() | GRIDS)
def test_the_ground_is_the_plain_one_for_any_points(points: np.ndarray, grid: Grid | None) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected = heights_in_numpy(points, grid)
    np.testing.assert_array_equal(height_above_ground(points, grid), expected)


@settings(max_examples=150, deadline=None)
@given(CLOUDS, GRIDS, st.sampled_from([(0.35, 3.2), (-math.inf, math.inf), (0.0, 0.0)]))
def test_the_occupied_cells_are_the_plain_ones_for_any_points(
    points: np.ndarray, grid: Grid, heights: tuple[float, float]
) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected = occupancy_in_numpy(points, grid, *heights)
    np.testing.assert_array_equal(occupancy_mask(points, grid, *heights), expected)


@pytest.mark.parametrize("layout", ["rows", "columns", "slice", "reversed", "read-only", "float64"])
def test_a_large_cloud_in_any_memory_layout_has_the_plain_ground_and_cells(layout: str) -> None:
    points = _drive(0, 120_000)
    arranged: dict[str, Callable[[], Any]] = {
        "rows": lambda: points,
        "columns": lambda: np.asfortranarray(points),
        "slice": lambda: np.repeat(points, 2, axis=0)[::2, :3],
        "reversed": lambda: points[::-1].copy()[::-1],
        "read-only": lambda: np.frombuffer(points.tobytes(), np.float32).reshape(-1, 4),
        "float64": lambda: points.astype(np.float64),
    }
    cloud, grid = arranged[layout](), Grid.named("paper")
    np.testing.assert_array_equal(height_above_ground(cloud), heights_in_numpy(points))
    expected = occupancy_in_numpy(points, grid, 0.35, 3.2)
    assert expected.any()
    np.testing.assert_array_equal(occupancy_mask(cloud, grid, 0.35, 3.2), expected)


MASKS = st.tuples(st.integers(1, 40), st.integers(1, 200)).flatmap(
    lambda shape: st.builds(
        lambda seed, share: np.random.default_rng(seed).random(shape) < share,
        st.integers(0, 1000),
        st.sampled_from([0, 0.002, 0.05, 0.5, 1]),
    )
)
RUNS = st.lists(st.integers(0, 12) | st.integers(50, 300), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(MASKS, RUNS, st.booleans())
def test_a_dilation_is_the_plain_one_for_any_width_and_runs(mask: np.ndarray, runs: list[int], turned: bool) -> None:
    mask = mask.T[::-1] if turned else mask
    before = mask.copy()
    runs.sort(reverse=True)
    np.testing.assert_array_equal(dilate_by_runs(mask, runs), dilate_in_numpy(mask, runs))
    np.testing.assert_array_equal(mask, before)


TILES = st.tuples(st.integers(1, 5), st.integers(1, 5)) | st.just((99, 3))
LEVELS = st.lists(st.tuples(TILES, st.sampled_from([1, 2, 3, 4, 16])), max_size=6)


@settings(max_examples=150, deadline=None)
@given(MASKS, st.integers(0, 3), LEVELS)
def test_a_pyramid_of_tiles_is_each_partition_from_the_mask(
    image: np.ndarray, images: int, levels: list[tuple[tuple[int, int], int]]
) -> None:
    mask = torch.from_numpy(np.stack([np.roll(image, turn, axis=1) for turn in range(3)]))[:images]
    tiles, strides = [tile for tile, _ in levels], [stride for _, stride in levels]
    for found, tile, stride in zip(Tiles.pyramid(mask, tiles, strides), tiles, strides, strict=True):
        expected = Tiles.from_mask(mask, tile, stride)
        assert torch.equal(found.indices, expected.indices)
        assert (found.batch, found.size, found.tile) == (expected.batch, expected.size, expected.tile)


@settings(max_examples=200, deadline=None)
@given(MASKS, st.lists(st.integers(-(2**34), 2**34), min_size=6, max_size=6), st.integers(1, 9), st.integers(1, 70))
def test_a_raster_is_sampled_as_plainly_for_any_steps(raster: np.ndarray, steps: list[int], h: int, w: int) -> None:
    arguments = (raster, (steps[0] * 16, steps[1] * 16), (steps[2], steps[3]), (steps[4], steps[5] >> 33), (h, w))
    np.testing.assert_array_equal(sample(*arguments), sample_in_numpy(*arguments))


def test_the_pyramid_of_the_detector_is_each_of_its_partitions() -> None:
    mask = torch.rand(800, 1408, generator=torch.Generator().manual_seed(0)) < 0.003
    sides, strides = (2, 2, 2, 2, 1), (1, 2, 4, 8, 16)
    found = Tiles.pyramid(mask, [(side, side) for side in sides], strides)
    for tiles, side, stride in zip(found, sides, strides, strict=True):
        assert torch.equal(tiles.indices, Tiles.from_mask(mask, (side, side), stride).indices)


def test_the_pyramid_suits_torch_and_names_what_is_wrong() -> None:
    mask = torch.rand(2, 9, 13, generator=torch.Generator().manual_seed(0)) < 0.3
    assert set(torch.library.opcheck(torch.ops.sbnet.tile_pyramid, (mask, [2, 2, 4, 6])).values()) == {"SUCCESS"}
    for form in (torch.ops.sbnet.tile_pyramid, plain.tile_pyramid):
        for arguments, reason in (
            ((mask.float(), [2, 2]), "mask must be bool"),
            ((mask, [2, 2, 2]), "sides must be pairs"),
            ((mask, [2, 0]), "sides must be p"),
        ):
            with pytest.raises((RuntimeError, ValueError), match=reason):
                form(*arguments)
    with pytest.raises(ValueError, match="tiles and strides must be as many, got 1 and 2"):
        Tiles.pyramid(mask, [(2, 2)], [1, 2])
    with pytest.raises(ValueError, match="mask must be bool"):
        Tiles.pyramid(mask.float(), [(2, 2)], [1])


def test_an_unusable_argument_is_named() -> None:
    points, values = torch.zeros(3, 4), torch.zeros(3)
    everywhere, sbnet = (0.0, 1.0, 0.0, 1.0), torch.ops.sbnet
    calls: dict[str, Callable[[], Any]] = {
        "height_above_ground: points must be float32": lambda: sbnet.height_above_ground(points.double(), everywhere),
        "height_above_ground: range must be x_min": lambda: sbnet.height_above_ground(points, (1.0,)),
        r"mark_points: values must be float32 \[3\]": lambda: sbnet.mark_points(
            points, values[:2], 0, 1, everywhere, 1, (1, 1)
        ),
        "mark_points: range must be finite": lambda: sbnet.mark_points(
            points, values, 0, 1, (-math.inf, 1, 0, 1), 1, (1, 1)
        ),
        "mark_points: resolution must be positive": lambda: sbnet.mark_points(
            points, values, 0, 1, everywhere, 0, (1, 1)
        ),
        "mark_points: size must be in": lambda: sbnet.mark_points(points, values, 0, 1, everywhere, 1, (1, 0)),
        "dilate: mask must be bool": lambda: sbnet.dilate(points, [1]),
        "dilate: half_widths must be": lambda: sbnet.dilate(points > 0, [1, 2]),
        "sample_raster: raster must be bool": lambda: sbnet.sample_raster(points, *[(0, 0)] * 3, (1, 1)),
        "sample_raster: per_row must stay within": lambda: sbnet.sample_raster(
            points > 0, (0, 0), (0, 1 << 60), (0, 0), (9, 9)
        ),
    }
    for reason, call in calls.items():
        with pytest.raises(RuntimeError, match=reason):
            call()
