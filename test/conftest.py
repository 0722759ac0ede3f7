"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from devices import DEVICES, operations_on

# Where ROS is not installed its tests do not run at all.
pytest_plugins = ["faults", *(["node_fixtures"] if importlib.util.find_spec("rclpy") else [])]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real frames; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("SBNET_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real frames at {folder} (set SBNET_DATA to a folder that has them)")
    return folder


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Where the operations of a test run, once for each of `DEVICES`: its tensors must be on it."""
    with operations_on(request.param) as device:
        yield device


@pytest.fixture(scope="module", params=[name for name in DEVICES if name != "cpu"])
def gpu(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """`device`, for what only the kernels of a GPU do."""
    with operations_on(request.param) as device:
        yield device
