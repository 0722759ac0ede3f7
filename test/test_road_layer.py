"""The latched road mask at the edges of time and space."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from ros_process import START_NS, road_grid

from sbnet_perception.bev.grid import Grid
from sbnet_perception.node.road_layer import RoadAnswer, RoadLayer
from sbnet_perception.node.transforms import matrix_from_pose

SECOND = 1_000_000_000
STOP = threading.Event()


class Still:
    """One transform, always."""

    def __init__(self, *pose: float) -> None:
        self.changed = threading.Condition()
        self._pose = pose

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        return matrix_from_pose(self._pose)

    def time_began(self, now_ns: int) -> None:
        raise AssertionError


def layer(received_ns: int, timeout: float, frame_id: str = "base_link") -> RoadLayer:
    road = RoadLayer(Grid.named("compact"), timeout)
    road.receive(road_grid(np.full((80, 141), 100), frame_id=frame_id), received_ns)
    return road


def at(road: RoadLayer, now_ns: int) -> RoadAnswer:
    return road.at(Still(0, 0, 0, 1, 0, 0, 0), "base_link", START_NS, now_ns, 0.0, STOP)


@pytest.mark.parametrize("received_ns", [0, START_NS + 600 * SECOND], ids=["before /clock", "in an earlier lap"])
def test_16_a_mask_from_before_simulated_time_began_ages_from_its_beginning(received_ns: int) -> None:
    road = layer(received_ns, timeout=5.0)
    if not received_ns:
        assert at(road, 0).problem == ""
    for seconds in (0, 4):
        answer = at(road, START_NS + seconds * SECOND)
        assert (answer.problem, answer.age_s) == ("", seconds)
    assert "older than road_mask_timeout" in at(road, START_NS + 6 * SECOND).problem


def test_15_a_grid_that_stands_upright_on_the_map_counts_the_road_as_everywhere() -> None:
    upright = Still(0, 0, 0, np.sqrt(0.5), 0, np.sqrt(0.5), 0)
    answer = layer(START_NS, 0.0, frame_id="map").at(upright, "base_link", START_NS, START_NS, 0.0, STOP)
    assert answer.view is None
    assert "cannot be placed: matrix has no heading" in answer.problem
