"""Point cloud to network input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from devices import on_cpu
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
from sbnet_perception.blocks.pixels import has_words

SMALL = Grid(0.0, 4.0, -2.0, 2.0, 0.5)
# Off the borders of cells and bins, where float32 and float64 agree.
COORDINATE = st.integers(-600, 600).map(lambda n: n / 100 + 0.005)
CLOUDS = st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE, st.floats(0, 1, width=32)), max_size=60).map(
    lambda rows: np.array(rows, dtype=np.float32).reshape(-1, 4)
)


def voxelize(points: np.ndarray, grid: Grid, device: torch.device) -> torch.Tensor:
    return voxels(torch.from_numpy(points).to(device), grid).dense().cpu()


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
def test_voxelization_follows_its_definition_point_by_point(device: torch.device, points: np.ndarray) -> None:
    image = voxelize(points, SMALL, device)
    assert image.shape == (1, CHANNELS, *SMALL.shape)
    assert image.dtype == torch.float32
    assert image.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(image[0].numpy(), _point_by_point(points, SMALL), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(CLOUDS)
def test_voxels_are_the_occupied_cells_of_the_dense_map_and_count_their_points(
    device: torch.device, points: np.ndarray
) -> None:
    seen = voxels(torch.from_numpy(points).to(device), SMALL)
    assert torch.equal(seen.pixels.mask(), seen.dense().bool().any(1)) and seen.channels == CHANNELS
    assert seen.points.shape == () and int(seen.points) == SMALL.cells(points)[2].sum()


@settings(max_examples=50, deadline=None)
@given(CLOUDS, st.integers(1, 40))
def test_a_capacity_keeps_the_first_voxels_and_tells_how_many_there_are(
    device: torch.device, points: np.ndarray, room: int
) -> None:
    cloud = torch.from_numpy(points).to(device)
    # A buffer has room for more points too.
    padded = torch.nn.functional.pad(cloud, (0, 0, 0, 3), value=math.nan)
    if not has_words(device):
        with pytest.raises(ValueError, match="capacity is for the kernels of a GPU"):
            voxels(padded, SMALL, room)
        return
    whole, found = voxels(cloud, SMALL), voxels(padded, SMALL, room)
    kept = min(room, len(whole.pixels))
    assert found.pixels.index[0].tolist() == [kept, len(whole.pixels)]
    assert torch.equal(found.pixels.flat[:kept], whole.pixels.flat[:kept]) and (found.pixels.flat[kept:] == -1).all()
    assert len(found.pixels) == len(found.bits) == len(found.last) == room and found.points == whole.points
    assert torch.equal(found.bits[:kept], whole.bits[:kept])
    torch.testing.assert_close(found.last[:kept], whole.last[:kept])


@pytest.mark.fault(9)
@on_cpu
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
def test_the_order_of_the_points_does_not_matter(device: torch.device, points: np.ndarray, random: object) -> None:
    order = np.random.default_rng(random.getrandbits(32)).permutation(len(points))  # type: ignore[attr-defined]
    torch.testing.assert_close(voxelize(points[order], SMALL, device), voxelize(points, SMALL, device))


@pytest.mark.parametrize(
    ("z", "channel"),
    [(-1e9, BELOW), (-2.001, BELOW), (-2.0, 0), (-1.801, 0), (3.999, 29), (4.0, ABOVE), (3e38, ABOVE)],
)
def test_the_lowest_bin_is_closed_below_and_the_highest_open_above(
    device: torch.device, z: float, channel: int
) -> None:
    image = voxelize(np.array([[1, 0, z, 0.25]], dtype=np.float32), SMALL, device)
    assert torch.nonzero(image).tolist() == [[0, channel, 4, 2], [0, INTENSITY, 4, 2]]
    assert image.sum() == 1.25


def test_points_with_any_value_that_is_not_finite_are_ignored(device: torch.device) -> None:
    points = np.ones((12, 4), dtype=np.float32)
    for i, bad in enumerate([np.nan, np.inf, -np.inf]):
        points[np.arange(4) + 4 * i, np.arange(4)] = bad
    assert voxelize(points, SMALL, device).count_nonzero() == 0


def test_a_cloud_without_points_gives_an_empty_image(device: torch.device) -> None:
    assert voxelize(np.empty((0, 4), dtype=np.float32), SMALL, device).count_nonzero() == 0


def test_points_on_the_upper_edges_of_the_range_are_left_out(device: torch.device) -> None:
    points = np.array([[4, 0, 0, 1], [1, 2, 0, 1], [4, 2, 0, 1]], dtype=np.float32)
    assert voxelize(points, SMALL, device).count_nonzero() == 0
