"""Where the detector computes."""

from __future__ import annotations

import re
from typing import Any

import torch

from sbnet_perception.errors import UserError

CPU = torch.device("cpu")


class DeviceError(UserError):
    """A device that is not there; says what is and what to do."""


def device_of(name: str) -> torch.device:
    """The device of a configuration: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU where there is one.

    Raises:
        DeviceError: there is no such device, or PyTorch cannot use it.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise DeviceError(f"device is {name!r}; use cpu, cuda, cuda:N (the N-th GPU from 0 on) or auto")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        reason = f"it has {count} GPU(s)" if count else _why_not()
        raise DeviceError(f"device is {name!r}, but {reason}; set device to cpu, or to auto to take what is there")
    return device


def multiplies_bfloat16(device: torch.device = CPU) -> bool:
    """Whether the device multiplies bfloat16; elsewhere it is emulated, much slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported: Any = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return bool(supported())


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a configuration on a device; ``auto`` is float32 on a CPU, and on a GPU the fastest that it has."""
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float16


def _why_not() -> str:
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA: install one that has it"
    return "PyTorch finds no GPU: is the NVIDIA driver installed (nvidia-smi) and CUDA_VISIBLE_DEVICES right?"
