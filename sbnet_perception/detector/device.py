"""Where the detector computes, and whether it can there."""

from __future__ import annotations

import re
import warnings
from typing import Any, NamedTuple

import torch

from sbnet_perception.errors import UserError
from sbnet_perception.operation import CUDA_KERNELS

CPU = torch.device("cpu")
LOWEST_ARCHITECTURE = 80
"""Of the GPUs that the kernels can be compiled for; below it a build without them runs in plain PyTorch."""


class DeviceError(UserError):
    """A device that is not there, or of no use; says what is and what to do."""


class Problem(NamedTuple):
    """What is wrong with a device, and what to do."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


NO_KERNELS = Problem(
    "the compiled ops have no CUDA kernels: on a GPU their slower PyTorch forms run",
    "for a GPU of sm_80 or newer install the CUDA toolkit and build again (docs/gpu.md)",
)


def device_of(name: str, dtype: str = "auto") -> torch.device:
    """The device of a configuration: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` for a GPU that is of use.

    With the dtype int8 ``auto`` is the CPU: there are no such kernels for a GPU.

    Warns where ``auto`` does without a GPU that is there, and where a GPU has no kernels of ours.

    Raises:
        DeviceError: there is no such device, or neither PyTorch nor the compiled kernels can use it with this dtype.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise DeviceError(f"device is {name!r}; use cpu, cuda, cuda:N (the N-th GPU from 0 on) or auto")
    if dtype == "int8":
        name = "cpu" if name == "auto" else name
        dtype_of(dtype, torch.device(name))
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return CPU
    device = torch.device("cuda" if name == "auto" else name)
    index = device.index or 0
    if index >= count:
        reason = f"it has {count} GPU(s)" if count else _why_not()
        raise DeviceError(f"device is {name!r}, but {reason}; set device to cpu, or to auto to take what is there")
    if problem := problem_of(index):
        if name != "auto":
            raise DeviceError(f"device is {name!r}, but {problem}, or set device to cpu")
        warnings.warn(f"computing on the CPU: {problem}", RuntimeWarning, stacklevel=2)
        return CPU
    if not CUDA_KERNELS:
        warnings.warn(str(NO_KERNELS), RuntimeWarning, stacklevel=2)
    return device


def problem_of(index: int) -> Problem | None:
    """Why a GPU that is there is of no use: PyTorch or the compiled kernels do not run on it."""
    try:
        major, minor = torch.cuda.get_device_capability(index)
        torch.ones(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        return Problem(
            f"PyTorch {torch.__version__} does not run on GPU {index}: {first_line(error)}",
            "nvidia-smi says what it is and does; take a PyTorch that is built for it",
        )
    said = torch.ops.sbnet.cuda_problem(index) if CUDA_KERNELS else ""
    if not said:
        return None
    gpu = f"{torch.cuda.get_device_name(index)} (sm_{major}{minor})"
    return Problem(f"the compiled ops do not run on {gpu}: {said}", _remedy(said, 10 * major + minor))


def failure_of(device: torch.device) -> str:
    """What a GPU says instead of an answer; empty while it works, and for a CPU.

    After an illegal memory access and the like nothing on the GPU succeeds any more in this process.
    """
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            return first_line(error)
    return ""


def hardware_of(device: torch.device) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def multiplies_bfloat16(device: torch.device = CPU) -> bool:
    """Whether the device multiplies bfloat16; elsewhere it is emulated, much slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported: Any = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return bool(supported())


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a configuration on a device; ``auto`` is float32 on a CPU, and on a GPU the fastest that it has.

    Raises:
        DeviceError: int8 on a GPU.
    """
    if name == "int8" and device.type != "cpu":
        raise DeviceError(f"dtype is 'int8', but device is {str(device)!r}; set device to cpu, or another dtype")
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float16


def first_line(error: BaseException) -> str:
    """What an error of PyTorch says, without its advice to programmers."""
    return str(error).partition("\n")[0]


def _why_not() -> str:
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA: install one that has it"
    return "PyTorch finds no GPU: is the NVIDIA driver installed (nvidia-smi) and CUDA_VISIBLE_DEVICES right?"


def _remedy(said: str, architecture: int) -> str:
    """Against what CUDA said of the compiled kernels."""
    if "InsufficientDriver" in said:
        return f"update the NVIDIA driver, or build with the CUDA toolkit of this PyTorch ({torch.version.cuda})"
    if re.search("NoKernelImage|Ptx|Jit", said):
        wanted = str(architecture) if architecture >= LOWEST_ARCHITECTURE else "none"
        return f"build with SBNET_CUDA_ARCHS={wanted}, as docs/gpu.md tells"
    return "nvidia-smi says more"
