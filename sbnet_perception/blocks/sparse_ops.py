"""The layers on stored pixels by the fused kernels of ops/, for inference on the CPU.

Parameters are lists as `sbnet_perception.blocks.layer_ops` takes them; all results are new rows [P, C].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception.blocks import packing
from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.blocks.operation import call as call_checked
from sbnet_perception.blocks.pixels import Pixels
from sbnet_perception.blocks.reference_layers import NORM
from sbnet_perception.blocks.sparse_map import SparseMap, Voxels

_VOXEL_LANES = 16


def applies(values: Tensor) -> bool:
    """Whether the kernels can compute a layer on ``values``: compiled, on the CPU, without gradients or autocast."""
    on_cpu = values.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return on_cpu and not UNAVAILABLE and not torch.is_grad_enabled()


def conv_unit(x: SparseMap, output: Pixels, eps: float, parameters: Sequence[Tensor]) -> Tensor:
    """Convolution, then normalization and ReLU, or a bias."""
    weights, norm = packing.remember(packing.pack_conv, parameters, x.values, (eps,))
    relu = len(parameters) == NORM + 1
    return _call(
        "conv_unit_stored", *_rows(x), *_pixels(output), parameters[0].shape[2], relu, weights, norm
    )


def voxel_conv(x: Voxels, output: Pixels, eps: float, parameters: Sequence[Tensor]) -> Tensor:
    """3x3 convolution of voxels, normalization and ReLU, in the dtype of the weights."""
    weights, norm = packing.remember(pack_voxel_conv, parameters, parameters[0], (eps,))
    like, pixels = parameters[0].new_empty(0), x.pixels
    return _call(
        "voxel_conv_stored",
        *(x.bits, x.last, pixels.start, pixels.runs, pixels.size),
        *(*_pixels(output), x.channels, weights, norm, like),
    )


def residual_units(
    x: SparseMap, output: Pixels, stride: int, eps: Sequence[float], units: Sequence[Sequence[Tensor]]
) -> Tensor:
    """Residual units one after the other; ``stride`` is that of the first."""
    weights: list[Tensor] = []
    for number, unit in enumerate(units):
        weights += packing.remember(packing.pack_unit, unit, x.values, eps[3 * number : 3 * number + 3])
    channels = units[0][14].shape[0]
    return _call("residual_units_stored", *_rows(x), *_pixels(output), stride, channels, weights)


def upsample_unit(
    x: SparseMap, skip: SparseMap, output: Pixels, eps: float, parameters: Sequence[Tensor]
) -> Tensor:
    """Transposed convolution of ``x`` plus 1x1 convolution of ``skip``, normalization, ReLU."""
    up, lateral, norm = packing.remember(packing.pack_upsample, parameters, x.values, (eps,))
    values, start, runs, _ = _rows(x)
    return _call("upsample_unit_stored", values, start, runs, *_rows(skip), *_pixels(output), up, lateral, norm)


def pack_voxel_conv(parameters: Sequence[Tensor], like: Tensor, eps: Sequence[float]) -> list[Tensor]:
    """Weights [9, C_in, C_out padded to whole vectors], scale and shift."""
    weight, *norm = parameters
    affine = packing.scale_and_shift(norm, eps[0], like)
    taps = weight.permute(2, 3, 1, 0).reshape(9, weight.shape[1], len(weight)).to(affine.dtype)
    return [F.pad(taps, (0, -len(weight) % _VOXEL_LANES)).contiguous(), affine]


def _rows(x: SparseMap) -> tuple[Tensor, Tensor, Tensor, tuple[int, int, int]]:
    return x.values.contiguous(), *_pixels(x.pixels), x.pixels.size


def _pixels(pixels: Pixels) -> tuple[Tensor, Tensor]:
    return pixels.start, pixels.runs


def _call(name: str, *arguments: object) -> Tensor:
    y: Tensor = call_checked(getattr(torch.ops.sbnet, name), *arguments)
    return y
