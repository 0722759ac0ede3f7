"""Point cloud to network input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import (
    ABOVE,
    BELOW,
    BIN_HEIGHT,
    BINS,
    CHANNELS,
    INTENSITY,
    Z_MIN,
    plain_voxels,
    voxels,
)

SMALL = Grid(0.0, 4.0, -2.0, 2.0, 0.5)
# Off the borders of cells and bins, where float32 and float64 agree.
COORDINATE = st.integers(-600, 600).map(lambda n: n / 100 + 0.005)
CLOUDS = st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE, st.floats(0, 1, width=32)), max_size=60).map(
    lambda rows: np.array(rows, dtype=np.float32).reshape(-1, 4)
)


def voxelize(points: np.ndarray, grid: Grid) -> torch.Tensor:
    return voxels(torch.from_numpy(points), grid).dense()


def _point_by_point(points: np.ndarray, grid: Grid) -> np.ndarray:
    """The definition, one point at a time."""
    image = np.zeros((CHANNELS, *grid.shape))
    columns: dict[tuple[int, int], list[float]] = {}
    for x, y, z, intensity in points.tolist():
        if not (grid.x_min <= x < grid.x_max and grid.y_min <= y < grid.y_max):
            continue
        row, col = int((y - grid.y_min) / grid.resolution), int((x - grid.x_min) / grid.resolution)
        channel = BELOW if z < -2 else ABOVE if z >= 4 else math.floor((z + 2) / 0.2)
        image[channel, row, col] = 1
        columns.setdefault((row, col), []).append(intensity)
    for (row, col), values in columns.items():
        image[INTENSITY, row, col] = sum(values) / len(values)
    return image


@settings(max_examples=100, deadline=None)
@given(CLOUDS)
def test_voxelization_follows_its_definition_point_by_point(points: np.ndarray) -> None:
    image = voxelize(points, SMALL)
    assert image.shape == (1, CHANNELS, *SMALL.shape)
    assert image.dtype == torch.float32
    assert image.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(image[0].numpy(), _point_by_point(points, SMALL), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(CLOUDS)
def test_voxels_are_the_occupied_cells_of_the_dense_map_and_count_their_points(points: np.ndarray) -> None:
    seen = voxels(torch.from_numpy(points), SMALL)
    assert torch.equal(seen.pixels.mask(), seen.dense().bool().any(1)) and seen.channels == CHANNELS
    assert seen.points.shape == () and int(seen.points) == SMALL.cells(points)[2].sum()


def test_millions_of_points_give_the_same_voxels_with_any_number_of_threads() -> None:
    points = np.random.default_rng(0).uniform([-5, -25, -4, 0], [75, 25, 6, 1], (2_000_000, 4)).astype(np.float32)
    cloud, grid, threads = torch.from_numpy(points), Grid.named("paper"), torch.get_num_threads()
    where = grid.bounds, grid.resolution, grid.shape, Z_MIN, BIN_HEIGHT, BINS
    expected = plain_voxels(cloud, *where)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, torch.ops.sbnet.voxelize(cloud, *where), expected))
    finally:
        torch.set_num_threads(threads)


@settings(max_examples=50, deadline=None)
@given(CLOUDS, st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(points: np.ndarray, random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(points))  # type: ignore[attr-defined]
    torch.testing.assert_close(voxelize(points[order], SMALL), voxelize(points, SMALL))


@pytest.mark.parametrize(
    ("z", "channel"),
    [(-1e9, BELOW), (-2.001, BELOW), (-2.0, 0), (-1.801, 0), (3.999, 29), (4.0, ABOVE), (3e38, ABOVE)],
)
def test_the_lowest_bin_is_closed_below_and_the_highest_open_above(z: float, channel: int) -> None:
    image = voxelize(np.array([[1, 0, z, 0.25]], dtype=np.float32), SMALL)
    assert torch.nonzero(image).tolist() == [[0, channel, 4, 2], [0, INTENSITY, 4, 2]]
    assert image.sum() == 1.25


def test_points_with_any_value_that_is_not_finite_are_ignored() -> None:
    points = np.ones((12, 4), dtype=np.float32)
    for i, bad in enumerate([np.nan, np.inf, -np.inf]):
        points[np.arange(4) + 4 * i, np.arange(4)] = bad
    assert voxelize(points, SMALL).count_nonzero() == 0


def test_a_cloud_without_points_gives_an_empty_image() -> None:
    assert voxelize(np.empty((0, 4), dtype=np.float32), SMALL).count_nonzero() == 0


def test_points_on_the_upper_edges_of_the_range_are_left_out() -> None:
    points = np.array([[4, 0, 0, 1], [1, 2, 0, 1], [4, 2, 0, 1]], dtype=np.float32)
    assert voxelize(points, SMALL).count_nonzero() == 0
