"""Weights files: safetensors with what they are for in the metadata. Nothing in them is executed."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector, NetworkConfig
from sbnet_perception.errors import UserError
from sbnet_perception.resources import resource, weights_named
from sbnet_perception.text import one_line, quoted

KEY = "sbnet_perception"
STEPS = "int8."
"""What the names of tensors begin with that are not the network's: see `quantized_weights`."""
_LONGEST_METADATA = 1 << 20
# As safetensors names them.
_FLOATING, _WHOLE = ("F64", "F32", "F16", "BF16"), ("I64", "I32", "I16", "I8", "U8")


class WeightsError(UserError):
    """A weights file is missing, damaged or made for another network; names the file and both sides."""


def weights_path(config: DetectorConfig) -> Path:
    """The configured weights file, by its path or the name of a shipped one, or else that of the grid.

    Raises:
        WeightsError: there is no such file.
    """
    if config.weights:
        path = weights_named(config.weights)
        if not path.is_file():
            raise WeightsError(
                f"weights: there is no file {path} and none of that name is shipped; give an existing .safetensors "
                "file or leave it empty"
            )
        return path
    try:
        return resource(f"weights/{config.grid}.safetensors")
    except FileNotFoundError as error:
        raise WeightsError(
            f"weights: none are shipped for grid {config.grid!r} ({error}); make some with 'sbnet train'"
        ) from None


def save_weights(
    path: Path,
    network: Detector,
    cell_size: float,
    classes: Sequence[ObjectClass],
    notes: dict[str, Any],
    masks: Sequence[str] = (),
) -> None:
    """Write the network's state and what it was made for.

    Args:
        path: the file, replaced where it exists.
        network: with as many classes.
        cell_size: side in metres of the cells of its input.
        classes: in the order of its logits.
        notes: how it was trained (JSON types).
        masks: expressions of the masks that it was trained under, where they are known.
    """
    about = {
        "cell_size": cell_size,
        "classes": [dataclasses.asdict(entry) for entry in classes],
        "network": dataclasses.asdict(network.config),
        "zeros": share_of_zeros(network),
        "masks": list(masks),
        "notes": notes,
    }
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    write_file(path, state, about)


def write_file(path: Path, state: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors and what they are for (JSON types); ``path`` is replaced where it exists."""
    partial = path.with_suffix(".partial")
    save_file(state, partial, metadata={KEY: json.dumps(about)})
    partial.replace(path)


def share_of_zeros(network: nn.Module) -> float:
    """Share of the weights of all convolutions that are 0 (``sbnet train --zeros``), to four digits."""
    weights = [parameter for parameter in network.parameters() if parameter.dim() == 4]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return round(zeros / sum(weight.numel() for weight in weights), 4)


def read_metadata(path: Path) -> dict[str, Any]:
    """What a weights file says of itself: cell_size (metres), classes (their entries), network, notes.

    Newer files also have zeros, the share of weights that are 0, and masks, expressions they were trained under.

    Raises:
        WeightsError: not a weights file of this package.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get(KEY, "null")
        if len(written) > _LONGEST_METADATA:
            raise ValueError(f"its metadata of {len(written)} characters is longer than {_LONGEST_METADATA}")
        about = json.loads(written)
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"weights: {path} is not a readable safetensors file ({one_line(str(error))}); get or train it again"
        ) from None
    try:
        whole = {"network", "notes"} <= about.keys() and 0 < about["cell_size"] < math.inf
        if whole and all(isinstance(entry["name"], str) for entry in about["classes"]):
            return dict(about)
    except (AttributeError, TypeError, KeyError):
        pass
    raise WeightsError(
        f"weights: {path} does not say which cells and classes it is for; was it made by this version's 'sbnet train'?"
    )


def load_network(config: DetectorConfig) -> Detector:
    """The configured network with its weights, in evaluation mode.

    Raises:
        WeightsError: missing, corrupt, or of other cells, classes or shape.
    """
    path = weights_path(config)
    about = read_metadata(path)
    size, names = about["cell_size"], [entry["name"] for entry in about["classes"]]
    if not math.isclose(size, config.cell_size):
        raise WeightsError(
            f"weights: {path} is for cells of {size:g} m, the configuration asks for {config.cell_size:g} m; "
            "choose the grid with the weights' cells, or train weights for these with 'sbnet train --grid'"
        )
    if names != list(config.classes):
        raise WeightsError(
            f"weights: {path} is for classes {one_line(str(names))}, the configuration asks for "
            f"{list(config.classes)}; "
            "set the parameter classes to those of the weights, or train weights for these with 'sbnet train --classes'"
        )
    return load_state(path, about, len(config.classes)).eval()


def in_dtype(network: Detector, dtype: torch.dtype) -> Detector:
    """Converts the convolutions to a dtype; normalizations stay in float32."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(dtype)
    return network


def load_state(path: Path, about: dict[str, Any], classes: int) -> Detector:
    """The network that the file's metadata describes, with the file's tensors.

    Raises:
        WeightsError: description and tensors do not fit together.
    """
    try:
        shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about["network"].items()}
        config = NetworkConfig(**shape)
    except (TypeError, ValueError, AttributeError) as error:
        reason = one_line(str(error))
        raise WeightsError(f"weights: {path} describes a network that this version does not know ({reason})") from None
    with safetensors.safe_open(path, "pt") as file:
        # Nothing is allocated before the file is seen to hold what it describes.
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        names = [name for name in slices if not name.startswith(STEPS)]
        for name in sorted(slices.keys() - set(names)):
            if (dtype := slices[name].get_dtype()) != "F32":
                raise WeightsError(f"weights: {path} has scales {quoted(name)} of {dtype}, not F32; quantize again")
        _compare(path, classes, config, {name: slices[name] for name in names})
    # safe_open.get_tensor of safetensors 0.7.0 keeps two Python objects of each tensor for ever.
    found = safetensors.torch.load(path.read_bytes())
    network = Detector(classes, config)
    if not all(torch.isfinite(tensor).all() for tensor in found.values() if tensor.is_floating_point()):
        raise WeightsError(f"weights: {path} holds NaN or Inf; get or train it again")
    network.load_state_dict({name: found[name] for name in names})
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _compare(path: Path, classes: int, config: NetworkConfig, found: dict[str, Any]) -> None:
    """Raises WeightsError unless the tensors of a file, not yet read, are those of the network."""
    layers = sum(config.units) + config.header_convolutions
    if layers > len(found):
        raise WeightsError(f"weights: {path} does not fit the network: {len(found)} tensors for {layers} layers")
    with torch.device("meta"):
        expected = Detector(classes, config).state_dict()
    for name in sorted(expected.keys() | found.keys()):
        wanted, got = "no such tensor", "no such tensor"
        if name in expected:
            kind = "floating point" if expected[name].is_floating_point() else "whole numbers"
            wanted = f"{kind} {list(expected[name].shape)}"
        if name in found:
            dtype = found[name].get_dtype()
            kind = "floating point" if dtype in _FLOATING else "whole numbers" if dtype in _WHOLE else dtype
            got = f"{kind} {found[name].get_shape()}"
        if wanted != got:
            raise WeightsError(f"weights: {path} does not fit the network: {quoted(name)} is {got}, expected {wanted}")
