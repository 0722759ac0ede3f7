"""What `sbnet bench units` measures: layers, their inputs and masks. The maps are those of the paper grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from sbnet_perception.blocks import ConvUnit, ResidualUnit

Pair = tuple[int, int]

STAGES: dict[str, tuple[Pair, int]] = {
    "conv-2": ((400, 704), 96),
    "conv-3": ((200, 352), 192),
    "conv-4": ((100, 176), 256),
    "conv-5": ((50, 88), 384),
}
"""Map (H, W) and channels of each stage's units."""
SINGLE = "-3x3"
"""Ends the name of a stage's single 3x3 convolution, which has the bottleneck's channels (the paper's Table 1)."""
UNITS, CONVOLUTIONS = tuple(STAGES), tuple(stage + SINGLE for stage in STAGES)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MASKS = ("topleft", "road")
SPARSITIES = (0.0, 0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
TILE = (2, 2)
DEPTH = 3
"""Units of the longer of the two stages whose difference is the time of one unit."""


@dataclass(frozen=True)
class Case:
    """A layer in one dtype, with the tile it is measured with."""

    layer: str
    dtype: str
    size: Pair
    channels: int
    tile: Pair

    @staticmethod
    def named(layer: str, dtype: str, tile: Pair | None = None) -> Case:
        """The layer on the paper grid, with the tile of the detector's stages by default."""
        size, channels = STAGES[layer.removesuffix(SINGLE)]
        return Case(layer, dtype, size, channels // 4 if layer.endswith(SINGLE) else channels, tile or TILE)

    @property
    def depths(self) -> tuple[int, ...]:
        """How many layers one behind the other are timed: a convolution alone, units in a short and a long stage."""
        return (1,) if self.layer.endswith(SINGLE) else (1, DEPTH)

    def layers(self) -> Sequence[ConvUnit] | Sequence[ResidualUnit]:
        """Layers for inference, with normalizations that do something, the same in every process."""
        torch.manual_seed(0)
        made: list[ConvUnit] | list[ResidualUnit]
        if self.layer.endswith(SINGLE):
            made = [ConvUnit(self.channels, self.channels)]
        else:
            made = [ResidualUnit(self.channels, self.channels) for _ in range(self.depths[-1])]
        for layer in made:
            for norm in layer.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    _randomize(norm)
            layer.to(DTYPES[self.dtype]).eval().requires_grad_(False)
        return made

    def input(self) -> Tensor:
        """[1, C, H, W], normally distributed, channels_last."""
        x = torch.randn((1, self.channels, *self.size), generator=torch.Generator().manual_seed(1))
        return x.to(DTYPES[self.dtype], memory_format=torch.channels_last)

    def masks(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The shipped masks at this layer's resolution, bool [1, H, W]."""
        return {name: _shipped(f"{name}_{self.layer.removesuffix(SINGLE)}") for name in names}


def top_left(size: Pair, sparsity: float) -> Tensor:
    """Bool [1, H, W]: a rectangle at the top left, of the map's shape, that leaves out ``sparsity`` of the pixels."""
    mask = torch.zeros((1, *size), dtype=torch.bool)
    side = math.sqrt(1.0 - sparsity)
    mask[:, : round(size[0] * side), : round(size[1] * side)] = True
    return mask


def _shipped(name: str) -> Tensor:
    with np.load(Path(__file__).with_name("unit_masks.npz")) as stored:
        return torch.from_numpy(stored[name] > 0)[None]


def _randomize(norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.uniform_(-0.3, 0.3)
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.7, 1.3)
