"""The layers as operations of torch on stored pixels, one for each kind: a node each for tracers.

Kernels of ops/ compute them on the CPU, and in 16 bits on a GPU; the plain form elsewhere. Gradients, of any order, are
those of the plain form, which is computed again. Weights are named tuples; a kernel reads packed ones as they are
(`packed`), and packs others for each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception.blocks import layer_plain
from sbnet_perception.blocks.pixels import Pixels, Size, has_words
from sbnet_perception.blocks.sparse_map import SparseMap, Voxels
from sbnet_perception.operation import call, dynamic_size, recomputed, register

VOXEL_LANES = 16
"""Output channels of a voxel convolution's weights are padded to a multiple of it."""


class ConvWeights(NamedTuple):
    """Convolution: weight [N, K, k, k]; scale and shift [2, N] of its sums."""

    weight: Tensor
    norm: Tensor


class VoxelWeights(NamedTuple):
    """3x3 convolution of voxels: weight [9, K, N padded to `VOXEL_LANES`] in the dtype of scale and shift [2, N]."""

    weight: Tensor
    norm: Tensor


class UpsampleWeights(NamedTuple):
    """Upsampling: weight [N, K, 2, 2] of the transposed convolution, [N, K_skip, 1, 1], scale and shift [2, N]."""

    up: Tensor
    lateral: Tensor
    norm: Tensor


class UnitWeights(NamedTuple):
    """Residual unit: scale and shift before each of the three convolutions [2, C], their weights, and the projection's,
    which is empty where the shape is kept."""

    activation: Tensor
    reduce: Tensor
    reduce_norm: Tensor
    conv: Tensor
    conv_norm: Tensor
    expand: Tensor
    project: Tensor


Weights = TypeVar("Weights", ConvWeights, VoxelWeights, UpsampleWeights, UnitWeights)


def packed(weights: Weights, dtype: torch.dtype, device: torch.device | str) -> Weights:
    """The weights on ``device`` as its kernels read them for maps of ``dtype``."""
    like = torch.empty(0, dtype=dtype, device=device)
    moved = (tensor.detach().to(device, torch.promote_types(dtype, torch.float32)) for tensor in weights)
    return type(weights)(*(call(PACK_WEIGHTS, t, like) if t.dim() == 4 else t.clone() for t in moved))


def conv(x: SparseMap, output: Pixels, weights: ConvWeights, kernel: int, relu: bool) -> SparseMap:
    """Convolution of ``kernel`` 1 or 3, scale and shift, ReLU if ``relu``."""
    pixels = x.pixels
    y = call(_CONV, x.values.contiguous(), pixels.lists, pixels.size, output.lists, kernel, relu, *weights)
    return SparseMap(y, output)


def voxel_conv(x: Voxels, output: Pixels, weights: VoxelWeights, dtype: torch.dtype) -> SparseMap:
    """3x3 convolution of voxels, scale and shift, ReLU; values of ``dtype``."""
    pixels, like = x.pixels, x.last.new_empty(0, dtype=dtype)
    y = call(_VOXEL_CONV, x.bits, x.last, pixels.lists, pixels.size, output.lists, x.channels, *weights, like)
    return SparseMap(y, output)


def upsample(x: SparseMap, skip: SparseMap, output: Pixels, weights: UpsampleWeights) -> SparseMap:
    """Transposed 2x2 convolution of ``x`` plus 1x1 convolution of ``skip``, scale and shift, ReLU."""
    lists, size = skip.pixels.lists, skip.pixels.size
    values = x.values.contiguous(), x.pixels.lists, skip.values.contiguous()
    return SparseMap(call(_UPSAMPLE, *values, lists, size, output.lists, *weights), output)


def residual_units(x: SparseMap, output: Pixels, stride: int, channels: int, weights: Sequence[Tensor]) -> SparseMap:
    """Residual units one after the other; ``stride`` is that of the first, ``weights`` are those of all in one list."""
    pixels = x.pixels
    y = call(_RESIDUAL_UNITS, x.values.contiguous(), pixels.lists, pixels.size, output.lists, stride, channels, weights)
    return SparseMap(y, output)


# --- plain forms with the arguments of the operations


def pixels_of(lists: Sequence[Tensor], size: Sequence[int]) -> Pixels:
    """The pixels whose lists an operation gets."""
    images, height, width = size
    return Pixels(lists[0], (images, height, width), tuple(lists[1:]))


def _affine(norm: Tensor, relu: bool = True) -> layer_plain.Rows:
    """Scale and shift [2, C], in their dtype, then ReLU."""

    def after(rows: Tensor) -> Tensor:
        y = rows * norm[0] + norm[1]
        return (y.relu() if relu else y).to(rows.dtype)

    return after


def _plain_conv(
    x: Tensor, x_pixels: list[Tensor], size: Size, y_pixels: list[Tensor], kernel: int, relu: bool, weight: Tensor,
    norm: Tensor,
) -> Tensor:  # fmt: skip
    pixels, output = pixels_of(x_pixels, size), pixels_of(y_pixels, size)
    return layer_plain.conv(x, pixels, output, weight, _affine(norm, relu))


