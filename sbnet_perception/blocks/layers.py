"""Layers that compute all of a map, or only its active tiles, with one set of weights.

Each layer has three ways to the same result. ``layer(x)`` is dense. ``layer(x, tiles)`` gathers the
active tiles with their halo, computes them as a batch and scatters them back (paper, section 3.2);
inactive tiles are 0 (x for a unit of unchanged shape). In training it computes densely and selects,
which is the definition of the sparse result and differentiates with stock operations.

Zero padding happens at every convolution's own input, so blocks at the image border set the part of
their intermediate features that lies outside the image to zero.

Tiles that do not lie on a layer's output map raise ValueError.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbnet_perception.blocks.norm import SparseBatchNorm2d
from sbnet_perception.blocks.ops import sparse_gather, sparse_scatter_
from sbnet_perception.blocks.reference import Pair, block_pixels, inside_image
from sbnet_perception.blocks.tiles import Tiles


def keep_active(y: Tensor, tiles: Tiles) -> Tensor:
    """``y`` [N, C, H, W] on active tiles, 0 elsewhere."""
    return y * tiles.mask()[:, None].to(y.dtype)


def scatter_tiles(blocks: Tensor, tiles: Tiles) -> Tensor:
    """A new map that holds ``blocks`` [B, C, th, tw] on active tiles and 0 elsewhere."""
    shape = (tiles.batch, blocks.shape[1], *tiles.size)
    base = torch.empty(shape, dtype=blocks.dtype, device=blocks.device, memory_format=torch.channels_last).zero_()
    return sparse_scatter_(blocks, tiles.indices, base, tiles.tile, tiles.tile)


def _check_tiles(tiles: Tiles | None, images: int, size: Pair) -> None:
    """Raises ValueError unless the tiles lie on a map of ``images`` images of ``size`` (H, W)."""
    if tiles is not None and (tiles.batch, *tiles.size) != (images, *size):
        raise ValueError(
            f"tiles are for {tiles.batch} images of {tuple(tiles.size)} pixels, the layer's output has {images} of "
            f"{tuple(size)}; make them from the mask of the same images with the stride of this map"
        )


class ConvUnit(nn.Module):
    """Convolution, batch normalization, ReLU; stride 1, same size."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.halo = kernel // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=self.halo, bias=False)
        self.norm = SparseBatchNorm2d(out_channels)

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H, W]."""
        _check_tiles(tiles, x.shape[0], (x.shape[2], x.shape[3]))
        if tiles is None:
            return self.norm(self.conv(x)).relu_()
        if self.training:
            return keep_active(self.norm(self.conv(x), tiles).relu(), tiles)
        halo, tile = self.halo, tiles.tile
        size = (tile[0] + 2 * halo, tile[1] + 2 * halo)
        blocks = sparse_gather(x, tiles.indices, size, tile, (-halo, -halo))
        return scatter_tiles(self.norm(F.conv2d(blocks, self.conv.weight)).relu_(), tiles)


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
        tile = tiles.tile
        half = (tile[0] // 2, tile[1] // 2)
        blocks = self.up(sparse_gather(x, tiles.indices, half, half))
        blocks = blocks + self.lateral(sparse_gather(skip, tiles.indices, tile, tile))
        return scatter_tiles(self.norm(blocks).relu_(), tiles)


class ResidualUnit(nn.Module):
    """Bottleneck residual unit, pre-activation: BN ReLU 1x1, BN ReLU 3x3, BN ReLU 1x1, plus shortcut.

    The bottleneck is a quarter of ``out_channels``; ``stride`` sits in the 3x3. Where the shape
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
        _check_tiles(tiles, x.shape[0], (-(-x.shape[2] // self.stride), -(-x.shape[3] // self.stride)))
        if tiles is None or self.training:
            return self._dense(x, tiles)
        blocks = self._blocks(x, tiles)
        if not self.keeps_shape:
            return scatter_tiles(blocks, tiles)
        base = x.clone(memory_format=torch.channels_last)
        return sparse_scatter_(blocks, tiles.indices, base, tiles.tile, tiles.tile)

    def update_(self, x: Tensor, tiles: Tiles) -> Tensor:
        """As ``unit(x, tiles)`` for a unit of unchanged shape, written into ``x``."""
        return sparse_scatter_(self._blocks(x, tiles), tiles.indices, x, tiles.tile, tiles.tile)

    def _dense(self, x: Tensor, tiles: Tiles | None) -> Tensor:
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

    def _blocks(self, x: Tensor, tiles: Tiles) -> Tensor:
        """Result [B, C_out, th, tw] of every active tile."""
        stride, (th, tw) = self.stride, tiles.tile
        size = (stride * (th - 1) + 3, stride * (tw - 1) + 3)
        step, offset = (stride * th, stride * tw), (-1, -1)
        blocks = sparse_gather(x, tiles.indices, size, step, offset)
        activated = F.relu(self.norm1(blocks))
        y = self.norm2(self.reduce(activated)).relu_()
        # The 3x3 convolution pads with zeros outside the image.
        inside = inside_image(*block_pixels(tiles.indices, size, step, offset), (x.shape[2], x.shape[3]))
        y = F.conv2d(y * inside[:, None], self.conv.weight, stride=stride)
        y = self.expand(self.norm3(y).relu_())
        centre = blocks if self.project is None else activated
        centre = centre[:, :, 1 : 2 + stride * (th - 1) : stride, 1 : 2 + stride * (tw - 1) : stride]
        return y + (centre if self.project is None else F.conv2d(centre, self.project.weight))


class Stage(nn.Module):
    """Several units one after the other; only the first may change the shape."""

    def __init__(self, units: list[ResidualUnit]) -> None:
        super().__init__()
        if not all(unit.keeps_shape for unit in units[1:]):
            raise ValueError("units after the first must keep the shape")
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """As the units one by one; inactive tiles are copied once, not once per unit."""
        y = self.units[0](x, tiles)
        for unit in self.units[1:]:
            assert isinstance(unit, ResidualUnit)
            y = unit(y, tiles) if tiles is None or self.training else unit.update_(y, tiles)
        return y
