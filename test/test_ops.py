"""Block operations on every device, and in plain PyTorch, against their definition pixel by pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from devices import moved, on_cpu
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.blocks import (
    Tiles,
    block_plain,
    reduce_mask,
    sparse_gather,
    sparse_scatter,
    sparse_scatter_,
)

COMPILED = torch.ops.sbnet
FLOATING = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
FORMATS = [torch.channels_last, torch.contiguous_format]

pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))
offsets = st.tuples(st.integers(-15, 15), st.integers(-15, 15))
seeds = st.integers(0, 9999)
LAYOUTS = [*FORMATS, "every other channel", "turned"]


def block_pixel_lists(index, size, stride, offset, dilation=(1, 1)):
    """Rows and columns of one block, from the definition."""
    rows = [offset[0] + stride[0] * int(index[1]) + dilation[0] * i for i in range(size[0])]
    columns = [offset[1] + stride[1] * int(index[2]) + dilation[1] * j for j in range(size[1])]
    return rows, columns


def laid_out(x, layout):
    """The same numbers [N, C, H, W] in another order in memory."""
    if layout == "every other channel":
        return x.repeat_interleave(2, 1)[:, ::2]
    if layout == "turned":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x.contiguous(memory_format=layout)


@st.composite
def cases(draw):
    """An image, unsorted and repeated indices, some beside the image, and the geometry of blocks."""
    rng = np.random.default_rng(draw(seeds))
    images, height, width = draw(st.integers(1, 2)), draw(st.integers(0, 12)), draw(st.integers(0, 12))
    channels, count = draw(st.integers(0, 3)), draw(st.integers(0, 7))
    indices = torch.from_numpy(rng.integers([0, -1, -1], [images, 4, 4], (count, 3)).astype(np.int32))
    geometry = tuple(draw(strategy) for strategy in (pairs, pairs, offsets, pairs))
    dtype = draw(st.sampled_from(FLOATING))
    x, blocks = (
        laid_out(torch.from_numpy(rng.normal(size=size)).to(dtype), draw(st.sampled_from(LAYOUTS)))
        for size in ((images, channels, height, width), (count, channels, *geometry[0]))
    )
    return x, blocks, indices, geometry


# --- reduce_mask ---


def active_by_definition(mask, block_count, block_size, block_stride, block_offset, tol, avg):
    """Active blocks (n, by, bx), one block at a time: a pixel above tol, or the mean with 0 outside."""
    active = []
    for index in np.ndindex(len(mask), *block_count):
        rows, columns = block_pixel_lists(index, block_size, block_stride, block_offset)
        inside = itertools.product([r for r in rows if 0 <= r < mask.shape[1]], columns)
        pixels = [float(mask[index[0], r, c]) for r, c in inside if 0 <= c < mask.shape[2]]
        if sum(pixels) / (len(rows) * len(columns)) > tol if avg else any(value > tol for value in pixels):
            active.append(index)
    return torch.tensor(active, dtype=torch.int32).reshape(-1, 3)


@settings(deadline=None, max_examples=300)
@given(
    st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 12)),
    *[st.tuples(st.integers(0, 5), st.integers(0, 5)), pairs, pairs, offsets],
    *[st.sampled_from([-0.5, 0.0, 0.1, 0.3, 0.5, 1.0]), st.booleans(), st.sampled_from([torch.bool, *FLOATING]), seeds],
)
def test_a_block_is_active_exactly_when_its_pooled_mask_exceeds_the_tolerance(
    device, size, count, block, stride, offset, tol, avg, dtype, seed
):
    # Sums of these values are exact, save those of 0.1, which as float32 is a little more than the tolerance 0.1.
    values = [0.0, 0.0, 0.25, 1.0, torch.nan, torch.inf, 0.25 if avg else 0.1]
    mask = torch.from_numpy(np.random.default_rng(seed).choice(values, size)).to(dtype)
    expected = active_by_definition(mask, count, block, stride, offset, tol, avg).to(device)
    mask = mask.to(device)
    assert torch.equal(COMPILED.reduce_mask(mask, count, block, stride, offset, tol, avg), expected)
    assert torch.equal(block_plain.reduce_mask(mask, count, block, stride, offset, tol, avg), expected)
    assert torch.equal(reduce_mask(mask, count, block, stride, offset, tol, "avg" if avg else "max"), expected)


@pytest.mark.parametrize("kernels", [COMPILED, block_plain], ids=["compiled", "plain"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16])
@pytest.mark.parametrize("block", [(32, 32), (32, 33), (41, 47), (64, 64), (1, 1100), (2000, 1)])
def test_the_mean_of_a_block_is_exact_above_1024_pixels(device, kernels, dtype, block):
    area, size = block[0] * block[1], (block[0] + 5, block[1] + 3)
    for trues in (1, 1024, area // 2, area):
        mask = torch.zeros(area)
        mask[torch.randperm(area, generator=torch.Generator().manual_seed(trues))[:trues]] = 1
        image = torch.nn.functional.pad(mask.reshape(1, *block), (3, 0, 5, 0), value=1).to(device, dtype)
        assert image.shape[1:] == size
        for tol, active in (((trues - 1) / area, 1), (trues / area, 0)):
            assert len(kernels.reduce_mask(image, (1, 1), block, (1, 1), (5, 3), tol, True)) == active


@pytest.mark.parametrize("kernels", [COMPILED, block_plain], ids=["compiled", "plain"])
def test_pixels_and_sums_are_compared_in_float64(device, kernels):
    one = ((1, 1), (3, 3), (1, 1), (0, 0))
    tenth = torch.full((1, 3, 3), 0.1, device=device)  # in float32 a little more than 0.1
    assert len(kernels.reduce_mask(tenth, *one, 0.1, False)) == 1
    assert len(kernels.reduce_mask(tenth, *one, float(tenth[0, 0, 0]), False)) == 0
    large = torch.ones(1, 3, 3, device=device)
    large[0, 0] = 2**24
    for tol, active in (((3 * 2**24 + 5) / 9, 1), ((3 * 2**24 + 6) / 9, 0)):
        assert len(kernels.reduce_mask(large, *one, tol, True)) == active


@pytest.mark.parametrize("mode", ["max", "avg"])
def test_one_pixel_makes_exactly_the_blocks_active_that_hold_it(device, mode):
    masks = torch.eye(61, dtype=torch.bool)[:, None]  # 61 images, each with another pixel
    for width in range(1, 41):
        first = -3 + 5 * torch.arange(14)
        held = (first <= torch.arange(61)[:, None]) & (torch.arange(61)[:, None] < first + width)
        n, bx = torch.nonzero(held, as_tuple=True)
        found = reduce_mask(masks.to(device), (1, 14), (1, width), (1, 5), (0, -3), tol=0.5 / width, mode=mode)
        assert torch.equal(found.cpu().long(), torch.stack((n, torch.zeros_like(n), bx), 1))


def test_blocks_larger_than_any_image_are_pooled_like_others(device):
    found = reduce_mask(torch.ones(1, 3, 3, dtype=torch.bool, device=device), (1, 2**20), (2**22, 2**22), (1, 1))
    assert found.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def test_a_mask_that_is_not_contiguous_gives_the_same_blocks(device):
    mask = torch.rand(2, 30, 40, generator=torch.Generator().manual_seed(2)).to(device)
    arguments = ((9, 5), (4, 6), (4, 6), (0, 0), 0.9)
    view = mask.transpose(1, 2)
    assert torch.equal(reduce_mask(view, *arguments), reduce_mask(view.contiguous(), *arguments))


# --- gather and scatter ---


@settings(deadline=None, max_examples=300)
@given(cases())
def test_gather_reads_every_pixel_of_a_block_and_zero_outside(device, case):
    x, _, indices, (block, *rest) = case
    expected = torch.zeros(len(indices), x.shape[1], *block, dtype=x.dtype)
    for b, index in enumerate(indices):
        rows, columns = block_pixel_lists(index, block, *rest)
        for (i, r), (j, c) in itertools.product(enumerate(rows), enumerate(columns)):
            if 0 <= r < x.shape[2] and 0 <= c < x.shape[3]:
                expected[b, :, i, j] = x[index[0], :, r, c]
    expected, x, indices = (moved(tensor, device) for tensor in (expected, x, indices))
    for memory_format in FORMATS:
        blocks = sparse_gather(x, indices, block, *rest, memory_format=memory_format)
        plain = block_plain.sparse_gather(x, indices, block, *rest, memory_format == torch.channels_last)
        assert torch.equal(blocks, expected) and torch.equal(plain, expected)
        assert blocks.dtype == plain.dtype == x.dtype
        assert blocks.is_contiguous(memory_format=memory_format) and plain.is_contiguous(memory_format=memory_format)


@settings(deadline=None, max_examples=300)
@given(cases(), st.booleans())
def test_scatter_writes_in_index_order_or_sums_in_it(device, case, add):
    base, blocks, indices, geometry = case
    sums = base.to(torch.promote_types(base.dtype, torch.float32), copy=True)
    for b, index in enumerate(indices):
        rows, columns = block_pixel_lists(index, *geometry)
        for (i, r), (j, c) in itertools.product(enumerate(rows), enumerate(columns)):
            if 0 <= r < base.shape[2] and 0 <= c < base.shape[3]:
                old = sums[index[0], :, r, c].clone() if add else 0
                sums[index[0], :, r, c] = old + blocks[b, :, i, j].to(sums.dtype)
    expected = sums.to(device, base.dtype)
    base, blocks, indices = (moved(tensor, device) for tensor in (base, blocks, indices))
    before = base.clone()
    result = sparse_scatter(blocks, indices, base, *geometry, add)
    assert torch.equal(result, expected) and torch.equal(base, before)
    plain = block_plain.sparse_scatter(blocks, indices, base, *geometry, add)
    if add and device.type == "cuda":  # PyTorch adds up in an order of its own there
        torch.testing.assert_close(plain, expected)
    else:
        assert torch.equal(plain, expected)
    in_place, strides = base[:], base.stride()
    assert sparse_scatter_(blocks, indices, in_place, *geometry, add) is in_place
    assert torch.equal(base, expected) and base.stride() == strides


@pytest.mark.parametrize("of_image", FORMATS)
@pytest.mark.parametrize("of_blocks", FORMATS)
def test_blocks_of_every_size_and_stride_cover_the_whole_map(device, of_image, of_blocks):
    x = torch.randn(2, 3, 43, 39, generator=torch.Generator().manual_seed(0))
    x = x.to(device).contiguous(memory_format=of_image)
    everywhere = torch.ones(2, 43, 39, dtype=torch.bool, device=device)
    for size in range(1, 45):
        for stride in sorted({1 + size // 3, max(1, size - 1), size}):
            count = tuple(1 + -(-max(0, extent - size) // stride) for extent in x.shape[2:])
            geometry = ((size, size), (stride, stride))
            indices = reduce_mask(everywhere, count, *geometry)
            assert len(indices) == 2 * count[0] * count[1]
            blocks = sparse_gather(x, indices, *geometry, memory_format=of_blocks)
            assert torch.equal(sparse_scatter_(blocks, indices, torch.full_like(x, torch.nan), *geometry), x)
            # How many blocks hold a pixel is the product of how many hold its row and its column.
            ones = sparse_scatter(torch.ones_like(blocks), indices, torch.zeros_like(x), *geometry, add=True)
            times = []
            for along, extent in zip(count, x.shape[2:], strict=True):
                pixel = torch.arange(extent) - stride * torch.arange(along)[:, None]
                times.append(((pixel >= 0) & (pixel < size)).sum(0))
            assert torch.equal(ones, torch.outer(*times).to(x).expand_as(x))


@pytest.mark.parametrize("dtype", FLOATING)
def test_results_are_the_same_with_any_number_of_threads_and_those_of_plain_pytorch(device, dtype):
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(3, 160, 190, generator=generator).to(device) > 0.97
    x = torch.randn(3, 6, 160, 190, generator=generator).to(device, dtype)
    geometry, threads, results = ((13, 11), (7, 7), (-2, -1)), torch.get_num_threads(), []
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        indices = reduce_mask(mask, (24, 28), *geometry)
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(2)).to(device)
        blocks = sparse_gather(x, indices[order], *geometry)
        written = [sparse_scatter(blocks.sin(), indices[order], x, *geometry, add=add) for add in (False, True)]
        results.append((indices, blocks, *written))
    torch.set_num_threads(threads)
    assert 500 < len(indices) < 3 * 24 * 28
    raster = indices.cpu().double() @ torch.tensor([24.0 * 28, 28, 1]).double()
    assert (raster.diff() > 0).all()
    for result in zip(*results, strict=True):
        assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])
    # Not the compiled result alone: plain PyTorch writes the same, and sums the same up to the order of its threads.
    values, order = blocks.sin(), indices[order]
    plain = [block_plain.sparse_scatter(values, order, x, *geometry, (1, 1), add) for add in (False, True)]
    assert torch.equal(written[0], plain[0])
    torch.testing.assert_close(written[1], plain[1])


def test_an_empty_mask_gives_no_block_and_a_copy_that_the_caller_owns(device):
    indices = reduce_mask(torch.zeros(2, 30, 40, dtype=torch.bool, device=device), (3, 4), (10, 10), (10, 10))
    assert indices.shape == (0, 3) and indices.dtype == torch.int32
    x = torch.randn(2, 4, 30, 40, device=device)
    blocks = sparse_gather(x, indices, (10, 10), (10, 10))
    assert blocks.shape == (0, 4, 10, 10)
    y = sparse_scatter(blocks, indices, x, (10, 10), (10, 10))
    assert torch.equal(x, y) and x.data_ptr() != y.data_ptr()


def test_blocks_may_be_a_part_of_the_base_that_they_are_written_into(device):
    base = torch.arange(36.0, device=device).reshape(1, 1, 6, 6)
    indices = torch.tensor([[0, 0, 1], [0, 1, 0]], dtype=torch.int32, device=device)
    blocks = base[0, :, :3, :3].expand(2, 1, 3, 3)
    expected = sparse_scatter(blocks.clone(), indices, base, (3, 3), (2, 2), add=True)
    assert torch.equal(sparse_scatter_(blocks, indices, base, (3, 3), (2, 2), add=True), expected)


# --- tiles ---


@on_cpu
@settings(deadline=None, max_examples=40)
@given(st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 12)), pairs, st.sampled_from([1, 2, 4]), seeds)
def test_tiles_are_active_where_any_grid_pixel_beneath_them_is(size, tile, stride, seed):
    mask = torch.from_numpy(np.random.default_rng(seed).random(size) < 0.1)
    tiles = Tiles.from_mask(mask, tile, stride)
    active = tiles.mask()
    assert active.shape == (size[0], -(-size[1] // stride), -(-size[2] // stride)) and tiles.size == active.shape[1:]
    # Every masked grid pixel is computed, and every active tile holds a masked pixel.
    n, r, c = torch.nonzero(mask, as_tuple=True)
    assert bool(active[n, r // stride, c // stride].all())
    assert {
        (int(a), int(b), int(d)) for a, b, d in zip(n, r // stride // tile[0], c // stride // tile[1], strict=True)
    } == {tuple(index) for index in tiles.indices.tolist()}
    assert tiles.sparsity == pytest.approx(1 - float(active.double().mean()))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((torch.ones(4, dtype=torch.bool), (2, 2)), r"mask must be \[H, W\]"),
        ((torch.ones(4, 4, dtype=torch.bool), (2, 0)), r"tile must be .* got \(2, 0\)"),
        ((torch.ones(4, 4, dtype=torch.bool), (2,)), "tile must be"),
        ((torch.ones(4, 4, dtype=torch.bool), (2, 2), 0), "stride must be positive, got 0"),
    ],
    ids=["mask", "tile", "tile of one", "stride"],
)
def test_tiles_name_a_wrong_argument(arguments, named):
    with pytest.raises(ValueError, match=named):
        Tiles.from_mask(*arguments)
