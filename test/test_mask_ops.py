"""The compiled operations of clouds, masks and tiles are their plain forms bit for bit, on all devices and threads."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from devices import moved, on_cpu
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sbnet_perception import operation as ops
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.ground import plain_heights
from sbnet_perception.bev.voxelize import BIN_HEIGHT, BINS, Z_MIN, plain_voxels
from sbnet_perception.blocks import Pixels, Tiles
from sbnet_perception.blocks.tiles import plain_tile_pyramid
from sbnet_perception.masks.dilate import plain_dilate
from sbnet_perception.masks.occupancy import plain_occupancy
from sbnet_perception.masks.sample import plain_sample
from sbnet_perception.masks.shadow import plain_shadow

pytestmark = pytest.mark.skipif(bool(ops.UNAVAILABLE), reason=ops.UNAVAILABLE or "built")
SBNET = torch.ops.sbnet

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
# Their sums are exact, and so the same in any order.
INTENSITIES = st.sampled_from([0.0, math.nan, math.inf, -math.inf]) | st.integers(-300, 300).map(lambda n: n * 0.05)
CLOUDS = st.integers(0, 60).flatmap(
    lambda count: st.builds(
        lambda *columns: torch.from_numpy(np.hstack(columns)),
        arrays(np.float32, (count, 3), elements=COORDINATES),
        arrays(np.float32, (count, 1), elements=INTENSITIES),
    )
)
EVERYWHERE = (-math.inf, math.inf) * 2


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def _drive(seed: int, count: int) -> torch.Tensor:
    """Enough points for every thread: a rough hill with boxes on it."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-90, -90, 0, 0), (90, 90, 1, 1), (count, 4)).astype(np.float32)
    points[:, 2] = np.sin(points[:, 0] / 9) + (rng.random(count) < 0.2) * rng.uniform(0, 4, count)
    points[rng.integers(0, count, 50), rng.integers(0, 3, 50)] = np.nan
    return torch.from_numpy(points)


def _same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=0, equal_nan=True)


def _same_voxels(found: list[torch.Tensor], expected: list[torch.Tensor], grid: Grid) -> None:
    for part, of_plain in zip(found[:4], expected[:4], strict=True):
        _same(part, of_plain)
    # On each device the index is that of the positions.
    index = Pixels.from_flat(found[0], (1, *grid.shape)).index
    assert all(map(torch.equal, found[4:6], index[:2])) and all(part.numel() == 0 for part in found[6:])


def _where(grid: Grid) -> tuple[Any, ...]:
    return grid.bounds, grid.resolution, grid.shape


@settings(max_examples=100, deadline=None)
@given(CLOUDS, st.just(EVERYWHERE) | GRIDS.map(lambda grid: grid.bounds))
def test_the_ground_is_the_plain_one_for_any_points(
    device: torch.device, points: torch.Tensor, bounds: tuple[float, ...]
) -> None:
    _same(SBNET.height_above_ground(points.to(device), bounds), plain_heights(points, bounds))


@settings(max_examples=100, deadline=None)
@given(CLOUDS, GRIDS, st.sampled_from([(0.35, 3.2), (-math.inf, math.inf), (0.0, 0.0)]))
def test_the_occupied_cells_and_voxels_are_the_plain_ones_for_any_points(
    device: torch.device, points: torch.Tensor, grid: Grid, limits: tuple[float, float]
) -> None:
    _same(SBNET.occupancy(points.to(device), *limits, *_where(grid)), plain_occupancy(points, *limits, *_where(grid)))
    how = *_where(grid), Z_MIN, BIN_HEIGHT, BINS
    _same_voxels(SBNET.voxelize(points.to(device), *how), plain_voxels(points, *how), grid)


