"""Pixels: which pixels of a batch of maps are stored, row by row as runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

Size = tuple[int, int, int]

ABSENT, OUTSIDE = 0, 1
"""Places behind the stored pixels in the results of `Pixels.beneath`: a pixel that is not stored, and no pixel."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Some pixels of N maps of H x W pixels, numbered from 0 in raster order.

    Kernels trust the lists, which are right as the functions below make them.

    Attributes:
        start: int32 [N * H + 1]; row r (of all maps, one below the other) has the runs start[r] .. start[r + 1].
        runs: int32 [R, 3] (begin, end, number): columns begin .. end, the first of which has that number.
        flat: int64 [P]: the position of each in the maps laid out one after the other.
        size: (N, H, W).
        windows: start and runs, whose numbers mean nothing, of all pixels in the 3x3 windows around these; or none.
    """

    start: Tensor
    runs: Tensor
    flat: Tensor
    size: Size
    windows: tuple[Tensor, ...] = field(default=(), repr=False)

    @staticmethod
    def from_mask(mask: Tensor) -> Pixels:
        """The True pixels of bool [N, H, W]."""
        images, height, width = mask.shape
        return Pixels.from_flat(torch.nonzero(mask.reshape(-1))[:, 0], (images, height, width))

    @staticmethod
    def from_flat(flat: Tensor, size: Size) -> Pixels:
        """Pixels by their increasing positions, int64 [P], in maps laid out one after the other."""
        images, height, width = size
        row, column = torch.div(flat, max(width, 1), rounding_mode="floor"), flat % max(width, 1)
        # A run begins where the position before is not the neighbour, or lies in another row.
        begins = torch.ones_like(flat, dtype=torch.bool)
        begins[1:] = (flat.diff() != 1) | (row.diff() != 0)
        number = torch.nonzero(begins)[:, 0]
        length = torch.cat([number, number.new_full((1,), len(flat))]).diff()
        runs = torch.stack([column[number], column[number] + length, number], 1)
        rows = torch.arange(images * height + 1, device=flat.device)
        start = torch.searchsorted(row[number], rows)
        return Pixels(start.to(torch.int32), runs.to(torch.int32), flat, size)

    @staticmethod
    def all(size: Size, device: torch.device | str = "cpu") -> Pixels:
        """All pixels of N maps of H x W."""
        images, height, width = size
        rows = torch.arange(images * height, dtype=torch.int32, device=device)
        runs = torch.stack([torch.zeros_like(rows), torch.full_like(rows, width), rows * width], 1)
        start = torch.arange(images * height + 1, dtype=torch.int32, device=device)
        if width == 0:
            start, runs = torch.zeros_like(start), runs[:0]
        return Pixels(start, runs, torch.arange(images * height * width, device=device), size)

    def to(self, device: torch.device) -> Pixels:
        """The same pixels there."""
        start, runs, flat, *windows = (part.to(device) for part in self.lists)
        return Pixels(start, runs, flat, self.size, tuple(windows))

    @property
    def lists(self) -> list[Tensor]:
        """What the operations read."""
        return [self.start, self.runs, self.flat, *self.windows]

    def mask(self) -> Tensor:
        """bool [N, H, W]: True where a pixel is."""
        images, height, width = self.size
        mask = torch.zeros(images * height * width, dtype=torch.bool, device=self.flat.device)
        return mask.index_fill_(0, self.flat, True).view(self.size)

    def __len__(self) -> int:
        return len(self.flat)

    @property
    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Image, row and column of each, int64 [P]."""
        _, height, width = self.size
        row = torch.div(self.flat, width, rounding_mode="floor")
        return torch.div(row, height, rounding_mode="floor"), row % height, self.flat % width

    @functools.cached_property
    def _numbers(self) -> Tensor:
        images, height, width = self.size
        numbers = torch.full((images * height * width,), len(self) + ABSENT, device=self.flat.device)
        return numbers.index_copy_(0, self.flat, torch.arange(len(self), device=self.flat.device))

    def numbers(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """The numbers of the pixels at some positions; P + `ABSENT` and P + `OUTSIDE` for others."""
        _, height, width = self.size
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        flat = (image * height + row) * width + column
        return torch.where(inside, self._numbers[flat.where(inside, 0)], len(self) + OUTSIDE)

    def beneath(self, output: Pixels, stride: int) -> Tensor:
        """int64 [P_out, 9]: numbers of the pixels in the 3x3 window (padding 1) of each output pixel."""
        found = self._kept.get(output)
        if found is None or found[0] != stride:
            image, row, column = output.positions
            offset = torch.arange(-1, 2, device=row.device)
            rows = (stride * row[:, None] + offset)[:, :, None].expand(-1, 3, 3)
            columns = (stride * column[:, None] + offset)[:, None, :].expand(-1, 3, 3)
            numbers = self.numbers(image[:, None, None], rows, columns).reshape(-1, 9)
            found = self._kept[output] = stride, numbers
        return found[1]

    @functools.cached_property
    def _kept(self) -> WeakKeyDictionary[Pixels, tuple[int, Tensor]]:
        """What `beneath` found for each output. The output is often these pixels: nothing here may keep them alive."""
        return WeakKeyDictionary()

    def __getstate__(self) -> dict[str, object]:
        """What is computed again stays out of a pickle or copy."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
