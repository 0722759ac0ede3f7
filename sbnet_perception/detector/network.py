"""The detector network of the paper (section 4.2), on the active tiles of a mask or dense.

Choices where the paper is silent: batch normalization and ReLU after conv-1, the top, upsampling and
header convolutions; upsampling by 2x2 transposed convolutions; anchor-free branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sbnet_perception.bev.voxelize import CHANNELS
from sbnet_perception.blocks import (
    ConvUnit,
    Pixels,
    PointwiseConv2d,
    Prepared,
    ResidualUnit,
    SparseMap,
    Stage,
    Tiles,
    UpsampleUnit,
    VoxelConvUnit,
    Voxels,
    prepare_branches,
)

STRIDES = {"conv-1": 1, "conv-2": 2, "conv-3": 4, "conv-4": 8, "conv-5": 16}
"""Stage -> stride of its output on the grid (paper, section 4.2)."""


OUTPUT_STRIDE = STRIDES["conv-3"]
"""Stride of the predictions on the grid."""
SIZE, ORIENTATION = 6, 2
"""Channels of the branches beside the classes' logits."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the network. Weights fit one shape only, so it travels in their metadata.

    ``tiles`` are the tile sides in pixels of each stage's own output: the kernels compute small tiles as fast as
    large ones, and fewer pixels. They are part of what the network computes (features outside active tiles are
    zero), so weights are tied to them too.

    Raises:
        ValueError: a field is not of positive whole numbers, has another length, or tiles do not suit
            the upsampling; the message names it.
    """

    initial_width: int = 32
    widths: tuple[int, ...] = (96, 192, 256, 384)
    units: tuple[int, ...] = (3, 6, 6, 3)
    top_width: int = 196
    upsample_widths: tuple[int, ...] = (128, 96)
    header_convolutions: int = 4
    tiles: tuple[int, ...] = (2, 2, 2, 2, 1)

    def __post_init__(self) -> None:
        lengths = {"widths": 4, "units": 4, "upsample_widths": 2, "tiles": len(STRIDES)}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            numbers = value if name in lengths else (value,)
            # Weights files carry these values: a bound keeps a damaged one from asking for all memory.
            right = isinstance(numbers, tuple) and all(type(n) is int and 1 <= n <= 4096 for n in numbers)
            if not right or len(numbers) != lengths.get(name, 1):
                raise ValueError(f"{name} is {value!r}; it must be {lengths.get(name, 1)} whole numbers in [1, 4096]")
        if self.tiles[2] % 2 or self.tiles[3] % 2:
            raise ValueError(f"tiles is {self.tiles}; those of conv-3 and conv-4 must be even, for upsampling by 2")

    def thinner(self, share: float) -> NetworkConfig:
        """The same with about this share (over 0, up to 1) of the channels, in sixteens, which fill the vectors."""

        def of(width: int) -> int:
            return max(1, round(share * width / 16)) * 16 if share < 1 else width

        widths, upsample_widths = (tuple(map(of, each)) for each in (self.widths, self.upsample_widths))
        first, top = of(self.initial_width), of(self.top_width)
        return replace(self, initial_width=first, widths=widths, top_width=top, upsample_widths=upsample_widths)

    @property
    def alignment(self) -> int:
        """Cells of the grid after which the tiles of all stages begin anew together."""
        return math.lcm(*(side * stride for side, stride in zip(self.tiles, STRIDES.values(), strict=True)))

    def tile(self, stage: str) -> tuple[int, int]:
        """Tile (rows, columns) of a stage, in pixels of its output."""
        side = self.tiles[list(STRIDES).index(stage)]
        return side, side


@dataclass(frozen=True, eq=False)
class Prediction:
    """Raw outputs at stride 4 of the grid, of the P pixels that were computed, in raster order.

    Attributes:
        rows: [P, classes + 8]: logits of the classes; log length, log width, log height, dx, dy, z (metres; dx, dy from
            the pixel's centre); cos yaw, sin yaw.
        pixels: which pixels of [N, h, w] they are.
        tiles: stage -> its tiles; empty when dense.
    """

    rows: Tensor
    pixels: Pixels
    tiles: dict[str, Tiles]

    @property
    def logits(self) -> Tensor:
        """[P, classes]."""
        return self.rows[:, : -SIZE - ORIENTATION]

    @property
    def box(self) -> Tensor:
        """[P, 8]: size and place, then orientation."""
        return self.rows[:, -SIZE - ORIENTATION :]


class Topology:
    """How the layers are connected: those of a `Detector`, or the same with packed weights."""

    config: NetworkConfig
    conv1: Any
    conv2: Any
    conv3: Any
    conv4: Any
    conv5: Any
    top: Any
    up4: Any
    up3: Any
    header: Any
    branches: Any

    def tiles(self, mask: Tensor, capacities: Sequence[int] | None = None) -> dict[str, Tiles]:
        """Tiles of every stage from one mask, bool [H, W] or [N, H, W] on the grid; rooms as in `Tiles.pyramid`."""
        tiles = [self.config.tile(stage) for stage in STRIDES]
        return dict(zip(STRIDES, Tiles.pyramid(mask, tiles, list(STRIDES.values()), capacities), strict=True))

    def predict(
        self, bev: Tensor | Voxels, tiles: dict[str, Tiles], lap: Callable[[str], None] = lambda stage: None
    ) -> Prediction:
        """Predictions for voxels on the tiles of every stage, or for ``bev`` [N, 33, H, W] on these or none.

        ``lap`` gets the name of each part when it is done.
        """
        t1, t2, t3, t4, t5 = (tiles.get(stage) for stage in STRIDES)
        # Backbone: strides 1, 2, 4, 8, 16.
        x = bev
        for layer in self.conv1:
            x = layer(x, t1)
        lap("conv-1")
        c2 = self.conv2(x, t2)
        lap("conv-2")
        c3 = self.conv3(c2, t3)
        lap("conv-3")
        c4 = self.conv4(c3, t4)
        lap("conv-4")
        c5 = self.conv5(c4, t5)
        lap("conv-5")
        # Top-down path back to stride 4.
        x = self.up3(self.up4(self.top(c5, t5), c4, t4), c3, t3)
        lap("up")
        # Header and branches.
        for layer in self.header:
            x = layer(x, t3)
        lap("header")
        y: Tensor | SparseMap = self.branches(x, t3)
        lap("branches")
        if isinstance(y, SparseMap):
            return Prediction(y.values, y.pixels, tiles)
        whole = Pixels.all((len(y), *y.shape[2:]), y.device) if t3 is None else t3.pixels
        return Prediction(y.permute(0, 2, 3, 1).reshape(-1, y.shape[1])[whole.flat], whole, tiles)


class Detector(Topology, nn.Module):
    """About 2 M parameters; [N, 33, H, W] bird's-eye view to `Prediction`."""

    def __init__(self, classes: int = 1, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        first, widths = config.initial_width, config.widths
        self.conv1 = nn.ModuleList([VoxelConvUnit(CHANNELS, first), ConvUnit(first, first)])
        self.conv2 = _stage(first, widths[0], config.units[0])
        self.conv3 = _stage(widths[0], widths[1], config.units[1])
        self.conv4 = _stage(widths[1], widths[2], config.units[2])
        self.conv5 = _stage(widths[2], widths[3], config.units[3])
        self.top = ConvUnit(widths[3], config.top_width, kernel=1)
        self.up4 = UpsampleUnit(config.top_width, widths[2], config.upsample_widths[0])
        self.up3 = UpsampleUnit(config.upsample_widths[0], widths[1], config.upsample_widths[1])
        width = config.upsample_widths[1]
        self.header = nn.ModuleList([ConvUnit(width, width) for _ in range(config.header_convolutions)])
        self.logits = PointwiseConv2d(width, classes)
        self.size = PointwiseConv2d(width, SIZE)
        self.orientation = PointwiseConv2d(width, ORIENTATION)

    def forward(self, bev: Tensor | Voxels, mask: Tensor | None = None) -> Prediction:
        """Predictions where ``mask`` bool [N, H, W] is True, or everywhere; voxels need one."""
        return self.predict(bev, {} if mask is None else self.tiles(mask))

    def branches(self, x: Tensor | SparseMap, tiles: Tiles | None) -> Tensor | SparseMap:
        """Logits, size and orientation, their channels one behind the other."""
        parts: list[Any] = [branch(x, tiles) for branch in (self.logits, self.size, self.orientation)]
        if isinstance(x, SparseMap):
            return SparseMap(torch.cat([part.values for part in parts], 1), parts[0].pixels)
        return torch.cat(parts, 1)

    def prepare(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> PreparedDetector:
        """The network for inference in ``dtype`` on ``device``, its weights packed as they are now."""

        def prepare(layer: Any) -> Prepared:
            prepared: Prepared = layer.prepare(dtype, device)
            return prepared

        single = ("conv2", "conv3", "conv4", "conv5", "top", "up4", "up3")
        return PreparedDetector(
            self.config,
            dtype,
            torch.device(device),
            conv1=[prepare(layer) for layer in self.conv1],
            header=[prepare(layer) for layer in self.header],
            branches=prepare_branches([self.logits, self.size, self.orientation], dtype, device),
            **{name: prepare(getattr(self, name)) for name in single},
        )


@dataclass(frozen=True, eq=False)
class PreparedDetector(Topology):
    """A `Detector` for inference alone; its input are voxels on ``device``."""

    config: NetworkConfig
    dtype: torch.dtype
    device: torch.device
    conv1: Sequence[Prepared]
    conv2: Prepared
    conv3: Prepared
    conv4: Prepared
    conv5: Prepared
    top: Prepared
    up4: Prepared
    up3: Prepared
    header: Sequence[Prepared]
    branches: Prepared


def _stage(in_channels: int, out_channels: int, units: int) -> Stage:
    first = ResidualUnit(in_channels, out_channels, stride=2)
    return Stage([first, *(ResidualUnit(out_channels, out_channels) for _ in range(units - 1))])


def initialize(network: Detector, seed: int) -> Detector:
    """Weights from a seed: He initialization; the branches start small, with 1 % foreground (focal loss)."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            if module.bias is None:
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu", generator=generator)
            else:
                nn.init.normal_(module.weight, std=0.01, generator=generator)
                nn.init.zeros_(module.bias)
    assert network.logits.bias is not None
    nn.init.constant_(network.logits.bias, -math.log(99.0))
    return network
