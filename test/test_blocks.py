"""Layers on active tiles against the dense result."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbnet_perception.blocks import (
    ConvUnit,
    PointwiseConv2d,
    ResidualUnit,
    SparseBatchNorm2d,
    Stage,
    Tiles,
    UpsampleUnit,
    reference_layers,
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("make", [SparseBatchNorm2d, lambda c: ConvUnit(c, 4), lambda c: ResidualUnit(c, 8)])
def test_training_on_an_empty_mask_computes_what_evaluation_does_and_changes_no_statistic(make, dtype):
    torch.manual_seed(0)
    layer = randomize(make(4)).to(dtype).train()
    x = (50 * torch.randn(2, 4, 6, 6)).to(dtype).requires_grad_()
    tiles = Tiles.from_mask(torch.zeros(2, 6, 6, dtype=torch.bool), (2, 2))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    y = layer(x, tiles)
    y.sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())
    assert all(tensor.grad.isfinite().all() for tensor in (x, *layer.parameters()))
    assert torch.equal(y, layer.eval()(x, tiles))


def small_maps(layer, dtype=torch.float64):
    """Inputs of one image, 13 x 12 pixels, for a layer of 8 channels, and the stride of its output."""
    x = torch.randn(1, 8, 13, 12, dtype=dtype, requires_grad=True)
    half = torch.randn(1, 8, 7, 6, dtype=dtype, requires_grad=True)
    stride = layer.stride if isinstance(layer, ResidualUnit) else 1
    return ((half, x) if isinstance(layer, UpsampleUnit) else (x,)), stride


SMALL_LAYERS = [
    lambda: ConvUnit(8, 4),
    lambda: PointwiseConv2d(8, 4),
    lambda: UpsampleUnit(8, 8, 4),
    lambda: ResidualUnit(8, 8),
    lambda: ResidualUnit(8, 16, 2),
]


@pytest.mark.parametrize("make", SMALL_LAYERS)
def test_tiles_larger_than_the_map_compute_and_differentiate_in_the_memory_of_the_map(make):
    torch.manual_seed(0)
    layer = randomize(make())
    inputs, stride = small_maps(layer)
    mask = torch.ones(1, 13, 12, dtype=torch.bool)
    results = []
    for side in (2, 2**22):  # no memory holds blocks of the latter
        tiles = Tiles.from_mask(mask, (side, side), stride)
        assert tiles.mask().all()
        y = layer(*inputs, tiles)
        results.append((y, *torch.autograd.grad(y.square().sum(), [*inputs, *layer.parameters()])))
    assert tiles.tile == ((14, 12) if stride == 1 else (8, 6))  # even, as upsampling needs it
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(large, small)


@pytest.mark.parametrize("make", SMALL_LAYERS)
def test_the_plain_form_returns_the_layout_and_dtype_that_tracing_promises(make, monkeypatch):
    layer = randomize(make()).float()
    inputs, stride = small_maps(layer, torch.float32)
    tiles = Tiles.from_mask(torch.ones(1, 13, 12, dtype=torch.bool), (2, 2), stride)
    found = {}
    for name in ("conv_unit", "upsample_unit", "residual_units"):
        monkeypatch.setattr(f"sbnet_perception.blocks.layers.layer_ops.{name}", lambda *a, n=name: found.update({n: a}))
    with torch.autocast("cpu", torch.bfloat16):
        layer(*inputs, tiles)
    ((name, arguments),) = found.items()
    promised = getattr(torch.ops.sbnet, name)(*on_meta(arguments))
    result = getattr(reference_layers, name)(*arguments)
    assert (result.stride(), result.dtype) == (promised.stride(), promised.dtype)
    assert result.dtype == torch.bfloat16


def on_meta(value):
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    return [on_meta(part) for part in value] if isinstance(value, (list, tuple)) else value


# --- dtypes


@pytest.mark.parametrize("make", SMALL_LAYERS)
def test_under_autocast_every_form_of_a_layer_computes_and_differentiates_in_its_dtype(make):
    torch.manual_seed(0)
    layer = randomize(make()).float()
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    inputs, stride = small_maps(layer, torch.float32)
    tiles = Tiles.from_mask(torch.ones(1, 13, 12, dtype=torch.bool), (2, 2), stride)
    results = []
    for given in (None, tiles):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer.eval()(*inputs, given)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), [*inputs, *layer.parameters()])))
        with torch.autocast("cpu", torch.bfloat16):
            assert y.dtype == layer.train()(*inputs, given).dtype == torch.bfloat16
        layer.load_state_dict(state)  # training has changed the statistics
    for dense, sparse in zip(*results, strict=True):
        assert sparse.dtype == dense.dtype
        assert (sparse - dense).norm() <= 3e-2 * dense.norm()


def test_normalizations_in_float32_serve_convolutions_in_bfloat16():
    torch.manual_seed(0)
    unit = randomize(ResidualUnit(8, 8)).bfloat16()
    for norm in (unit.norm1, unit.norm2, unit.norm3):
        norm.float()
    x, tiles = torch.randn(1, 8, 6, 6).bfloat16(), Tiles.from_mask(torch.ones(6, 6, dtype=torch.bool), (2, 2))
    torch.testing.assert_close(unit(x, tiles), unit(x), rtol=3e-2, atol=3e-2)


# --- weights that are kept for the next call


def assert_sparse_is_dense(unit, x, tolerance=1e-5):
    tiles = Tiles.from_mask(torch.ones(x.shape[2:], dtype=torch.bool), (2, 2))
    with torch.no_grad():
        torch.testing.assert_close(unit(x, tiles), unit(x), rtol=tolerance, atol=tolerance)


def test_another_eps_changes_the_result():
    unit, x = randomize(ResidualUnit(8, 8)).float(), torch.randn(1, 8, 6, 6)
    for norm in (unit.norm1, unit.norm2, unit.norm3):
        assert_sparse_is_dense(unit, x)
        norm.eps = 0.5
    assert_sparse_is_dense(unit, x)


def test_maps_of_two_dtypes_have_each_their_own_weights():
    unit, x = randomize(ResidualUnit(8, 8)).float(), torch.randn(1, 8, 6, 6)
    for _ in range(2):
        assert_sparse_is_dense(unit, x)
        with torch.autocast("cpu", torch.bfloat16):
            assert_sparse_is_dense(unit, x, 5e-2)


def test_a_parameter_replaced_by_another_view_of_its_memory_changes_the_result():
    unit, x = randomize(ResidualUnit(16, 16)).float(), torch.randn(1, 16, 6, 6)
    assert_sparse_is_dense(unit, x)
    old = unit.conv.weight
    unit.conv.weight = torch.nn.Parameter(old.detach().transpose(0, 1))
    assert (old.data_ptr(), old._version) == (unit.conv.weight.data_ptr(), unit.conv.weight._version)
    assert_sparse_is_dense(unit, x)
