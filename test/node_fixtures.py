"""Fixtures of the tests that talk to a running node: one process for each module of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ros_process import Robot, tiny_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def process(weights: Path) -> Iterator[Robot]:
    """A node that answers clouds; in the end it must leave in order.

    The network is untrained: with a threshold of 0 each cloud gives boxes that depend on its points, and on nothing
    that the node learnt from the clouds before.
    """
    given = {"weights": weights, "score_threshold": 0.0, "tf_timeout": 2.0, "input_timeout": 60.0}
    robot = Robot({**given, "ground_z": 0, "intensity_scale": 255.0})
    try:
        yield robot.ready()
    finally:
        code = robot.close()
    assert code == 0, robot.log()
    assert not robot.printed("Traceback"), robot.log()


@pytest.fixture
def robot(process: Robot) -> Iterator[Robot]:
    """The running node; whatever a test did to it, it answers a good cloud afterwards."""
    del process.lines[:]
    yield process
    assert len(process.detect().detections) > 0
    assert process.state() == "active"


@pytest.fixture
def reconfigured(robot: Robot, weights: Path) -> Iterator[Callable[..., None]]:
    """A function that restarts the node with other parameters; the usual ones come back."""
    usual = {
        "missing_intensity": "reject",
        "mask__expression": "dilate(road, 0.5) and dilate(occupancy, 0.5)",
        "road_mask_timeout": 0.0,
        "road_outside": "road",
        "without_road_mask": "continue",
        "external_mask_timeout": 1.0,
        "without_external_mask": "continue",
        "weights": str(weights),
        "grid_frame": "",
        "points": ["points"],
        "merge_window": 0.05,
        "ground_z": 0.0,
        "intensity_scale": 255.0,
        "input_timeout": 60.0,
    }
    robot.new_road_publisher()
    yield lambda **changes: robot.reconfigure(**changes)
    robot.new_road_publisher()
    robot.reconfigure(**usual)
