"""Maps of which only some pixels are stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbnet_perception.blocks.pixels import Pixels
from sbnet_perception.blocks.tiles import Tiles


@dataclass(frozen=True, eq=False)
class SparseMap:
    """A feature map that is stored on some pixels alone, and 0 elsewhere.

    Attributes:
        values: [P, C], the channels of the stored pixels in raster order.
        pixels: the stored pixels.
    """

    values: Tensor
    pixels: Pixels

    @staticmethod
    def from_dense(x: Tensor, tiles: Tiles) -> SparseMap:
        """What ``x`` [N, C, H, W] holds on active tiles.

        Raises:
            ValueError: the tiles lie on maps of another number or size.
        """
        pixels = tiles.pixels
        if (x.shape[0], *x.shape[2:]) != pixels.size:
            raise ValueError(f"tiles are for maps (N, H, W) = {pixels.size}, x is {tuple(x.shape)}")
        return SparseMap(rows_of(x).index_select(0, pixels.flat), pixels)

    def dense(self) -> Tensor:
        """[N, C, H, W] in channels_last, 0 where no pixel is stored."""
        return spread(self.values, self.pixels)


@dataclass(frozen=True, eq=False)
class Voxels:
    """A map of nearly nothing but zeros, as a list of its occupied pixels.

    A pixel holds up to 63 channels that are 0 or 1, and one more that is any number.

    Attributes:
        pixels: the occupied pixels.
        bits: int64 [K]; bit c is channel c.
        last: float32 [K], the last channel.
        channels: of the map.
        points: int64 [], how many points they were made from.
    """

    pixels: Pixels
    bits: Tensor
    last: Tensor
    channels: int
    points: Tensor

    def values(self) -> Tensor:
        """float32 [K, C], the channels of the occupied pixels."""
        shifts = torch.arange(self.channels - 1, device=self.bits.device)
        return torch.cat([(self.bits[:, None] >> shifts & 1).float(), self.last[:, None]], 1)

    def dense(self) -> Tensor:
        """float32 [N, C, H, W] in channels_last."""
        return spread(self.values(), self.pixels)

    def to(self, device: torch.device) -> Voxels:
        """The same voxels there."""
        bits, last, points = (part.to(device) for part in (self.bits, self.last, self.points))
        return Voxels(self.pixels.to(device), bits, last, self.channels, points)

    @staticmethod
    def cat(parts: list[Voxels]) -> Voxels:
        """Several batches of maps of one size as one."""
        size, images, flat = parts[0].pixels.size[1:], 0, []
        for part in parts:
            flat.append(part.pixels.flat + images * size[0] * size[1])
            images += part.pixels.size[0]
        joined = Pixels.from_flat(torch.cat(flat), (images, *size))
        bits, last = torch.cat([part.bits for part in parts]), torch.cat([part.last for part in parts])
        points = torch.stack([part.points for part in parts]).sum()
        return Voxels(joined, bits, last, parts[0].channels, points)


def rows_of(x: Tensor) -> Tensor:
    """[N, C, H, W] as [N * H * W, C]; a view where ``x`` is channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def spread(values: Tensor, pixels: Pixels, base: Tensor | None = None) -> Tensor:
    """Values [P, C] on whole maps [N, C, H, W] in channels_last, between them 0 or what ``base`` of that shape has."""
    images, height, width = pixels.size
    rows = values.new_zeros((images * height * width, values.shape[1])) if base is None else rows_of(base)
    return rows.index_copy(0, pixels.flat, values).view(images, height, width, -1).permute(0, 3, 1, 2)
