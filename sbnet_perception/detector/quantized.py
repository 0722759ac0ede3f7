"""The detector in 8 bits: which maps are levels, and what of the network stays in float.

Levels lie between the layers from conv-1 on and inside the residual units. Floats stay: the sums of the first
convolution, which adds up rows of weights where a voxel is 1; what the residual units add to (its rounding would add up
over 18 units); and the branches, whose logits and metres nobody rounds again, with their input.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sbnet_perception.blocks import Prepared, Stage, prepare_branches
from sbnet_perception.blocks.quantized import (
    SIGNED,
    Levels,
    UnitLevels,
    prepare_conv,
    prepare_stage,
    prepare_upsample,
    prepare_voxel_conv,
)
from sbnet_perception.detector.network import Detector, PreparedDetector

STAGES = ("conv2", "conv3", "conv4", "conv5")
SKIPS = {"top": "conv5", "up4": "conv4", "up3": "conv3"}
"""Layer -> the stage whose result it takes. It may be negative: its levels are signed."""
SKIP = ".skip"
HIGHEST = 255
"""Of the levels."""
LEAST = 1e-3
"""Of the largest amounts of the channels of a map, the smallest that counts, as a share of the greatest."""
Steps = dict[str, Tensor]
"""Map -> float32 [C], what a level of each of its channels is worth."""


def channels_of_maps(network: Detector) -> dict[str, int]:
    """The maps that have levels, and their channels, in the order of computation.

    ``NAME`` is what a layer returns, ``NAME.skip`` what it takes of a stage, ``NAME.norm1`` to ``norm3`` what is behind
    the normalizations of a residual unit.
    """
    return dict(_maps(network))


def _maps(network: Detector) -> Iterator[tuple[str, int]]:
    for i, layer in enumerate(network.conv1):
        yield f"conv1.{i}", layer.conv.out_channels
    for stage in STAGES:
        for i, unit in enumerate(getattr(network, stage).units):
            for norm in ("norm1", "norm2", "norm3"):
                yield f"{stage}.units.{i}.{norm}", getattr(unit, norm).num_features
    for name, stage in SKIPS.items():
        yield f"{name}.skip", getattr(network, stage).units[-1].expand.out_channels
        yield name, getattr(network, name).norm.num_features
    for i, layer in enumerate(network.header[:-1]):
        yield f"header.{i}", layer.conv.out_channels


def step_of(name: str, largest: Tensor) -> Tensor:
    """The steps of a map whose channels are at most ``largest`` [C] in amount."""
    # A channel that was never seen, or hardly, may not get steps so small that its weights become 0.
    most = largest.max().clamp(min=1e-6)
    between = (most * largest.clamp(min=LEAST * float(most))).sqrt()
    return between / (SIGNED - 1 if name.endswith(SKIP) else HIGHEST)


def prepare_quantized(network: Detector, steps: Steps) -> PreparedDetector:
    """The network for inference in 8 bits on the CPU, its weights as they are now."""
    behind = {name: Levels(step, SIGNED if name.endswith(SKIP) else 0) for name, step in steps.items()}

    def stage(name: str, x: Levels | None = None) -> Prepared:
        layer: Stage = getattr(network, name)
        names = [f"{name}.units.{i}." for i in range(len(layer.units))]
        return prepare_stage(layer, x, [UnitLevels(*(behind[f"{u}norm{n}"] for n in (1, 2, 3))) for u in names])

    def upsample(name: str, x: str) -> Prepared:
        return prepare_upsample(getattr(network, name), behind[x], behind[f"{name}.skip"], behind[name])

    header = ["up3", *(f"header.{i}" for i in range(len(network.header) - 1))]
    return PreparedDetector(
        network.config,
        torch.int8,
        torch.device("cpu"),
        conv1=[
            prepare_voxel_conv(network.conv1[0], behind["conv1.0"]),
            prepare_conv(network.conv1[1], behind["conv1.0"], behind["conv1.1"]),
        ],
        conv2=stage("conv2", behind["conv1.1"]),
        conv3=stage("conv3"),
        conv4=stage("conv4"),
        conv5=stage("conv5"),
        top=prepare_conv(network.top, behind["top.skip"], behind["top"]),
        up4=upsample("up4", "top"),
        up3=upsample("up3", "up4"),
        header=[
            prepare_conv(layer, behind[x], behind.get(f"header.{i}"))
            for i, (layer, x) in enumerate(zip(network.header, header, strict=True))
        ],
        branches=prepare_branches([network.logits, network.size, network.orientation], torch.float32),
    )
