"""Random arguments, most of them sensible, some hostile; all of them follow from the seed of one `Draw`."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
HOSTILE = 0.08
"""Share of the numbers that no honest caller gives."""
INTEGERS = [-(2**63), -(2**31), -(2**31) + 1, -1, 0, 2**15, 2**28, 2**29, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1]
FLOATS = [0.0, -0.0, 5e-324, 1e-40, 1e-9, 1e9, 1e30, 1e300, -1e300, math.inf, -math.inf, math.nan]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Draw:
    """One input's random choices."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self._torch = torch.Generator().manual_seed(self.random.getrandbits(60))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def one_of(self, items: Sequence[Item]) -> Item:
        return self.random.choice(items)

    def integer(self, low: int, high: int) -> int:
        """Within the bounds, or hostile."""
        return self.one_of(INTEGERS) if self.chance(HOSTILE) else self.random.randint(low, high)

    def integers(self, count: int, low: int, high: int) -> list[int]:
        """As many, or seldom one more or less."""
        count += self.random.choice((-1, 1)) if self.chance(HOSTILE / 4) else 0
        return [self.integer(low, high) for _ in range(count)]

    def number(self, low: float, high: float) -> float:
        """Within the bounds, or hostile."""
        return self.one_of(FLOATS) if self.chance(HOSTILE) else self.random.uniform(low, high)

    def numbers(self, count: int, low: float, high: float) -> list[float]:
        """As many, or seldom one more or less."""
        count += self.random.choice((-1, 1)) if self.chance(HOSTILE / 4) else 0
        return [self.number(low, high) for _ in range(count)]

    def shape(self, dims: int, high: int) -> list[int]:
        """Small sizes, 0 among them; seldom another number of dimensions."""
        dims += self.random.choice((-1, 1)) if self.chance(HOSTILE / 4) else 0
        return [self.random.randint(0, high) if self.chance(0.1) else self.random.randint(1, high) for _ in range(dims)]

    def values(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        """Normal numbers with a few that are not finite, in a memory layout of any kind."""
        x = torch.randn(list(shape), generator=self._torch) * scale
        if x.numel() and self.chance(0.3):
            x.view(-1)[self.random.randrange(x.numel())] = self.one_of((math.inf, -math.inf, math.nan, 3e38))
        return self.layout(x.to(dtype))

    def mask(self, shape: Sequence[int]) -> Tensor:
        """True with any density."""
        return self.layout(torch.rand(list(shape), generator=self._torch) < self.random.random() ** 2)

    def layout(self, x: Tensor) -> Tensor:
        """The same values as they are, or transposed in memory; seldom an expanded tensor of vast extent."""
        if self.chance(HOSTILE / 4) and x.dim():
            vast = list(x.shape)
            vast[self.random.randrange(len(vast))] = self.one_of((2**29, 2**31 - 1, 2**31, 2**33, 2**40))
            return x.new_zeros([1] * len(vast)).expand(vast)
        if x.dim() > 1 and self.chance(0.3):
            return x.transpose(0, -1).contiguous().transpose(0, -1)
        return x

    def retyped(self, x: Tensor) -> Tensor:
        """Seldom of another dtype."""
        kinds = (torch.bool, torch.uint8, torch.int64, torch.float64, torch.float16, torch.complex64)
        return x.to(self.one_of(kinds)) if self.chance(HOSTILE / 4) and x.numel() < 1e6 else x
