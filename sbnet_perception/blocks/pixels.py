"""Pixels: which pixels of a batch of maps are stored."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception.extents import check_cells
from sbnet_perception.operation import call, dynamic_size, register

Size = tuple[int, int, int]

ABSENT, OUTSIDE = 0, 1
"""Places behind the stored pixels in the results of `Pixels.beneath`: a pixel that is not stored, and no pixel."""


def strided(size: Size, stride: int) -> Size:
    """(N, H, W) of the map behind a stride."""
    return size[0], -(-size[1] // stride), -(-size[2] // stride)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Some pixels of N maps of H x W pixels, numbered from 0 in raster order.

    Kernels trust the lists, which are right as the functions below make them.

    Attributes:
        flat: int64 [P]: the position of each in the maps laid out one after the other. Where the number of rows is the
            capacity of a buffer, rows behind the last pixel are -1.
        size: (N, H, W).
        index: where the kernels of the device look pixels up.

    On the CPU the index is start int32 [N * H + 1] and runs int32 [R, 3]: row r (of all maps, one below the other) has
    the runs start[r] .. start[r + 1], each (begin, end, number): columns begin .. end, the first of which has that
    number. Behind them, if known, are start and runs, whose numbers mean nothing, of all pixels in the 3x3 windows
    around these.

    On a GPU with kernels it is count int32 [2], how many pixels there are and how many there would be with room for
    all; words int32 [N * H * ceil(W / 32), 2], the bits of 32 columns of a row and the number of the first pixel among
    them; and neighbours int32 [9, P], the numbers of the pixels in the 3x3 windows, -1 where none is stored, -2 beyond
    the border; or [9, 0] where nobody asked for them.
    """

    flat: Tensor
    size: Size
    index: tuple[Tensor, ...] = field(repr=False)

    @staticmethod
    def from_mask(mask: Tensor) -> Pixels:
        """The True pixels of bool [N, H, W]."""
        images, height, width = mask.shape
        return Pixels.from_flat(torch.nonzero(mask.reshape(-1))[:, 0], (images, height, width))

    @staticmethod
    def from_flat(flat: Tensor, size: Size) -> Pixels:
        """Pixels by their increasing positions, int64 [P], in maps laid out one after the other."""
        return Pixels(flat, size, tuple(call(_PIXEL_INDEX, flat, size)))

    @staticmethod
    def all(size: Size, device: torch.device | str = "cpu") -> Pixels:
        """All pixels of N maps of H x W."""
        images, height, width = size
        return Pixels.from_flat(torch.arange(images * height * width, device=device), size)

    def to(self, device: torch.device) -> Pixels:
        """The same pixels there."""
        return self if self.flat.device == device else Pixels.from_flat(self.flat.to(device), self.size)

    @property
    def lists(self) -> list[Tensor]:
        """What the operations read."""
        return [self.flat, *self.index]

    def mask(self) -> Tensor:
        """bool [N, H, W]: True where a pixel is."""
        images, height, width = self.size
        # One more for the rows without a pixel.
        mask = torch.zeros(images * height * width + 1, dtype=torch.bool, device=self.flat.device)
        return mask.index_fill_(0, self.flat, True)[:-1].view(self.size)

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
        total = images * height * width
        # One more for the rows without a pixel.
        numbers = torch.full((total + 1,), len(self) + ABSENT, device=self.flat.device)
        place = self.flat.where(self.flat >= 0, total)
        return numbers.index_copy_(0, place, torch.arange(len(self), device=self.flat.device))

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
    def readers(self) -> tuple[Tensor, Tensor]:
        """Which places of ``beneath(self, 1)``, flattened, hold each number: lists one behind the other, int64 [9 P],
        those of the pixels first, then of `ABSENT`; and where each begins, int64 [P + 3] with the end."""
        numbers = self.beneath(self, 1)
        # What a pixel has at one place of its window has that pixel at the opposite place of its own.
        window = torch.arange(9, device=numbers.device)
        opposite, stored = numbers.flip(1) * 9 + window, numbers.flip(1) < len(self)
        absent = torch.nonzero(numbers.reshape(-1) == len(self) + ABSENT)[:, 0]
        # What lies outside reads nothing that is ever asked for.
        counts = torch.cat([stored.sum(1), absent.new_tensor([len(absent), 0])])
        return torch.cat([opposite[stored], absent]), F.pad(counts.cumsum(0), (1, 0))

    @functools.cached_property
    def _kept(self) -> WeakKeyDictionary[Pixels, tuple[int, Tensor]]:
        """What `beneath` found for each output. The output is often these pixels: nothing here may keep them alive."""
        return WeakKeyDictionary()

    def __getstate__(self) -> dict[str, object]:
        """What is computed again stays out of a pickle or copy."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def plain_pixel_index(flat: Tensor, size: Sequence[int]) -> list[Tensor]:
    """The index of the CPU's kernels, in PyTorch: of increasing positions int64 [P] in maps of size (N, H, W)."""
    _check(flat, size)
    images, height, width = size
    if flat.device.type == "cpu" and len(flat):  # elsewhere nobody waits to see it
        last = images * height * width - 1
        if int(flat[0]) < 0 or int(flat[-1]) > last or not bool((flat.diff() > 0).all()):
            raise ValueError(f"pixel_index: flat must increase, from 0 to {last}")
    row, column = torch.div(flat, max(width, 1), rounding_mode="floor"), flat % max(width, 1)
    # A run begins where the position before is not the neighbour, or lies in another row.
    begins = torch.ones_like(flat, dtype=torch.bool)
    begins[1:] = (flat.diff() != 1) | (row.diff() != 0)
    number = torch.nonzero(begins)[:, 0]
    length = torch.cat([number, number.new_full((1,), len(flat))]).diff()
    runs = torch.stack([column[number], column[number] + length, number], 1)
    rows = torch.arange(images * height + 1, device=flat.device)
    start = torch.searchsorted(row[number], rows)
    return [start.to(torch.int32), runs.to(torch.int32)]


