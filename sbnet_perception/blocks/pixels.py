"""Pixels: which pixels of a batch of maps are stored, row by row as runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

ABSENT, OUTSIDE = 0, 1
"""Places behind the stored pixels in the results of `Pixels.beneath`: a pixel that is not stored, and no pixel."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Some pixels of N maps of H x W pixels, numbered from 0 in raster order.

    Attributes:
        start: int32 [N * H + 1]; row r (of all maps, one below the other) has the runs start[r] .. start[r + 1].
        runs: int32 [R, 3] (begin, end, number): columns begin .. end, the first of which has that number.
        size: (N, H, W).
    """

    start: Tensor
    runs: Tensor
    size: tuple[int, int, int]

    @staticmethod
    def from_mask(mask: Tensor) -> Pixels:
        """The True pixels of bool [N, H, W]."""
        images, height, width = mask.shape
        padded = torch.nn.functional.pad(mask.reshape(images * height, width).to(torch.int8), (1, 1))
        change = padded.diff(dim=1)
        rows, begin = torch.nonzero(change == 1, as_tuple=True)
        end = torch.nonzero(change == -1)[:, 1]
        number = torch.cumsum(end - begin, 0) - (end - begin)
        start = torch.zeros(images * height + 1, dtype=torch.int64, device=mask.device)
        start[1:] = torch.cumsum(torch.bincount(rows, minlength=images * height), 0)
        runs = torch.stack([begin, end, number], 1)
        return Pixels(start.to(torch.int32), runs.to(torch.int32), (images, height, width))

    @staticmethod
    def from_flat(flat: Tensor, size: tuple[int, int, int]) -> Pixels:
        """Pixels by their increasing positions, int64 [P], in maps laid out one after the other; a run for each."""
        images, height, width = size
        column, number = flat % width, torch.arange(len(flat))
        start = torch.searchsorted(flat, torch.arange(images * height + 1) * width)
        return Pixels(start.to(torch.int32), torch.stack([column, column + 1, number], 1).to(torch.int32), size)

    @staticmethod
    def all(size: tuple[int, int, int]) -> Pixels:
        """All pixels of N maps of H x W."""
        images, height, width = size
        rows = torch.arange(images * height, dtype=torch.int32)
        runs = torch.stack([torch.zeros_like(rows), torch.full_like(rows, width), rows * width], 1)
        return Pixels(torch.arange(images * height + 1, dtype=torch.int32), runs, size)

    def mask(self) -> Tensor:
        """bool [N, H, W]: True where a pixel is."""
        images, height, width = self.size
        mask = torch.zeros(images * height * width, dtype=torch.bool, device=self.runs.device)
        mask[self.flat] = True
        return mask.view(self.size)

    def __len__(self) -> int:
        return int(self.runs[-1, 2] + self.runs[-1, 1] - self.runs[-1, 0]) if len(self.runs) else 0

    @functools.cached_property
    def flat(self) -> Tensor:
        """int64 [P]: the position of each in the maps laid out one after the other."""
        rows = torch.repeat_interleave(self.start.long().diff())
        begin, end, number = self.runs.long().unbind(1)
        first = rows * self.size[2] + begin - number
        return torch.repeat_interleave(first, end - begin) + torch.arange(len(self), device=self.runs.device)

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
