"""What the node says of clouds that are not what its weights were trained on; no ROS, no network."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.ground_level import ground_level
from sbnet_perception.messages.pointcloud2 import CloudPoints
from sbnet_perception.node.cloud_sample import CloudSample
from sbnet_perception.node.ground import AUTO, QUICK, Ground, GroundAnswer
from sbnet_perception.node.premises import BLIND_S, QUORUM, REPEATS, WINDOW, Premises, PremisesAnswer

GRID = Grid.named("compact")
SECOND = 1_000_000_000
LEVEL = GroundAnswer(0.0, 0.0, 0.9)


@functools.cache
def street(count: int = 8_000, seed: int = 0) -> np.ndarray:
    """float32 [P, 4]: ground all around, dense near the vehicle, and walls along the street."""
    rng = np.random.default_rng(seed)
    angle, far = rng.uniform(-np.pi, np.pi, count), 3.0 + rng.exponential(12.0, count)
    xyz = np.stack([far * np.cos(angle), far * np.sin(angle), rng.normal(0, 0.03, count)], 1)
    walls = np.abs(xyz[:, 1]) > 9.0
    xyz[walls, 1] = 9.0 * np.sign(xyz[walls, 1])
    xyz[walls, 2] = rng.uniform(0, 8, int(walls.sum()))
    return np.concatenate([xyz, rng.uniform(0, 1, (count, 1))], 1).astype(np.float32)


class Node:
    """The premises of a node, fed with clouds 0.1 s apart; the ground as measured, or at z = 0."""

    def __init__(self, measures: bool = False) -> None:
        self._premises, self._now = Premises(GRID), 0
        self._ground = Ground(AUTO, "base_link") if measures else lambda points: LEVEL

    def __call__(self, points: np.ndarray, non_finite: int = 0, name: str = "lidar") -> PremisesAnswer:
        self._now += SECOND // 10
        sample = CloudSample.of(CloudPoints(points, dropped_non_finite=non_finite), name)
        in_grid = int(GRID.cells(points)[2].sum())
        ground = self._ground(torch.from_numpy(points))
        return self._premises([(sample, np.eye(4))], "base_link", in_grid, ground, self._now)


def turned(points: np.ndarray, *rows: tuple[int, int, int]) -> np.ndarray:
    return np.concatenate([points[:, :3] @ np.array(rows, np.float32).T, points[:, 3:]], 1)


def swapped(points: np.ndarray) -> np.ndarray:
    """What is read of the points under the wrong byte order."""
    read = points.byteswap()
    return np.ascontiguousarray(read[np.isfinite(read).all(1)])


ONE_PLACE = r"100 % of the points of lidar lie within 0\.5 m of x {}\.0, y -?0\.0, z 0\.0: the LiDAR is covered or"
IN_GRID = r"in the grid \(x 0\.\.70\.4, y -20\.\.20 m of base_link\): "
SPOILT: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "millimetres": (lambda p: p * np.float32(1000), f"no point of the cloud lies {IN_GRID}.*perhaps millimetres"),
    "centimetres": (lambda p: p * np.float32(100), f"no point of the cloud lies {IN_GRID}.*perhaps centimetres"),
    "feet": (lambda p: 3.28 * (p - np.float32((0, 0, 1.73, 0))), r"lidar lies 5\.\d m above the ground: .*metre"),
    "kilometres": (lambda p: p / np.float32(1000), ONE_PLACE.format(0)),
    "byte order": (swapped, f"points? .*lies? {IN_GRID}their coordinates are absurd, .*is_bigendian"),
    "no return as 0 0 0": (np.zeros_like, ONE_PLACE.format(0)),
    "one place": (lambda p: 0 * p + np.float32((9, 0, 0, 0)), ONE_PLACE.format(9)),
    "elsewhere": (lambda p: p + np.float32((500, -40, 0, 0)), f"no point .*{IN_GRID}half .* x 5.., y -40: its frame"),
    "hardly any": (
        lambda p: np.concatenate([p + np.float32((0, 60, 0, 0)), p[:100]]),
        rf"only \d\d of 8100 points lie {IN_GRID}half of them lie around x -?\d, y 60: its frame, units or byte order",
    ),
    "turned by 180 degrees": (
        lambda p: turned(p[p[:, 0] > 0], (-1, 0, 0), (0, -1, 0), (0, 0, 1)),
        f"no point .*{IN_GRID}they lie behind: the LiDAR or its transform is turned by 180 degrees",
    ),
    "a camera's axes": (
        lambda p: turned(p[p[:, 0] > 0], (0, -1, 0), (0, 0, -1), (1, 0, 0)),
        r"heights spread over \d\d m, .*base_link has to have x forward and z up \(REP-103\), set grid_frame",
    ),
    "upside down": (
        lambda p: turned(p, (1, 0, 0), (0, -1, 0), (0, 0, -1)) + np.float32((0, 0, 1.7, 0)),
        r"\d\d % of the points around lie beneath the ground: the LiDAR hangs upside down",
    ),
}


@pytest.mark.parametrize(("spoil", "sentence"), SPOILT.values(), ids=SPOILT)
def test_a_cloud_that_is_not_what_the_weights_know_is_told_in_one_sentence_with_the_remedy(
    spoil: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    node, points = Node(measures=True), spoil(street())
    answer = next(answer for answer in (node(points) for _ in range(QUORUM)) if answer.warnings)
    assert len(answer.warnings) == 1
    assert re.search(sentence, answer.warnings[0]), answer.warnings[0]
    assert answer.errors == ()


@pytest.mark.parametrize("height", [-3.5, 0.7])
def test_an_ordinary_cloud_is_no_complaint_however_high_its_origin_is(height: float) -> None:
    node = Node(measures=True)
    for seed in range(QUORUM + 2):
        assert node(street(seed=seed % 3) + np.float32((0, 0, height, 0))) == PremisesAnswer()


def test_no_point_in_the_grid_is_a_complaint_and_too_few_points_to_tell_are_none() -> None:
    away = street() - np.float32((90, 0, 0, 0))
    assert "no point" in Node()(away[:500]).warnings[0]
    assert Node()(away[:50]) == PremisesAnswer()
    assert Node()(away[:0]) == PremisesAnswer()


def test_a_cloud_without_a_finite_point_is_a_warning_at_once_and_an_error_after_some_seconds() -> None:
    node, nothing = Node(), street(0)
    for number in range(int(10 * BLIND_S) + 5):
        answer = node(nothing, non_finite=64_000)
        assert answer.warnings[0] == "no point of lidar is finite: all 64000 are NaN or infinite, check the LiDAR"
        assert answer.unusable
        assert bool(answer.errors) == (number >= 10 * BLIND_S)
    assert answer.errors == ("no cloud of lidar has had a finite point for 3.4 s",)
    again = node(street())
    assert again.errors == ()
    assert not any("is finite" in warning for warning in again.warnings)


def test_an_empty_cloud_now_and_then_is_no_complaint_and_most_of_them_are() -> None:
    node = Node()
    for number in range(3 * WINDOW):
        assert node(street(seed=number % 4) if number % 4 else street(0)) == PremisesAnswer()
    said = [node(street(seed=number % 8) if number % 4 == 0 else street(0)).warnings for number in range(WINDOW)]
    assert said[-1] == ("15 of the last 20 clouds of lidar have no finite point: check the LiDAR",)


def test_a_stream_of_empty_clouds_is_told_after_some_and_ends_as_an_error() -> None:
    node = Node()
    said = [node(street(0)) for _ in range(int(10 * BLIND_S) + 1)]
    assert said[QUORUM - 2] == PremisesAnswer()
    assert "10 of the last 10 clouds of lidar have no finite point" in said[QUORUM - 1].warnings[0]
    assert said[-1].errors


def test_one_dead_lidar_among_several_is_named() -> None:
    premises = Premises(GRID)
    good, dead = CloudPoints(street()), CloudPoints(street(0), dropped_non_finite=1000)
    samples = [(CloudSample.of(good, "front"), np.eye(4)), (CloudSample.of(dead, "rear"), np.eye(4))]
    answer = premises(samples, "base_link", 9000, LEVEL, 0)
    assert answer.warnings == ("no point of rear is finite: all 1000 are NaN or infinite, check the LiDAR",)


def test_a_sweep_of_which_hardly_a_point_is_left_is_told_and_one_under_the_open_sky_is_not() -> None:
    assert Node()(street(), non_finite=30_000) == PremisesAnswer()
    few = "hardly any point of lidar is finite: 8000 of 208000, check the LiDAR"
    assert Node()(street(), non_finite=200_000).warnings == (few,)


def test_parts_of_sweeps_and_a_driver_that_repeats_itself_are_told() -> None:
    node = Node()
    for seed in range(QUORUM):
        answer = node(street(384, seed))
    assert "clouds of lidar hold few points: 384 (median); the driver has to put a whole sweep" in answer.warnings[0]
    node, same = Node(), street()
    said = [node(same).warnings for _ in range(REPEATS)]
    assert said[-2:] == [
        (),
        (f"the same cloud of lidar comes again and again: {REPEATS} times, its driver is stuck",),
    ]


def test_a_tilted_frame_is_told_and_how_the_ground_rises_in_it() -> None:
    ground = Ground(AUTO, "lidar")
    tilted = torch.from_numpy(street().copy())
    tilted[:, 2] -= 0.08 * tilted[:, 0]
    *before, last = (ground(tilted).warnings for _ in range(QUICK))
    assert before == [()] * (QUICK - 1)
    assert last == (
        "the ground falls by 8 cm a metre along x of lidar: "
        "level the LiDAR's transform, or set grid_frame to a level frame",
    )
    slopes = ground_level(tilted).slopes  # type: ignore[union-attr]
    assert slopes == pytest.approx((-0.08, 0.0), abs=0.01)
