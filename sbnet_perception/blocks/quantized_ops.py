"""The layers where 8-bit levels are multiplied, as operations of torch: the siblings of those in `layer_ops`.

A level is a whole number of 0 to 255 (uint8), worth a step that only the scale and shift of a layer know. Weights are
whole numbers of -64 to 64 (int8), so that on every processor a pair of products fits 16 bits. Sums are exact, and what
is made of them is rounded as float32 after each multiplication and addition: a kernel returns its plain form bit by
bit, on every instruction set. There are kernels for the CPU; gradients there are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from sbnet_perception.blocks import layer_plain
from sbnet_perception.blocks.layer_ops import PACK_WEIGHTS, pixels_of, rows_like
from sbnet_perception.blocks.pixels import Pixels, Size
from sbnet_perception.blocks.sparse_map import SparseMap
from sbnet_perception.operation import call, register

MOST = 63
"""Of a weight's amount: as many levels to both sides of 0."""


class QuantizedConvWeights(NamedTuple):
    """Convolution: scale and shift [2, K] that make levels of a map of floats, and are empty for one of levels; weight
    int8 [N, K, k, k]; scale and shift [2, N] of its sums."""

    activation: Tensor
    weight: Tensor
    norm: Tensor


class QuantizedUpsampleWeights(NamedTuple):
    """Upsampling: scale and shift [2, K_skip] that make levels of the skip map; weights int8 [N, K, 2, 2] of the
    transposed convolution and [N, K_skip, 1, 1]; scale and shift [2, N] of their sums."""

    activation: Tensor
    up: Tensor
    lateral: Tensor
    norm: Tensor


class QuantizedUnitWeights(NamedTuple):
    """Residual unit: as `UnitWeights`, where each scale and shift makes levels; the scale [N] of the last sums."""

    activation: Tensor
    reduce: Tensor
    reduce_norm: Tensor
    conv: Tensor
    conv_norm: Tensor
    expand: Tensor
    project: Tensor
    scale: Tensor


QuantizedWeights = TypeVar("QuantizedWeights", QuantizedConvWeights, QuantizedUpsampleWeights, QuantizedUnitWeights)


def packed(weights: QuantizedWeights) -> QuantizedWeights:
    """The weights as the kernels of the CPU read them."""
    like = torch.empty(0, dtype=torch.uint8)
    return type(weights)(*(call(PACK_WEIGHTS, t, like) if t.dim() == 4 else t.clone() for t in weights))


def conv(x: SparseMap, output: Pixels, weights: QuantizedConvWeights, kernel: int, dtype: torch.dtype) -> SparseMap:
    """Convolution, scale and shift, ReLU: of levels with ``kernel`` 1 or 3, of floats with 1; values of ``dtype``,
    uint8 or float32."""
    pixels, like = x.pixels, x.values.new_empty(0, dtype=dtype)
    activation, *others = weights
    values = x.values.contiguous(), activation
    return SparseMap(call(_CONV, *values, pixels.lists, pixels.size, output.lists, kernel, *others, like), output)


def upsample(x: SparseMap, skip: SparseMap, output: Pixels, weights: QuantizedUpsampleWeights) -> SparseMap:
    """Transposed 2x2 convolution of the levels ``x`` plus 1x1 convolution of ``skip`` (float32), scale and shift, ReLU,
    as levels."""
    activation, *others = weights
    values = x.values.contiguous(), x.pixels.lists, skip.values.contiguous(), activation
    pixels = skip.pixels.lists, skip.pixels.size, output.lists
    return SparseMap(call(_UPSAMPLE, *values, *pixels, *others), output)


def residual_units(x: SparseMap, output: Pixels, stride: int, channels: int, weights: Sequence[Tensor]) -> SparseMap:
    """As `layer_ops.residual_units`, of levels or floats to float32."""
    pixels = x.pixels
    y = call(_UNITS, x.values.contiguous(), pixels.lists, pixels.size, output.lists, stride, channels, weights)
    return SparseMap(y, output)


# --- plain forms with the arguments of the operations; sums are exact in float64


def levels(rows: Tensor) -> Tensor:
    """float32 rows as the nearest levels, in float64; NaN is 0."""
    return rows.nan_to_num(nan=0.0).round().clamp(0, 255).double()


