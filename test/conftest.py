"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from devices import DEVICES, operations_on

from sbnet_perception import sourced_ros

# The shell's own settings are not what is tested: an exported domain would put every test's robot on one.
OF_ROS = ("ROS_", "RMW_", "RCL_", "RCUTILS_", "FASTDDS_", "FASTRTPS_", "CYCLONEDDS_", "ZENOH_", "SKIP_DEFAULT_XML")
OF_TERMINALS = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PYTHONWARNINGS", "PYTHONUNBUFFERED", "MPLBACKEND")
# A ROS that is sourced is the one that is tested, where this Python has none of its own.
OF_THE_ROS_IN_USE = () if sourced_ros.has_own_ros() else sourced_ros.NAMES
for name in os.environ.keys() - set(OF_THE_ROS_IN_USE):
    if name.startswith(OF_ROS) or name in OF_TERMINALS:
        del os.environ[name]

# Where ROS is not installed its tests do not run at all.
pytest_plugins = ["faults", *(["node_fixtures"] if importlib.util.find_spec("rclpy") else [])]
ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses names of tests that differ from process to process: the workers of ``pytest -n`` must agree on them."""
    if wrong := [item.nodeid for item in items if "<function" in item.nodeid or "object at" in item.nodeid]:
        raise pytest.UsageError(f"these tests are named after an address in memory; give them ids: {wrong[:3]}")


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
