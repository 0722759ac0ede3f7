"""Layers that compute all of a map, or only its active tiles, with one set of weights.

``layer(x)`` is dense. ``layer(x, tiles)`` computes the active tiles with the fused kernels of ops/ (through
`sbnet_perception.blocks.layer_ops`); inactive tiles are 0 (x for a unit of unchanged shape). In training it computes
densely and selects, which is the definition of the sparse result, with the statistics of the active pixels.

All layers raise ValueError for tiles that do not lie on their output map.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sbnet_perception.blocks import layer_ops
from sbnet_perception.blocks.norm import SparseBatchNorm2d
from sbnet_perception.blocks.reference import Pair
from sbnet_perception.blocks.tiles import Tiles


def keep_active(y: Tensor, tiles: Tiles) -> Tensor:
    """``y`` [N, C, H, W] on active tiles, 0 elsewhere."""
    return y.masked_fill(~tiles.mask()[:, None], 0)


def _check_tiles(tiles: Tiles | None, images: int, size: Pair) -> None:
    """Raises ValueError unless the tiles lie on a map of ``images`` images of ``size`` (H, W)."""
    if tiles is not None and (tiles.batch, *tiles.size) != (images, *size):
        raise ValueError(
            f"tiles are for {tiles.batch} images of {tuple(tiles.size)} pixels, the layer's output has {images} of "
            f"{tuple(size)}; make them from the mask of the same images with the stride of this map"
        )


def _norm_parameters(norm: Any) -> list[Tensor]:
    # Past Module.__getattr__, which would take as long as a small layer for all the tensors of a stage.
    parameters, buffers = norm._parameters, norm._buffers
    return [parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]]


class ConvUnit(nn.Module):
    """Convolution, batch normalization, ReLU; stride 1, same size, ``kernel`` 1 or 3."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = SparseBatchNorm2d(out_channels)

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H, W]."""
        _check_tiles(tiles, x.shape[0], (x.shape[2], x.shape[3]))
        if tiles is None:
            return self.norm(self.conv(x)).relu_()
        if self.training:
            return keep_active(self.norm(self.conv(x), tiles).relu(), tiles)
        parameters = [self.conv.weight, *_norm_parameters(self.norm)]
        return layer_ops.conv_unit(x, tiles.indices, tiles.tile, self.norm.eps, parameters)


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution with a bias and nothing after it: a branch of the detector."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H, W]; 0 on inactive tiles."""
        _check_tiles(tiles, x.shape[0], (x.shape[2], x.shape[3]))
        if tiles is None or self.training:
            y = super().forward(x)
            return y if tiles is None else keep_active(y, tiles)
        assert self.bias is not None
        return layer_ops.conv_unit(x, tiles.indices, tiles.tile, 0.0, [self.weight, self.bias])