@pytest.mark.parametrize(
    ("layout", "threads"), [("rows", 1), ("rows", 5), ("columns", 2), ("slice", 5)], indirect=["threads"]
)
def test_a_large_cloud_in_any_memory_layout_has_the_plain_ground_cells_and_voxels(
    device: torch.device, threads: None, layout: str
) -> None:
    points, grid = _drive(0, 120_000), Grid.named("paper")
    arranged: dict[str, Callable[[], torch.Tensor]] = {
        "rows": lambda: points,
        "columns": lambda: points.t().contiguous().t(),
        "slice": lambda: points.repeat_interleave(2, 0)[::2],
    }
    cloud = moved(arranged[layout](), device)
    _same(SBNET.height_above_ground(cloud, EVERYWHERE), plain_heights(points, EVERYWHERE))
    expected = plain_occupancy(points, 0.35, 3.2, *_where(grid))
    assert expected.any()
    _same(SBNET.occupancy(cloud, 0.35, 3.2, *_where(grid)), expected)
    how = *_where(grid), Z_MIN, BIN_HEIGHT, BINS
    _same_voxels(SBNET.voxelize(cloud, *how), plain_voxels(points, *how), grid)


MASKS = st.tuples(st.integers(1, 40), st.integers(1, 200)).flatmap(
    lambda shape: st.builds(
        lambda seed, share: torch.from_numpy(np.random.default_rng(seed).random(shape) < share),
        st.integers(0, 1000),
        st.sampled_from([0, 0.002, 0.05, 0.5, 1]),
    )
)
RUNS = st.lists(st.integers(0, 12) | st.integers(50, 300), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(MASKS, RUNS, st.booleans())
def test_a_dilation_is_the_plain_one_for_any_width_and_runs(
    device: torch.device, mask: torch.Tensor, runs: list[int], turned: bool
) -> None:
    mask = mask.T if turned else mask
    before, here = mask.clone(), moved(mask, device)
    runs.sort(reverse=True)
    _same(SBNET.dilate(here, runs), plain_dilate(mask, runs))
    _same(here, before)


PLACES = st.integers(-500, 500) | st.sampled_from([1, -(2**29), 2**29])


@settings(max_examples=50, deadline=None)
@given(MASKS, PLACES, PLACES, st.integers(0, 40) | st.just(2**31 - 1), st.booleans())
def test_a_shadow_is_the_plain_one_from_any_place_and_for_any_length(
    device: torch.device, mask: torch.Tensor, row: int, column: int, steps: int, turned: bool
) -> None:
    mask = mask.T if turned else mask
    before, here = mask.clone(), moved(mask, device)
    _same(SBNET.shadow(here, [row, column], steps), plain_shadow(mask, [row, column], steps))
    _same(here, before)


@pytest.mark.parametrize("threads", [1, 5], indirect=True)
def test_a_large_mask_has_its_plain_shadow(device: torch.device, threads: None) -> None:
    mask = torch.rand(800, 704, generator=torch.Generator().manual_seed(0)) < 2e-3
    expected = plain_shadow(mask, [800, 0], 20)
    assert 0.02 < expected.float().mean() < 0.2
    _same(SBNET.shadow(mask.to(device), [800, 0], 20), expected)


@pytest.mark.parametrize("threads", [1, 2, 5], indirect=True)
def test_a_large_mask_is_dilated_and_sampled_as_plainly(device: torch.device, threads: None) -> None:
    mask = torch.rand(1100, 90, generator=torch.Generator().manual_seed(0)) < 5e-5
    runs, how = [40, *[10] * 520], ((0, 1 << 33), (1 << 32, 1 << 25), (1 << 31, 1 << 31), (300, 200))
    dilated = plain_dilate(mask, runs)
    sampled = plain_sample(dilated, *how)
    assert 0.1 < dilated.float().mean() < 0.9 and 0.1 < sampled.float().mean() < 0.9
    _same(SBNET.dilate(mask.to(device), runs), dilated)
    _same(SBNET.sample_raster(dilated.to(device), *how), sampled)


TILES = st.tuples(st.integers(1, 5), st.integers(1, 5)) | st.just((99, 3))
LEVELS = st.lists(st.tuples(TILES, st.sampled_from([1, 2, 3, 4, 16])), max_size=6)


@on_cpu
@settings(max_examples=150, deadline=None)
@given(MASKS, st.integers(0, 3), LEVELS)
def test_a_pyramid_of_tiles_is_each_partition_from_the_mask(
    image: torch.Tensor, images: int, levels: list[tuple[tuple[int, int], int]]
) -> None:
    mask = torch.stack([image.roll(turn, 1) for turn in range(3)])[:images]
    tiles, strides = [tile for tile, _ in levels], [stride for _, stride in levels]
    for found, tile, stride in zip(Tiles.pyramid(mask, tiles, strides), tiles, strides, strict=True):
        expected = Tiles.from_mask(mask, tile, stride)
        assert torch.equal(found.indices, expected.indices)
        assert (found.batch, found.size, found.tile) == (expected.batch, expected.size, expected.tile)
        for list_, plain in zip(found.pixels.lists, plain_tile_pyramid(mask, tile, [stride]), strict=False):
            _same(list_, plain)


@settings(max_examples=200, deadline=None)
@given(MASKS, st.lists(st.integers(-(2**34), 2**34), min_size=6, max_size=6), st.integers(1, 9), st.integers(1, 70))
def test_a_raster_is_sampled_as_plainly_for_any_steps(
    device: torch.device, raster: torch.Tensor, steps: list[int], h: int, w: int
) -> None:
    how = ((steps[0] * 16, steps[1] * 16), (steps[2], steps[3]), (steps[4], steps[5] >> 33), (h, w))
    _same(SBNET.sample_raster(raster.to(device), *how), plain_sample(raster, *how))


@on_cpu
def test_the_pyramid_of_the_detector_is_each_of_its_partitions() -> None:
    mask = torch.rand(800, 1408, generator=torch.Generator().manual_seed(0)) < 0.003
    sides, strides = (2, 2, 2, 2, 1), (1, 2, 4, 8, 16)
    found = Tiles.pyramid(mask, [(side, side) for side in sides], strides)
    for tiles, side, stride in zip(found, sides, strides, strict=True):
        assert torch.equal(tiles.indices, Tiles.from_mask(mask, (side, side), stride).indices)


@on_cpu
def test_the_pyramid_suits_torch_and_names_what_is_wrong() -> None:
    mask = torch.rand(2, 9, 13, generator=torch.Generator().manual_seed(0)) < 0.3
    checked = torch.library.opcheck(torch.ops.sbnet.tile_pyramid, (mask, [2, 2, 2, 3], [1, 2]))
    assert set(checked.values()) == {"SUCCESS"}
    for form in (torch.ops.sbnet.tile_pyramid, plain_tile_pyramid):
        for arguments, reason in (
            ((mask.float(), [2, 2], [1]), "mask must be bool"),
            ((mask, [2, 2, 2], [1, 1]), "sides must be pairs"),
            ((mask, [2, 0], [1]), "sides must be p"),
            ((mask, [2, 2], [0]), "strides must be p"),
        ):
            with pytest.raises((RuntimeError, ValueError), match=reason):
                form(*arguments)
    with pytest.raises(ValueError, match="tiles and strides must be as many, got 1 and 2"):
        Tiles.pyramid(mask, [(2, 2)], [1, 2])
    with pytest.raises(ValueError, match="mask must be bool"):
        Tiles.pyramid(mask.float(), [(2, 2)], [1])


# Of two NaN opcheck says that they differ.
POINTS, MASK = _drive(0, 300).nan_to_num(), torch.rand(9, 13) < 0.3
SMALL = ((0.0, 8.0, -3.0, 3.0), 0.5, (12, 16))
CALLS: dict[str, tuple[Any, Callable[..., Any], tuple[Any, ...]]] = {
    "height_above_ground": (SBNET.height_above_ground, plain_heights, (POINTS, EVERYWHERE)),
    "occupancy": (SBNET.occupancy, plain_occupancy, (POINTS, 0.0, 1.0, *SMALL)),
    "dilate": (SBNET.dilate, plain_dilate, (MASK, [3, 1])),
    "shadow": (SBNET.shadow, plain_shadow, (MASK, [3, -8], 4)),
    "sample_raster": (SBNET.sample_raster, plain_sample, (MASK, (0, 0), (1 << 32, 5), (7, 1 << 31), (4, 6))),
    "voxelize": (SBNET.voxelize, plain_voxels, (POINTS, *SMALL, Z_MIN, BIN_HEIGHT, BINS)),
}


def _on(device: torch.device, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.to(device) if isinstance(part, torch.Tensor) else part for part in arguments)


@pytest.mark.parametrize("name", CALLS)
def test_an_operation_suits_torch(device: torch.device, name: str) -> None:
    operation, _, arguments = CALLS[name]
    arguments = _on(device, arguments)
    assert set(torch.library.opcheck(operation, arguments).values()) == {"SUCCESS"}


@on_cpu
@pytest.mark.parametrize("name", [name for name in CALLS if name != "voxelize"])
def test_a_plain_form_never_looks_at_its_data_and_stays_on_their_device(name: str) -> None:
    """On the meta device there are none; how many voxels there are only they can tell."""
    _, plainly, arguments = CALLS[name]
    expected = plainly(*arguments)
    found = plainly(*_on(torch.device("meta"), arguments))
    assert (found.device.type, found.dtype, found.shape) == ("meta", expected.dtype, expected.shape)


FALLBACK = """
import torch, warnings
def refuse(path): raise OSError("made for another machine")
torch.ops.load_library = refuse
warnings.simplefilter("ignore")
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.frame import Frame
from sbnet_perception.masks.road import RoadMap, RoadView
torch.manual_seed(0)
points, grid = torch.rand(5000, 4) * torch.tensor([90, 30, 2, 1]), Grid.named("compact")
road = RoadView(RoadMap(torch.rand(50, 60) < 0.2, 0.5, SE2(1.0, -15.0, 0.1)), SE2(0.3, 0.1, 0.02))
seen = voxels(points, grid)
print(int(computation_mask(Frame(points, grid, MaskConfig(), road)).mask.sum()), int(seen.bits.sum()), int(seen.points))
"""


def test_without_the_library_masks_and_voxels_are_the_same() -> None:
    with_it = FALLBACK.replace("torch.ops.load_library = refuse", "")
    outputs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for program in (with_it, FALLBACK)
    ]
    assert outputs[0] == outputs[1] and int(outputs[0].split()[0]) > 0


