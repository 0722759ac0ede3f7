"""The steps of the check; each returns its summary in one line and leaves the rest in ``step.found``."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import results
from environment import clocks
from programs import Programs, compute_sanitizer
from steps import SkippedError, Step, StepError, without_noise
from wrappers import compare

TOOLS = ("memcheck", "racecheck", "synccheck")
OF_DRY_RUN = "90"
"""The architecture that a dry run compiles for."""
ON_DEVICE = re.compile(r"def test_\w+\([^)]*\b(device|gpu)\b")
"""A test that runs on each device, as test/devices.py has them."""
SHORT_TESTS = ["test/test_pixels_on_gpu.py"]


class Check:
    """All steps on one machine; a dry run has the kernels of a GPU on the CPU."""

    def __init__(self, root: Path, out: Path, environment: dict[str, Any], dry_run: bool) -> None:
        self.root, self.out, self.dry_run = root, out, dry_run
        self.architecture = OF_DRY_RUN if dry_run else environment["architecture"]
        self.programs = Programs(root, self.architecture)

    def build(self, step: Step) -> str:
        """The library for the architecture of the GPU alone, and whether its kernels run there."""
        if self.dry_run and not self.programs.nvcc:
            raise SkippedError("there is no nvcc")
        command = [sys.executable, "setup.py", "-q", "build_ext"]
        folder = self.programs.folder
        aside = ["--cuda", f"--build-lib={folder / 'lib'}", f"--build-temp={folder / 'objects'}"]
        command += aside if self.dry_run else ["--inplace"]
        said = step.run(command, {"SBNET_CUDA_ARCHS": self.architecture})
        step.found["said"] = said.splitlines()[-20:]
        if self.dry_run:
            return f"compiled for sm_{self.architecture}"
        code = (
            "import torch; from sbnet_perception import blocks, operation; assert operation.CUDA_KERNELS, 'no CUDA "
            "kernels were built'; said = torch.ops.sbnet.cuda_problem(0); assert not said, said; "
            "x = torch.ones(1, 8, 8, device='cuda'); print(len(blocks.reduce_mask(x, (4, 4), (2, 2), (2, 2))))"
        )
        if step.run([sys.executable, "-c", code]).split()[-1:] != ["16"]:
            raise StepError("reduce_mask of ones does not find all 16 blocks")
        return f"sm_{self.architecture}; kernels run"

    def wrappers(self, step: Step) -> str:
        """Every wrapper and intrinsic, on the device and as the header for the CPU has it."""
        source = self.root / "test" / "cuda_on_cpu" / "wrappers.cu"
        with ThreadPoolExecutor(1) as pool:
            object_file = pool.submit(self.programs.gpu_object, step, source)
            expected = step.run([self.programs.for_cpu(step, source)])
        if self.dry_run:
            said = expected
            if self.programs.nvcc:
                object_file.result()  # it compiles
        else:
            said = step.run([self.programs.for_gpu(step, source)])
        found = compare(said, expected)
        step.found["wrappers"] = [asdict(difference) for difference in found]
        wrong = [difference.name for difference in found if difference.different]
        if wrong or not found:
            raise StepError(f"not as expected: {', '.join(wrong) or 'nothing was printed'}")
        values = sum(difference.values for difference in found)
        return f"{len(found)} wrappers, {values} values" + (", on the CPU alone" if self.dry_run else ", all the same")

    def tests(self, step: Step) -> str:
        """The tests of the operations on the device."""
        if importlib.util.find_spec("pytest") is None:
            raise SkippedError("pytest is not installed (requirements-test.txt)")
        files = [str(path.relative_to(self.root)) for path in sorted(self.root.glob("test/test_*.py"))
                 if ON_DEVICE.search(path.read_text())]  # fmt: skip
        name, files = ("shim", SHORT_TESTS) if self.dry_run else ("cuda", files)
        workers = ["-n", "4"] if importlib.util.find_spec("xdist") and not self.dry_run else []
        plain = ["-o", "addopts=", "-p", "no:cacheprovider", "-v", "-rfE", "--tb=short", "--color=no"]
        plain += ["--continue-on-collection-errors"]
        command = [sys.executable, "-m", "pytest", *plain, *workers, "-k", name, *files]
        try:
            step.run(command, {"COLUMNS": "300"}, good=(0, 1))
        finally:
            step.found |= results.tests(step.log.read_text(errors="replace"))
        counts = ", ".join(f"{step.found[state]} {state}" for state in ("passed", "failed", "error", "skipped"))
        if step.found["failed"] or step.found["error"] or not step.found["passed"]:
            raise StepError(counts)
        return counts

    def sanitizer(self, step: Step) -> str:
        """All kernels under the tools of compute-sanitizer: what they find, and whether results stay the same."""
        source = self.root / "test" / "cuda_on_cpu" / "kernels.cpp"
        if self.dry_run:
            self.programs.gpu_object(step, source)
            raise SkippedError("compiled alone: there is no GPU")
        program = self.programs.for_gpu(step, source, *self.programs.kernels())
        step.found["plain"] = expected = results.parts(step.run([program]))
        tool, wrong = compute_sanitizer(self.programs.nvcc), []
        for name in TOOLS:
            said = step.run([tool, "--tool", name, program], good=range(256))
            step.found[name] = {**results.sanitizer(said), "same_results": results.parts(said) == expected}
            if step.found[name]["errors"] != 0 or not step.found[name]["same_results"]:
                wrong.append(name)
        if wrong or not expected:
            raise StepError(f"{', '.join(wrong) or 'no results'}: see {step.log.name}")
        return f"{', '.join(TOOLS)}: nothing found in {len(expected)} parts"

    def measured(self, part: str, *ways: str) -> Callable[[Step], str]:
        """A part of `sbnet bench gpu`, against some dense networks or those that it takes by itself."""
        return lambda step: self._measure(step, part, ways)

    def last_ways(self) -> tuple[str, ...]:
        """Dense networks that take minutes to compile."""
        return ("autotune", *(["tensorrt"] if importlib.util.find_spec("torch_tensorrt") else []))

    def _measure(self, step: Step, part: str, ways: Sequence[str]) -> str:
        program = ["-m", "sbnet_perception.cli", "bench", "gpu"]
        if self.dry_run:
            program = [str(self.root / "test" / "gpu_bench_on_cpu.py")]
        rows = self.out / f"{step.name}.json"
        rows.unlink(missing_ok=True)
        options = ["--json", str(rows), *(["--dense", ",".join(ways)] if ways else [])]
        paths = os.pathsep.join(filter(None, (str(self.root), os.environ.get("PYTHONPATH"))))
        environment = {"TORCHINDUCTOR_CACHE_DIR": str(self.programs.folder / "inductor"), "PYTHONPATH": paths}
        try:
            step.found["table"] = without_noise(step.run([sys.executable, *program, part, *options], environment))
        finally:
            if rows.exists():
                step.found["rows"] = json.loads(rows.read_text())["rows"]
            step.found["clocks"] = clocks()
        return results.measured(part, step.found["rows"])