class UpsampleUnit(nn.Module):
    """Upsample 2x, add a 1x1 convolution of the skip map, normalize, ReLU.

    Upsampling is a 2x2 transposed convolution of stride 2: each output pixel reads one input pixel,
    so no halo is needed. The upsampled map is cropped to the skip's size.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
        self.lateral = nn.Conv2d(skip_channels, out_channels, 1, bias=False)
        self.norm = SparseBatchNorm2d(out_channels)

    def forward(self, x: Tensor, skip: Tensor, tiles: Tiles | None = None) -> Tensor:
        """[N, C_in, ceil(H/2), ceil(W/2)] and [N, C_skip, H, W] -> [N, C_out, H, W]; ``tiles`` have even sides."""
        _check_tiles(tiles, skip.shape[0], (skip.shape[2], skip.shape[3]))
        if tiles is not None and (tiles.tile[0] % 2 or tiles.tile[1] % 2):
            raise ValueError(f"tiles of an upsampling must have even sides, got {tiles.tile}")
        if tiles is None or self.training:
            up = self.up(x)[:, :, : skip.shape[2], : skip.shape[3]]
            y = self.norm(up + self.lateral(skip), tiles).relu()
            return y if tiles is None else keep_active(y, tiles)
        parameters = [self.up.weight, self.lateral.weight, *_norm_parameters(self.norm)]
        return layer_ops.upsample_unit(x, skip, tiles.indices, tiles.tile, self.norm.eps, parameters)


class ResidualUnit(nn.Module):
    """Bottleneck residual unit, pre-activation: BN ReLU 1x1, BN ReLU 3x3, BN ReLU 1x1, plus shortcut.

    The bottleneck is a quarter of ``out_channels``; ``stride`` (1 or 2) sits in the 3x3. Where the shape
    changes the shortcut is a 1x1 convolution with that stride on the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.keeps_shape = stride, stride == 1 and in_channels == out_channels
        bottleneck = out_channels // 4
        self.norm1 = SparseBatchNorm2d(in_channels)
        self.reduce = nn.Conv2d(in_channels, bottleneck, 1, bias=False)
        self.norm2 = SparseBatchNorm2d(bottleneck)
        self.conv = nn.Conv2d(bottleneck, bottleneck, 3, stride=stride, padding=1, bias=False)
        self.norm3 = SparseBatchNorm2d(bottleneck)
        self.expand = nn.Conv2d(bottleneck, out_channels, 1, bias=False)
        self.project = None if self.keeps_shape else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, ceil(H/stride), ceil(W/stride)]; ``tiles`` lie on the output map."""
        return _residual_units([self], x, tiles)

    def tensors(self) -> list[Tensor]:
        """Parameters in the order of `layer_ops.residual_units`."""
        parts: Any = self._modules
        tensors = _norm_parameters(parts["norm1"])
        for convolution, norm in (("reduce", "norm2"), ("conv", "norm3")):
            tensors.append(parts[convolution]._parameters["weight"])
            tensors += _norm_parameters(parts[norm])
        tensors.append(parts["expand"]._parameters["weight"])
        return tensors if self.keeps_shape else [*tensors, parts["project"]._parameters["weight"]]

    def eps(self) -> list[float]:
        """Of the three normalizations."""
        parts: Any = self._modules
        return [parts["norm1"].eps, parts["norm2"].eps, parts["norm3"].eps]

    def dense(self, x: Tensor, tiles: Tiles | None) -> Tensor:
        """Computes everything, then selects the active tiles; normalizations in training count these alone."""
        active = None if tiles is None else tiles.mask()
        # Beneath an active output pixel of a strided unit lie stride x stride input pixels.
        beneath = active
        if active is not None and self.stride > 1:
            beneath = active.repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
            beneath = beneath[:, : x.shape[2], : x.shape[3]]
        activated = self.norm1.normalize(x, beneath).relu()
        y = self.norm2.normalize(self.reduce(activated), beneath).relu()
        y = self.norm3.normalize(self.conv(y), active).relu()
        y = self.expand(y)
        if self.project is not None:
            y = y + self.project(activated)
        y = y if tiles is None else keep_active(y, tiles)
        return x + y if self.project is None else y


class Stage(nn.Module):
    """Several units one after the other; only the first may change the shape."""

    def __init__(self, units: list[ResidualUnit]) -> None:
        super().__init__()
        if not all(unit.keeps_shape for unit in units[1:]):
            raise ValueError("units after the first must keep the shape")
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """As the units one by one; the map is copied once, and the units after the first work in place."""
        return _residual_units([unit for unit in self.units if isinstance(unit, ResidualUnit)], x, tiles)


def _residual_units(units: list[ResidualUnit], x: Tensor, tiles: Tiles | None) -> Tensor:
    stride = units[0].stride
    _check_tiles(tiles, x.shape[0], (-(-x.shape[2] // stride), -(-x.shape[3] // stride)))
    if tiles is None or any(unit.training for unit in units):
        for unit in units:
            x = unit.dense(x, tiles)
        return x
    eps = [eps for unit in units for eps in unit.eps()]
    parameters = [tensor for unit in units for tensor in unit.tensors()]
    return layer_ops.residual_units(x, tiles.indices, tiles.tile, stride, eps, parameters)
