"""Programs of CUDA kernels on the CPU that the sanitizers watch."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from devices import ROOT

MODES = {
    "asan": ["-fsanitize=address", "-O1", "-g"],
    "tsan": ["-fsanitize=thread", "-O1", "-g"],
    "portable": ["-DCUDA_ON_CPU_PORTABLE", "-O1"],  # as on other processors
}
FOLDER = ROOT / "build" / "cuda_on_cpu"


def run(program: Path, *arguments: str) -> str:
    """What a program says."""
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"}
    options = {"capture_output": True, "text": True, "check": False, "timeout": 600}
    done = subprocess.run([program, *arguments], env=environment, **options)
    said = done.stdout + done.stderr
    if "unexpected memory mapping" in said:
        pytest.skip("this kernel places memory where ThreadSanitizer of this g++ does not expect it")
    return said
