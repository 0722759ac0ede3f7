"""Stored pixels, and maps and voxels that are stored on them."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from layer_helpers import DENSITIES, SEEDS, SIDES, SIZES, random_mask, random_tiles, random_voxels

from sbnet_perception.blocks import Pixels, SparseMap, Tiles, Voxels
from sbnet_perception.blocks.layer_plain import windows

INT = torch.int32


def assert_same(pixels, expected):
    assert pixels.size == expected.size and len(pixels) == len(expected)
    for found, right in zip(pixels.lists[:3], expected.lists[:3], strict=True):
        assert found.dtype == right.dtype and torch.equal(found, right)


@settings(max_examples=150, deadline=None)
@given(SIZES, SIDES, DENSITIES, SEEDS)
def test_pixels_of_a_mask_of_tiles_and_of_positions_are_numbered_in_raster_order(size, sides, density, seed):
    tiles = random_tiles(size, sides, density, 1, seed)
    pixels = tiles.pixels
    assert torch.equal(pixels.flat, torch.nonzero(tiles.mask().flatten())[:, 0]) and pixels.flat.dtype == torch.int64
    begin, end, number = pixels.index[1].long().unbind(1)
    row = torch.repeat_interleave(pixels.index[0].long().diff())
    assert torch.equal(pixels.flat[number], row * size[2] + begin)
    assert int((end - begin).sum()) == len(pixels)
    # A row's runs do not touch: as few as there can be.
    assert bool((begin[1:] > end[:-1])[row.diff() == 0].all())
    for other in (
        Pixels.from_mask(pixels.mask()),
        Pixels.from_flat(pixels.flat, size),
    ):
        assert_same(other, pixels)
    assert_same(Pixels.all(size), Pixels.from_mask(torch.ones(size, dtype=torch.bool)))
    # The windows that come with tiles are the pixels up to one row and column away.
    if len(pixels.index) == 4:
        start, runs = pixels.index[2:]
        around = torch.nn.functional.max_pool2d(pixels.mask().float(), 3, 1, 1) > 0
        expected = Pixels.from_mask(around)
        assert torch.equal(start, expected.index[0]) and torch.equal(runs[:, :2], expected.index[1][:, :2])


def test_tiles_may_be_larger_than_any_map():
    for side in (2**22, 2**31 - 1):
        tiles = Tiles.from_mask(random_mask((2, 9, 13), 1.0), (side, side), 2)
        assert tiles.tile == (side, side) and tiles.count == (1, 1)
        assert_same(tiles.pixels, Pixels.all((2, 5, 7)))


@pytest.mark.parametrize("size", [(1, 3, 0), (1, 0, 3), (0, 3, 4)])
def test_a_map_without_pixels_stores_none(size):
    tiles = random_tiles(size, (2, 2), 1.0)
    assert len(tiles.pixels) == 0 and tiles.sparsity == 1.0
    for other in (Pixels.from_mask(tiles.mask()), Pixels.all(size)):
        assert_same(other, tiles.pixels)


def test_tiles_and_pixels_are_compared_as_objects():
    tiles = random_tiles((1, 8, 8), (2, 2), 0.5)
    again = random_tiles((1, 8, 8), (2, 2), 0.5)
    assert tiles == tiles and tiles != again and len({tiles, again, tiles.pixels, again.pixels}) == 4


def test_what_training_finds_out_about_pixels_is_kept_and_goes_with_them():
    # at once, as memory of that size must not wait for the garbage collector
    first, second = (random_tiles((1, 12, 20), (2, 2), 0.3, 1, seed).pixels for seed in (0, 1))
    numbers = first.beneath(first, 1)
    assert first.beneath(first, 1) is numbers and first.beneath(second, 1) is first.beneath(second, 1)
    assert first.beneath(first, 2) is not numbers
    pixels = weakref.ref(first)
    gc.disable()
    try:
        del first
        assert pixels() is None
    finally:
        gc.enable()


def test_pixels_are_copied_and_pickled_without_what_was_computed_of_them():
    pixels = random_tiles((2, 9, 12), (2, 2), 0.3).pixels
    numbers = pixels.beneath(pixels, 1)
    again = copy.deepcopy(pixels)
    assert set(vars(again)) == set(pixels.__reduce_ex__(4)[2]) == {"flat", "size", "index"}
    assert torch.equal(again.beneath(again, 1), numbers)


def test_a_sparse_map_holds_what_the_dense_one_holds_on_active_tiles():
    tiles, x = random_tiles((2, 11, 13), (2, 3), 0.4), torch.randn(2, 5, 11, 13)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        stored = SparseMap.from_dense(x.contiguous(memory_format=memory_format), tiles)
        assert torch.equal(stored.values, x.permute(0, 2, 3, 1)[tiles.mask()])
        assert torch.equal(stored.dense(), x * tiles.mask()[:, None])
        assert stored.dense().is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="tiles are for"):
        SparseMap.from_dense(x[:1], tiles)


def test_voxels_are_the_map_of_their_bits_and_last_channel_and_are_joined_in_order():
    first, second = random_voxels((1, 9, 12), 0.3, 1, 64), random_voxels((2, 9, 12), 0.2, 2, 64)
    joined = Voxels.cat([first, second])
    assert torch.equal(joined.dense(), torch.cat([first.dense(), second.dense()]))
    assert_same(joined.pixels, Pixels.from_mask(joined.pixels.mask()))
    assert int(joined.points) == int(first.points) + int(second.points)
    voxel, pixel = int(first.bits[3]), first.dense().permute(0, 2, 3, 1)[first.pixels.mask()][3]
    assert [bool(voxel >> c & 1) for c in range(63)] == pixel[:-1].bool().tolist() and pixel[-1] == first.last[3]


@settings(max_examples=60, deadline=None)
@given(SIZES, DENSITIES, SEEDS)
def test_the_gradient_of_windows_is_that_of_reading_each_pixel_by_its_number(size, density, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = Pixels.from_mask(torch.rand(size, generator=generator) < density)
    rows = torch.randn(len(pixels) + 1, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64, generator=generator)
    found = torch.nn.functional.pad(rows, (0, 0, 0, 1))[pixels.beneath(pixels, 1)]
    expected = torch.einsum("pkc,nck->pn", found, weight.flatten(2))
    y = windows(rows, pixels, pixels, weight)
    assert torch.allclose(y, expected)
    outer = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    assert torch.allclose(*(torch.autograd.grad(result, rows, outer)[0] for result in (y, expected)))
