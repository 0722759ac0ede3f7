"""The detector in plain PyTorch, with every convolution that a ReLU follows open to a watch.

Those are conv-1, the first two of the three convolutions of a unit, top, upsampling and header. What a unit's last
convolution leaves is added to the shortcut: a zero after the next ReLU spares nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sbnet_perception.bench.zeros_copies import low_bit_inputs, low_bit_weights
from sbnet_perception.blocks import ConvUnit, Prepared, ResidualUnit, SparseMap, Stage, Tiles, UpsampleUnit, Voxels
from sbnet_perception.blocks import layer_plain as plain
from sbnet_perception.blocks.norm import SparseBatchNorm2d
from sbnet_perception.detector.network import Detector, PreparedDetector

Multiply = Callable[..., Tensor]
"""Inputs [P, K] of one or two maps, then their weights, to sums [P, N]."""


@dataclass(frozen=True)
class Shape:
    """Of a product: each pixel has ``terms`` rows of ``depth`` inputs, times ``outputs``."""

    terms: int
    depth: int
    outputs: int


@dataclass(frozen=True)
class Layer:
    """A convolution that a ReLU follows.

    Attributes:
        name: such as conv-3.2 3x3, the second unit's.
        part: the same without the unit.
    """

    name: str
    part: str
    shape: Shape


class Watch:
    """Sees each of these layers in turn, and says what the next one gets. This one changes nothing."""

    copies: Sequence[int] = ()
    """Bits of the low-bit copies that it wants to see."""

    def see(self, layer: Layer, exact: Tensor, copies: Mapping[int, Tensor]) -> Tensor:
        """Outputs [P, N] after the ReLU, and before it those of the copies by their bits; returns what goes on."""
        return exact


@dataclass(frozen=True, eq=False)
class Rectified:
    """Computes a layer and its copies.

    Attributes:
        norm: [2, N], scale and shift before the ReLU.
        copies: the weights of the watch's copies, by their bits.
        absent: the last row stands for all pixels that are not stored; it is computed, and not seen.
    """

    layer: Layer
    weights: Sequence[Tensor]
    norm: Tensor
    watch: Watch
    copies: Mapping[int, Sequence[Tensor]]
    absent: bool = False

    @staticmethod
    def of(
        layer: Layer, weights: Sequence[Tensor], norm: SparseBatchNorm2d, watch: Watch, absent: bool = False
    ) -> Rectified:
        """With copies of its weights."""
        copies = {bits: [low_bit_weights(weight, bits) for weight in weights] for bits in watch.copies}
        return Rectified(layer, weights, norm.scale_and_shift(), watch, copies, absent)

    def __call__(self, multiply: Multiply, *inputs: Tensor) -> Tensor:
        exact = self._normalized(multiply(*inputs, *self.weights)).relu()
        copies = {bits: self._copy(multiply, inputs, bits) for bits in self.copies}
        if not self.absent:
            return self.watch.see(self.layer, exact, copies)
        seen = self.watch.see(self.layer, exact[:-1], {bits: copy[:-1] for bits, copy in copies.items()})
        return torch.cat([seen, exact[-1:]])

    def _copy(self, multiply: Multiply, inputs: Sequence[Tensor], bits: int) -> Tensor:
        rounded = [low_bit_inputs(x, bits) for x in inputs]
        return self._normalized(multiply(*rounded, *self.copies[bits]))

    def _normalized(self, sums: Tensor) -> Tensor:
        return sums * self.norm[0] + self.norm[1]


def watched(network: Detector, watch: Watch) -> PreparedDetector:
    """The network for evaluation in float32, under a watch."""

    def stage(name: str, layer: Stage) -> Prepared:
        units = [_unit(name, number, unit, watch) for number, unit in enumerate(layer.units, 1)]  # type: ignore[arg-type]
        return partial(_in_turn, units)

    return PreparedDetector(
        network.config,
        torch.float32,
        torch.device("cpu"),
        conv1=[_conv(f"conv-1.{number}", "conv-1", layer, watch) for number, layer in enumerate(network.conv1, 1)],
        header=[_conv(f"header.{number}", "header", layer, watch) for number, layer in enumerate(network.header, 1)],
        **{name: stage(f"conv-{name[-1]}", getattr(network, name)) for name in ("conv2", "conv3", "conv4", "conv5")},
        top=_conv("top", "top", network.top, watch),
        up4=_upsample("up-4", network.up4, watch),
        up3=_upsample("up-3", network.up3, watch),
        branches=network.branches,  # type: ignore[arg-type]  # of a SparseMap it is one
    )


def _conv(name: str, part: str, layer: ConvUnit, watch: Watch) -> Prepared:
    conv, side = layer.conv, layer.conv.kernel_size[0]
    shape = Shape(side, side * conv.in_channels, conv.out_channels)
    named = Layer(f"{name} {side}x{side}", f"{part} {side}x{side}", shape)
    rectified = Rectified.of(named, [conv.weight], layer.norm, watch)

    def run(x: SparseMap | Voxels, tiles: Tiles) -> SparseMap:
        values = x.values() if isinstance(x, Voxels) else x.values

        def multiply(rows: Tensor, weight: Tensor) -> Tensor:
            return plain.conv(rows, x.pixels, tiles.pixels, weight, _as_is)

        return SparseMap(rectified(multiply, values), tiles.pixels)

    return run


def _upsample(name: str, layer: UpsampleUnit, watch: Watch) -> Prepared:
    up, lateral = layer.up.weight.transpose(0, 1), layer.lateral.weight
    # Each output reads one pixel of either map.
    shape = Shape(1, up.shape[1] + lateral.shape[1], len(up))
    rectified = Rectified.of(Layer(name, name, shape), [up, lateral], layer.norm, watch)

    def run(x: SparseMap, skip: SparseMap, tiles: Tiles) -> SparseMap:
        def multiply(low: Tensor, high: Tensor, up: Tensor, lateral: Tensor) -> Tensor:
            return plain.upsample(low, x.pixels, high, skip.pixels, tiles.pixels, up, lateral, _as_is)

        return SparseMap(rectified(multiply, x.values, skip.values), tiles.pixels)

    return run


def _unit(stage: str, number: int, unit: ResidualUnit, watch: Watch) -> Prepared:
    middle, first = len(unit.reduce.weight), unit.norm1.scale_and_shift()

    def named(side: int, inputs: int) -> Layer:
        return Layer(f"{stage}.{number} {side}x{side}", f"{stage} {side}x{side}", Shape(side, side * inputs, middle))

    reduce = Rectified.of(named(1, unit.reduce.in_channels), [unit.reduce.weight], unit.norm2, watch, absent=True)
    conv = Rectified.of(named(3, middle), [unit.conv.weight], unit.norm3, watch)

    def run(x: SparseMap, tiles: Tiles) -> SparseMap:
        output = tiles.pixels

        def windows(rows: Tensor, weight: Tensor) -> Tensor:
            return plain.windows(rows, x.pixels, output, weight, unit.stride)

        activated = (plain.with_absent(x.values) * first[0] + first[1]).relu()
        y = plain.pointwise(conv(windows, reduce(plain.pointwise, activated)), unit.expand.weight)
        if unit.project is None:
            return SparseMap(y + x.values, output)
        beneath = plain.beneath(activated, x.pixels, output, unit.stride)
        return SparseMap(y + plain.pointwise(beneath, unit.project.weight), output)

    return run


def _in_turn(units: Sequence[Prepared], x: SparseMap, tiles: Tiles) -> SparseMap:
    for unit in units:
        x = unit(x, tiles)
    return x


def _as_is(sums: Tensor) -> Tensor:
    return sums
