"""Weights files of mask networks: safetensors with what they are for in the metadata."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_network import PIXEL, MaskNetwork, MaskNetworkConfig, PreparedMaskNetwork
from sbnet_perception.detector.weights import WeightsError
from sbnet_perception.masks.predicted import PREDICTED
from sbnet_perception.resources import resource, weights_named

KEY = "sbnet_perception_mask"


def mask_weights_path(config: DetectorConfig) -> Path:
    """The configured weights file of the mask network, or the shipped one.

    Raises:
        WeightsError: there is no such file.
    """
    if not config.mask.weights:
        return resource("weights/mask.safetensors")
    path = weights_named(config.mask.weights)
    if not path.is_file():
        remedy = "make one with 'sbnet train --mask-network', or leave predicted out of the mask"
        raise WeightsError(f"mask.weights: there is no file {path}; {remedy}")
    return path


def save_mask_weights(path: Path, network: MaskNetwork, threshold: float, notes: dict[str, Any]) -> None:
    """Write the network's state and what it was made for.

    Args:
        path: the file, replaced where it exists.
        network: what was trained.
        threshold: probability above which a pixel belongs to the mask.
        notes: how it was trained (JSON types).
    """
    network_config = dataclasses.asdict(network.config)
    about = {"pixel": PIXEL, "threshold": threshold, "network": network_config, "notes": notes}
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(state, partial, metadata={KEY: json.dumps(about)})
    partial.replace(path)


def load_mask_network(path: Path) -> tuple[MaskNetwork, float]:
    """The network of a file in evaluation mode, and its threshold.

    Raises:
        WeightsError: the file is damaged or of something else.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "null"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shape: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in about["network"].items()}
        pixel, threshold = float(about["pixel"]), float(about["threshold"])
        if not math.isclose(pixel, PIXEL):
            raise ValueError(f"its pixels are of {pixel:g} m, not of {PIXEL:g}")
        with torch.device("meta"):
            expected = MaskNetwork(MaskNetworkConfig(**shape)).state_dict()
        if {k: (v.shape, v.dtype) for k, v in expected.items()} != {k: (v.shape, v.dtype) for k, v in state.items()}:
            raise ValueError("its tensors are not those of the network that it describes")
        if not all(torch.isfinite(tensor).all() for tensor in state.values()) or not 0 < threshold < 1:
            raise ValueError("it holds NaN, Inf or a threshold outside (0, 1)")
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"mask.weights: {path} is not a mask network of this version ({error}); get or train it again"
        ) from None
    network = MaskNetwork(MaskNetworkConfig(**shape))
    network.load_state_dict(state)
    return network.eval(), threshold


def prepared_mask_network(config: DetectorConfig, device: torch.device | str = "cpu") -> PreparedMaskNetwork | None:
    """The mask network that the configured expression needs, or None where it does not name ``predicted``.

    Raises:
        WeightsError: its weights are missing or damaged.
    """
    if PREDICTED.name not in config.mask.names:
        return None
    network, threshold = load_mask_network(mask_weights_path(config))
    return network.prepare(threshold, device)