# Name of the operation, number of the argument, what is wrong instead, and what is said.
WRONG: list[tuple[str, int, Any, str]] = [
    ("height_above_ground", 0, POINTS.double(), "points must be float32"),
    ("height_above_ground", 1, (1.0,), "range must be x_min"),
    ("occupancy", 3, (-math.inf, 1.0, 0.0, 1.0), "range must be finite"),
    ("occupancy", 4, 0.0, "resolution must be positive"),
    ("occupancy", 5, (1, 0), "size must be in"),
    ("dilate", 0, POINTS, "mask must be bool"),
    ("dilate", 1, [1, 2], "half_widths must be"),
    ("shadow", 0, POINTS, "mask must be bool"),
    ("shadow", 1, [1], "origin must be 2 integers"),
    ("shadow", 1, [1, 2**60], "origin must"),
    ("shadow", 2, -1, "steps must be a whole number"),
    ("sample_raster", 0, POINTS, "raster must be bool"),
    ("sample_raster", 2, (0, 1 << 60), "per_row must stay within"),
    ("voxelize", 0, POINTS[:, :3], "points must be float32"),
    ("voxelize", 2, 0.0, "resolution must be positive"),
    ("voxelize", 7, 0, "capacity "),
]


@pytest.mark.parametrize(("name", "number", "wrong", "reason"), WRONG)
def test_an_unusable_argument_is_named_by_kernel_and_plain_form(
    device: torch.device, name: str, number: int, wrong: Any, reason: str
) -> None:
    operation, plainly, arguments = CALLS[name]
    arguments = (*arguments[:number], wrong, *arguments[number + 1 :])
    arguments = _on(device, arguments)
    for form in (operation, plainly):
        with pytest.raises((RuntimeError, ValueError), match=f"{name}: {reason}"):
            form(*arguments)
