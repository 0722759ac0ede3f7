"""Layers on stored pixels: the kernels and the plain form against layers on whole maps."""

from __future__ import annotations

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from fused_helpers import needs_ops, never_dense, random_tiles, randomized  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.blocks import (
    ConvUnit,
    Pixels,
    PointwiseConv2d,
    ResidualUnit,
    SparseMap,
    Stage,
    Tiles,
    UpsampleUnit,
    Voxels,
)

SIZES = st.tuples(st.integers(1, 2), st.integers(1, 19), st.integers(1, 70))
SIDES = st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 4, 7]))
DENSITIES = st.sampled_from([0.0, 0.02, 0.2, 0.7, 1.0])
LAYERS = {
    "3x3": lambda: ConvUnit(3, 5),
    "3x3 of even channels": lambda: ConvUnit(4, 18),
    "1x1": lambda: ConvUnit(5, 7, kernel=1),
    "branch": lambda: PointwiseConv2d(6, 2),
    "unit": lambda: ResidualUnit(8, 8),
    "projected unit": lambda: ResidualUnit(6, 20),
    "strided unit": lambda: ResidualUnit(5, 12, stride=2),
    "stage": lambda: Stage([ResidualUnit(8, 8), ResidualUnit(8, 8), ResidualUnit(8, 8)]),
    "strided stage": lambda: Stage([ResidualUnit(4, 8, stride=2), ResidualUnit(8, 8)]),
}


def input_channels(layer):
    first = layer.units[0] if isinstance(layer, Stage) else layer
    return (first.reduce if isinstance(first, ResidualUnit) else getattr(first, "conv", first)).in_channels


def stride_of(layer):
    first = layer.units[0] if isinstance(layer, Stage) else layer
    return getattr(first, "stride", 1) if isinstance(first, ResidualUnit) else 1


def keeps_shape(layer):
    first = layer.units[0] if isinstance(layer, Stage) else layer
    return isinstance(first, ResidualUnit) and first.keeps_shape


def case(kind, size, sides, density, seed, dtype=torch.float64):
    """A layer, its input on tiles of its own, the tiles of its output."""
    torch.manual_seed(seed)
    layer = randomized(LAYERS[kind](), dtype)
    tiles = random_tiles(size, sides, density, stride_of(layer), seed)
    tiles_of_x = tiles if keeps_shape(layer) else random_tiles(size, sides[::-1], density, 1, seed + 1)
    x = torch.randn(size[0], input_channels(layer), *size[1:], dtype=dtype)
    return layer, SparseMap.from_dense(x, tiles_of_x), tiles


def assert_close(found, expected, tolerance=1e-9):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", LAYERS)
@settings(max_examples=25, deadline=None)
@given(SIZES, SIDES, DENSITIES, st.integers(0, 99))
def test_a_layer_on_stored_pixels_equals_the_layer_on_the_whole_map(kind, size, sides, density, seed):
    layer, x, tiles = case(kind, size, sides, density, seed)
    with torch.no_grad():
        expected = SparseMap.from_dense(layer(x.dense(), tiles), tiles)
        assert_close(layer(x, tiles).values, expected.values)
    # with gradients it is computed in plain PyTorch
    assert_close(layer(x, tiles).values, expected.values)


