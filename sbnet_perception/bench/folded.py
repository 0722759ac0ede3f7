"""The detector's layers for dense inference, in each of the three ways that `sbnet_perception.bench.dense` compares.

Batch normalizations are folded into the convolution before them; a unit's leading one cannot be, because a ReLU stands
between it and the next convolution. Every layer has

- ``forward``: the definition, for torch.compile;
- ``eager``: the same with PyTorch's own operations, in place wherever they can be;
- ``packed(size)``: the same for maps of ``size`` (N, H, W) with oneDNN's convolutions, whose weights are reordered for
  this size and which take in the ReLU and the addition after them; also the size of its result.

Maps are [N, C, H, W] of the layer's dtype, in channels_last.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sbnet_perception.blocks import ConvUnit, PointwiseConv2d, ResidualUnit, UpsampleUnit

Size = tuple[int, int, int]
Run = Callable[[Tensor, bool], Tensor]
"""A packed layer; the second argument says that it may overwrite its input."""

_onednn: Any = torch.ops.mkldnn


class FoldedConv(nn.Module):
    """A `ConvUnit`, or a `PointwiseConv2d`, which has no ReLU: one convolution with a bias."""

    def __init__(self, layer: ConvUnit | PointwiseConv2d) -> None:
        super().__init__()
        self.relu = isinstance(layer, ConvUnit)
        plain: Any = copy.deepcopy(layer).float().eval()
        self.conv = _frozen(fuse_conv_bn_eval(plain.conv, plain.norm) if self.relu else plain, _dtype(layer))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y.relu() if self.relu else y

    def eager(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y.relu_() if self.relu else y

    def packed(self, size: Size) -> tuple[Run, Size]:
        arguments, activation = _pack(self.conv, size), "relu" if self.relu else "none"
        return lambda x, _owned: _onednn._convolution_pointwise(x, *arguments, activation, [], ""), size


class FoldedUnit(nn.Module):
    """A `ResidualUnit` of any stride, with or without projection.

    Attributes:
        scale, shift: float32 [C] of the leading batch normalization.
    """

    scale: Tensor
    shift: Tensor
    zero: Tensor
    one: Tensor

    def __init__(self, layer: ResidualUnit) -> None:
        super().__init__()
        dtype, plain = _dtype(layer), copy.deepcopy(layer).float().eval()
        self.reduce = _frozen(fuse_conv_bn_eval(plain.reduce, plain.norm2), dtype)
        self.conv = _frozen(fuse_conv_bn_eval(plain.conv, plain.norm3), dtype)
        self.expand = _frozen(plain.expand, dtype)
        self.project = None if plain.project is None else _frozen(plain.project, dtype)
        norm = plain.norm1
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.register_buffer("scale", scale.detach())
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale).detach())
        self.register_buffer("zero", torch.zeros_like(self.scale))
        self.register_buffer("one", torch.ones_like(self.scale))

    def forward(self, x: Tensor) -> Tensor:
        activated = _norm_relu(x, self.scale, self.shift)
        y: Tensor = self.expand(self.conv(self.reduce(activated).relu()).relu())
        return y + (x if self.project is None else self.project(activated))

    def eager(self, x: Tensor) -> Tensor:
        # One native pass: with mean 0 and variance 1 the normalization multiplies and adds.
        activated = torch.batch_norm(x, self.scale, self.shift, self.zero, self.one, False, 0.0, 0.0, False).relu_()
        y: Tensor = self.expand(self.conv(self.reduce(activated).relu_()).relu_())
        return y.add_(x if self.project is None else self.project(activated))

    def packed(self, size: Size) -> tuple[Run, Size]:
        images, height, width = size
        stride = self.conv.stride[0]
        output = (images, -(-height // stride), -(-width // stride))
        reduce, conv, expand = _pack(self.reduce, size), _pack(self.conv, size), _pack(self.expand, output)
        project = None if self.project is None else _pack(self.project, size)

        def run(x: Tensor, owned: bool) -> Tensor:
            activated = _compiled_norm_relu(x, self.scale, self.shift)
            y = _onednn._convolution_pointwise(activated, *reduce, "relu", [], "")
            y = _onednn._convolution_pointwise(y, *conv, "relu", [], "")
            # A map that belongs to the chain takes the sum in place, a pass over memory less.
            if project is not None:
                x, owned = _onednn._convolution_pointwise(activated, *project, "none", [], ""), True
            add = _onednn._convolution_pointwise_.binary if owned else _onednn._convolution_pointwise.binary
            first, second = (x, y) if owned else (y, x)
            result: Tensor = add(first, second, *expand, "add", 1.0, None, [], None)
            return result

        return run, output


class FoldedUpsample(nn.Module):
    """An `UpsampleUnit`: transposed convolution, cropped, plus the skip's 1x1 convolution, ReLU."""

    def __init__(self, layer: UpsampleUnit) -> None:
        super().__init__()
        dtype, plain = _dtype(layer), copy.deepcopy(layer).float().eval()
        self.lateral = _frozen(fuse_conv_bn_eval(plain.lateral, plain.norm), dtype)
        norm = plain.norm
        assert norm.running_var is not None
        with torch.no_grad():
            plain.up.weight *= (norm.weight * torch.rsqrt(norm.running_var + norm.eps))[:, None, None]
        self.up = _frozen(plain.up, dtype)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = self.up(x)[:, :, : skip.shape[2], : skip.shape[3]]
        y: Tensor = up + self.lateral(skip)
        return y.relu()

    def eager(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.lateral(skip)
        return y.add_(self.up(x)[:, :, : skip.shape[2], : skip.shape[3]]).relu_()

    def packed(self, size: Size, skip_size: Size) -> Callable[[Tensor, Tensor], Tensor]:
        lateral = _pack(self.lateral, skip_size)
        images, height, width = size
        shape = [images, self.up.in_channels, height, width]
        weight = _onednn._reorder_convolution_transpose_weight(
            self.up.weight, [0, 0], [0, 0], [2, 2], [1, 1], 1, shape
        )
        geometry: Any = (weight, None, [0, 0], [0, 0], [2, 2], [1, 1], 1, "none", [], "")

        def run(x: Tensor, skip: Tensor) -> Tensor:
            up = _onednn._convolution_transpose_pointwise(x, *geometry)
            up = up[:, :, : skip.shape[2], : skip.shape[3]].contiguous(memory_format=torch.channels_last)
            result: Tensor = _onednn._convolution_pointwise_.binary(
                up, skip, *lateral, "add", 1.0, "relu", [], None
            )
            return result

        return run


Layer = FoldedConv | FoldedUnit


def fold(layer: ConvUnit | PointwiseConv2d | ResidualUnit) -> Layer:
    """The layer for dense inference."""
    return FoldedUnit(layer) if isinstance(layer, ResidualUnit) else FoldedConv(layer)


def _norm_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return (x.float() * scale[:, None, None] + shift[:, None, None]).relu().to(x.dtype)


_compiled_norm_relu = torch.compile(_norm_relu, dynamic=False)


def _dtype(layer: nn.Module) -> torch.dtype:
    return next(weight.dtype for weight in layer.parameters() if weight.dim() == 4)


def _frozen(conv: Any, dtype: torch.dtype) -> Any:
    """The convolution in ``dtype``, its weight in channels_last, without gradients."""
    return conv.to(dtype=dtype, memory_format=torch.channels_last).requires_grad_(False)


def _pack(conv: Any, size: Size) -> tuple[object, ...]:
    """Arguments of oneDNN's convolution from the weight on."""
    images, height, width = size
    geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
    reorder: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
    weight = reorder(conv.weight.to_mkldnn(), *geometry, [images, conv.in_channels, height, width])
    return (weight, conv.bias, *geometry)
