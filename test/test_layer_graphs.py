"""Prepared layers, and networks under torch.compile and torch.export: one graph, whatever the mask."""

from __future__ import annotations

import pytest
import torch
from layer_helpers import prepared, random_mask, random_tiles, randomized
from torch._dynamo.testing import CompileCounterWithBackend

from sbnet_perception.blocks import ConvUnit, PointwiseConv2d, ResidualUnit, SparseMap, Stage, Tiles, UpsampleUnit


class Network(torch.nn.Module):
    """From a mask, so that the number of tiles is data."""

    def __init__(self, on, is_prepared):
        super().__init__()
        layers = {
            "first": ConvUnit(4, 8),
            "stage": Stage([ResidualUnit(8, 16, stride=2), ResidualUnit(16, 16)]),
            "unit": ResidualUnit(16, 16),
            "up": UpsampleUnit(16, 8, 5),
            "branch": PointwiseConv2d(5, 3),
        }
        self.layers, self.on = randomized(torch.nn.ModuleDict(layers)), on
        self.calls = {name: prepared(layer) if is_prepared else layer for name, layer in layers.items()}

    def forward(self, x, mask):
        fine, coarse = Tiles.from_mask(mask, (2, 2)), Tiles.from_mask(mask, (2, 3), stride=2)
        x = SparseMap.from_dense(x, fine) if self.on == "stored pixels" else x
        y = self.calls["first"](x, fine)
        z = self.calls["unit"](self.calls["stage"](y, coarse), coarse)
        z = self.calls["branch"](self.calls["up"](z, y, fine), fine)
        return z.dense() if self.on == "stored pixels" else z


NETWORKS = pytest.mark.parametrize(
    ("on", "is_prepared"), [("whole maps", False), ("stored pixels", False), ("stored pixels", True)]
)


MASKS = [random_mask((1, 20, 30), density, 1) for density in (0.1, 0.0, 1.0, 0.02)]


def network_and_map(on, is_prepared):
    torch.manual_seed(0)
    return Network(on, is_prepared), torch.randn(1, 4, 20, 30)


@NETWORKS
def test_a_network_compiles_to_one_graph_for_any_number_of_tiles(on, is_prepared):
    torch._dynamo.reset()
    network, x = network_and_map(on, is_prepared)
    counter = CompileCounterWithBackend("inductor" if is_prepared else "aot_eager")
    compiled = torch.compile(network, fullgraph=True, backend=counter)
    with torch.no_grad():
        for mask in MASKS:
            torch.testing.assert_close(compiled(x, mask), network(x, mask))
    assert counter.frame_count == 1


@NETWORKS
def test_a_network_exports_for_any_number_of_tiles_each_layer_one_node(on, is_prepared):
    network, x = network_and_map(on, is_prepared)
    exported = torch.export.export(network, (x, MASKS[0]))
    nodes = [str(node.target).split(".")[1] for node in exported.graph.nodes if str(node.target).startswith("sbnet.")]
    # On whole maps a stage is its units.
    counts = {"conv": 2, "upsample": 1, "residual_units": 3 if on == "whole maps" else 2, "tile_pyramid": 2}
    assert {name: nodes.count(name) for name in counts} == counts and "pack_weights" not in nodes
    if is_prepared:
        # Each convolution's packed weights are a constant of the graph.
        assert sum(tensor.dtype == torch.uint8 for tensor in exported.constants.values()) == 14
    for mask in MASKS:
        torch.testing.assert_close(exported.module()(x, mask), network(x, mask))


def test_a_prepared_layer_refuses_other_channels_and_dtypes_than_it_is_for():
    tiles = random_tiles((1, 6, 6), (2, 2), 1.0)
    run = randomized(ConvUnit(4, 4)).prepare(torch.float32)
    # an odd number of channels and the even one above it are packed alike
    for x in (torch.zeros(1, 3, 6, 6), torch.zeros(1, 4, 6, 6, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match=r"x must have 4 channels of torch\.float32, as the layer was prepared"):
            run(SparseMap.from_dense(x, tiles), tiles)