@settings(max_examples=40, deadline=None)
@given(SIZES, DENSITIES, DENSITIES, st.integers(0, 99))
def test_upsampling_stored_pixels_equals_upsampling_the_whole_map(size, density, density_of_x, seed):
    torch.manual_seed(seed)
    layer = randomized(UpsampleUnit(5, 3, 6), torch.float64)
    half = (size[0], -(-size[1] // 2), -(-size[2] // 2))
    tiles, tiles_of_x = random_tiles(size, (2, 4), density, 1, seed), random_tiles(half, (1, 3), density_of_x, 1, seed)
    tiles_of_skip = random_tiles(size, (3, 1), density, 1, seed + 1)
    x = SparseMap.from_dense(torch.randn(half[0], 5, *half[1:], dtype=torch.float64), tiles_of_x)
    skip = SparseMap.from_dense(torch.randn(size[0], 3, *size[1:], dtype=torch.float64), tiles_of_skip)
    with torch.no_grad():
        expected = SparseMap.from_dense(layer(x.dense(), skip.dense(), tiles), tiles)
        assert_close(layer(x, skip, tiles).values, expected.values)
    assert_close(layer(x, skip, tiles).values, expected.values)


def random_voxels(size, density, seed, channels=6):
    rng = np.random.default_rng(seed)
    occupied = torch.from_numpy(rng.random(size) < density)
    pixels = Pixels.from_mask(occupied)
    bits = torch.from_numpy(rng.integers(0, 1 << (channels - 1), len(pixels)))
    last = torch.from_numpy(rng.random(len(pixels)).astype(np.float32))
    return Voxels(pixels, bits, last, channels, torch.tensor(len(pixels)))


@settings(max_examples=60, deadline=None)
@given(SIZES, SIDES, DENSITIES, DENSITIES, st.integers(0, 99))
def test_a_convolution_of_voxels_equals_that_of_the_map_they_are(size, sides, density, occupied, seed):
    torch.manual_seed(seed)
    seen, tiles = random_voxels(size, occupied, seed), random_tiles(size, sides, density, 1, seed)
    layer = randomized(ConvUnit(6, 19), torch.float64)
    with torch.no_grad():
        expected = SparseMap.from_dense(layer(seen.dense().double(), tiles), tiles)
        assert_close(layer(seen, tiles).values, expected.values)
    assert_close(layer(seen, tiles).values, expected.values)


@needs_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", LAYERS)
def test_stored_pixels_are_computed_as_exactly_as_the_whole_map_in_every_dtype(kind, dtype):
    layer, x, tiles = case(kind, (2, 37, 90), (2, 2), 0.1, 3, dtype)
    with torch.no_grad():
        assert torch.equal(layer(x, tiles).values, SparseMap.from_dense(layer(x.dense(), tiles), tiles).values)


@needs_ops
def test_the_number_of_threads_changes_no_bit():
    tiles, tiles_of_x = (random_tiles((1, 120, 200), (2, 2), 0.1, stride, 5) for stride in (2, 1))
    layer = randomized(Stage([ResidualUnit(32, 64, stride=2), ResidualUnit(64, 64), ResidualUnit(64, 64)]))
    x = SparseMap(torch.randn(len(tiles_of_x.pixels), 32), tiles_of_x)
    voxels, first = random_voxels((1, 120, 200), 0.2, 5), randomized(ConvUnit(6, 32))
    on = random_tiles((1, 120, 200), (2, 2), 0.3)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with torch.no_grad():
                results.append((layer(x, tiles).values, first(voxels, on).values))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("kind", ["3x3", "1x1", "unit", "strided unit"])
def test_gradients_of_layers_on_stored_pixels_are_right(kind):
    layer, x, tiles = case(kind, (1, 7, 9), (2, 2), 0.3, 1)
    inputs = x.values.detach().requires_grad_()
    assert len(inputs)
    assert torch.autograd.gradcheck(lambda values: layer(SparseMap(values, x.tiles), tiles).values, (inputs,))


def test_training_normalizes_by_the_stored_pixels_and_one_for_all_others():
    torch.manual_seed(0)
    tiles = random_tiles((1, 12, 20), (2, 2), 0.3)
    x = SparseMap(torch.randn(len(tiles.pixels), 8), tiles)
    unit = ResidualUnit(8, 8).train()
    unit(x, tiles).values.sum().backward()
    rows = torch.cat([x.values, torch.zeros(1, 8)])
    torch.testing.assert_close(unit.norm1.running_mean, 0.1 * rows.mean(0))
    torch.testing.assert_close(unit.norm1.running_var, 0.9 + 0.1 * rows.var(0))
    assert all(parameter.grad is not None for parameter in unit.parameters())


def test_a_sparse_map_holds_what_the_dense_one_holds_on_active_tiles():
    tiles = random_tiles((2, 11, 13), (2, 3), 0.4)
    x = torch.randn(2, 5, 11, 13)
    stored = SparseMap.from_dense(x, tiles)
    assert torch.equal(stored.dense(), x * tiles.mask()[:, None])
    assert len(stored.values) == len(stored.pixels) == int(tiles.mask().sum())
    assert torch.equal(Pixels.from_mask(tiles.mask()).flat, tiles.pixels.flat)


@settings(max_examples=60, deadline=None)
@given(SIZES, SIDES, DENSITIES, st.integers(0, 99))
def test_pixels_of_tiles_are_numbered_runs_in_raster_order(size, sides, density, seed):
    tiles = random_tiles(size, sides, density, 1, seed)
    pixels, expected = tiles.pixels, Pixels.from_mask(tiles.mask())
    assert torch.equal(pixels.start, expected.start) and torch.equal(pixels.runs, expected.runs)
    assert torch.equal(pixels.flat, torch.nonzero(tiles.mask().flatten())[:, 0]) and torch.equal(
        pixels.mask(), tiles.mask()
    )


def test_batches_of_voxels_are_joined_in_order():
    first, second = random_voxels((1, 9, 12), 0.3, 1), random_voxels((2, 9, 12), 0.2, 2)
    joined = Voxels.cat([first, second])
    assert torch.equal(joined.dense(), torch.cat([first.dense(), second.dense()]))


def test_what_training_finds_out_about_pixels_goes_with_them():
    # at once, as memory of that size must not wait for the garbage collector
    layer, x, tiles = case("stage", (1, 12, 20), (2, 2), 0.3, 0)
    layer.train()(x, tiles).values.sum().backward()
    pixels = weakref.ref(tiles.pixels)
    gc.disable()
    try:
        del x, tiles
        assert pixels() is None
    finally:
        gc.enable()


def test_pixels_are_copied_and_pickled_without_what_was_computed_of_them():
    pixels = random_tiles((2, 9, 12), (2, 2), 0.3).pixels
    numbers = pixels.beneath(pixels, 1)
    again = copy.deepcopy(pixels)
    assert set(vars(again)) == set(pixels.__reduce_ex__(4)[2]) == {"start", "runs", "size"}
    assert torch.equal(again.beneath(again, 1), numbers)


@pytest.mark.parametrize("size", [(1, 3, 0), (1, 0, 3), (0, 3, 4)])
def test_a_map_without_pixels_stores_none(size):
    tiles = random_tiles(size, (2, 2), 1.0)
    assert len(tiles.pixels) == len(Pixels.from_mask(tiles.mask())) == len(tiles.pixels.flat) == 0


def test_a_pointwise_convolution_takes_voxels_too():
    seen, tiles = random_voxels((1, 9, 12), 0.3, 1), random_tiles((1, 9, 12), (2, 2), 0.5)
    layer = randomized(ConvUnit(6, 5, kernel=1))
    with torch.no_grad():
        expected = SparseMap.from_dense(layer(seen.dense(), tiles), tiles)
        assert_close(layer(seen, tiles).values, expected.values, 1e-5)


@needs_ops
@torch.no_grad()
@pytest.mark.parametrize("kind", ["3x3", "1x1", "branch", "unit", "projected unit", "stage"])
def test_stored_pixels_of_other_channels_or_dtype_than_the_weights_are_refused(kind):
    layer, x, tiles = case(kind, (1, 8, 8), (2, 2), 0.5, 0, torch.float32)
    channels = x.values.shape[1]
    # an odd number of channels and the even one above it are packed alike
    for other in (channels - 1, channels + 1):
        with pytest.raises(ValueError, match=f"x must have {channels} channels, .*, got {other}"):
            layer(SparseMap(torch.zeros(len(x.values), other), x.tiles), tiles)
    for dtype in (torch.float64, torch.bfloat16, torch.int32):
        with pytest.raises(ValueError, match=f"x is {dtype}, the layer has parameters of torch.float32"):
            layer(SparseMap(x.values.to(dtype), x.tiles), tiles)


@pytest.mark.parametrize("gradients", [False, True])
def test_upsampling_of_stored_pixels_names_the_map_that_does_not_fit(gradients):
    layer, tiles, half = randomized(UpsampleUnit(4, 3, 5)), *(random_tiles((1, 8, n), (2, 2), 1.0) for n in (9, 5))
    skip = SparseMap(torch.zeros(len(tiles.pixels), 3), tiles)
    with torch.set_grad_enabled(gradients), pytest.raises(ValueError, match="x must have half the size of skip"):
        layer(SparseMap(torch.zeros(len(half.pixels), 4), half), skip, tiles)
    half = random_tiles((1, 4, 5), (2, 2), 1.0)
    with torch.no_grad(), pytest.raises(ValueError, match="skip must have 3 channels"):
        layer(SparseMap(torch.zeros(20, 4), half), SparseMap(torch.zeros(len(tiles.pixels), 4), tiles), tiles)


@needs_ops
def test_maps_of_more_pixels_than_32_bits_hold_are_refused():
    nothing, most = torch.zeros(0, 3, dtype=torch.int32), 2**31 - 1
    for size in [(1, 65536, 65536), (most, most, most), (most, most, 0), (1, -1, 4)]:
        with pytest.raises(RuntimeError, match="tile_pixels: size must be at most"):
            torch.ops.sbnet.tile_pixels(nothing, (2, 2), size)


def test_layers_on_stored_pixels_say_what_is_wrong():
    layer, x, tiles = case("unit", (1, 8, 8), (2, 2), 0.5, 0, torch.float32)
    with pytest.raises(ValueError, match="tiles is None"):
        layer(x)
    with pytest.raises(ValueError, match="keeps the shape"):
        layer(x, Tiles.from_mask(torch.ones(1, 8, 8, dtype=torch.bool), (2, 2)))
    with pytest.raises(ValueError, match="output has 1 of"):
        layer(x, random_tiles((1, 9, 8), (2, 2), 0.5))
    with pytest.raises(TypeError, match="both"):
        UpsampleUnit(8, 8, 8)(x, x.dense(), tiles)
    with pytest.raises(ValueError, match="tiles are for"):
        SparseMap.from_dense(torch.zeros(1, 8, 9, 9), tiles)


@needs_ops
@pytest.mark.parametrize(
    ("start", "runs"),
    [
        ([0, 1, 1], [[0, 9, 0]]),
        ([0, 1, 1], [[-1, 3, 0]]),
        ([0, 1, 1], [[2, 2, 0]]),
        ([0, 2, 2], [[0, 3, 0], [2, 4, 3]]),
        ([0, 1, 2], [[0, 3, 0], [0, 3, 2]]),
        ([0, 2, 1], [[0, 3, 0], [4, 5, 3]]),
        ([1, 1, 1], [[0, 3, 0]]),
        ([0, 1], [[0, 3, 0]]),
    ],
)
def test_pixels_that_are_no_runs_of_the_map_are_refused(start, runs):
    pixels = Pixels(torch.tensor(start, dtype=torch.int32), torch.tensor(runs, dtype=torch.int32), (1, 2, 8))
    tiles = random_tiles((1, 2, 8), (1, 1), 1.0)
    count = sum(run[1] - run[0] for run in runs)
    x = SparseMap(torch.zeros(count, 3), tiles)
    object.__setattr__(x, "tiles", Tiles(tiles.indices, 1, (2, 8), (1, 1)))
    x.tiles.__dict__["pixels"] = pixels
    with torch.no_grad(), pytest.raises(ValueError, match=r"(start|runs) of x"):
        randomized(ConvUnit(3, 5))(x, tiles)
