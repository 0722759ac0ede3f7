"""Programs that nvcc or g++ make of kernels, from the objects that are up to date."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

from steps import SkippedError, Step, StepError

NOT_IN_PROGRAMS = ("usable.cu",)  # it asks the driver, not a kernel's result


class Programs:
    """Compiles programs of ``test/cuda_on_cpu``.

    Attributes:
        setup: setup.py, whose options and cache of objects are used.
        objects: those of the build of the library for the GPU.
        nvcc: its command, or empty.
    """

    def __init__(self, root: Path, architecture: str) -> None:
        self.root, self.folder, self.objects = root, root / "build" / "gpu_check", root / "build" / "ops"
        self.setup, self.architecture = _setup(root), architecture
        self.nvcc = self._nvcc()
        self.include = [f"-I{root / folder}" for folder in ("test/cuda_on_cpu", "ops", "ops/cuda")]
        self.folder.mkdir(parents=True, exist_ok=True)

    def for_cpu(self, step: Step, source: Path) -> Path:
        """One source as a program of the CPU, with the header that stands for CUDA."""
        command = ["g++", *self.setup.COMPILE, "-O1", "-Wno-unknown-pragmas", *self.include, "-x", "c++"]
        return self._link(step, ["g++"], [self._compile(step, command, source, "cpu")], f"{source.stem}_on_cpu")

    def for_gpu(self, step: Step, source: Path, *others: Path) -> Path:
        """One source as a program of the GPU, with the objects of others."""
        return self._link(step, [*self.nvcc, self._target], [self.gpu_object(step, source), *others], source.stem)

    def gpu_object(self, step: Step, source: Path) -> Path:
        """One source, compiled for the device alone."""
        if not self.nvcc:
            raise SkippedError("there is no nvcc (NVCC, CUDA_HOME, PATH, /usr/local/cuda)")
        command = [*self.nvcc, *self.setup.NVCC, self._target, *self.setup.host_compiler(), *self.include, "-x", "cu"]
        return self._compile(step, command, source, "gpu")

    def kernels(self) -> list[Path]:
        """The objects of all kernels, as the build of the library has left them."""
        sources = [path for path in self.root.glob("ops/cuda/*.cu") if path.name not in NOT_IN_PROGRAMS]
        objects = [self.objects / f"cuda.{source.name}.o" for source in sorted(sources)]
        if missing := [path.name for path in objects if not path.exists()]:
            raise StepError(f"the build has left no {', '.join(missing)}")
        return objects

    @property
    def _target(self) -> str:
        return f"-gencode=arch=compute_{self.architecture},code=sm_{self.architecture}"

    def _compile(self, step: Step, command: list[str], source: Path, kind: str) -> Path:
        folder = self.folder / kind
        folder.mkdir(exist_ok=True)
        try:
            return Path(self.setup.compile_source(command, source, "", folder))
        except SystemExit as error:
            with step.log.open("a") as log:
                log.write(str(error))
            raise StepError(f"{source.name} does not compile; see {step.log.name}") from None

    def _link(self, step: Step, command: list[str], objects: list[Path], name: str) -> Path:
        program = self.folder / name
        step.run([*command, *objects, "-o", program])
        return program

    def _nvcc(self) -> list[str]:
        asks = type("Asks", (), {"cuda": True})()
        try:
            return list(self.setup.BuildOps.find_nvcc(asks, self.root))
        except SystemExit:
            return []


def compute_sanitizer(nvcc: list[str]) -> str:
    """The program, from the PATH or beside nvcc."""
    beside = Path(shutil.which(nvcc[0]) or "nvcc").resolve().parent if nvcc else Path()
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=str(beside))
    if found is None:
        raise SkippedError("there is no compute-sanitizer")
    return found


def _setup(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbnet_setup", root / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
