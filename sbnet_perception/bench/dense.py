"""The dense layers to beat: as fast as PyTorch makes them on this CPU.

All three compute the same chain of layers on channels_last maps. Batch normalizations are folded into
the convolution before them; a unit's leading one cannot be, because a ReLU stands between it and the
next convolution.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sbnet_perception.blocks import ConvUnit, ResidualUnit, dense_layers

Dense = Callable[[Tensor], Tensor]


class Folded(nn.Module):
    """A `ConvUnit`, or a `ResidualUnit` of unchanged shape, for inference: convolutions with biases.

    Attributes:
        convs: each followed by a ReLU, except the last of a residual unit.
        scale, shift: float32 [C] of the leading batch normalization; only a residual unit has one.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, layer: ConvUnit | ResidualUnit) -> None:
        super().__init__()
        dtype = layer.conv.weight.dtype
        layer = copy.deepcopy(layer).float().eval()
        self.residual = isinstance(layer, ResidualUnit)
        if isinstance(layer, ConvUnit):
            convs = [fuse_conv_bn_eval(layer.conv, layer.norm)]
        else:
            convs = [fuse_conv_bn_eval(layer.reduce, layer.norm2), fuse_conv_bn_eval(layer.conv, layer.norm3)]
            convs.append(layer.expand)
            norm = layer.norm1
            assert norm.running_mean is not None and norm.running_var is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            self.register_buffer("scale", scale.detach())
            self.register_buffer("shift", (norm.bias - norm.running_mean * scale).detach())
        for conv in convs:
            conv.weight.data = conv.weight.to(dtype, memory_format=torch.channels_last)
        self.convs = nn.ModuleList(convs).to(dtype).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] of the layer's dtype -> the same shape; the definition, for torch.compile."""
        y = _norm_relu(x, self.scale, self.shift) if self.residual else x
        for conv in self.convs[:-1]:
            y = conv(y).relu()
        y = self.convs[-1](y)
        return y + x if self.residual else y.relu()


def baselines(layers: Sequence[ConvUnit | ResidualUnit], x: Tensor) -> dict[str, Dense]:
    """The dense candidates, by name, for a chain of ``layers`` applied to maps like ``x``."""
    folded = [Folded(layer) for layer in layers]
    candidates = {"eager": eager(folded), "compile": compiled(folded)}
    if dense_layers.is_fast(x.dtype):
        candidates["onednn"] = onednn(folded, x)
    return candidates


def eager(layers: Sequence[Folded]) -> Dense:
    """Eager PyTorch on channels_last maps, in place wherever it can be."""
    norms = [_eager_norm(layer) if layer.residual else None for layer in layers]

    def run(x: Tensor) -> Tensor:
        for layer, norm in zip(layers, norms, strict=True):
            y = x if norm is None else norm(x).relu_()
            for conv in layer.convs[:-1]:
                y = conv(y).relu_()
            y = layer.convs[-1](y)
            x = y.add_(x) if layer.residual else y.relu_()
        return x

    return run


def compiled(layers: Sequence[Folded]) -> Dense:
    """torch.compile with freezing, which packs the weights for oneDNN and fuses what follows a convolution."""
    return torch.compile(nn.Sequential(*layers).eval(), dynamic=False, options={"freezing": True})


def onednn(layers: Sequence[Folded], x: Tensor) -> Dense:
    """oneDNN's convolutions with weights packed for maps like ``x``, ReLU and residual add fused into them.

    From the second unit on the map belongs to the chain, and the sum goes into it in place: a pass over memory
    less than torch.compile, which does not see that it may. Leading normalization and ReLU are one compiled pass.
    """
    norm_relu = torch.compile(_norm_relu, dynamic=False)
    convolve, convolve_add = torch.ops.mkldnn._convolution_pointwise, torch.ops.mkldnn._convolution_pointwise.binary
    convolve_add_ = torch.ops.mkldnn._convolution_pointwise_.binary
    images, _, height, width = x.shape
    chain = [(layer, [_packed(conv, (images, height, width)) for conv in layer.convs]) for layer in layers]

    def run(x: Tensor) -> Tensor:
        given = x
        for layer, convs in chain:
            y = norm_relu(x, layer.scale, layer.shift) if layer.residual else x
            for arguments in convs[: len(convs) - layer.residual]:
                y = convolve(y, *arguments, "relu", [], "")
            if not layer.residual:
                x = y
            elif x is given:
                x = convolve_add(y, x, *convs[-1], "add", 1.0, None, [], None)
            else:
                x = convolve_add_(x, y, *convs[-1], "add", 1.0, None, [], None)
        return x

    return run


def _norm_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return (x.float() * scale[:, None, None] + shift[:, None, None]).relu().to(x.dtype)


def _eager_norm(layer: Folded) -> Dense:
    """The leading normalization as one native pass: with mean 0 and variance 1 it multiplies and adds."""
    mean, variance = torch.zeros_like(layer.shift), torch.ones_like(layer.scale)
    return lambda x: torch.batch_norm(x, layer.scale, layer.shift, mean, variance, False, 0.0, 0.0, False)


def _packed(conv: nn.Module, size: tuple[int, int, int]) -> tuple[object, ...]:
    """Arguments of oneDNN's convolution from the weight on; ``size`` is (N, H, W)."""
    assert isinstance(conv, nn.Conv2d)
    images, height, width = size
    shape = [images, conv.in_channels, height, width]
    geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
    pack: Callable[..., Tensor] = torch._C._nn.mkldnn_reorder_conv2d_weight
    weight = pack(conv.weight.to_mkldnn(), *geometry, shape)
    return (weight, conv.bias, *geometry)
