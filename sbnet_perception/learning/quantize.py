"""Observes the maps of a network on simulated scenes, and says what a level of each is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Pixels, SparseMap, Tiles, UpsampleUnit, layer_plain
from sbnet_perception.blocks.layers import ConvUnit, ResidualUnit, output_pixels, strided
from sbnet_perception.detector.quantized import SKIPS, STAGES


class Observed:
    pass