def _check(flat: Tensor, size: Sequence[Any]) -> None:
    if flat.dim() != 1 or flat.dtype != torch.int64:
        raise ValueError(f"pixel_index: flat must be int64 [P], got {flat.dtype} {tuple(flat.shape)}")
    if len(size) != 3 or min(size) < 0:
        raise ValueError(f"pixel_index: size must be (N, H, W), none negative, got {tuple(size)}")
    check_cells("pixel_index", "size", *size)


def _fake_pixel_index(flat: Tensor, size: Sequence[Any]) -> list[Tensor]:
    _check(flat, size)
    return fake_index(flat, size, flat.shape[0], windows=False)


def has_words(device: torch.device) -> bool:
    """Whether kernels of a GPU make the index there."""
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device.type)
    return key is not None and torch._C._dispatch_has_kernel_for_dispatch_key("sbnet::pixel_index", key)


def fake_index(like: Tensor, size: Sequence[Any], rows: Any, windows: bool) -> list[Tensor]:
    """What stands for the index of ``rows`` pixels on the device of ``like`` while tracing; of tiles with windows."""
    images, height, width = size
    if has_words(like.device):
        words = like.new_empty((images * height * -(-width // 32), 2), dtype=torch.int32)
        neighbours = like.new_empty((9, rows), dtype=torch.int32)
        return [like.new_empty((2,), dtype=torch.int32), words, neighbours]
    start = like.new_empty((images * height + 1,), dtype=torch.int32)
    runs = [like.new_empty((dynamic_size(), 3), dtype=torch.int32) for _ in range(1 + windows)]
    return [start, runs[0], *(part for window in runs[1:] for part in (torch.empty_like(start), window))]


_PIXEL_INDEX = register(
    "pixel_index(Tensor flat, int[3] size) -> Tensor[]",
    plain_pixel_index,
    _fake_pixel_index,
)
