"""Layers on active tiles against the dense result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbnet_perception.blocks import (
    ConvUnit,
    ResidualUnit,
    SparseBatchNorm2d,
    Stage,
    Tiles,
    UpsampleUnit,
)


def random_mask(size, seed, density=0.3):
    return torch.from_numpy(np.random.default_rng(seed).random(size) < density)


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
