"""The fused layers as layers of torch: threads, changed parameters, gradients, tracers, wrong arguments."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from fused_helpers import needs_ops, never_dense, norm_parameters, random_tiles, randomized  # noqa: F401

from sbnet_perception.blocks import (
    ConvUnit,
    PointwiseConv2d,
    ResidualUnit,
    Stage,
    Tiles,
    UpsampleUnit,
)

pytestmark = needs_ops


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
    tiles_of_conv = random_tiles((2, 7, 6), (2, 3), 0.2).indices
    yield "conv_unit", (x, tiles_of_conv, (2, 3), 1e-5), [conv.conv.weight, *norm_parameters(conv.norm)]
    up = randomized(UpsampleUnit(4, 3, 3), torch.float64)
    tiles = random_tiles((2, 13, 12), (2, 2), 0.1).indices
    yield "upsample_unit", (x, skip, tiles, (2, 2), 1e-5), [up.up.weight, up.lateral.weight, *norm_parameters(up.norm)]


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
