"""The fused layers: against their plain form, against torch, on every instruction set, under every tracer."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.blocks import (
    ConvUnit,
    PointwiseConv2d,
    ResidualUnit,
    Stage,
    Tiles,
    UpsampleUnit,
    layer_ops,
    ops,
    reference_layers,
)

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 3e-2}
dtypes = st.sampled_from(list(TOLERANCE))
channels = st.integers(1, 40)
maps = st.tuples(st.integers(1, 2), st.integers(1, 30), st.integers(1, 30))
tile_sides = st.tuples(st.integers(1, 5), st.integers(1, 5))
densities = st.sampled_from([0.0, 0.02, 0.2, 0.7, 1.0])
seeds = st.integers(0, 2**16)

pytestmark = pytest.mark.skipif(bool(ops.UNAVAILABLE), reason=f"no compiled ops: {ops.UNAVAILABLE}")


def random_tiles(size, tile, density, stride=1, seed=0):
    mask = torch.from_numpy(np.random.default_rng(seed).random(size) < density)
    return Tiles.from_mask(mask, tile, stride)


def randomized(module, dtype=torch.float32):
    """In evaluation mode, with statistics that matter."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for tensor in (part.running_mean, part.bias):
                torch.nn.init.normal_(tensor, std=0.3)
            for tensor in (part.running_var, part.weight):
                torch.nn.init.uniform_(tensor, 0.5, 2.0)
    return module.eval().to(dtype)


def assert_equal_to_plain(operation, plain, arguments, parameters, dtype):
    """The fused result is that of the plain form, computed in float64 from the same numbers."""
    found = operation(*arguments, parameters)
    exact = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]
    expected = plain(*exact, [p.double() for p in parameters])
    assert found.dtype == dtype and found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(found.double() / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype])


