"""Tiles: which parts of a feature map are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sbnet_perception.blocks import block_plain
from sbnet_perception.blocks.block_plain import Pair
from sbnet_perception.blocks.pixels import Pixels
from sbnet_perception.operation import call, dynamic_size, register


@dataclass(frozen=True, eq=False)
class Tiles:
    """The active tiles of a feature map.

    Attributes:
        indices: int32 [B, 3] rows (n, ty, tx) of the active tiles, in raster order.
        batch: number of images N.
        size: (H, W) of the feature map in pixels.
        tile: (th, tw) in pixels; tiles at the lower and right edge may be cut.
    """

    indices: Tensor
    batch: int
    size: Pair
    tile: Pair
    _pixels: Pixels = field(init=False, repr=False)

    @staticmethod
    def from_mask(mask: Tensor, tile: Pair, stride: int = 1) -> Tiles:
        """Tiles with at least one True pixel beneath them.

        Args:
            mask: bool [H, W] or [N, H, W] on the grid.
            tile: (th, tw) in pixels of the feature map.
            stride: stride of the feature map on the grid; the map has ceil(H / stride) x ceil(W / stride) pixels.

        Raises:
            ValueError: an argument has the wrong rank, dtype or sign.
        """
        return Tiles.pyramid(mask, [tile], [stride])[0]

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
        if mask.dim() not in (2, 3):
            raise ValueError(f"mask must be [H, W] or [N, H, W], got {tuple(mask.shape)}")
        if len(tiles) != len(strides):
            raise ValueError(f"tiles and strides must be as many, got {len(tiles)} and {len(strides)}")
        for tile, stride in zip(tiles, strides, strict=True):
            if len(tile) != 2 or min(tile) < 1:
                raise ValueError(f"tile must be two positive numbers of pixels, got {tile!r}")
            if stride < 1:
                raise ValueError(f"stride must be positive, got {stride}")
        mask = mask[None] if mask.dim() == 2 else mask
        batch, height, width = mask.shape
        lists = call(_TILE_PYRAMID, mask, [n * s for tile, s in zip(tiles, strides, strict=True) for n in tile])
        return [
            Tiles(indices, batch, (-(-height // stride), -(-width // stride)), tile)
            for indices, tile, stride in zip(lists, tiles, strides, strict=True)
        ]

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
        return self.pixels.mask()

    @property
    def pixels(self) -> Pixels:
        """The pixels of the active tiles."""
        # No functools.cached_property: torch.compile does not trace its lock.
        if not hasattr(self, "_pixels"):
            object.__setattr__(self, "_pixels", Pixels.of_tiles(self.indices, self.tile, (self.batch, *self.size)))
        return self._pixels


def plain_tile_pyramid(mask: Tensor, sides: Sequence[int]) -> list[Tensor]:
    """The active tiles of several partitions of bool [N, H, W], by their sides (rows, columns) one after the other.

    Returns:
        For each int32 [B, 3] rows (n, ty, tx) of the tiles with a True pixel, in raster order.
    """
    _check_pyramid(mask, sides)
    pairs = list(zip(sides[::2], sides[1::2], strict=True))
    counts = [(-(-mask.shape[1] // rows), -(-mask.shape[2] // columns)) for rows, columns in pairs]
    return [
        block_plain.reduce_mask(mask, count, side, side, (0, 0), 0.5, False)
        for count, side in zip(counts, pairs, strict=True)
    ]


def _fake_tile_pyramid(mask: Tensor, sides: Sequence[int]) -> list[Tensor]:
    _check_pyramid(mask, sides)
    return [mask.new_empty((dynamic_size(), 3), dtype=torch.int32) for _ in sides[::2]]


def _check_pyramid(mask: Tensor, sides: Sequence[int]) -> None:
    if mask.dim() != 3 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool [N, H, W], got {mask.dtype} {tuple(mask.shape)}")
    if len(sides) % 2 or not all(side >= 1 for side in sides):
        raise ValueError(f"sides must be pairs of positive numbers, got {tuple(sides)}")


_TILE_PYRAMID = register(
    "tile_pyramid(Tensor mask, int[] sides) -> Tensor[]", plain_tile_pyramid, _fake_tile_pyramid
)
