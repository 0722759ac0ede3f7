"""Tiles: which parts of a feature map are computed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sbnet_perception.blocks.block_ops import reduce_mask, tile_pyramid
from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.blocks.pixels import Pixels
from sbnet_perception.blocks.plain import Pair


@dataclass(frozen=True)
class Tiles:
    """The active tiles of a feature map.

    Attributes:
        indices: int32 [B, 3] rows (n, ty, tx) of the active tiles, in raster order.
        batch: number of images N.
        size: (H, W) of the feature map in pixels.
        tile: (th, tw) in pixels, at most the size of the map made even; tiles at the lower and right edge may be cut.
    """

    indices: Tensor
    batch: int
    size: Pair
    tile: Pair

    @staticmethod
    def from_mask(mask: Tensor, tile: Pair, stride: int = 1) -> Tiles:
        """Tiles with at least one True pixel beneath them.

        Args:
            mask: bool [H, W] or [N, H, W] on the grid.
            tile: (th, tw) in pixels of the feature map; a side larger than the map becomes the map's, made even.
            stride: stride of the feature map on the grid; the map has ceil(H / stride) x ceil(W / stride) pixels.

        Raises:
            ValueError: an argument has the wrong rank, dtype or sign.
        """
        mask = _batched(mask)
        size, tile = _on_map(mask, tile, stride)
        count = (-(-size[0] // tile[0]), -(-size[1] // tile[1]))
        side = (tile[0] * stride, tile[1] * stride)
        return Tiles(reduce_mask(mask, count, side, side), mask.shape[0], size, tile)

    @staticmethod
    def pyramid(mask: Tensor, tiles: Sequence[Pair], strides: Sequence[int]) -> list[Tiles]:
        """`from_mask` for each tile and stride, from one pass over the mask where each tile divides a later one.

        Args:
            mask: bool [H, W] or [N, H, W] on the grid.
            tiles: (th, tw) of each feature map, in its pixels.
            strides: stride of each feature map on the grid.

        Raises:
            ValueError: an argument has the wrong rank, dtype, length or sign.
        """
        if len(tiles) != len(strides):
            raise ValueError(f"tiles and strides must be as many, got {len(tiles)} and {len(strides)}")
        mask = _batched(mask)
        maps = [_on_map(mask, tile, stride) for tile, stride in zip(tiles, strides, strict=True)]
        sides = [(tile[0] * stride, tile[1] * stride) for (_, tile), stride in zip(maps, strides, strict=True)]
        lists = tile_pyramid(mask, sides)
        return [Tiles(indices, mask.shape[0], *of_map) for indices, of_map in zip(lists, maps, strict=True)]

    @property
    def count(self) -> Pair:
        """Tiles per image (rows, columns)."""
        return -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])

    @property
    def sparsity(self) -> float:
        """1 - active tiles / all tiles; 1 on a map without pixels."""
        return 1.0 - len(self.indices) / max(self.batch * self.count[0] * self.count[1], 1)

    def mask(self) -> Tensor:
        """Bool [N, H, W]: the pixels of the active tiles."""
        coarse = torch.zeros((self.batch, *self.count), dtype=torch.bool, device=self.indices.device)
        n, ty, tx = self.indices.long().unbind(1)
        coarse[n, ty, tx] = True
        fine = coarse.repeat_interleave(self.tile[0], 1).repeat_interleave(self.tile[1], 2)
        return fine[:, : self.size[0], : self.size[1]]

    @functools.cached_property
    def pixels(self) -> Pixels:
        """The pixels of the active tiles."""
        if UNAVAILABLE or self.indices.device.type != "cpu":
            return Pixels.from_mask(self.mask())
        size = (self.batch, *self.size)
        start, runs = torch.ops.sbnet.tile_pixels(self.indices, self.tile, size)
        return Pixels(start, runs, size)


def _batched(mask: Tensor) -> Tensor:
    """``mask`` as [N, H, W]."""
    if mask.dim() not in (2, 3):
        raise ValueError(f"mask must be [H, W] or [N, H, W], got {tuple(mask.shape)}")
    return mask[None] if mask.dim() == 2 else mask


def _on_map(mask: Tensor, tile: Pair, stride: int) -> tuple[Pair, Pair]:
    """Size of the feature map of ``stride`` over ``mask`` [N, H, W], and the tile's size on it."""
    if len(tile) != 2 or min(tile) < 1:
        raise ValueError(f"tile must be two positive numbers of pixels, got {tile!r}")
    if stride < 1:
        raise ValueError(f"stride must be positive, got {stride}")
    size = (-(-mask.shape[1] // stride), -(-mask.shape[2] // stride))
    return size, (_side_within(tile[0], size[0]), _side_within(tile[1], size[1]))


def _side_within(side: int, extent: int) -> int:
    """A side of a tile that covers no more of a map than it must; even where it is cut, as upsampling needs it.

    Gradients and `Tiles.mask` take memory for whole tiles.
    """
    return min(side, max(extent + extent % 2, 2))
