"""Maps of which only some pixels are stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sbnet_perception.blocks.pixels import Pixels
from sbnet_perception.blocks.tiles import Tiles


@dataclass(frozen=True, eq=False)
class SparseMap:
    """A feature map that is 0 outside its active tiles, and stored on them alone.

    Attributes:
        values: [P, C], the channels of the active pixels in raster order.
        tiles: the active tiles.
    """

    values: Tensor
    tiles: Tiles

    @property
    def pixels(self) -> Pixels:
        """The stored pixels."""
        return self.tiles.pixels

    @staticmethod
    def from_dense(x: Tensor, tiles: Tiles) -> SparseMap:
        """What ``x`` [N, C, H, W] holds on active tiles.

        Raises:
            ValueError: the tiles lie on maps of another number or size.
        """
        if (x.shape[0], *x.shape[2:]) != tiles.pixels.size:
            raise ValueError(f"tiles are for maps (N, H, W) = {tiles.pixels.size}, x is {tuple(x.shape)}")
        return SparseMap(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).index_select(0, tiles.pixels.flat), tiles)

    def dense(self) -> Tensor:
        """[N, C, H, W] in channels_last, 0 outside active tiles."""
        images, height, width = self.pixels.size
        rows = self.values.new_zeros((images * height * width, self.values.shape[1]))
        rows = rows.index_copy(0, self.pixels.flat, self.values)
        return rows.view(images, height, width, -1).permute(0, 3, 1, 2)


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
        images, height, width = self.pixels.size
        rows = self.last.new_zeros((images * height * width, self.channels))
        rows[self.pixels.flat] = self.values()
        return rows.view(images, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def cat(parts: list[Voxels]) -> Voxels:
        """Several batches of maps of one size as one."""
        starts, runs, base, pixels = [parts[0].pixels.start[:1]], [], 0, 0
        for part in parts:
            starts.append(part.pixels.start[1:] + base)
            runs.append(part.pixels.runs + torch.tensor([0, 0, pixels], dtype=torch.int32))
            base, pixels = base + len(part.pixels.runs), pixels + len(part.pixels)
        images, size = sum(part.pixels.size[0] for part in parts), parts[0].pixels.size[1:]
        joined = Pixels(torch.cat(starts), torch.cat(runs), (images, *size))
        bits, last = torch.cat([part.bits for part in parts]), torch.cat([part.last for part in parts])
        points = torch.stack([part.points for part in parts]).sum()
        return Voxels(joined, bits, last, parts[0].channels, points)