@settings(deadline=None, max_examples=60)
@given(dtypes, channels, channels, maps, tile_sides, densities, st.sampled_from([1, 2]), st.integers(0, 2), seeds)
def test_fused_residual_units_equal_their_plain_form(dtype, inputs, quarter, size, tile, density, stride, more, seed):
    torch.manual_seed(seed)
    width = 4 * (quarter // 4 + 1)
    units = [ResidualUnit(inputs, width, stride), *(ResidualUnit(width, width) for _ in range(more))]
    stage = randomized(Stage(units), dtype)
    x = torch.randn(size[0], inputs, *size[1:]).to(dtype)
    tiles = random_tiles(size, tile, density, stride, seed)
    parameters = [tensor.detach() for unit in units for tensor in unit.tensors()]
    arguments = (x, tiles.indices, tile, stride, [1e-5] * 3 * len(units))
    before = x.clone()
    assert_equal_to_plain(layer_ops.residual_units, reference_layers.residual_units, arguments, parameters, dtype)
    assert torch.equal(x, before), "the input must not be written to"
    with torch.no_grad():
        assert torch.equal(stage(x, tiles), layer_ops.residual_units(*arguments, parameters))


@settings(deadline=None, max_examples=60)
@given(dtypes, channels, channels, maps, tile_sides, densities, st.sampled_from([1, 3]), st.booleans(), seeds)
def test_fused_convolutions_equal_their_plain_form(dtype, inputs, outputs, size, tile, density, kernel, branch, seed):
    torch.manual_seed(seed)
    layer = randomized(ConvUnit(inputs, outputs, kernel), dtype)
    parameters = [layer.conv.weight, layer.norm.weight, layer.norm.bias, layer.norm.running_mean]
    parameters += [layer.norm.running_var]
    if branch:
        parameters = [layer.conv.weight, layer.norm.bias]
    x = torch.randn(size[0], inputs, *size[1:]).to(dtype)
    arguments = (x, random_tiles(size, tile, density, 1, seed).indices, tile, 1e-5)
    parameters = [p.detach() for p in parameters]
    assert_equal_to_plain(layer_ops.conv_unit, reference_layers.conv_unit, arguments, parameters, dtype)


@settings(deadline=None, max_examples=40)
@given(dtypes, channels, channels, channels, maps, st.sampled_from([(2, 2), (4, 2), (2, 6)]), densities, seeds)
def test_fused_upsampling_equals_its_plain_form(dtype, inputs, skips, outputs, size, tile, density, seed):
    torch.manual_seed(seed)
    layer = randomized(UpsampleUnit(inputs, skips, outputs), dtype)
    skip = torch.randn(size[0], skips, *size[1:]).to(dtype)
    x = torch.randn(size[0], inputs, (size[1] + 1) // 2, (size[2] + 1) // 2).to(dtype)
    norm = layer.norm
    parameters = [layer.up.weight, layer.lateral.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
    arguments = (x, skip, random_tiles(size, tile, density, 1, seed).indices, tile, 1e-5)
    parameters = [p.detach() for p in parameters]
    assert_equal_to_plain(layer_ops.upsample_unit, reference_layers.upsample_unit, arguments, parameters, dtype)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512bf16"])
def test_every_instruction_set_of_this_machine_computes_the_same(isa):
    if os.environ.get("SBNET_ISA") or isa == torch.ops.sbnet.isa():
        pytest.skip("this process runs it")
    probe = "import sbnet_perception.blocks, torch; torch.ops.sbnet.isa()"
    environment = {**os.environ, "SBNET_ISA": isa}
    if subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, check=False).returncode:
        pytest.skip(f"this machine does not run {isa}")
    command = [sys.executable, "-m", "pytest", "-q", "-k", "plain_form", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


def test_the_result_is_the_same_to_the_bit_for_any_threads_tiles_and_neighbours():
    torch.manual_seed(0)
    unit = randomized(ResidualUnit(96, 96))
    x = torch.randn(2, 96, 60, 70)
    mask = random_tiles((2, 60, 70), (4, 7), 0.1).mask()
    threads, results = torch.get_num_threads(), []
    for count, tile in ((1, (4, 7)), (2, (1, 1)), (3, (2, 7)), (7, (4, 1))):
        torch.set_num_threads(count)
        with torch.no_grad():
            results.append(unit(x, Tiles.from_mask(mask, tile)))
            alone = unit(x[1:], Tiles.from_mask(mask[1:], tile))
        torch.set_num_threads(threads)
        assert torch.equal(results[0], results[-1]) and torch.equal(results[0][1:], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [96, 384])
def test_fused_units_are_as_accurate_as_dense_ones(dtype, width):
    torch.manual_seed(0)
    unit = randomized(ResidualUnit(width, width), dtype)
    x = torch.randn(1, width, 24, 24).to(dtype)
    tiles = Tiles.from_mask(torch.ones(24, 24, dtype=torch.bool), (8, 8))
    with torch.no_grad():
        fused, dense = unit(x, tiles), unit(x)
        exact = unit.double()(x.double())
    errors = [float((y.double() - exact).norm() / exact.norm()) for y in (fused, dense)]
    # oneDNN's own error differs a little with the order of its sums.
    assert errors[0] <= 1.1 * errors[1]


def test_parameters_that_change_in_place_change_the_result():
    torch.manual_seed(0)
    unit = randomized(ResidualUnit(8, 8))
    x, tiles = torch.randn(1, 8, 12, 12), random_tiles((1, 12, 12), (2, 2), 0.5)
    with torch.no_grad():
        for tensor in (unit.reduce.weight, unit.norm3.running_mean, unit.norm1.bias):
            before = unit(x, tiles)
            tensor.add_(0.1)
            after = unit(x, tiles)
            assert not torch.equal(before, after)
            expected = torch.where(tiles.mask()[:, None], unit(x), x)
            torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-5)


def test_a_parameter_that_is_replaced_changes_the_result():
    torch.manual_seed(0)
    unit = randomized(ResidualUnit(96, 96))
    x, tiles = torch.randn(1, 96, 12, 12), random_tiles((1, 12, 12), (2, 2), 1.0)
    with torch.no_grad():
        for _ in range(4):
            unit.conv.weight = torch.nn.Parameter(torch.randn_like(unit.conv.weight))
            torch.testing.assert_close(unit(x, tiles), unit(x), rtol=1e-4, atol=1e-4)


def test_a_network_made_and_changed_in_inference_mode_is_not_remembered_wrongly():
    with torch.inference_mode():
        layer = randomized(PointwiseConv2d(4, 3))
        x, tiles = torch.randn(1, 4, 6, 6), random_tiles((1, 6, 6), (2, 2), 1.0)
        for _ in range(2):
            layer.weight.add_(1.0)
            torch.testing.assert_close(layer(x, tiles), F.conv2d(x, layer.weight, layer.bias))


def test_a_result_belongs_to_the_caller():
    torch.manual_seed(0)
    stage = randomized(Stage([ResidualUnit(8, 8), ResidualUnit(8, 8)]))
    tiles = random_tiles((1, 12, 12), (2, 2), 0.5)
    with torch.no_grad():
        first = stage(torch.randn(1, 8, 12, 12), tiles)
        kept = first.clone()
        stage(torch.randn(1, 8, 12, 12), tiles)
    assert torch.equal(first, kept)


def test_nan_and_infinity_of_an_input_stay_where_the_dense_layer_has_them():
    torch.manual_seed(0)
    unit = randomized(ResidualUnit(8, 8))
    x = torch.randn(1, 8, 12, 12)
    x[0, 3, 2, 2], x[0, 1, 9, 9] = torch.nan, torch.inf
    tiles = Tiles.from_mask(torch.ones(12, 12, dtype=torch.bool), (3, 3))
    with torch.no_grad():
        torch.testing.assert_close(unit(x, tiles), unit(x), equal_nan=True, rtol=1e-5, atol=1e-5)


# --- gradients, tracing


def operations(requires_grad):
    """Each operation with small arguments: residual units that change and keep the shape, convolution, upsampling."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, 7, 6, dtype=torch.float64, requires_grad=requires_grad)
    skip = torch.randn(2, 3, 13, 12, dtype=torch.float64, requires_grad=requires_grad)
    units = [randomized(ResidualUnit(4, 8, 2), torch.float64), randomized(ResidualUnit(8, 8), torch.float64)]
    tensors = [t for unit in units for t in unit.tensors()]
    tiles = random_tiles((2, 7, 6), (2, 1), 0.2, 2).indices
    yield "residual_units", (x, tiles, (2, 1), 2, [1e-5] * 6), tensors
    conv = randomized(ConvUnit(4, 3), torch.float64)
    norm = [conv.norm.weight, conv.norm.bias, conv.norm.running_mean, conv.norm.running_var]
    yield "conv_unit", (x, random_tiles((2, 7, 6), (2, 3), 0.2).indices, (2, 3), 1e-5), [conv.conv.weight, *norm]
    up = randomized(UpsampleUnit(4, 3, 3), torch.float64)
    norm = [up.norm.weight, up.norm.bias, up.norm.running_mean, up.norm.running_var]
    tiles = random_tiles((2, 13, 12), (2, 2), 0.1).indices
    yield "upsample_unit", (x, skip, tiles, (2, 2), 1e-5), [up.up.weight, up.lateral.weight, *norm]


@pytest.mark.parametrize("case", range(3))
def test_second_derivatives_are_those_of_the_dense_layer(case):
    layer = randomized([ConvUnit(3, 4), ResidualUnit(4, 8), ResidualUnit(8, 8)][case], torch.float64)
    channels = next(p for p in layer.parameters() if p.dim() == 4).shape[1]
    x = torch.randn(1, channels, 6, 6, dtype=torch.float64, requires_grad=True)
    found = []
    for tiles in (None, random_tiles((1, 6, 6), (2, 2), 1.0)):
        (slope,) = torch.autograd.grad(layer(x, tiles).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, *layer.parameters()], allow_unused=True))
    for dense, sparse in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("case", range(3))
def test_layers_have_the_gradients_of_their_definition_and_pass_opcheck(case):
    name, arguments, parameters = list(operations(requires_grad=True))[case]
    operation = getattr(torch.ops.sbnet, name).default
    trained = [p for p in parameters if p.requires_grad]
    inputs = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]

    def call(*values):
        # gradcheck changes its tensors through .data, which nothing counts: copies are packed anew
        values = iter([value.clone() for value in values])
        found = [next(values) if isinstance(a, torch.Tensor) and a.requires_grad else a for a in arguments]
        return operation(*found, [next(values) if p.requires_grad else p for p in parameters])

    assert torch.autograd.gradcheck(call, (*inputs, *trained), atol=1e-6)
    torch.library.opcheck(operation, (*arguments, parameters))


class Network(torch.nn.Module):
    """From a mask, so that the number of tiles is data."""

    def __init__(self):
        super().__init__()
        self.first = ConvUnit(4, 8)
        self.stage = Stage([ResidualUnit(8, 16, stride=2), ResidualUnit(16, 16)])
        self.unit = ResidualUnit(16, 16)

    def forward(self, x, mask):
        fine, coarse = Tiles.from_mask(mask, (2, 2)), Tiles.from_mask(mask, (2, 2), stride=2)
        return self.unit(self.stage(self.first(x, fine), coarse), coarse)


def test_a_network_compiles_to_one_graph_for_any_number_of_tiles():
    torch.manual_seed(0)
    network, x = randomized(Network()), torch.randn(1, 4, 20, 30)
    counter = torch._dynamo.testing.CompileCounterWithBackend("inductor")
    compiled = torch.compile(network, fullgraph=True, backend=counter)
    with torch.no_grad():
        for density in (0.1, 0.0, 1.0, 0.02):
            mask = torch.rand(1, 20, 30) < density
            torch.testing.assert_close(compiled(x, mask), network(x, mask))
    assert counter.frame_count == 1


def test_a_network_exports_for_any_number_of_tiles_each_stage_one_node():
    torch.manual_seed(0)
    network, x = randomized(Network()), torch.randn(1, 4, 20, 30)
    exported = torch.export.export(network, (x, torch.rand(1, 20, 30) < 0.1))
    nodes = [str(node.target) for node in exported.graph.nodes if str(node.target).startswith("sbnet.")]
    assert nodes.count("sbnet.residual_units.default") == 2 and nodes.count("sbnet.conv_unit.default") == 1
    for density in (0.0, 0.3, 1.0):
        mask = torch.rand(1, 20, 30) < density
        torch.testing.assert_close(exported.module()(x, mask), network(x, mask))


# --- bad input


@pytest.mark.parametrize("layer", [PointwiseConv2d(3, 5), ConvUnit(3, 5), ConvUnit(4, 5), ResidualUnit(4, 8)])
def test_an_input_with_other_channels_than_the_weights_is_refused(layer):
    channels = next(p for p in layer.parameters() if p.dim() == 4).shape[1]
    tiles = random_tiles((1, 6, 6), (2, 2), 1.0)
    for wrong in (channels - 1, channels + 1):
        with pytest.raises(ValueError, match=f"x must have {channels} channels"):
            layer.eval()(torch.randn(1, wrong, 6, 6), tiles)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda o, x, i, w: o.conv_unit_packed(x[0], i, [1, 1], 1, True, *w), "x must be contiguous"),
        (lambda o, x, i, w: o.conv_unit_packed(x.int(), i, [1, 1], 1, True, *w), "x must be float32"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i.long(), [1, 1], 1, True, *w), "indices must be contiguous int32"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i + 4, [1, 1], 1, True, *w), "outside the map"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i - 1, [1, 1], 1, True, *w), "outside the map"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [0, 1], 1, True, *w), "tile must be"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [1, 1], 5, True, *w), "kernel must be 1 or 3"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [1, 1], 3, True, *w), "weights must be"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [1, 1], 1, True, w[0], w[1].double()), "norm must be"),
        (lambda o, x, i, w: o.residual_units_packed(x, i, [1, 1], 3, 4, [*w]), "stride must be 1 or 2"),
        (lambda o, x, i, w: o.residual_units_packed(x, i, [1, 1], 1, 4, [*w]), "7 tensors per unit"),
        (lambda o, x, i, w: o.upsample_unit_packed(x, x, i, [1, 1], *w, w[1]), "half the size"),
        (lambda o, x, i, w: o.pack_weights(torch.ones(1, 2, 3), x), "even K"),
    ],
)
def test_a_wrong_argument_of_a_kernel_is_named(call, named):
    o = torch.ops.sbnet
    weights = [o.pack_weights(torch.ones(1, 4, 4), torch.ones(1)), torch.ones(2, 4)]
    with pytest.raises(RuntimeError, match=named):
        call(o, torch.ones(1, 4, 4, 4), torch.zeros(1, 3, dtype=torch.int32), weights)
