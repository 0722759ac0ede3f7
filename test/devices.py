"""The devices that tests of the operations run on, in one place.

``cpu`` has the kernels of the CPU. ``shim`` has those of the GPU, on tensors of the CPU: g++ compiles ops/cuda/ with
the header of test/cuda_on_cpu (docs/gpu.md), and while a test runs they take the place of the CPU's. ``cuda`` is a GPU.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib.util
import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

DEVICES = ["cpu", "shim", *(["cuda"] if torch.cuda.is_available() else [])]
ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "test" / "cuda_on_cpu"
GPU_ITSELF = ("host.cpp", "usable.cpp", "usable.cu")  # of no use without one
KERNELS, OPERATIONS = (
    sorted(path for path in ROOT.glob(f"ops/cuda/*.{kind}") if path.name not in GPU_ITSELF) for kind in ("cu", "cpp")
)
SANITIZE = bool(os.environ.get("SBNET_SANITIZE"))  # `make sanitize`
ALL_OF_CUDA = bool(os.environ.get("SBNET_ALL_OF_CUDA"))  # `make cuda`
OPTIONS = ["-O1", "-DSBNET_LIBRARY=sbnet_shim", "-DSBNET_DEVICE=CPU"]
OBJECTS = ROOT / "build" / ("sanitize" if SANITIZE else "") / "cuda_on_cpu"


def moved(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on the device, with the steps in memory that it has."""
    if x.device == device or x.numel() == 0:
        return x.to(device)
    last = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((last + 1,), (1,)).to(device).as_strided(x.shape, x.stride())


def on_cpu(test: Callable[..., None]) -> Callable[..., None]:
    """A test with the kernels of the CPU, beside others with the argument ``device``: theirs may still be in place."""
    alone: Callable[..., None] = pytest.mark.parametrize("device", ["cpu"], indirect=True)(test)
    return pytest.mark.usefixtures("device")(alone)


@contextlib.contextmanager
def operations_on(name: str) -> Iterator[torch.device]:
    """Within it the operations have the kernels of a device of `DEVICES`, for tensors on the device that it gives."""
    if name != "shim":
        yield torch.device(name)
        return
    kernels = _shim()
    over = torch.library.Library("sbnet", "IMPL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that these are overridden
            for operation in kernels:
                over.impl(operation, getattr(torch.ops.sbnet_shim, operation).default, "CPU", allow_override=True)
        yield torch.device("cpu")
    finally:
        over._destroy()


@functools.cache
def build() -> ModuleType:
    """setup.py, for its functions."""
    spec = importlib.util.spec_from_file_location("sbnet_setup", ROOT / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_all(folder: Path, sources: list[Path], options: list[str], link: list[str], output: str) -> Path:
    """A program or library of kernels and others; of their objects in ``folder``, old ones are made anew."""
    setup, target = build(), folder / output
    folder.mkdir(parents=True, exist_ok=True)
    include = [f"-I{path}" for path in (folder, SHIM, ROOT / "ops", ROOT / "ops" / "cuda")]
    include += ["-isystem", str(Path(torch.__file__).parent / "include")]
    command = ["g++", *setup.COMPILE, "-Wno-unknown-pragmas", *options, *include]  # nvcc's #pragma unroll

    def precompiled(header: Path) -> list[str]:
        """Options that put a header first which is read once for all sources: it takes half of the time."""
        made = setup.compile_source([*command, "-w", "-x", "c++-header"], header, "", folder)
        first = folder / f"first.{header.name}.gch"  # a name that no source includes
        first.unlink(missing_ok=True)
        first.symlink_to(made)
        return ["-include", first.stem, "-fpch-deps"]

    def compiled(source: Path) -> str:
        language = ["-x", "c++"] if source.suffix == ".cu" else []
        return str(setup.compile_source([*command, *before.get(source, []), *language], source, "", folder))

    with (folder / "lock").open("w") as lock, ThreadPoolExecutor(os.cpu_count()) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other tests that make the same objects go first
        before: dict[Path, list[str]] = {}
        kernels, operations = [path for path in sources if path.suffix == ".cu"], set(sources) & set(OPERATIONS)
        for name, those in (("device.h", kernels), ("host.h", operations)):
            if those:
                before |= dict.fromkeys(those, precompiled(ROOT / "ops" / "cuda" / name))
        objects = list(pool.map(compiled, sources))
        made = target.stat().st_mtime_ns if target.exists() else 0
        if any(Path(name).stat().st_mtime_ns >= made for name in objects):
            fresh = target.with_name(f"{output}.new")
            subprocess.run(["g++", *options, *objects, *link, "-o", str(fresh)], check=True)
            fresh.replace(target)  # whoever has the old one open keeps it whole
    return target


@functools.cache
def _shim() -> list[str]:
    """Builds and loads the kernels as operations of ``sbnet_shim``; returns their names."""
    import sbnet_perception.detector.pipeline  # noqa: F401  declares all operations

    sources = [*KERNELS, *OPERATIONS, SHIM / "host.cpp"]
    options = [*OPTIONS, *(build().SANITIZE if SANITIZE else [])]
    link = ["-shared", f"-L{Path(torch.__file__).parent / 'lib'}", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
    library = compile_all(OBJECTS, sources, options, link, "shim.so")
    torch.ops.load_library(str(library))
    prefix = "sbnet_shim::"
    registered = torch._C._dispatch_get_registrations_for_dispatch_key("CPU")
    names = [name.removeprefix(prefix) for name in registered if name.startswith(prefix)]
    declared = torch.library.Library("sbnet_shim", "FRAGMENT")
    for name in names:
        declared.define(str(getattr(torch.ops.sbnet, name).default._schema).removeprefix("sbnet::"))
    _kept.append(declared)
    return names


_kept: list[torch.library.Library] = []
