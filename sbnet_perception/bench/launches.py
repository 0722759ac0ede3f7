"""The launches of one frame on a GPU, on paper: what each must move and compute, sparse and dense.

All widths, units and kernels are those of a `Detector`'s layers; numbers are bfloat16. Nothing here runs on a GPU, and
nothing was measured on one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from sbnet_perception.blocks import ResidualUnit, UpsampleUnit
from sbnet_perception.detector.network import OUTPUT_STRIDE, STRIDES, Detector

Pixels = Mapping[str, float]
"""Stage of `STRIDES` -> pixels that are computed on its map."""

PARTS = ("tiles", *STRIDES, "up", "header", "boxes")
"""Parts of a frame, in the order of execution; "header" has the branches, "tiles" is of the sparse detector alone."""

BYTES = 2
ALIGNED = 16
"""Tensor cores multiply 16 channels at a time, so sparse maps and weights have multiples of them."""
NEIGHBOURS, POSITION, VOXEL, WORD = 9 * 4, 4, 8 + 4, 4
"""Bytes of a pixel's numbers in its window, of its place, of a voxel (bits, mean intensity), of 32 pixels of a mask."""
GROUP, BLOCK = 16, 64
"""Pixels that share one reading of the weights: in a unit or pointwise convolution, and in a 3x3 convolution."""
POINTWISE_WARPS, BLOCK_WARPS = 4, 4
WIDE, PART = 32, 16
"""Bottlenecks of more channels than ``WIDE`` are split over warps, ``PART`` for each; all fits registers then."""


@dataclass(frozen=True)
class Work:
    """What is moved and computed.

    Attributes:
        maps: bytes of maps and tables, each of which is read or written once.
        windows: bytes that windows read again.
        weights: bytes.
        flops: floating point operations, two for each product and its sum.
    """

    maps: float = 0.0
    windows: float = 0.0
    weights: float = 0.0
    flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.maps + other.maps,
            self.windows + other.windows,
            self.weights + other.weights,
            self.flops + other.flops,
        )


@dataclass(frozen=True)
class Launch:
    """One kernel.

    Attributes:
        part: the one of `PARTS` that it belongs to.
        name: what it computes.
        work: in total.
        groups: independent pieces of the work, of which each reads the weights for itself unless it is dense; None
            where their number limits nothing.
        warps: that work on one group.
        dense: a convolution of the dense engine.
    """

    part: str
    name: str
    work: Work
    groups: float | None = None
    warps: int = 1
    dense: bool = False


