"""Style, types and the order of imports; configured in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("sbnet_perception/**/*.py", "test/*.py", "test/cuda_on_cpu/*", "tools/**/*.py", "ops/**/*.*")
SOURCES = [path for place in PLACES for path in ROOT.glob(place)]
CHECKS = {
    "ruff": ["-m", "ruff", "check", "--output-format=concise", "--no-cache", "."],
    "mypy": ["-m", "mypy"],
    "importlinter": ["-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"],
}


@pytest.mark.parametrize("tool", CHECKS)
def test_the_sources_pass(tool):
    pytest.importorskip(tool)
    done = subprocess.run(
        [sys.executable, *CHECKS[tool]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{tool} found:\n{done.stdout[-20_000:]}{done.stderr}"


def test_no_file_has_grown_beyond_400_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length >= 400} == {}
