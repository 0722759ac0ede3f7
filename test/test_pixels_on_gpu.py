"""Pixels as the kernels of a GPU look them up: words of bits, running counts, neighbours, and rooms of a fixed size."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import DENSITIES, SEEDS, SIDES, SIZES, random_mask

from sbnet_perception.blocks import Pixels, Tiles
from sbnet_perception.blocks.pixels import ABSENT, OUTSIDE
from sbnet_perception.blocks.tiles import plain_tile_pyramid


def assert_index(pixels, room):
    """The index is of the first ``room`` pixels of a map, of which there are more."""
    kept, (images, height, width) = pixels.flat[pixels.flat >= 0].cpu(), pixels.size
    count, words, neighbours = (part.cpu() for part in pixels.index)
    assert count[0] == len(kept) and len(pixels.flat) == room
    # The bits and running counts say where they are.
    bits = words.view(images * height, -1, 2)[..., 0, None].long() >> torch.arange(32) & 1
    found = torch.nonzero(bits.flatten(1)[:, :width].flatten())[:, 0]
    assert len(found) == count[1] and torch.equal(found[:room], kept)
    assert torch.equal(words[:, 1].long(), bits.sum(2).flatten().cumsum(0) - bits.sum(2).flatten())
    # The neighbours are those that the plain form finds.
    plain = Pixels(kept, pixels.size, ())
    expected = plain.beneath(plain, 1).T.int()
    expected[expected == len(kept) + ABSENT], expected[expected == len(kept) + OUTSIDE] = -1, -2
    assert torch.equal(neighbours[:, : len(kept)], expected)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.lists(st.tuples(SIDES, st.sampled_from([1, 2, 3])), max_size=10), DENSITIES, SEEDS, st.integers(1, 40))
def test_all_maps_of_a_pyramid_are_numbered_at_once_with_any_room(gpu, size, levels, density, seed, room):
    mask, tiles, strides = random_mask(size, density, seed), [tile for tile, _ in levels], [s for _, s in levels]
    for rooms in (None, [room + number for number in range(len(levels))]):
        found = Tiles.pyramid(mask.to(gpu), tiles, strides, rooms)
        for number, (tile, stride) in enumerate(levels):
            all_of_them, *_ = plain_tile_pyramid(mask, tile, [stride])
            expected = all_of_them if rooms is None else all_of_them[: rooms[number]]
            pixels = found[number].pixels
            assert torch.equal(pixels.flat[pixels.flat >= 0].cpu(), expected)
            assert_index(pixels, len(expected) if rooms is None else rooms[number])
            assert torch.equal(pixels.mask().cpu(), Pixels(expected, pixels.size, ()).mask())


@settings(max_examples=30, deadline=None)
@given(SIZES, DENSITIES, SEEDS, st.integers(0, 3))
def test_positions_are_indexed_whatever_room_is_left_behind_them(gpu, size, density, seed, left):
    flat = torch.nonzero(random_mask(size, density, seed).flatten())[:, 0]
    padded = torch.nn.functional.pad(flat, (0, left), value=-1)
    assert_index(Pixels.from_flat(padded.to(gpu), size), len(flat) + left)
    moved = Pixels.from_flat(flat, size).to(gpu)
    assert torch.equal(moved.flat.cpu(), flat)