def everywhere(height: int, width: int) -> dict[str, float]:
    """All pixels of every stage on a grid of height x width cells."""
    return {stage: float(-(-height // stride) * -(-width // stride)) for stage, stride in STRIDES.items()}


def _convolution(inputs: float, outputs: float, *convolutions: nn.Module, aligned: int = 1) -> Work:
    """Weights and FLOPs of convolutions, as one layer, that make ``outputs`` pixels of ``inputs``."""
    work = Work()
    for conv in convolutions:
        assert isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d))
        weights = math.prod(conv.kernel_size) * _padded(conv.in_channels, aligned) * _padded(conv.out_channels, aligned)
        # A transposed convolution multiplies each input pixel with all its weights, another one each output pixel.
        pixels = inputs if isinstance(conv, nn.ConvTranspose2d) else outputs
        work += Work(weights=BYTES * weights, flops=2 * pixels * weights)
    return work


def _rows(pixels: float, channels: int, aligned: int = 1) -> Work:
    """A map read or written once."""
    return Work(maps=BYTES * pixels * _padded(channels, aligned))


def _padded(channels: int, aligned: int = ALIGNED) -> int:
    return -(-channels // aligned) * aligned


def _pointwise(pixels: float, inputs: int, outputs: int) -> Work:
    """A 1x1 convolution of padded channels, without its maps."""
    weights = _padded(inputs) * _padded(outputs)
    return Work(weights=BYTES * weights, flops=2 * pixels * weights)


# Sparse: one launch per residual unit, which ends with the 1x1 reduction of the next one.


def sparse(network: Detector, pixels: Pixels, cells: float) -> list[Launch]:
    """The sparse detector's launches for the active pixels of each stage, on a grid of so many cells."""
    convs, units = list(network.conv1), _units(network)
    launches = _tiles(pixels, cells, network)
    # conv-1 from voxels; its last convolution also computes the first reduction of conv-2.
    for number, layer in enumerate(convs):
        row = BYTES * _padded(layer.conv.in_channels) if number else VOXEL
        work = _window(layer.conv, pixels["conv-1"], pixels["conv-1"], row)
        work += _rows(pixels["conv-1"], layer.conv.out_channels, ALIGNED)
        launches.append(_block("conv-1", f"convolution {number + 1}", work, pixels["conv-1"]))
    launches[-1] = _with_reduction(launches[-1], units[0][1], pixels["conv-1"])
    # Units; the last one of all has none to follow.
    before = pixels["conv-1"]
    for (stage, unit), following in zip(units, [unit for _, unit in units[1:]] + [None], strict=True):
        launches.append(_unit(stage, unit, before, pixels[stage]))
        if following is not None:
            launches[-1] = _with_reduction(launches[-1], following, pixels[stage])
        before = pixels[stage]
    return launches + _top(network, pixels) + _header(network, pixels) + _boxes(network, pixels)


def _units(network: Detector) -> list[tuple[str, ResidualUnit]]:
    stages = {f"conv-{number}": getattr(network, f"conv{number}") for number in range(2, 6)}
    return [(stage, unit) for stage, layer in stages.items() for unit in layer.units]


def _tiles(pixels: Pixels, cells: float, network: Detector) -> list[Launch]:
    """The mask becomes bits, counts and numbers, all strides together; then every window's neighbours."""
    words = sum(WORD * cells / stride**2 / 32 for stride in STRIDES.values())
    active = sum(pixels.values())
    # Windows on the own map, and on the finer one where a stage begins.
    tables = active + sum(pixels[stage] for stage, unit in _units(network) if unit.stride > 1)
    return [
        Launch("tiles", "bits", Work(maps=cells + words, windows=(len(STRIDES) - 1) * cells)),
        Launch("tiles", "numbers", Work(maps=2 * words + POSITION * active)),
        Launch("tiles", "neighbours", Work(maps=(POSITION + NEIGHBOURS) * tables, windows=9 * 2 * WORD * tables)),
    ]


def _window(conv: nn.Module, inputs: float, outputs: float, row: float) -> Work:
    """A 3x3 convolution of stored pixels of ``row`` bytes, found through a table; without its result."""
    again = max(9 * outputs - inputs, 0.0)
    read = Work(maps=row * inputs + NEIGHBOURS * outputs, windows=row * again)
    return read + _convolution(inputs, outputs, conv, aligned=ALIGNED)


def _block(part: str, name: str, work: Work, pixels: float) -> Launch:
    return Launch(part, name, work, pixels / BLOCK, BLOCK_WARPS)


def _with_reduction(launch: Launch, following: ResidualUnit, pixels: float) -> Launch:
    """The launch, which computes the 1x1 reduction of the unit that follows too."""
    reduce = following.reduce
    work = _convolution(pixels, pixels, reduce, aligned=ALIGNED) + _rows(pixels, reduce.out_channels, ALIGNED)
    return replace(launch, work=launch.work + work)


def _unit(stage: str, unit: ResidualUnit, inputs: float, outputs: float) -> Launch:
    """3x3 of the reduced channels, expansion, shortcut: nothing in between leaves the registers."""
    middle = _padded(unit.conv.in_channels)
    work = _window(unit.conv, inputs, outputs, BYTES * middle)
    work += _convolution(outputs, outputs, *_expansion(unit), aligned=ALIGNED)
    work += _rows(outputs, _shortcut(unit), ALIGNED) + _rows(outputs, unit.expand.out_channels, ALIGNED)
    return Launch(stage, "unit", work, outputs / GROUP, 1 if middle <= WIDE else middle // PART)


def _expansion(unit: ResidualUnit) -> list[nn.Conv2d]:
    return [unit.expand] if unit.project is None else [unit.expand, unit.project]


def _shortcut(unit: ResidualUnit) -> int:
    """Channels that the shortcut reads under each output pixel."""
    return unit.expand.out_channels if unit.project is None else unit.project.in_channels


def _top(network: Detector, pixels: Pixels) -> list[Launch]:
    launches, inputs, top = [], pixels["conv-5"], network.top.conv
    work = _convolution(inputs, inputs, top, aligned=ALIGNED)
    work += _rows(inputs, top.in_channels, ALIGNED) + _rows(inputs, top.out_channels, ALIGNED)
    launches.append(Launch("up", "top", work, inputs / GROUP, POINTWISE_WARPS))
    for unit, outputs in _upsampling(network, pixels):
        channels, skip, results = unit.up.in_channels, unit.lateral.in_channels, unit.up.out_channels
        # Each output pixel reads one input pixel, up to four of them the same, through one of four matrices.
        work = _pointwise(outputs, channels, results) + Work(weights=3 * _pointwise(0, channels, results).weights)
        work += _rows(inputs, channels, ALIGNED)
        work += Work(windows=BYTES * _padded(channels) * max(outputs - inputs, 0.0))
        work += _pointwise(outputs, skip, results) + _rows(outputs, skip, ALIGNED) + _rows(outputs, results, ALIGNED)
        launches.append(Launch("up", "upsampling", work, outputs / GROUP, POINTWISE_WARPS))
        inputs = outputs
    return launches


def _upsampling(network: Detector, pixels: Pixels) -> Iterable[tuple[UpsampleUnit, float]]:
    return (network.up4, pixels["conv-4"]), (network.up3, pixels["conv-3"])


def _predicted(pixels: Pixels) -> float:
    """Pixels of the predictions."""
    return next(pixels[stage] for stage, stride in STRIDES.items() if stride == OUTPUT_STRIDE)


def _header(network: Detector, pixels: Pixels) -> list[Launch]:
    """The last convolution's features become predictions before they are written."""
    launches, count = [], _predicted(pixels)
    for number, layer in enumerate(network.header, 1):
        work = _window(layer.conv, count, count, BYTES * _padded(layer.conv.in_channels))
        if number < len(network.header):
            work += _rows(count, layer.conv.out_channels, ALIGNED)
        else:
            predictions = _predictions(network)
            work += _pointwise(count, layer.conv.out_channels, predictions) + _rows(count, predictions, ALIGNED)
        launches.append(_block("header", f"convolution {number}", work, count))
    return launches


def _branches(network: Detector) -> list[nn.Conv2d]:
    return [network.logits, network.size, network.orientation]


def _predictions(network: Detector) -> int:
    return sum(branch.out_channels for branch in _branches(network))


def _boxes(network: Detector, pixels: Pixels) -> list[Launch]:
    """Decoding reads every prediction; suppression has a few hundred boxes, which is next to nothing."""
    work = _rows(_predicted(pixels), _predictions(network), ALIGNED)
    return [Launch("boxes", "decoding", work), Launch("boxes", "suppression", Work())]


# Dense: a launch per convolution.


def dense(network: Detector, height: int, width: int) -> list[Launch]:
    """The launches of the best dense engine on a grid of height x width cells.

    Each convolution takes in what stands before and after it (normalization, ReLU, sum), an expansion its projection,
    an upsampling the skip. In its favour: no channel is padded, no pixel of a window and no weight is read twice, and
    the dense map of the voxels is already there.
    """
    pixels, launches = everywhere(height, width), []

    def add(part: str, name: str, inputs: float, outputs: float, *convs: nn.Conv2d | nn.ConvTranspose2d) -> None:
        work = _convolution(inputs, outputs, *convs) + _rows(inputs, convs[0].in_channels)
        # Further inputs of the sum are read at the output's pixels.
        for conv in convs[1:]:
            work += _rows(outputs, conv.in_channels)
        launches.append(_dense(part, name, work, outputs, convs[0].out_channels))

    for layer in network.conv1:
        add("conv-1", "convolution", pixels["conv-1"], pixels["conv-1"], layer.conv)
    before = pixels["conv-1"]
    for stage, unit in _units(network):
        count = pixels[stage]
        add(stage, "reduction", before, before, unit.reduce)
        add(stage, "convolution", before, count, unit.conv)
        add(stage, "expansion", count, count, *_expansion(unit))
        if unit.project is None:
            launches[-1] = replace(launches[-1], work=launches[-1].work + _rows(count, _shortcut(unit)))
        before = count
    add("up", "top", before, before, network.top.conv)
    for upsample, count in _upsampling(network, pixels):
        add("up", "upsampling", before, count, upsample.up, upsample.lateral)
        before = count
    for layer in network.header:
        add("header", "convolution", before, before, layer.conv)
    work = _convolution(before, before, *_branches(network)) + _rows(before, network.logits.in_channels)
    launches.append(_dense("header", "branches", work, before, _predictions(network)))
    return launches + _boxes(network, pixels)


def _dense(part: str, name: str, work: Work, pixels: float, channels: int) -> Launch:
    """The launch with its result: a group computes ``BLOCK`` pixels of as many channels."""
    groups = pixels / BLOCK * -(-channels // BLOCK)
    return Launch(part, name, work + _rows(pixels, channels), groups, BLOCK_WARPS, dense=True)