def _plain_voxel_conv(
    bits: Tensor, last: Tensor, x_pixels: list[Tensor], size: Size, y_pixels: list[Tensor], channels: int,
    weight: Tensor, norm: Tensor, like: Tensor,
) -> Tensor:  # fmt: skip
    seen = Voxels(pixels_of(x_pixels, size), bits, last, channels, bits.new_empty(()))
    values, taps = seen.values().to(weight.dtype), weight[..., : norm.shape[1]]
    window = taps.reshape(3, 3, channels, -1).permute(3, 2, 0, 1)
    y = layer_plain.conv(values, seen.pixels, pixels_of(y_pixels, size), window, _affine(norm))
    return (y.round().clamp(max=255) if like.dtype == torch.uint8 else y).to(like.dtype)


def _plain_upsample(
    x: Tensor, x_pixels: list[Tensor], skip: Tensor, skip_pixels: list[Tensor], size: Size, y_pixels: list[Tensor],
    up: Tensor, lateral: Tensor, norm: Tensor,
) -> Tensor:  # fmt: skip
    half = pixels_of(x_pixels, (size[0], -(-size[1] // 2), -(-size[2] // 2)))
    skipped, output = pixels_of(skip_pixels, size), pixels_of(y_pixels, size)
    return layer_plain.upsample(x, half, skip, skipped, output, up, lateral, _affine(norm))


def _plain_residual_units(
    x: Tensor, x_pixels: list[Tensor], x_size: Size, y_pixels: list[Tensor], stride: int, channels: int,
    weights: list[Tensor],
) -> Tensor:  # fmt: skip
    pixels = pixels_of(x_pixels, x_size)
    output = pixels_of(y_pixels, (x_size[0], -(-x_size[1] // stride), -(-x_size[2] // stride)))
    for first in range(0, len(weights), len(UnitWeights._fields)):
        unit = UnitWeights(*weights[first : first + len(UnitWeights._fields)])
        convolutions = [unit.reduce, unit.conv, unit.expand, *([unit.project] if unit.project.numel() else [])]
        norms = [_affine(unit.activation), _affine(unit.reduce_norm), _affine(unit.conv_norm)]
        x = layer_plain.residual_unit(x, pixels, output, stride, convolutions, norms)
        pixels, stride = output, 1
    return x


def _plain_pack_weights(weight: Tensor, like: Tensor) -> Tensor:
    dtype = weight.dtype if like.dtype == torch.uint8 else like.dtype  # levels have weights of int8
    return weight.to(dtype, copy=True)  # an operation returns none of its arguments


# --- shapes of the results


def rows_like(like: Tensor, pixels: Sequence[Tensor], channels: Any) -> Tensor:
    """What stands for a row of ``channels`` for each of the pixels while tracing."""
    return like.new_empty((pixels[0].shape[0], channels))


def _fake_pack_weights(weight: Tensor, like: Tensor) -> Tensor:
    if has_words(like.device) and like.dtype.itemsize > 2:
        return _plain_pack_weights(weight, like)  # a GPU packs for its kernels alone, which compute in 16 bits
    return weight.new_empty((dynamic_size(),), dtype=torch.uint8)


_PIXELS = "Tensor[] x_pixels, int[3] size, Tensor[] y_pixels"
PACK_WEIGHTS = register(
    "pack_weights(Tensor weight, Tensor like) -> Tensor",
    _plain_pack_weights,
    _fake_pack_weights,
)
_CONV = register(
    f"conv(Tensor x, {_PIXELS}, int kernel, bool relu, Tensor weight, Tensor norm) -> Tensor",
    _plain_conv,
    lambda x, _, size, y, kernel, relu, weight, norm: rows_like(x, y, norm.shape[1]),
    *recomputed(_plain_conv),
)
_VOXEL_CONV = register(
    f"voxel_conv(Tensor bits, Tensor last, {_PIXELS}, int channels, Tensor weight, Tensor norm, Tensor like) -> Tensor",
    _plain_voxel_conv,
    lambda bits, last, _, size, y, channels, weight, norm, like: rows_like(like, y, norm.shape[1]),
    *recomputed(_plain_voxel_conv),
)
_UPSAMPLE = register(
    "upsample(Tensor x, Tensor[] x_pixels, Tensor skip, Tensor[] skip_pixels, int[3] size, Tensor[] y_pixels, "
    "Tensor up, Tensor lateral, Tensor norm) -> Tensor",
    _plain_upsample,
    lambda x, x_pixels, skip, skip_pixels, size, y, up, lateral, norm: rows_like(x, y, norm.shape[1]),
    *recomputed(_plain_upsample),
)
_RESIDUAL_UNITS = register(
    f"residual_units(Tensor x, {_PIXELS}, int stride, int channels, Tensor[] weights) -> Tensor",
    _plain_residual_units,
    lambda x, _, size, y, stride, channels, weights: rows_like(x, y, channels),
    *recomputed(_plain_residual_units),
)


def voxel_weights(weight: Tensor, norm: Tensor) -> VoxelWeights:
    """Of a convolution's weight [N, K, 3, 3], and scale and shift [2, N]."""
    taps = weight.permute(2, 3, 1, 0).reshape(9, weight.shape[1], len(weight)).to(norm.dtype)
    return VoxelWeights(F.pad(taps, (0, -len(weight) % VOXEL_LANES)).contiguous(), norm)

