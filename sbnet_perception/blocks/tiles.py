"""Tiles: which parts of a feature map are computed. The sizes of the detector's tiles are `NetworkConfig.tiles`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sbnet_perception.blocks.block_plain import Pair, reduce_mask
from sbnet_perception.blocks.pixels import Pixels, fake_index
from sbnet_perception.extents import check_cells
from sbnet_perception.operation import UNAVAILABLE, call, dynamic_size, register

MOST_MAPS = 64
"""Feature maps of one pyramid."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """The active tiles of a feature map.

    Attributes:
        batch: number of images N.
        size: (H, W) of the feature map in pixels.
        tile: (th, tw) in pixels; tiles at the lower and right edge may be cut.
        pixels: those of the active tiles.
    """

    batch: int
    size: Pair
    tile: Pair
    pixels: Pixels = field(repr=False)

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
    def pyramid(
        mask: Tensor, tiles: Sequence[Pair], strides: Sequence[int], capacities: Sequence[int] | None = None
    ) -> list[Tiles]:
        """`from_mask` for each tile and stride, from one pass over the mask where each tile divides a later one.

        Args:
            mask: bool [H, W] or [N, H, W] on the grid.
            tiles: (th, tw) of each feature map, in its pixels.
            strides: stride of each feature map on the grid.
            capacities: rows of each map's buffers, whatever the mask; pixels beyond them are left out, which the count
                in the index tells. Without them there are as many rows as pixels, and the host waits for their number.
                The kernels of a GPU know them, no others.

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
        sides = [side for tile in tiles for side in tile]
        lists = call(_TILE_PYRAMID, mask, sides, strides, capacities)
        each = len(lists) // max(len(strides), 1)
        found = []
        for number, (tile, stride) in enumerate(zip(tiles, strides, strict=True)):
            flat, *index = lists[number * each : (number + 1) * each]
            size = _size_on(mask, stride)
            found.append(Tiles(len(mask), size, tile, Pixels(flat, (len(mask), *size), tuple(index))))
        return found

    @property
    def count(self) -> Pair:
        """Tiles per image (rows, columns)."""
        return -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])

    @property
    def sparsity(self) -> float:
        """Share of the map's pixels that lie on no active tile; 1 on a map without pixels."""
        return 1.0 - len(self.pixels) / max(self.batch * self.size[0] * self.size[1], 1)

    @property
    def indices(self) -> Tensor:
        """int32 [B, 3] rows (n, ty, tx) of the active tiles, in raster order."""
        image, row, column = self.pixels.positions
        first = (row % self.tile[0] == 0) & (column % self.tile[1] == 0)
        numbers = [image, row // self.tile[0], column // self.tile[1]]
        return torch.stack(numbers, 1)[first].to(torch.int32)

    def mask(self) -> Tensor:
        """Bool [N, H, W]: the pixels of the active tiles."""
        return self.pixels.mask()


def _size_on(mask: Tensor, stride: int) -> Pair:
    """(H, W) of the feature map of a stride on ``mask`` [N, H, W]."""
    return -(-mask.shape[1] // stride), -(-mask.shape[2] // stride)


def plain_tile_pyramid(
    mask: Tensor, sides: Sequence[int], strides: Sequence[int], capacities: Sequence[int] | None = None
) -> list[Tensor]:
    """What `Tiles.pyramid` asks for, in PyTorch: bool [N, H, W], and of each feature map the sides (rows, columns) of
    its tiles, one after the other, and its stride.

    Returns:
        For each map the lists of its `Pixels`.
    """
    _check(mask, sides, strides, capacities)
    if capacities is not None:
        raise ValueError("tile_pyramid: capacities are for the kernels of a GPU")
    lists = []
    for tile, stride in zip(zip(sides[::2], sides[1::2], strict=True), strides, strict=True):
        height, width = _size_on(mask, stride)
        count, side = (-(-height // tile[0]), -(-width // tile[1])), (tile[0] * stride, tile[1] * stride)
        indices = reduce_mask(mask, count, side, side, (0, 0), 0.5, False)
        active = torch.zeros((len(mask), *count), dtype=torch.bool, device=mask.device)
        active[indices.long().unbind(1)] = True
        # Each pixel asks the tile that it lies in.
        y = torch.div(torch.arange(height, device=mask.device), tile[0], rounding_mode="floor")
        x = torch.div(torch.arange(width, device=mask.device), tile[1], rounding_mode="floor")
        lists += Pixels.from_mask(active[:, y][:, :, x]).lists
    return lists


def _fake_tile_pyramid(
    mask: Tensor, sides: Sequence[int], strides: Sequence[int], capacities: Sequence[int] | None = None
) -> list[Tensor]:
    _check(mask, sides, strides, capacities)
    windows, lists = mask.device.type == "cpu" and not UNAVAILABLE, []
    for number, stride in enumerate(strides):
        rows = dynamic_size() if capacities is None else capacities[number]
        flat = mask.new_empty((rows,), dtype=torch.int64)
        lists += [flat, *fake_index(flat, (mask.shape[0], *_size_on(mask, stride)), rows, windows)]
    return lists


def _check(
    mask: Tensor, sides: Sequence[int], strides: Sequence[int], capacities: Sequence[int] | None
) -> None:
    if mask.dim() != 3 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool [N, H, W], got {mask.dtype} {tuple(mask.shape)}")
    check_cells("tile_pyramid", "mask", *mask.shape)
    if len(sides) != 2 * len(strides):
        raise ValueError(f"sides must be pairs, one for each of the strides, got {tuple(sides)} and {tuple(strides)}")
    if capacities is not None and len(capacities) != len(strides):
        raise ValueError(f"capacities must be {len(strides)}, one for each stride, got {tuple(capacities)}")
    if len(strides) > MOST_MAPS:
        raise ValueError(f"strides must be at most {MOST_MAPS}, got {len(strides)}")
    for name, values in (("sides", sides), ("strides", strides), ("capacities", capacities or ())):
        if not all(1 <= value < 2**31 for value in values):
            raise ValueError(f"{name} must be positive, got {tuple(values)}")


_TILE_PYRAMID = register(
    "tile_pyramid(Tensor mask, int[] sides, int[] strides, int[]? capacities=None) -> Tensor[]",
    plain_tile_pyramid,
    _fake_tile_pyramid,
)
