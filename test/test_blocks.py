"""Block operations against their definition, pixel by pixel, and layers against the dense result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.blocks import (
    ConvUnit,
    ResidualUnit,
    SparseBatchNorm2d,
    Stage,
    Tiles,
    UpsampleUnit,
    ops,
    reduce_mask,
    sparse_gather,
    sparse_scatter,
    sparse_scatter_,
)

pairs = st.tuples(st.integers(1, 5), st.integers(1, 5))
offsets = st.tuples(st.integers(-15, 15), st.integers(-15, 15))
sizes = st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 12))


def random_mask(size, seed, density=0.3):
    return torch.from_numpy(np.random.default_rng(seed).random(size) < density)


def block_pixel_lists(index, size, stride, offset, dilation=(1, 1)):
    """Rows and columns of one block, from the definition."""
    rows = [offset[0] + stride[0] * int(index[1]) + dilation[0] * i for i in range(size[0])]
    columns = [offset[1] + stride[1] * int(index[2]) + dilation[1] * j for j in range(size[1])]
    return rows, columns


@settings(deadline=None, max_examples=60)
@given(sizes, pairs, pairs, pairs, offsets, st.integers(0, 999), st.sampled_from(["max", "avg"]))
def test_a_block_is_active_exactly_when_its_pooled_mask_exceeds_the_tolerance(
    size, count, block, stride, offset, seed, mode
):
    mask = random_mask(size, seed)
    expected = []
    for n in range(size[0]):
        for by in range(count[0]):
            for bx in range(count[1]):
                rows, columns = block_pixel_lists((n, by, bx), block, stride, offset)
                inside = [(r, c) for r in rows for c in columns if 0 <= r < size[1] and 0 <= c < size[2]]
                values = [float(mask[n, r, c]) for r, c in inside]
                pooled = max(values, default=0.0) if mode == "max" else sum(values) / (block[0] * block[1])
                if pooled > 0.3:
                    expected.append((n, by, bx))
    found = reduce_mask(mask, count, block, stride, offset, tol=0.3, mode=mode)
    plain = ops.reference.reduce_mask(mask, count, block, stride, offset, 0.3, mode == "avg")
    assert found.dtype == plain.dtype == torch.int32
    assert [tuple(row) for row in found.tolist()] == expected
    assert torch.equal(plain, found)


@settings(deadline=None, max_examples=60)
@given(sizes, pairs, pairs, offsets, pairs, st.integers(0, 999))
def test_gather_reads_every_pixel_of_a_block_and_zero_outside(size, block, stride, offset, dilation, seed):
    n, height, width = size
    x = torch.randn(n, 3, height, width)
    rng = np.random.default_rng(seed)
    indices = torch.from_numpy(rng.integers(0, [n, 4, 4], (7, 3)).astype(np.int32))
    blocks = sparse_gather(x, indices, block, stride, offset, dilation)
    for b, index in enumerate(indices):
        rows, columns = block_pixel_lists(index, block, stride, offset, dilation)
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                inside = 0 <= r < height and 0 <= c < width
                expected = x[index[0], :, r, c] if inside else torch.zeros(3)
                assert torch.equal(blocks[b, :, i, j], expected)


@settings(deadline=None, max_examples=60)
@given(sizes, pairs, pairs, offsets, pairs, st.booleans(), st.booleans(), st.integers(0, 999))
def test_scatter_writes_in_index_order_or_sums(size, block, stride, offset, dilation, add, channels_last, seed):
    n, height, width = size
    layout = torch.channels_last if channels_last else torch.contiguous_format
    base = torch.randn(n, 2, height, width).contiguous(memory_format=layout)
    rng = np.random.default_rng(seed)
    indices = torch.from_numpy(rng.integers(0, [n, 4, 4], (7, 3)).astype(np.int32))
    blocks = torch.randn(7, 2, *block)
    expected = base.clone()
    for b, index in enumerate(indices):
        rows, columns = block_pixel_lists(index, block, stride, offset, dilation)
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                if 0 <= r < height and 0 <= c < width:
                    old = expected[index[0], :, r, c] if add else 0
                    expected[index[0], :, r, c] = old + blocks[b, :, i, j]
    before = base.clone()
    result = sparse_scatter(blocks, indices, base, block, stride, offset, dilation, add)
    torch.testing.assert_close(result, expected)
    assert torch.equal(base, before)
    assert sparse_scatter_(blocks, indices, base, block, stride, offset, dilation, add) is base
    torch.testing.assert_close(base, expected)


def test_the_compiled_reduce_mask_is_in_use_and_equals_the_reference():
    assert not ops.UNAVAILABLE, ops.UNAVAILABLE
    for shape, stride in (((3, 57, 91), (5, 7)), ((1, 800, 1408), (16, 16))):
        mask, block = random_mask(shape, 1, 0.01), (6, 9)
        # The second mask holds, in float32, the tolerance itself: a little more than 0.1.
        for values in (mask, mask * 0.1):
            for mode in ("max", "avg"):
                arguments = ((60, 60), block, stride, (-3, -2), 0.1, mode == "avg")
                compiled = torch.ops.sbnet.reduce_mask(values, *arguments)
                assert torch.equal(compiled, ops.reference.reduce_mask(values, *arguments))


def test_blocks_larger_than_any_image_are_pooled_like_others():
    found = reduce_mask(torch.ones(1, 3, 3, dtype=torch.bool), (1, 2**20), (2**22, 2**22), (1, 1))
    assert found.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x, i: sparse_gather(x[0], i, (2, 2), (2, 2)), "x must"),
        (lambda x, i: sparse_gather(x, i.long(), (2, 2), (2, 2)), "indices must"),
        (lambda x, i: sparse_gather(x, i + 5, (2, 2), (2, 2)), "outside the batch"),
        (lambda x, i: sparse_gather(x, i, (0, 2), (2, 2)), "block_size"),
        (lambda x, i: sparse_scatter_(torch.ones(1, 2, 3, 2), i, x, (2, 2), (2, 2)), "blocks must"),
        (
            lambda x, i: sparse_scatter_(torch.ones(1, 2, 2, 2), i, x[:, :1].expand(-1, 2, -1, -1), (2, 2), (2, 2)),
            "expanded",
        ),
        (lambda x, i: reduce_mask(torch.ones(4, 4), (2, 2), (2, 2), (2, 2)), "mask must"),
        (lambda x, i: reduce_mask(torch.ones(1, 4, 4), (2, 2), (2, 2), (2, 2), mode="min"), "mode"),
    ],
)
def test_a_wrong_argument_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call(torch.ones(1, 2, 4, 4), torch.zeros(1, 3, dtype=torch.int32))


@settings(deadline=None, max_examples=40)
@given(sizes, pairs, st.sampled_from([1, 2, 4]), st.integers(0, 999))
def test_tiles_are_active_where_any_grid_pixel_beneath_them_is(size, tile, stride, seed):
    mask = random_mask(size, seed, 0.1)
    tiles = Tiles.from_mask(mask, tile, stride)
    active = tiles.mask()
    assert active.shape == (size[0], -(-size[1] // stride), -(-size[2] // stride)) and tiles.size == active.shape[1:]
    # Every masked grid pixel is computed, and every active tile holds a masked pixel.
    n, r, c = torch.nonzero(mask, as_tuple=True)
    assert bool(active[n, r // stride, c // stride].all())
    assert {
        (int(a), int(b), int(d)) for a, b, d in zip(n, r // stride // tile[0], c // stride // tile[1], strict=True)
    } == {tuple(index) for index in tiles.indices.tolist()}
    assert tiles.sparsity == pytest.approx(1 - len(tiles.indices) / (size[0] * tiles.count[0] * tiles.count[1]))


def randomize(module):
    """Give every batch normalization statistics and weights that matter."""
    for part in module.modules():
        if isinstance(part, SparseBatchNorm2d):
            for tensor in (part.running_mean, part.bias):
                tensor.data.normal_()
            for tensor in (part.running_var, part.weight):
                tensor.data.uniform_(0.5, 2.0)
    return module.eval().double()


def layer_cases():
    yield "plain unit", lambda: ResidualUnit(8, 8), 1
    yield "wider unit", lambda: ResidualUnit(4, 8), 1
    yield "strided unit", lambda: ResidualUnit(4, 8, stride=2), 2
    yield "convolution", lambda: ConvUnit(4, 6), 1
    yield "1x1 convolution", lambda: ConvUnit(4, 6, kernel=1), 1
    yield "stage", lambda: Stage([ResidualUnit(4, 8, stride=2), ResidualUnit(8, 8), ResidualUnit(8, 8)]), 2
    yield "stage of plain units", lambda: Stage([ResidualUnit(8, 8), ResidualUnit(8, 8)]), 1


@pytest.mark.parametrize(("make", "stride"), [case[1:] for case in layer_cases()], ids=[c[0] for c in layer_cases()])
@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
def test_a_sparse_layer_equals_the_dense_one_on_active_tiles_at_every_border(make, stride, density):
    torch.manual_seed(0)
    layer = randomize(make())
    first = next(p for p in layer.parameters() if p.dim() == 4)
    # Neither size is a whole number of tiles, so tiles are cut at the lower and right border.
    x = torch.randn(2, first.shape[1], 21, 27, dtype=torch.float64)
    tiles = Tiles.from_mask(random_mask((2, 21, 27), 3, density), (4, 3), stride)
    before = x.clone()
    sparse = layer(x, tiles)
    assert torch.equal(x, before), "the input must not be written to"
    expected = x if tiles.size == (21, 27) and stride == 1 else None
    if isinstance(layer, Stage):
        expected = x
        for unit in layer.units:
            base = expected if unit.keeps_shape else 0
            expected = torch.where(tiles.mask()[:, None], unit(expected), base)
    else:
        base = x if isinstance(layer, ResidualUnit) and layer.keeps_shape else 0
        expected = torch.where(tiles.mask()[:, None], layer(x), base)
    torch.testing.assert_close(sparse, expected, rtol=1e-10, atol=1e-10)
    if density == 1.0:
        torch.testing.assert_close(sparse, layer(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [(1, 16, 16), (2, 12, 16), (2, 8, 8)])
@pytest.mark.parametrize("make", [lambda: ConvUnit(4, 4), lambda: ResidualUnit(4, 4), lambda: UpsampleUnit(4, 4, 4)])
def test_tiles_of_another_map_are_refused_instead_of_dropping_images_or_pixels(size, make):
    x = torch.randn(2, 4, 16, 16)
    inputs = (x[:, :, ::2, ::2], x) if isinstance(layer := make().eval(), UpsampleUnit) else (x,)
    with pytest.raises(ValueError, match="tiles are for"):
        layer(*inputs, Tiles.from_mask(torch.ones(size, dtype=torch.bool), (4, 4)))


def test_upsampling_names_tiles_of_odd_sides():
    tiles = Tiles.from_mask(torch.ones(1, 12, 12, dtype=torch.bool), (4, 3))
    with pytest.raises(ValueError, match=r"even sides, got \(4, 3\)"):
        UpsampleUnit(4, 4, 4).eval()(torch.ones(1, 4, 6, 6), torch.ones(1, 4, 12, 12), tiles)


def test_sparse_upsampling_equals_the_dense_one_cropped_to_the_skip():
    torch.manual_seed(0)
    layer = randomize(UpsampleUnit(4, 3, 5))
    x, skip = torch.randn(2, 4, 7, 6, dtype=torch.float64), torch.randn(2, 3, 13, 12, dtype=torch.float64)
    tiles = Tiles.from_mask(random_mask((2, 13, 12), 5, 0.05), (4, 2))
    expected = layer(x, skip) * tiles.mask()[:, None]
    torch.testing.assert_close(layer(x, skip, tiles), expected, rtol=1e-10, atol=1e-10)


def test_training_statistics_count_each_active_pixel_once():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 10) * 5 + 2
    tiles = Tiles.from_mask(random_mask((2, 9, 10), 1, 0.1), (2, 3))
    norm = SparseBatchNorm2d(3)
    y = norm(x, tiles)
    pixels = x.permute(0, 2, 3, 1)[tiles.mask()]
    plain = torch.nn.BatchNorm1d(3)
    torch.testing.assert_close(y.permute(0, 2, 3, 1)[tiles.mask()], plain(pixels), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
    assert norm.state_dict().keys() == torch.nn.BatchNorm2d(3).state_dict().keys()


def test_masked_normalization_has_the_gradient_of_its_definition():
    torch.manual_seed(0)
    norm = SparseBatchNorm2d(2).double()
    active = random_mask((2, 4, 5), 2, 0.5)
    x = torch.randn(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, w, b: _norm(v, active, w, b), (x, norm.weight, norm.bias))


def _norm(x, active, weight, bias):
    from sbnet_perception.blocks.norm import _MaskedNorm

    return _MaskedNorm.apply(x, active, weight, bias, 1e-5)[0]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_in_training_computes_what_it_computes_in_evaluation(stride):
    torch.manual_seed(0)
    unit = randomize(ResidualUnit(4, 8, stride))
    x = torch.randn(1, 4, 16, 16, dtype=torch.float64)
    tiles = Tiles.from_mask(random_mask((1, 16, 16), 3, 0.05), (4, 4), stride)
    sparse = unit(x, tiles)
    unit.training = True  # the path of training, with the normalizations still in evaluation
    torch.testing.assert_close(unit(x, tiles), sparse, rtol=1e-10, atol=1e-10)
