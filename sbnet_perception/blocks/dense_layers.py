"""The layers on all of a map at once: what a layer runs when its mask is too full for tiles to pay.

Normalizations are folded into the convolutions before them, and oneDNN's convolutions get their weights in the order
they like best. Maps are [N, C, H, W] in channels_last, parameters are lists as `sbnet_perception.blocks.layer_ops`
takes them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception.blocks import packing
from sbnet_perception.blocks.reference_layers import NORM, UNIT

_onednn: Any = torch.ops.mkldnn


@functools.cache
def is_fast(dtype: torch.dtype) -> bool:
    """Whether this CPU and this PyTorch run oneDNN's convolutions in ``dtype``."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and bool(_onednn._is_mkldnn_bf16_supported()))


def conv_unit(x: Tensor, eps: float, parameters: Sequence[Tensor]) -> Tensor:
    """Convolution, then batch normalization and ReLU if there are parameters for it, or a bias."""
    relu = len(parameters) > NORM
    weight, bias = packing.remember(_fold_conv, parameters, x, [eps, *x.shape])
    return _convolve(x, weight, bias, relu)


def residual_unit(x: Tensor, stride: int, eps: Sequence[float], parameters: Sequence[Tensor]) -> Tensor:
    """One residual unit; with a projection where its shape changes."""
    folded = packing.remember(_fold_unit, parameters, x, [*eps, *x.shape, stride])
    weight, bias, mean, variance = parameters[:NORM]
    activated = F.batch_norm(x, mean, variance, weight, bias, eps=eps[0]).relu_()
    y = _convolve(activated, folded[0], folded[1], relu=True)
    y = _convolve(y, folded[2], folded[3], relu=True, stride=stride)
    shortcut = _convolve(activated, folded[5], None, stride=stride) if len(parameters) > UNIT else x
    pointwise = ([0, 0], [1, 1], [1, 1], 1)
    add: Any = _onednn._convolution_pointwise.binary
    result: Tensor = add(y, shortcut, folded[4], None, *pointwise, "add", 1.0, None, [], None)
    return result


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False, stride: int = 1) -> Tensor:
    padding = weight.shape[2] // 2
    geometry = ([padding] * 2, [stride] * 2, [1, 1], 1)
    result: Tensor = _onednn._convolution_pointwise(x, weight, bias, *geometry, "relu" if relu else "none", [], "")
    return result


def _fold_conv(parameters: Sequence[Tensor], like: Tensor, settings: Sequence[float]) -> list[Tensor]:
    weight, *rest = parameters
    if len(rest) == NORM:
        return _fold(weight, packing.scale_and_shift(rest, settings[0], like), like, like.shape)
    return [_pack(weight, like, like.shape), rest[0].to(like.dtype)]


def _fold_unit(parameters: Sequence[Tensor], like: Tensor, settings: Sequence[float]) -> list[Tensor]:
    """Weight and bias of reduce and conv, weight of expand and, if there is one, of the projection."""
    reduce, norm2, conv, norm3 = parameters[4], parameters[5:9], parameters[9], parameters[10:14]
    (images, _, height, width), stride = like.shape, int(settings[-1])
    narrow = (images, reduce.shape[0], height, width)
    output = (images, reduce.shape[0], -(-height // stride), -(-width // stride))
    folded = [
        *_fold(reduce, packing.scale_and_shift(norm2, settings[1], like), like, like.shape),
        *_fold(conv, packing.scale_and_shift(norm3, settings[2], like), like, narrow, stride),
        _pack(parameters[14], like, output),
    ]
    return [*folded, *(_pack(project, like, like.shape, stride) for project in parameters[UNIT:])]


def _fold(weight: Tensor, norm: Tensor, like: Tensor, size: Sequence[int], stride: int = 1) -> list[Tensor]:
    """Weight and bias of a convolution with the normalization ``norm`` [2, C] after it."""
    scale, shift = norm
    return [_pack(weight * scale[:, None, None, None], like, size, stride), shift.to(like.dtype)]


def _pack(weight: Tensor, like: Tensor, size: Sequence[int], stride: int = 1) -> Tensor:
    """Weights as oneDNN likes them for maps of ``size``."""
    padding = weight.shape[2] // 2
    plain = weight.detach().to(like.dtype).contiguous(memory_format=torch.channels_last)
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    result: Tensor = reorder(plain.to_mkldnn(), [padding] * 2, [stride] * 2, [1, 1], 1, list(size))
    return result
