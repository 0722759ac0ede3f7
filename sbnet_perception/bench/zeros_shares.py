"""What is zero after the ReLUs, and what low-bit copies know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.bench.zeros_network import Layer, Watch

BITS = (8, 4, 3, 2)
GROUPS = {"element": 1, "group8": 8, "group16": 16}
"""Channels that lie side by side: vectors of AVX2 and of AVX-512 in float32."""
KEPT, EACH = 1008, 168
"""Pixels of each layer whose zeros are kept as they lie, for the product to be timed with; neighbours of each frame."""


@dataclass
class Counts:
    """Of one layer, over all frames.

    Attributes:
        pixels: that were computed.
        total, zero: how many elements, groups and pixels there were, and how many of them were zero.
        missed, found: by bits: outputs that are not zero and taken for zero, zeros taken for zero.
        mask: bool [P, N], where pixels in the middle of some frames are not zero.
    """

    pixels: int = 0
    total: dict[str, int] = field(default_factory=dict)
    zero: dict[str, int] = field(default_factory=dict)
    missed: dict[int, int] = field(default_factory=dict)
    found: dict[int, int] = field(default_factory=dict)
    mask: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))

    def add(self, exact: Tensor, copies: Mapping[int, Tensor]) -> None:
        """Outputs of one frame [P, N] after the ReLU, and of the copies before it."""
        alive = exact > 0
        self.pixels += len(exact)
        for name, size in (*GROUPS.items(), ("pixel", exact.shape[1])):
            groups = F.pad(alive, (0, -alive.shape[1] % size)).unflatten(1, (-1, size)).any(2)
            _add(self.total, name, groups.numel())
            _add(self.zero, name, int((~groups).sum()))
        for bits, copy in copies.items():
            taken = copy <= 0
            _add(self.missed, bits, int((taken & alive).sum()))
            _add(self.found, bits, int((taken & ~alive).sum()))
        if len(self.mask) < KEPT:
            middle = alive[max(len(alive) - EACH, 0) // 2 :][:EACH].numpy()
            self.mask = np.concatenate([self.mask.reshape(-1, alive.shape[1]), middle])[:KEPT]

    def share(self, of: str) -> float:
        """Zeros among elements, groups or pixels."""
        return self.zero[of] / max(self.total[of], 1)

    def missed_share(self, bits: int) -> float:
        """Of the outputs that are not zero."""
        return self.missed[bits] / max(self.total["element"] - self.zero["element"], 1)

    def found_share(self, bits: int) -> float:
        """Of the zeros."""
        return self.found[bits] / max(self.zero["element"], 1)


def _add(counts: dict, name: str | int, number: int) -> None:
    counts[name] = counts.get(name, 0) + number


class Shares(Watch):
    """Counts in every layer; the network computes what it always does."""

    def __init__(self, copies: Sequence[int] = BITS) -> None:
        self.copies = copies
        self.counts: dict[Layer, Counts] = {}

    def see(self, layer: Layer, exact: Tensor, copies: Mapping[int, Tensor]) -> Tensor:
        self.counts.setdefault(layer, Counts()).add(exact, copies)
        return exact


class Skip(Watch):
    """Sets to 0 what the copy of so many bits takes for zero, as a product would that leaves it out."""

    def __init__(self, bits: int) -> None:
        self.copies = (bits,)

    def see(self, layer: Layer, exact: Tensor, copies: Mapping[int, Tensor]) -> Tensor:
        (copy,) = copies.values()
        return torch.where(copy > 0, exact, 0.0)
