"""Which tile a layer is fastest with, and how full its mask must be for a dense convolution to be faster.

`sbnet bench tune` measures both on this machine and keeps them in a file: SBNET_TUNING if set, else
``sbnet_perception/tuning.json`` in the user's cache folder. It holds ``{hardware: {shape: {"tile": [h, w],
"dense_above": share or null}}}`` and is read once per process. What it does not hold has defaults.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.blocks.plain import Pair

NEVER = math.inf


class Shape(NamedTuple):
    """What the speed of a layer depends on: ``kind`` is conv3x3, conv1x1, residual or upsample."""

    kind: str
    in_channels: int
    out_channels: int
    stride: int
    size: tuple[int, int, int]
    """Images, height and width of the (first) input."""
    dtype: torch.dtype

    def __str__(self) -> str:
        size = "x".join(map(str, self.size))
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.kind} {self.in_channels}->{self.out_channels} /{self.stride} {size} {dtype}"


@dataclass(frozen=True)
class Choice:
    """``tile`` in pixels of the layer's output; from ``dense_above`` on, a share of active tiles, it runs densely."""

    tile: Pair
    dense_above: float


DEFAULTS = {
    "conv3x3": Choice((1, 2), 0.8),
    "conv1x1": Choice((1, 4), NEVER),
    "residual": Choice((1, 2), NEVER),
    "upsample": Choice((2, 4), NEVER),
}
"""What holds without a measurement, by kind."""
LEAST_WORK = 2e7
"""Multiplications of a map below which calling several dense operations costs more than they save."""

_forced: float | None = None


def choice(shape: Shape) -> Choice:
    """What was measured on this machine for a layer, or the default."""
    return _choices(torch.get_num_threads()).get(shape) or _default(shape)


def _default(shape: Shape) -> Choice:
    default = DEFAULTS[shape.kind]
    window = 9 if shape.kind == "conv3x3" else 1
    work = window * shape.in_channels * shape.out_channels * math.prod(shape.size)
    return default if work >= LEAST_WORK else replace(default, dense_above=NEVER)


def dense_above(shape: Shape) -> float:
    """Share of active tiles from which on a layer runs densely."""
    return choice(shape).dense_above if _forced is None else _forced


@contextmanager
def dense_from(share: float) -> Iterator[None]:
    """Within, every layer runs densely from this share of active tiles on, whatever was measured."""
    global _forced
    before, _forced = _forced, share
    try:
        yield
    finally:
        _forced = before


def path() -> Path:
    """The file with what was measured."""
    named = os.environ.get("SBNET_TUNING")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else cache / "sbnet_perception" / "tuning.json"


def save(choices: Mapping[Shape, Choice]) -> None:
    """Keeps what was measured with this machine and number of threads, beside what the file holds."""
    target, stored = path(), _read()
    stored.setdefault(hardware(torch.get_num_threads()), {}).update(
        {
            str(shape): {"tile": list(one.tile), "dense_above": None if one.dense_above == NEVER else one.dense_above}
            for shape, one in choices.items()
        }
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    # a whole file or none, whoever else writes it
    with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=target.name, delete=False) as file:
        json.dump(stored, file, indent=1)
    os.replace(file.name, target)
    _choices.cache_clear()


def hardware(threads: int) -> str:
    """What a measurement holds for: processor, instruction set of the kernels, threads, PyTorch."""
    isa = "plain PyTorch" if UNAVAILABLE else torch.ops.sbnet.isa()
    return f"{cpu_name()}, {isa}, {threads} threads, torch {torch.__version__}"


def cpu_name() -> str:
    """The processor, with its family and model where Linux tells them."""
    try:
        cpu = dict(re.findall(r"^(.*?)\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    except OSError:
        cpu = {}
    name = cpu.get("model name") or platform.processor() or platform.machine()
    return f"{name} (family {cpu['cpu family']}, model {cpu['model']})" if "cpu family" in cpu else name


@functools.cache
def _choices(threads: int) -> dict[Shape, Choice]:
    """What was measured on this machine with so many threads."""
    try:
        return {_shape(name): _choice(value) for name, value in _read().get(hardware(threads), {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _warn(repr(error))
        return {}


def _read() -> dict[str, dict[str, object]]:
    try:
        stored = json.loads(path().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _warn(str(error))
        return {}
    if not isinstance(stored, dict) or not all(isinstance(value, dict) for value in stored.values()):
        _warn("it does not hold shapes per machine")
        return {}
    return stored


def _warn(cause: str) -> None:
    warnings.warn(
        f"{path()} cannot be used, layers run with defaults: {cause}; remove the file, then run 'sbnet bench tune'",
        RuntimeWarning,
        stacklevel=2,
    )


def _shape(text: str) -> Shape:
    found = re.fullmatch(r"(\w+) (\d+)->(\d+) /(\d+) (\d+)x(\d+)x(\d+) (\w+)", text)
    if found is None or found[1] not in DEFAULTS:
        raise ValueError(f"{text!r} is no shape of a layer")
    inputs, outputs, stride, images, height, width = map(int, found.groups()[1:7])
    return Shape(found[1], inputs, outputs, stride, (images, height, width), _dtype(found[8]))


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return dtype


def _choice(value: object) -> Choice:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no choice")
    height, width = value["tile"]
    if not (type(height) is type(width) is int and height > 0 and width > 0):
        raise ValueError(f"{value!r} has no tile of two positive numbers")
    above = value["dense_above"]
    return Choice((height, width), NEVER if above is None else float(above))
