"""`sbnet evaluate` is a stream: a frame is read, measured under every mask and let go, and the figures are the same."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely
import torch

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.desk import worst as worst_module
from sbnet_perception.desk.worst import Worst
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.learning.datasets.frame import LabelledArea, RealFrame
from sbnet_perception.learning.evaluate import evaluate_simulated
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.gathered import Gathered
from sbnet_perception.learning.mistakes import FalsePositive, Miss, deviations, false_positives, misses, traits
from sbnet_perception.learning.real import Judged, Tally, curves, judge, parts
from sbnet_perception.masks.config import MaskConfig

GRID = Grid.named("compact")
THRESHOLD = 0.4
AREA = LabelledArea(shapely.box(0, -12, 60, 12), SE2())


def boxes_of(rng: np.random.Generator, count: int) -> np.ndarray:
    centres = np.stack([np.arange(count) * 6 + 8, rng.uniform(-14, 14, count)], 1)
    size = [0.8, 4.4, 1.9, 1.6]
    return np.float32([[*centre, *size, rng.uniform(-3, 3)] for centre in centres])


def made(seed: int) -> tuple[Detections, RealFrame]:
    """A frame of a data set with a map and a metric of its own, and detections that find some of its vehicles."""
    rng = np.random.default_rng(seed)
    boxes, count = boxes_of(rng, 9), 9
    points = rng.uniform((0, -20, 0, 0), (70, 20, 2.5, 1), (4000, 4)).astype(np.float32)
    frame = RealFrame(
        f"made_{seed}", points, None, boxes, rng.integers(5, 300, count), np.zeros(count, np.int64), source="av2",
        labels=np.full(count, "car"), other_boxes=boxes_of(rng, 3), other_labels=np.full(3, "person"), area=AREA,
        asked=np.ones(count, bool),
    )  # fmt: skip
    found = np.concatenate([boxes[::2] + rng.normal(0, 0.3, (5, 7)).astype(np.float32), boxes_of(rng, 6)])
    scores = np.sort(rng.uniform(0.02, 1, len(found)).astype(np.float32))[::-1]
    return Detections(found, scores, np.zeros(len(found), np.int64)), frame


def errors_of(errors: list[Any]) -> list[tuple[str, int, str, float]]:
    return [(one.judged.frame.name, one.index, one.kind, one.score) for one in errors]


def test_figures_of_frames_that_are_let_go_are_those_of_frames_that_are_held() -> None:
    frames = [made(seed) for seed in range(6)]
    gathered, held = Gathered(0, THRESHOLD, GRID), [judge(*frame, GRID) for frame in frames]
    for frame in frames:
        gathered.add(*frame)
    tallies = [Tally(judged, THRESHOLD) for judged in (gathered.judged, held)]
    ours, theirs = (repr(parts(judged, tally)) for judged, tally in zip((gathered.judged, held), tallies, strict=True))
    assert ours == theirs and "objects=0" not in ours.split("Part(")[1]
    lines = [curves(judged, tally) for judged, tally in zip((gathered.judged, held), tallies, strict=True)]
    assert all(np.array_equal(a.precision, b.precision) for a, b in zip(*lines, strict=True))
    wrong = [one for judged in held for one in false_positives(judged, THRESHOLD, None)]
    lost = [one for judged in held for one in misses(judged, THRESHOLD)]
    assert errors_of(gathered.false_positives) == errors_of(wrong) and errors_of(gathered.misses) == errors_of(lost)
    assert len({one.kind for one in wrong}) > 2 and len(lost) > 5
    assert gathered.traits == traits(held, THRESHOLD, GRID) and sum(trait.missed for trait in gathered.traits) > 0
    assert deviations(gathered.judged, THRESHOLD) == deviations(held, THRESHOLD)
    assert len(gathered.counted["av2"]) == 6 and gathered.mapped and not gathered.counted["nuscenes"]


class Watch:
    """Says how many of the clouds that were made are still held."""

    def __init__(self) -> None:
        self._clouds: list[weakref.ref[Any]] = []

    def __call__(self, frame: Any) -> Any:
        self._clouds.append(weakref.ref(frame.points))
        return frame

    def held(self) -> int:
        return sum(cloud() is not None for cloud in self._clouds)


def test_no_cloud_of_a_data_set_is_held_but_pieces_of_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worst_module, "MOST", 3)
    watch, gathered, worst = Watch(), Gathered(0, THRESHOLD, GRID), Worst(THRESHOLD)
    for seed in range(8):
        found, frame = made(seed)
        worst.add(*gathered.add(found, watch(frame)))
        del frame, found
        assert watch.held() == 0, "a frame that was measured"
    kept = [tile for errors in (worst._false, worst._missed) for tile in errors.tiles()]
    assert len(kept) == 6 and all(0 < len(tile.judged.frame.points) < 2000 for tile in kept)


def test_a_simulated_frame_is_let_go_when_every_mask_has_measured_it() -> None:
    watch = Watch()

    class Stub:
        grid = GRID
        config = DetectorConfig(mask=MaskConfig("occupancy"))

        def __call__(self, points: Any, road: Any) -> Any:
            computed = torch.ones(50, 88, dtype=torch.bool)
            return SimpleNamespace(detections=made(1)[0], sparsity={"conv-3": 0.5}, computed=computed, timings_ms={})

    def frames() -> Iterator[LabelledFrame]:
        for seed in range(5):
            _, frame = made(seed)
            yield watch(LabelledFrame(frame.name, frame.points, None, frame.boxes, frame.point_counts, frame.classes))
            del frame
            assert watch.held() <= 1, "the frame before, at most"

    of_mask: dict[str, Any] = {"one": Stub(), "two": Stub()}
    results = evaluate_simulated(of_mask, frames(), (THRESHOLD,))
    assert [(result.mask, result.frames) for result in results] == [("one", 5), ("two", 5)]
    assert replace(results[0], mask="", mask_ms=0) == replace(results[1], mask="", mask_ms=0)


def errors(seeds: range) -> tuple[list[FalsePositive], list[Miss]]:
    """Of made-up frames."""
    frames: list[Judged] = [judge(*made(seed), GRID) for seed in seeds]
    wrong = [one for judged in frames for one in false_positives(judged, THRESHOLD, None)]
    return wrong, [one for judged in frames for one in misses(judged, THRESHOLD)]


def test_the_worst_errors_are_those_of_all_frames_the_first_of_equal_ones_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worst_module, "MOST", 5)
    wrong, lost = errors(range(4))
    worst = Worst(THRESHOLD)
    worst.add(wrong, lost)
    worst.add(wrong, lost)  # the same values again: the first ones stay
    expected = sorted(2 * wrong, key=lambda one: -one.score)[:5]
    tiles = worst._false.tiles()
    assert [tile.text for tile in tiles] == [f"{one.score:.2f}  {one.kind}" for one in expected]
    missed = sorted(2 * lost, key=lambda one: -one.points)[:5]
    assert [tuple(tile.box) for tile in worst._missed.tiles()] == [tuple(one.box) for one in missed]


def test_the_picture_of_an_error_shows_what_its_whole_cloud_would(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(worst_module, "MOST", 1)
    wrong, _ = errors(range(1))
    cut, whole = Worst(THRESHOLD), Worst(THRESHOLD)
    cut.add(wrong, [])
    monkeypatch.setattr(worst_module, "_tile", lambda one, text: worst_module._Tile(one.judged, one.box, text))
    whole.add(wrong, [])
    assert len(cut._false.tiles()[0].judged.frame.points) < len(whole._false.tiles()[0].judged.frame.points)
    pictures = [one.draw(tmp_path / name)[0] for name, one in (("cut", cut), ("whole", whole))]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
