"""What a weights file holds for ``dtype: int8``: beside the weights, the step of each channel of each map of levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import dtype_of
from sbnet_perception.detector.network import Detector, PreparedDetector
from sbnet_perception.detector.quantized import Steps, channels_of_maps, prepare_quantized
from sbnet_perception.detector.weights import (
    STEPS,
    WeightsError,
    read_metadata,
    weights_path,
    write_file,
)

VERSION = 1
"""Of what steps mean; other ones are refused."""


def prepared(network: Detector, config: DetectorConfig, device: torch.device) -> PreparedDetector:
    """The configured network for inference on ``device``, in the configured dtype.

    Raises:
        WeightsError: the dtype is int8, and the weights file has no steps, or others than the network needs.
        DeviceError: the dtype is int8, and the device is no CPU.
    """
    dtype = dtype_of(config.dtype, device)
    if dtype == torch.int8:
        return prepare_quantized(network, load_steps(config, network))
    return network.prepare(dtype, device)


def save_steps(source: Path, path: Path, steps: Steps, notes: dict[str, Any]) -> None:
    """Write the weights of ``source`` with other steps beside them.

    Args:
        source: a weights file.
        path: the file to write, replaced where it exists; may be ``source``.
        steps: those of all maps of levels.
        notes: how they were found (JSON types).
    """
    about = {**read_metadata(source), "int8": {"version": VERSION, **notes}}
    found = safetensors.torch.load(source.read_bytes())
    state = {name: tensor for name, tensor in found.items() if not name.startswith(STEPS)}
    state |= {STEPS + name: step.contiguous() for name, step in steps.items()}
    write_file(path, state, about)


def load_steps(config: DetectorConfig, network: Detector) -> Steps:
    """The steps in the configured weights file.

    Raises:
        WeightsError: it has none, of another version, or others than the network needs.
    """
    path = weights_path(config)
    again = f"make a file that has them with 'sbnet quantize {path} OUT.safetensors' and set weights to it"
    about = read_metadata(path).get("int8")
    if not isinstance(about, dict):
        raise WeightsError(f"weights: {path} has no scales for dtype int8; {again}")
    if about.get("version") != VERSION:
        raise WeightsError(f"weights: {path} has scales of another version for dtype int8; {again}")
    found = safetensors.torch.load(path.read_bytes())
    steps = {name.removeprefix(STEPS): step for name, step in found.items() if name.startswith(STEPS)}
    for name, channels in channels_of_maps(network).items():
        step = steps.get(name)
        if step is None or step.dtype != torch.float32 or step.shape != (channels,) or not bool((step > 0).all()):
            raise WeightsError(f"weights: {path} has no scales of {channels} channels of {name}; {again}")
    return steps
