"""A detector small enough for tests of the benches."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from sbnet_perception.bev.grid import NAMED_RESOLUTIONS
from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.network import Detector, NetworkConfig, initialize
from sbnet_perception.detector.weights import save_weights

TINY = NetworkConfig(
    initial_width=8, widths=(16, 16, 24, 32), units=(2, 1, 1, 1), top_width=12, upsample_widths=(12, 8),
    header_convolutions=1,
)  # fmt: skip


def tiny_detector(dtype: torch.dtype = torch.float32) -> Detector:
    """Normalizations do something, and branches find something; the same in every call."""
    network = initialize(Detector(1, TINY), 0)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.7, 1.3), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.7, 1.3),
            ):  # fmt: skip
                values.data.uniform_(low, high, generator=generator)
    for branch in (network.logits, network.size, network.orientation):
        branch.weight.data.mul_(10)
    network.requires_grad_(False)
    return network.eval().to(dtype=dtype, memory_format=torch.channels_last)


def tiny_weights(folder: Path, grid: str = "compact") -> Path:
    """The tiny detector as a weights file of a grid."""
    path = folder / f"{grid}.safetensors"
    save_weights(path, tiny_detector(), NAMED_RESOLUTIONS[grid], (VEHICLE,), {})
    return path
