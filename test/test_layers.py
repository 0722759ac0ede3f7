"""Layers on active tiles, of whole maps and of stored pixels, plain and prepared, against the dense layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import (
    DENSITIES,
    DTYPES,
    SEEDS,
    SIDES,
    SIZES,
    needs_ops,
    prepared,
    random_tiles,
    random_voxels,
    randomized,
)

from sbnet_perception.blocks import (
    ConvUnit,
    PointwiseConv2d,
    ResidualUnit,
    SparseBatchNorm2d,
    SparseMap,
    Stage,
    UpsampleUnit,
    VoxelConvUnit,
    prepare_branches,
)

LAYERS = {
    "3x3": lambda: ConvUnit(8, 5),
    "1x1": lambda: ConvUnit(8, 7, kernel=1),
    "branch": lambda: PointwiseConv2d(8, 2),
    "upsampling": lambda: UpsampleUnit(8, 8, 5),
    "unit": lambda: ResidualUnit(8, 8),
    "wider unit": lambda: ResidualUnit(8, 20),
    "strided unit": lambda: ResidualUnit(8, 12, stride=2),
    "stage": lambda: Stage([ResidualUnit(8, 8), ResidualUnit(8, 8), ResidualUnit(8, 8)]),
    "strided stage": lambda: Stage([ResidualUnit(8, 16, stride=2), ResidualUnit(16, 16)]),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def units_of(layer):
    return list(layer.units) if isinstance(layer, Stage) else [layer]


def stride_of(layer):
    return getattr(units_of(layer)[0], "stride", 1) if isinstance(layer, (ResidualUnit, Stage)) else 1


def keeps_shape(layer):
    return getattr(units_of(layer)[0], "keeps_shape", False)


def case(kind, dtype=torch.float64, size=(2, 21, 27), sides=(4, 3), density=0.1, seed=0):
    """A layer, whole maps as its input, tiles of its output."""
    torch.manual_seed(seed)
    layer = randomized(LAYERS[kind](), dtype)
    x = torch.randn(size[0], 8, *size[1:]).to(dtype)
    half = torch.randn(size[0], 8, -(-size[1] // 2), -(-size[2] // 2)).to(dtype)
    tiles = random_tiles(size, sides, density, stride_of(layer), seed)
    return layer, (half, x) if kind == "upsampling" else (x,), tiles


def stored(layer, inputs, tiles, seed=0):
    """The inputs on tiles of their own, or on those of the output where a unit keeps the shape."""

    def of(x, number):
        own = random_tiles((len(x), *x.shape[2:]), (3, 2), 0.3, 1, seed + number)
        return SparseMap.from_dense(x, tiles if keeps_shape(layer) else own)

    return tuple(of(x, number) for number, x in enumerate(inputs))


def by_definition(layer, inputs, tiles):
    """The dense layer on active tiles; where a unit keeps the shape its input elsewhere, or else 0."""
    mask, x = tiles.mask()[:, None], inputs
    for unit in units_of(layer):
        x = (torch.where(mask, unit(*x), x[0] if getattr(unit, "keeps_shape", False) else 0),)
    return x[0]


def in_plain_form(layer):
    """In training, with the normalizations still in evaluation."""
    for part in layer.modules():
        part.training = not isinstance(part, SparseBatchNorm2d)
    return layer


def close(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


# --- evaluation


@every_layer
@pytest.mark.parametrize("density", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("sides", [(4, 3), (2, 2), (2**22, 2**22)])
def test_a_layer_equals_the_dense_one_on_active_tiles_at_every_border(kind, density, sides):
    # The map is no whole number of tiles; no memory holds blocks of the largest.
    layer, inputs, tiles = case(kind, sides=sides, density=density)
    before = [x.clone() for x in inputs]
    y = layer(*inputs, tiles)
    assert all(map(torch.equal, inputs, before)), "the input must not be written to"
    assert y.is_contiguous(memory_format=torch.channels_last)
    close(y, by_definition(layer, inputs, tiles))
    if density == 1.0:
        close(y, layer(*inputs))


@every_layer
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(DTYPES), SIZES, SIDES, DENSITIES, SEEDS)
def test_whole_maps_stored_pixels_and_prepared_layers_agree_to_the_bit(kind, dtype, size, sides, density, seed):
    layer, inputs, tiles = case(kind, dtype, size, sides, density, seed)
    sparse = stored(layer, inputs, tiles, seed)
    with torch.no_grad():
        y = layer(*sparse, tiles)
        assert y.pixels is tiles.pixels and y.values.dtype == dtype
        assert torch.equal(prepared(layer, dtype)(*sparse, tiles).values, y.values)
        whole = layer(*(x.dense() for x in sparse), tiles)
        assert torch.equal(SparseMap.from_dense(whole, tiles).values, y.values)


@every_layer
@pytest.mark.parametrize("density", [0.0, 0.2])
def test_the_plain_form_that_trains_computes_what_evaluation_does(kind, density):
    layer, inputs, tiles = case(kind, density=density)
    for given_inputs in (inputs, stored(layer, inputs, tiles)):
        y = layer.eval()(*given_inputs, tiles)
        again = in_plain_form(layer)(*given_inputs, tiles)
        close(*(m.values if isinstance(m, SparseMap) else m for m in (again, y)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_convolution_of_voxels_equals_that_of_the_map_they_are(dtype):
    seen, tiles = random_voxels((2, 19, 70), 0.2, 1), random_tiles((2, 19, 70), (2, 3), 0.3)
    layer = randomized(VoxelConvUnit(6, 19), dtype)
    expected = SparseMap.from_dense(layer(seen.dense().to(dtype), tiles), tiles).values
    y, tolerance = layer(seen, tiles).values, {torch.float64: 1e-9, torch.float32: 1e-5}.get(dtype, 0.05)
    close(y, expected, tolerance)
    assert torch.equal(layer.prepare(dtype)(seen, tiles).values, y)
    close(in_plain_form(layer)(seen, tiles).values, y, tolerance)


def test_branches_are_prepared_as_one_layer():
    tiles = random_tiles((1, 9, 12), (2, 2), 0.4)
    branches = [randomized(PointwiseConv2d(8, outputs)) for outputs in (1, 3, 7)]
    x = SparseMap.from_dense(torch.randn(1, 8, 9, 12), tiles)
    together = prepare_branches(branches, torch.float32)(x, tiles).values
    close(together, torch.cat([branch(x, tiles).values for branch in branches], 1), 1e-6)


@needs_ops
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [96, 384])
def test_units_are_as_accurate_as_dense_ones(dtype, width):
    torch.manual_seed(0)
    unit, x = randomized(ResidualUnit(width, width), dtype), torch.randn(1, width, 24, 24).to(dtype)
    with torch.no_grad():
        sparse, dense = unit(x, random_tiles((1, 24, 24), (8, 8), 1.0)), unit(x)
        exact = unit.double()(x.double())
    errors = [float((y.double() - exact).norm() / exact.norm()) for y in (sparse, dense)]
    # oneDNN's own error differs a little with the order of its sums.
    assert errors[0] <= 1.1 * errors[1]


def changes_of(unit):
    """Everything that changes what a layer computes."""
    yield "a parameter in place", lambda: unit.reduce.weight.data.mul_(1.5)
    yield "a parameter replaced", lambda: setattr(unit.conv, "weight", torch.nn.Parameter(unit.conv.weight * 2))
    yield "another view of its memory", lambda: setattr(
        unit.conv, "weight", torch.nn.Parameter(unit.conv.weight.detach().transpose(0, 1))
    )
    for tiles in (None, random_tiles((2, 6, 6), (2, 2), 0.3)):
        yield "training", lambda tiles=tiles: (unit.train()(torch.randn(2, 8, 6, 6) * 3 + 1, tiles), unit.eval())
    yield "another state", lambda: unit.load_state_dict(randomized(ResidualUnit(8, 8)).state_dict())
    yield "another eps", lambda: setattr(unit.norm2, "eps", 0.5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_layer_follows_every_change_of_its_state_and_a_prepared_copy_none(mode):
    torch.manual_seed(0)
    x, tiles = torch.randn(1, 8, 12, 12), random_tiles((1, 12, 12), (2, 2), 0.5)
    sparse = SparseMap.from_dense(x, tiles)
    with mode():
        unit = randomized(ResidualUnit(8, 8))
        copy = unit.prepare(torch.float32)
        first = copy(sparse, tiles).values
        for name, change in changes_of(unit):
            before = unit(x, tiles)
            change()
            assert not torch.equal(unit(x, tiles), before), name
            close(unit(x, tiles), by_definition(unit, (x,), tiles), 1e-4)
            assert torch.equal(copy(sparse, tiles).values, first), name


@every_layer
def test_all_of_a_layer_is_copied_when_it_is_prepared(kind):
    layer, inputs, tiles = case(kind, torch.float32)
    sparse = stored(layer, inputs, tiles)
    with torch.no_grad():
        copy, before = prepared(layer), layer(*sparse, tiles).values
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.zero_()
        assert torch.equal(copy(*sparse, tiles).values, before)
        assert not torch.equal(layer(*sparse, tiles).values, before)


# --- training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_statistics_count_each_active_pixel_once(dtype):
    torch.manual_seed(0)
    x, tiles = torch.randn(2, 3, 9, 10, dtype=dtype) * 5 + 2, random_tiles((2, 9, 10), (2, 3), 0.1)
    norm, plain = SparseBatchNorm2d(3).to(dtype), torch.nn.BatchNorm1d(3).to(dtype)
    y = norm(x, tiles)
    pixels = x.permute(0, 2, 3, 1)[tiles.mask()]
    close(y.permute(0, 2, 3, 1)[tiles.mask()], plain(pixels), 1e-5)
    close(norm.running_mean, plain.running_mean, 1e-5)
    close(norm.running_var, plain.running_var, 1e-5)
    assert norm.state_dict().keys() == torch.nn.BatchNorm2d(3).state_dict().keys()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_unit_has_the_statistics_of_the_pixels_beneath_its_tiles_or_of_the_stored_ones_and_one_for_all_others(stride):
    torch.manual_seed(0)
    x, unit = torch.randn(2, 8, 13, 12) * 3 + 1, ResidualUnit(8, 16, stride).train()
    tiles = random_tiles((2, 13, 12), (2, 2), 0.2, stride)
    beneath = tiles.mask().repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, :13, :12]
    sparse = SparseMap.from_dense(x, random_tiles((2, 13, 12), (2, 3), 0.3))
    pairs = (x, x.permute(0, 2, 3, 1)[beneath]), (sparse, torch.cat([sparse.values, torch.zeros(1, 8)]))
    for given_map, rows in pairs:
        for statistic in (unit.norm1.running_mean, unit.norm1.running_var):
            statistic.zero_()
        unit(given_map, tiles)
        close(unit.norm1.running_mean, 0.1 * rows.mean(0), 1e-5)
        close(unit.norm1.running_var, 0.1 * rows.var(0), 1e-5)


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_training_on_an_empty_mask_changes_no_statistic_and_has_finite_gradients(kind, dtype):
    layer, inputs, tiles = case(kind, dtype, density=0.0)
    inputs = [(50 * x).requires_grad_() for x in inputs]
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    y = layer.train()(*inputs, tiles)
    y.sum().backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())
    assert all(tensor.grad.isfinite().all() for tensor in (*inputs, *layer.parameters()))
    assert torch.equal(y, layer.eval()(*inputs, tiles))


@every_layer
def test_derivatives_of_both_orders_are_those_of_the_dense_layer(kind):
    layer, inputs, tiles = case(kind, size=(1, 6, 6), sides=(2, 2), density=1.0)
    inputs, found = [x.requires_grad_() for x in inputs], []
    for given_tiles in (None, tiles):
        slopes = torch.autograd.grad(layer(*inputs, given_tiles).square().sum(), inputs, create_graph=True)
        of = [*inputs, *layer.parameters()]
        second = torch.autograd.grad(sum(s.square().sum() for s in slopes), of, allow_unused=True)
        found.append((*slopes, *second))
    for dense, sparse in zip(*found, strict=True):
        close(torch.zeros(()) if sparse is None else sparse, torch.zeros(()) if dense is None else dense, 1e-7)


# --- dtypes


@every_layer
def test_under_autocast_every_form_of_a_layer_computes_and_differentiates_in_its_dtype(kind):
    layer, inputs, tiles = case(kind, torch.float32, (1, 13, 12), (2, 2), 1.0)
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    inputs, results = [x.requires_grad_() for x in inputs], []
    for given_tiles in (None, tiles):
        with torch.autocast("cpu", torch.bfloat16):
            y = layer.eval()(*inputs, given_tiles)
        results.append((y, *torch.autograd.grad(y.float().square().sum(), [*inputs, *layer.parameters()])))
        with torch.autocast("cpu", torch.bfloat16):
            assert y.dtype == layer.train()(*inputs, given_tiles).dtype == torch.bfloat16
        layer.load_state_dict(state)  # training has changed the statistics
    for dense, sparse in zip(*results, strict=True):
        assert sparse.dtype == dense.dtype
        assert (sparse - dense).norm() <= 8e-2 * dense.norm()


def test_normalizations_in_float32_serve_convolutions_in_bfloat16():
    torch.manual_seed(0)
    unit = randomized(ResidualUnit(8, 8)).bfloat16()
    for norm in (unit.norm1, unit.norm2, unit.norm3):
        norm.float()
    x, tiles = torch.randn(1, 8, 6, 6).bfloat16(), random_tiles((1, 6, 6), (2, 2), 1.0)
    close(unit(x, tiles), unit(x), 3e-2)


# --- what is refused


def small(kind):
    return case(kind, torch.float32, (1, 8, 8), (2, 2), 0.5)


@every_layer
def test_a_wrong_map_is_named_with_what_is_wrong(kind):
    layer, inputs, tiles = small(kind)
    sparse, *rest = stored(layer, inputs, tiles)
    for given_tiles in (None, tiles):
        for wrong in (inputs[0][0], inputs[0].int(), inputs[0].bool()):
            with pytest.raises(ValueError, match=r"x must be floating point \[N, C, H, W\], got"):
                layer(wrong, *inputs[1:], given_tiles)
    # an odd number of channels and the even one above it are packed alike
    for other in (7, 9):
        for wrong in (torch.zeros(len(sparse.values), other), torch.zeros(1, other, *inputs[0].shape[2:])):
            maps = (SparseMap(wrong, sparse.pixels), *rest) if wrong.dim() == 2 else (wrong, *inputs[1:])
            with pytest.raises(ValueError, match=f"x must have 8 channels, .*, got .*{other}"):
                layer(*maps, tiles)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        for maps in ((SparseMap(sparse.values.to(dtype), sparse.pixels), *rest), (inputs[0].to(dtype), *inputs[1:])):
            with pytest.raises(ValueError, match=f"x is {dtype}, the layer has parameters of torch.float32"):
                layer(*maps, tiles)
    with pytest.raises(ValueError, match="tiles is None"):
        layer(sparse, *rest)


@every_layer
@pytest.mark.parametrize("size", [(2, 8, 8), (1, 10, 8), (1, 8, 6)])
def test_tiles_of_another_map_are_refused_instead_of_dropping_images_or_pixels(kind, size):
    layer, inputs, tiles = small(kind)
    wrong, sparse = random_tiles(size, (2, 2), 1.0, stride_of(layer)), stored(layer, inputs, tiles)
    for call in (layer, prepared(layer)):
        for maps in (inputs, sparse) if call is layer else (sparse,):
            with pytest.raises(ValueError, match=f"tiles are for {size[0]} images of .*, the layer's output has 1 of"):
                call(*maps, wrong)


@pytest.mark.parametrize("make", [lambda: ConvUnit(4, 4), lambda: ResidualUnit(4, 4)])
def test_a_layer_applied_twice_has_the_gradients_of_both_times(make):
    layer = randomized(make(), torch.float64)
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    tiles = random_tiles((1, 6, 6), (2, 2), 1.0)
    found = [
        torch.autograd.grad(layer(layer(x, given), given).square().sum(), list(layer.parameters()))
        for given in (None, tiles)
    ]
    for dense, sparse in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense)


def test_normalizations_and_skips_of_another_dtype_are_refused_too():
    (unit, (x,), tiles), (up, (half, skip), _) = small("unit"), small("upsampling")
    unit.norm2.bfloat16()
    with pytest.raises(ValueError, match=r"x is torch\.float32, the layer has parameters of torch\.bfloat16"):
        unit(x, tiles)
    with pytest.raises(ValueError, match=r"skip is torch\.bfloat16, the layer has parameters of torch\.float32"):
        up(half, skip.bfloat16(), tiles)


def test_upsampling_and_units_name_maps_that_do_not_fit_together():
    up, inputs, tiles = small("upsampling")
    half, skip = stored(up, inputs, tiles)
    wrong = SparseMap.from_dense(torch.zeros(1, 8, 4, 5), random_tiles((1, 4, 5), (2, 2), 1.0))
    for training in (False, True):
        with pytest.raises(ValueError, match="x must have half the size of skip"):
            up.train(training)(wrong, skip, tiles)
        with pytest.raises(ValueError, match="x must have half the size of skip"):
            up(wrong.dense(), skip.dense(), tiles)
    with pytest.raises(ValueError, match="skip must have 8 channels"):
        up(half, SparseMap(skip.values[:, 1:], skip.pixels), tiles)
    with pytest.raises(TypeError, match="both"):
        up(half, skip.dense(), tiles)
    unit, (x,), tiles = small("unit")
    with pytest.raises(ValueError, match="keeps the shape"):
        unit(SparseMap.from_dense(x, tiles), random_tiles((1, 8, 8), (2, 2), 1.0))


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: ConvUnit(4, 4, kernel=5), ValueError, "kernel must be 1 or 3, got 5"),
        (lambda: ResidualUnit(0, 4), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: ResidualUnit(4, 3), ValueError, "out_channels must be at least 4.* got 3"),
        (lambda: ResidualUnit(4, 4, stride=3), ValueError, "stride must be 1 or 2, got 3"),
        (lambda: Stage([]), ValueError, "at least one unit, got none"),
        (lambda: Stage([ResidualUnit(4, 4), ConvUnit(4, 4)]), TypeError, "ResidualUnit only, got ConvUnit"),
        (lambda: Stage([ResidualUnit(4, 4), ResidualUnit(4, 8)]), ValueError, "must keep the shape"),
    ],
)
def test_a_layer_that_could_not_compute_is_not_made(make, error, named):
    with pytest.raises(error, match=named):
        make()
