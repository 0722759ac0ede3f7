"""The mask network of the paper (section 4.2): where vehicles are to be expected, from a coarse view.

A residual network of [2, 2, 2, 2] units and depths [32, 64, 128, 256] with the pyramid pooling of PSPNet (Zhao et al.
2017) on top. It is dense and cheap. Where the paper has an eighth of its grid's resolution, its pixels are of 1.6 m
whatever the grid, so that one network serves all grids. Choices where the paper is silent: it sees how many points lie
at which height in 4 x 4 parts of a pixel, for a pixel alone is no picture of a vehicle; stages 2 to 4 halve the map,
and what the top knows comes back down by sums with the stages' maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sbnet_perception.bev.density import FEATURES, density
from sbnet_perception.bev.grid import Grid
from sbnet_perception.blocks import SparseBatchNorm2d

PIXEL = 1.6
"""Side in metres of the network's pixels."""
PARTS = 4
"""Parts of a pixel along each side in which points are counted."""


@dataclass(frozen=True)
class MaskNetworkConfig:
    """Shape of the network. Weights fit one shape only, so it travels in their metadata.

    Raises:
        ValueError: a field is not of positive whole numbers, or has another length; the message names it.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256)
    units: tuple[int, ...] = (2, 2, 2, 2)
    bins: tuple[int, ...] = (1, 2, 3, 6)
    head_width: int = 32

    def __post_init__(self) -> None:
        for name, length in (("widths", 4), ("units", 4), ("bins", 4), ("head_width", 1)):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if len(numbers) != length or not all(type(n) is int and 1 <= n <= 4096 for n in numbers):
                raise ValueError(f"{name} is {value!r}; it must be {length} whole numbers in [1, 4096]")


class _ConvNorm(nn.Sequential):
    """Convolution, batch normalization and, if asked for, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        super().__init__(conv, SparseBatchNorm2d(outputs), *([nn.ReLU()] if relu else []))


class _Unit(nn.Module):
    """Residual unit of two 3x3 convolutions (He et al. 2016, ResNet-18)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _ConvNorm(inputs, outputs, 3, stride)
        self.second = _ConvNorm(outputs, outputs, 3, relu=False)
        keeps_shape = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if keeps_shape else _ConvNorm(inputs, outputs, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class _PyramidPooling(nn.Module):
    """Means over 1, 2 x 2, 3 x 3 and 6 x 6 parts of the map, beside the map itself (PSPNet).

    They are not normalized: of so few values there are no statistics.
    """

    def __init__(self, width: int, bins: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.bins = bins
        self.levels = nn.ModuleList([nn.Conv2d(width, width // len(bins), 1) for _ in bins])
        self.join = _ConvNorm(width + width // len(bins) * len(bins), outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        means = [F.relu(level(F.adaptive_avg_pool2d(x, n))) for n, level in zip(self.bins, self.levels, strict=True)]
        return self.join(torch.cat([x, *(_resized(mean, size) for mean in means)], 1))


class MaskNetwork(nn.Module):
    """Logits of "a vehicle is near", one for each pixel."""

    def __init__(self, config: MaskNetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MaskNetworkConfig()
        width, stages = config.widths[0], []
        for number, (outputs, units) in enumerate(zip(config.widths, config.units, strict=True)):
            first = _Unit(width, outputs, 1 if number == 0 else 2)
            stages.append(nn.Sequential(first, *(_Unit(outputs, outputs, 1) for _ in range(units - 1))))
            width = outputs
        self.inside = _ConvNorm(PARTS * PARTS * FEATURES, config.widths[0], 1)
        self.stages = nn.ModuleList(stages)
        self.pyramid = _PyramidPooling(width, config.bins, config.head_width)
        self.laterals = nn.ModuleList(
            [_ConvNorm(outputs, config.head_width, 1, relu=False) for outputs in config.widths[:-1]]
        )
        self.smooth = _ConvNorm(config.head_width, config.head_width, 3)
        self.logits = nn.Conv2d(config.head_width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`seen` float32 [N, PARTS * PARTS * FEATURES, h, w] -> logits [N, h, w]."""
        x, maps = self.inside(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        y = self.pyramid(maps.pop())
        for lateral in reversed(self.laterals):
            below = maps.pop()
            y = F.relu(lateral(below) + _resized(y, below.shape[2:]))
        logits: Tensor = self.logits(self.smooth(y))[:, 0]
        return logits

    def prepare(self, threshold: float, device: torch.device | str = "cpu") -> PreparedMaskNetwork:
        """The network for inference alone, in float32 on ``device``, as it is now."""
        network = _fused(self).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return PreparedMaskNetwork(network, threshold)


@dataclass(frozen=True, eq=False)
class PreparedMaskNetwork:
    """Points to the mask that an expression calls ``predicted``.

    Attributes:
        network: what is `seen` of the points to logits.
        threshold: probability above which a pixel belongs to the mask.
    """

    network: Callable[[Tensor], Tensor]
    threshold: float

    def __call__(self, points: Tensor, grid: Grid) -> Tensor:
        """bool [H, W] on the grid and the points' device. Points as those of `voxelize.voxels`."""
        # TF32 would decide otherwise than a CPU does where the probability is close to the threshold.
        with torch.backends.cudnn.flags(allow_tf32=False):
            near = self.network(seen(points, grid))[0].sigmoid() > self.threshold
        stride = stride_on(grid)
        whole = near.repeat_interleave(stride, 0).repeat_interleave(stride, 1)
        return whole[: grid.height, : grid.width].contiguous()


def stride_on(grid: Grid) -> int:
    """Cells of the grid that one pixel spans.

    Raises:
        ValueError: no whole number of them does.
    """
    stride = round(PIXEL / grid.resolution)
    if not math.isclose(stride * grid.resolution, PIXEL):
        raise ValueError(f"a mask network has pixels of {PIXEL:g} m, which cells of {grid.resolution:g} m do not fill")
    return stride


def seen(points: Tensor, grid: Grid) -> Tensor:
    """What the network sees of points as those of `voxelize.voxels`: [1, PARTS * PARTS * FEATURES, h, w]."""
    return density(points, grid, stride_on(grid), PARTS)[None]


def _fused(network: MaskNetwork) -> MaskNetwork:
    """A copy for inference whose convolutions normalize too."""
    copy = MaskNetwork(network.config)
    copy.load_state_dict(network.state_dict())
    copy.eval().requires_grad_(False)
    for module in list(copy.modules()):
        if isinstance(module, _ConvNorm):
            conv, norm = module[0], module[1]
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return copy


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
