"""Real beside simulated clouds: the figures of a cloud are right, and only what differs is marked."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sbnet_perception.bev.grid import Grid
from sbnet_perception.cli import main
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.realism import Difference, differences, simulated_frames
from sbnet_perception.learning.simulator.geometry import count_inside
from sbnet_perception.learning.simulator.sensors import HDL32
from sbnet_perception.learning.statistics import Estimate, Quantity, cloud_figures, estimates, ground_roughness

GRID = Grid.named("compact")
SMALL = Grid(0.0, 40.0, -12.0, 12.0, 0.2)


def _frame(xyz: np.ndarray, intensity: np.ndarray | float, boxes: np.ndarray) -> LabelledFrame:
    points = np.column_stack([xyz, np.broadcast_to(intensity, len(xyz))]).astype(np.float32)
    boxes = boxes.reshape(-1, 7).astype(np.float32)
    counts = count_inside(points, boxes)
    return LabelledFrame("made up", points, None, boxes, counts, np.zeros(len(boxes), np.int64))


def _plane(x: tuple[float, float], y: tuple[float, float], step: float) -> np.ndarray:
    """Points [P, 3] of z = 0 at the middles of squares."""
    grid = np.meshgrid(np.arange(x[0] + step / 2, x[1], step), np.arange(y[0] + step / 2, y[1], step), indexing="ij")
    return np.stack([*grid, np.zeros_like(grid[0])], -1).reshape(-1, 3)


def _column(x: float, y: float, top: float) -> np.ndarray:
    heights = np.arange(0.5, top + 0.01, 0.5)
    return np.column_stack([np.full(len(heights), x), np.full(len(heights), y), heights])


def test_the_figures_of_a_cloud_built_by_hand_are_right() -> None:
    ground = _plane((0, 40), (-8, 8), 0.4)
    car = np.column_stack([_plane((14, 18), (-1, 1), 0.2)[:, :2], np.full(200, 1.2)])
    pole, wall = _column(30.2, 6.2, 4.0), np.concatenate([_column(x, -7.4, 3.0) for x in np.arange(22.2, 30, 0.4)])
    beyond = np.array([(80.0, 0, 0), (10, 30, 0)])
    xyz = np.concatenate([ground, car, pole, wall, beyond])
    intensity = np.concatenate([np.full(len(ground), 0.1), np.zeros(150), np.ones(len(xyz) - len(ground) - 150)])
    boxes = np.array([(16.0, 0, 0.9, 4.2, 2.2, 1.4, 0.0), (60.0, 0, 0.8, 4.2, 2.0, 1.6, 0.0)])
    figures = {(q.group, q.name): value for q, value in cloud_figures(_frame(xyz, intensity, boxes), GRID).items()}

    inside = len(xyz) - len(beyond)
    assert figures["points a frame", "all"] == inside
    near = np.hypot(*xyz[:-2, :2].T) < 10
    assert figures["points a frame", "0 to 10 m"] == near.sum()
    assert figures["ground points a frame", "0 to 10 m"] == near.sum()
    assert figures["points on a car", "10 to 20 m"] == 200
    assert math.isnan(figures["points on a car", "50 to 70 m"])  # the box there is empty
    assert figures["height, m", "50 %"] == 0 and figures["height, m", "99 %"] > 1
    assert figures["intensity, ground", "50 %"] == pytest.approx(25.5)
    assert figures["intensity, vehicles", "share of 0"] == pytest.approx(0.75)
    assert figures["intensity, all", "share of 0"] == pytest.approx(150 / inside)
    # Of 100 x 40 cells the car covers 10 x 6 (from -1.2 to 1.2 m, as cells go), the pole one and the wall twenty.
    cells = 100 * 40
    assert figures["share of cells", "as high as cars"] == pytest.approx(60 / cells)
    assert figures["share of cells", "tall"] == pytest.approx(21 / cells)
    assert figures["share of cells", "ground"] == pytest.approx(1 - 81 / cells)
    # A wall has two ends, of one tall neighbour each.
    assert figures["share of tall cells", "pole (alone)"] == pytest.approx(3 / 21)
    assert figures["share of tall cells", "wall (line)"] == pytest.approx(18 / 21)


def test_roughness_is_what_a_plane_leaves_however_it_leans() -> None:
    level = _plane((0, 5), (-2, 2), 0.1)
    leaning = level + (0, 0, 1) * (level @ (0.1, -0.05, 0))[:, None]
    steps = np.where(np.arange(len(level)) % 2, 0.02, -0.02)[:, None] * (0, 0, 1)
    assert ground_roughness(leaning) == pytest.approx(np.zeros(20), abs=1e-4)
    assert ground_roughness(leaning + steps) == pytest.approx(np.full(20, 0.02), rel=0.03)
    # One line of points alone has no width to lean over, and too few points have no plane.
    line = np.column_stack([np.linspace(0, 0.99, 30), np.full(30, 0.5), np.linspace(0, 0.3, 30)])
    assert ground_roughness(line) == pytest.approx([0], abs=1e-4)
    assert len(ground_roughness(line[:5])) == len(ground_roughness(line[:0])) == 0


def test_a_difference_is_marked_when_it_is_large_and_beyond_chance() -> None:
    def difference(real: Estimate, simulated: Estimate, by_ratio: bool = True) -> Difference:
        quantity = Quantity("group", "name", by_ratio)
        return differences({quantity: real}, {quantity: simulated})[0]

    precise, noisy, one = (0.1, 10), (30.0, 10), (math.nan, 1)
    assert difference(Estimate(18.0, *precise), Estimate(10.0, *precise)).marked
    assert difference(Estimate(18.0, *one), Estimate(10.0, *precise)).marked
    assert not difference(Estimate(14.0, *precise), Estimate(10.0, *precise)).marked
    assert not difference(Estimate(18.0, *noisy), Estimate(10.0, *precise)).marked
    assert not difference(Estimate(18.0, *one), Estimate(10.0, *one)).marked
    assert difference(Estimate(0.5, *precise), Estimate(0.0, *precise)).size == math.inf
    assert difference(Estimate(0.0, *precise), Estimate(0.0, *precise)).size == 0
    heights = difference(Estimate(-0.3, *precise), Estimate(0.1, *precise), by_ratio=False)
    assert heights.size == pytest.approx(-2)
    unknown = Quantity("group", "unknown")
    assert not differences({unknown: Estimate(math.nan, math.nan, 0)}, {unknown: Estimate(1.0, 0.1, 5)})


def test_a_sensor_differs_from_another_but_not_from_itself() -> None:
    scenes = 8
    halved = replace(HDL32, elevations=HDL32.elevations[::2], offsets=HDL32.offsets[::2])
    one, again, other = (
        estimates(simulated_frames(sensor, scenes, SMALL, first_seed), SMALL)
        for sensor, first_seed in ((HDL32, 100), (HDL32, 200), (halved, 200))
    )
    assert [d.quantity for d in differences(one, again) if d.marked] == []
    marked = {d.quantity: d.size for d in differences(one, other) if d.marked}
    assert marked[Quantity("points a frame", "all")] > 1
    assert {quantity.group for quantity in marked} <= {"points a frame", "ground points a frame", "points on a car"}


def test_the_command_compares_each_source_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = next(simulated_frames(HDL32, 1, GRID))
    for name in ("nuscenes_1", "mine_1"):
        np.savez(
            tmp_path / f"{name}.npz",
            xyz_cm=np.round(frame.points[:, :3] * 100).astype(np.int16),
            intensity=np.round(frame.points[:, 3] * 255).astype(np.uint8),
            boxes=frame.boxes,
            labels=np.full(len(frame.boxes), "car"),
            label_fov="full",
        )
    report = tmp_path / "report.json"
    assert main(["compare", str(tmp_path), "--scenes", "2", "--json", str(report)]) == 0
    shown = capsys.readouterr().out
    assert "nuscenes: 1 frame beside 2 simulated scenes, sensor hdl32" in shown
    assert "mine: 1 frame beside 2 simulated scenes, sensor random" in shown
    written = {entry["source"]: entry for entry in json.loads(report.read_text())}
    first = written["nuscenes"]["differences"][0]
    assert first["quantity"] == {"group": "points a frame", "name": "all", "by_ratio": True}
    # Both take what lies in the grid only, centimetres apart.
    assert first["real"] == pytest.approx(GRID.cells(frame.points)[2].sum(), rel=0.01)


def test_what_cannot_be_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(tmp_path)]) == 2
    assert "holds no data set that is known here" in capsys.readouterr().err
    assert main(["compare", str(tmp_path), "--scenes", "1"]) == 2
    assert "--scenes is 1" in capsys.readouterr().err
