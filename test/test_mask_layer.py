"""The masks of topics at the edges of time and space."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from ros_process import START_NS, road_grid

from sbnet_perception.bev.grid import Grid
from sbnet_perception.node.mask_kinds import EXTERNAL_MASK, ROAD_MASK
from sbnet_perception.node.mask_layer import OFF_ROAD, MaskAnswer, MaskLayer
from sbnet_perception.node.status import Rejected
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


GRID = Grid.named("compact")


def layer(received_ns: int, timeout: float, frame_id: str = "base_link") -> MaskLayer:
    road = MaskLayer(ROAD_MASK, GRID, timeout)
    road.receive(road_grid(np.full((80, 141), 100), frame_id=frame_id), received_ns)
    return road


def at(road: MaskLayer, now_ns: int) -> MaskAnswer:
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


@pytest.mark.parametrize("side", [30.0, 2.0])
def test_beyond_a_mask_that_is_smaller_than_the_grid_the_road_is_unknown_and_counts(side: float) -> None:
    half = round(side / 0.5 / 2)
    # Road at the vehicle's right, none at its left.
    cells = np.full((2 * half, 2 * half), 100)
    cells[half:] = 0
    mask = road_grid(cells, xy=(-side / 2, -side / 2))
    unknown, complete = MaskLayer(ROAD_MASK, GRID, 0.0), MaskLayer(ROAD_MASK, GRID, 0.0, outside=False)
    unknown.receive(mask, START_NS)
    complete.receive(mask, START_NS)
    y, x = GRID.y_centres[:, None], GRID.x_centres
    beyond, dark = (np.abs(y) > side / 2 + 1) | (x > side / 2 + 1), (y > 1) & (y < side / 2 - 1) & (x < side / 2 - 1)

    answer = at(unknown, START_NS)
    assert answer.view is not None
    seen = answer.view.mask(GRID).numpy()
    assert seen[beyond].all()
    assert not seen[dark].any()
    share = (side / 2) * side / (70.4 * 40)
    assert answer.coverage == pytest.approx(share)
    assert answer.warnings == (
        f"the road mask covers {100 * share:.2g} % of the grid: the rest counts as road (road_outside)",
    )

    answer = at(complete, START_NS)
    assert answer.view is not None
    assert not answer.view.mask(GRID).numpy()[beyond].any()
    assert "nothing is seen there (road_outside is no_road)" in answer.warnings[0]


def test_a_mask_that_covers_half_of_the_grid_is_no_complaint() -> None:
    road = MaskLayer(ROAD_MASK, GRID, 0.0)
    road.receive(road_grid(np.full((80, 72), 100)), START_NS)
    answer = at(road, START_NS)
    assert (answer.problem, answer.warnings, answer.coverage) == ("", (), pytest.approx(36 / 70.4))


def test_16_a_mask_of_zeros_and_ones_has_no_road_and_its_values_are_named() -> None:
    road = MaskLayer(ROAD_MASK, GRID, 0.0)
    road.receive(road_grid(np.ones((80, 141))), START_NS)
    assert at(road, START_NS).problem == "no road in the grid (the mask's largest value is 1, road is 50 and more)"


def test_a_vehicle_off_the_road_of_the_mask_for_long_is_told_since_nothing_is_seen_around_it() -> None:
    # A costmap: 100 is a wall at both sides of the street.
    costs = np.zeros((80, 161))
    costs[:20] = costs[60:] = 100
    costmap, road = MaskLayer(ROAD_MASK, GRID, 0.0), MaskLayer(ROAD_MASK, GRID, 0.0)
    costmap.receive(road_grid(costs, xy=(-10.0, -20.0)), START_NS)
    road.receive(road_grid(100 - costs, xy=(-10.0, -20.0)), START_NS)
    said = [at(costmap, START_NS).warnings for _ in range(OFF_ROAD)]
    assert said[: OFF_ROAD - 1] == [()] * (OFF_ROAD - 1)
    assert said[-1] == (
        "the vehicle stands off the road of the mask, nothing is seen around it: "
        "50 and more has to be road in it, not an obstacle, and its frame has to fit",
    )
    assert [at(road, START_NS).warnings for _ in range(OFF_ROAD)] == [()] * OFF_ROAD
    costmap.receive(road_grid(100 - costs, xy=(-10.0, -20.0)), START_NS)
    assert at(costmap, START_NS).warnings == ()


def test_31_an_external_mask_may_be_empty_and_is_everywhere_where_it_ends_is_unknown_or_too_old() -> None:
    wanted = np.zeros((80, 80))
    wanted[:, :20], wanted[:40, 40:50] = 100, -1
    mask = MaskLayer(EXTERNAL_MASK, GRID, 1.0)
    assert at(mask, START_NS).problem == "no external mask received yet"
    mask.receive(road_grid(wanted), START_NS)
    answer = at(mask, START_NS)
    assert answer.view is not None
    seen, (y, x) = answer.view.mask(GRID).numpy(), (GRID.y_centres[:, None], GRID.x_centres)
    computed = np.broadcast_to((x < 10) | ((x > 20) & (x < 25) & (y < 0)) | (x > 40), seen.shape)
    clear = (np.abs(y) > 1) & (np.abs(y) < 19) & (np.abs(x[None] - np.array([[10], [20], [25], [40]])) > 1).all(0)
    assert clear.mean() > 0.7 and np.array_equal(seen[clear], computed[clear])
    assert (answer.warnings, answer.on_road, answer.coverage) == ((), None, pytest.approx(40 / 70.4))
    late = at(mask, START_NS + 2 * SECOND)
    assert (late.view, late.problem) == (None, "external mask is older than external_mask_timeout 1 s")

    mask.receive(road_grid(np.zeros((80, 60))), START_NS)
    answer = at(mask, START_NS)
    assert answer.view is not None and not answer.view.mask(GRID).numpy()[5:-5, (x > 1) & (x < 29)].any()
    assert answer.warnings == ("the external mask covers 43 % of the grid: the rest is computed",)
    # Probabilities, or zeros and ones.
    mask.receive(road_grid(np.ones((80, 141))), START_NS)
    answer = at(mask, START_NS)
    says = "external mask has 1 as its largest value: 50 and more is computed, so nothing is"
    assert (answer.view, answer.problem) == (None, says)
    with pytest.raises(Rejected, match="external mask malformed: frame_id is empty"):
        mask.receive(road_grid(wanted, frame_id=""), START_NS)


def test_31_after_time_has_jumped_back_an_external_mask_from_before_is_gone_and_the_road_is_not() -> None:
    for kind, timeout, problem in (
        (EXTERNAL_MASK, 1.0, "no external mask received yet"), (EXTERNAL_MASK, 0.0, ""), (ROAD_MASK, 1.0, ""),
    ):  # fmt: skip
        mask = MaskLayer(kind, GRID, timeout)
        mask.receive(road_grid(np.full((80, 141), 100)), START_NS)
        mask.clock_jumped()
        # The jump from long after it came leads to just after it came.
        assert at(mask, START_NS + SECOND // 2).problem == problem, (kind, timeout)