def _scaled(rows: Tensor, norm: Tensor) -> Tensor:
    return rows.float() * norm[0] + norm[1]


def _to_levels(norm: Tensor) -> layer_plain.Rows:
    return lambda rows: levels(_scaled(rows, norm))


def _plain_conv(
    x: Tensor, activation: Tensor, x_pixels: list[Tensor], size: Size, y_pixels: list[Tensor], kernel: int,
    weight: Tensor, norm: Tensor, like: Tensor,
) -> Tensor:  # fmt: skip
    absent = layer_plain.with_absent(x)
    rows = absent.double() if x.dtype == torch.uint8 else levels(_scaled(absent, activation))
    pixels, output = pixels_of(x_pixels, size), pixels_of(y_pixels, size)
    sums = layer_plain.conv_of_rows(rows, pixels, output, weight)
    y = _scaled(sums, norm)
    return levels(y).to(torch.uint8) if like.dtype == torch.uint8 else y.relu()


def _plain_upsample(
    x: Tensor, x_pixels: list[Tensor], skip: Tensor, activation: Tensor, skip_pixels: list[Tensor], size: Size,
    y_pixels: list[Tensor], up: Tensor, lateral: Tensor, norm: Tensor,
) -> Tensor:  # fmt: skip
    half = pixels_of(x_pixels, (size[0], -(-size[1] // 2), -(-size[2] // 2)))
    skipped, output = pixels_of(skip_pixels, size), pixels_of(y_pixels, size)
    rows = layer_plain.with_absent(x).double(), levels(_scaled(layer_plain.with_absent(skip), activation))
    sums = layer_plain.upsample_of_rows(rows[0], half, rows[1], skipped, output, up, lateral)
    return levels(_scaled(sums, norm)).to(torch.uint8)


def _plain_units(
    x: Tensor, x_pixels: list[Tensor], x_size: Size, y_pixels: list[Tensor], stride: int, channels: int,
    weights: list[Tensor],
) -> Tensor:  # fmt: skip
    pixels = pixels_of(x_pixels, x_size)
    output = pixels_of(y_pixels, (x_size[0], -(-x_size[1] // stride), -(-x_size[2] // stride)))
    for first in range(0, len(weights), len(QuantizedUnitWeights._fields)):
        unit = QuantizedUnitWeights(*weights[first : first + len(QuantizedUnitWeights._fields)])
        convolutions = [unit.reduce, unit.conv, unit.expand, *([unit.project] if unit.project.numel() else [])]
        norms = [_to_levels(unit.activation), _to_levels(unit.reduce_norm), _to_levels(unit.conv_norm)]
        sums = layer_plain.branch_of_unit(x, pixels, output, stride, convolutions, norms)
        y = sums.float() * unit.scale
        x = y if unit.project.numel() else y + layer_plain.beneath(layer_plain.with_absent(x), pixels, output)
        pixels, stride = output, 1
    return x


_PIXELS = "Tensor[] x_pixels, int[3] size, Tensor[] y_pixels"
_CONV = register(
    f"quantized_conv(Tensor x, Tensor activation, {_PIXELS}, int kernel, Tensor weight, Tensor norm, Tensor like) -> "
    "Tensor",
    _plain_conv,
    lambda x, _, pixels, size, y, kernel, weight, norm, like: rows_like(like, y, norm.shape[1]),
)
_UPSAMPLE = register(
    "quantized_upsample(Tensor x, Tensor[] x_pixels, Tensor skip, Tensor activation, Tensor[] skip_pixels, "
    "int[3] size, Tensor[] y_pixels, Tensor up, Tensor lateral, Tensor norm) -> Tensor",
    _plain_upsample,
    lambda x, _, skip, activation, pixels, size, y, up, lateral, norm: rows_like(x, y, norm.shape[1]),
)
_UNITS = register(
    f"quantized_units(Tensor x, {_PIXELS}, int stride, int channels, Tensor[] weights) -> Tensor",
    _plain_units,
    lambda x, _, size, y, stride, channels, weights: rows_like(weights[-1], y, channels),
)
