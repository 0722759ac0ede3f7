"""Layers in 8 bits: weights and levels that stand for those of a layer of `layers`, packed for the CPU.

Sums of an output are scaled once, so all weights of an output share a step, of several matrices too: they are taken
times the steps of their inputs, and the largest becomes `quantized_ops.MOST`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbnet_perception.blocks import layer_ops, quantized_ops
from sbnet_perception.blocks.layers import (
    ConvUnit,
    Prepared,
    ResidualUnit,
    Stage,
    UpsampleUnit,
    VoxelConvUnit,
    output_pixels,
)
from sbnet_perception.blocks.pixels import strided
from sbnet_perception.blocks.quantized_ops import (
    QuantizedConvWeights,
    QuantizedUnitWeights,
    QuantizedUpsampleWeights,
    packed,
)

SIGNED = 128
"""The level of 0 in maps whose values may be negative."""


@dataclass(frozen=True)
class Levels:
    """What the levels of a map stand for: level ``zero`` for 0, each next one for ``step`` more.

    Attributes:
        step: float32 [C], of each channel.
        zero: 0 behind a ReLU, else `SIGNED`.
    """

    step: Tensor
    zero: int = 0

    def of_floats(self) -> Tensor:
        """Scale and shift [2, C] that make levels of values."""
        return torch.stack([1 / self.step, torch.full_like(self.step, self.zero)])

    def of_affine(self, scale: Tensor, shift: Tensor) -> Tensor:
        """Scale and shift [2, C] that make levels of what another scale and shift would make values of."""
        return torch.stack([scale / self.step, shift / self.step]).float()


@dataclass(frozen=True)
class UnitLevels:
    """The levels behind the three normalizations of a residual unit."""

    activation: Levels
    reduced: Levels
    convolved: Levels


def prepare_voxel_conv(layer: VoxelConvUnit, y: Levels) -> Prepared:
    """The layer with results in levels; its input are voxels, its sums floats."""
    weight, norm = layer.weights()
    weights = layer_ops.voxel_weights(weight.detach(), y.of_affine(*norm.detach()))
    return lambda x, tiles: layer_ops.voxel_conv(x, output_pixels(tiles, x.pixels.size), weights, torch.uint8)


def prepare_conv(layer: ConvUnit, x: Levels, y: Levels | None) -> Prepared:
    """The layer for levels; signed ones (kernel 1) it makes of floats itself. Without ``y`` it returns floats."""
    weight, norm = (tensor.detach() for tensor in layer.weights())
    (whole,), step = _quantized(_times(weight, x))
    scale, shift = norm[0] * step, norm[1] - norm[0] * step * _of_zero(whole, x)
    after = torch.stack([scale, shift]) if y is None else y.of_affine(scale, shift)
    activation = x.of_floats() if x.zero else torch.empty(0)
    weights = packed(QuantizedConvWeights(activation, whole, after))
    kernel, dtype = layer.conv.kernel_size[0], torch.float32 if y is None else torch.uint8
    return lambda x, tiles: quantized_ops.conv(x, output_pixels(tiles, x.pixels.size), weights, kernel, dtype)


def prepare_upsample(layer: UpsampleUnit, x: Levels, skip: Levels, y: Levels) -> Prepared:
    """The layer for levels and a skip map of floats, of which it makes signed levels itself."""
    up, lateral, norm = (tensor.detach() for tensor in layer.weights())
    (up, lateral), step = _quantized(_times(up, x), _times(lateral, skip))
    scale, shift = norm[0] * step, norm[1] - norm[0] * step * _of_zero(lateral, skip)
    weights = packed(QuantizedUpsampleWeights(skip.of_floats(), up, lateral, y.of_affine(scale, shift)))
    return lambda x, skip, tiles: quantized_ops.upsample(x, skip, output_pixels(tiles, skip.pixels.size), weights)


def prepare_stage(stage: Stage, x: Levels | None, units: list[UnitLevels]) -> Prepared:
    """The units for maps of floats, or of the levels ``x``; between them and behind them are floats."""
    first: ResidualUnit = stage.units[0]  # type: ignore[assignment]
    weights: list[Tensor] = []
    for unit, levels in zip(stage.units, units, strict=True):
        weights += packed(_unit_weights(unit, x, levels))  # type: ignore[arg-type]
        x = None
    stride, channels = first.stride, first.expand.out_channels
    return lambda x, tiles: quantized_ops.residual_units(
        x, output_pixels(tiles, strided(x.pixels.size, stride)), stride, channels, weights
    )


def _unit_weights(unit: ResidualUnit, x: Levels | None, levels: UnitLevels) -> QuantizedUnitWeights:
    plain = [tensor.detach() for tensor in unit.weights()]
    activation, reduce, reduce_norm, conv, conv_norm, expand, project = plain
    if x is not None:
        activation = torch.stack([activation[0] * x.step, activation[1]])
    (reduce,), reduce_step = _quantized(_times(reduce, levels.activation))
    (conv,), conv_step = _quantized(_times(conv, levels.reduced))
    last = [_times(expand, levels.convolved)] + ([_times(project, levels.activation)] if project.numel() else [])
    (expand, *projected), step = _quantized(*last)
    return QuantizedUnitWeights(
        activation=levels.activation.of_affine(*activation),
        reduce=reduce,
        reduce_norm=levels.reduced.of_affine(reduce_norm[0] * reduce_step, reduce_norm[1]),
        conv=conv,
        conv_norm=levels.convolved.of_affine(conv_norm[0] * conv_step, conv_norm[1]),
        expand=expand,
        project=projected[0] if projected else torch.empty(0),
        scale=step,
    )


def _times(weight: Tensor, x: Levels) -> Tensor:
    """A weight [N, K, k, k] of levels."""
    return weight.float() * x.step[:, None, None]


def _quantized(*weights: Tensor) -> tuple[list[Tensor], Tensor]:
    """Weights [N, K, k, k] of one sum as int8, and the step [N] that each of their outputs has."""
    largest = torch.stack([weight.abs().flatten(1).amax(1) for weight in weights]).amax(0)
    step = torch.where(largest > 0, largest, 1.0) / quantized_ops.MOST
    return [(weight / step[:, None, None, None]).round().to(torch.int8) for weight in weights], step


def _of_zero(weight: Tensor, x: Levels) -> Tensor:
    """What the level of 0 adds to each sum."""
    return x.zero * weight.double().flatten(1).sum(1).float()
