"""KITTI's official average precision of cars, in the bird's-eye view and in 3D.

Written from the description of the benchmark: IoU above 0.7; three difficulties by height in the image, occlusion and
truncation; what is harder than asked for, and the neighbouring class Van, is neither asked for nor held against a
detection, and neither is a detection less high in the image than objects that are asked for. Precision is taken at 40
recalls above 0 (R40), at the scores of true positives nearest to them. Each score stands for one recall: of N cars,
fewer than 41, the figure is at most 100 (N - 1) / 40.

In the official figures of BEV and 3D the DontCare regions have no effect: they have no place in space. `Rules` may let
them count by the image, and further neighbouring classes, for a detector of all vehicles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.learning.kitti_labels import KittiFrame, covered_by_dont_care
from sbnet_perception.learning.metrics import bev_iou

IOU = 0.7
RECALLS = 40
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Difficulty:
    """Which cars are asked for: at least so high in the image (pixels), at most so occluded and truncated."""

    name: str
    least_height: float
    most_occluded: int
    most_truncated: float


DIFFICULTIES = (
    Difficulty("easy", 40.0, 0, 0.15),
    Difficulty("moderate", 25.0, 1, 0.30),
    Difficulty("hard", 25.0, 2, 0.50),
)


@dataclass(frozen=True)
class Rules:
    """What is neither asked for nor held against a detection: types, and whether DontCare regions count."""

    neighbours: tuple[str, ...] = ("Van",)
    dont_care: bool = False


OFFICIAL = Rules()
ALL_VEHICLES = Rules(("Van", "Truck"), dont_care=True)
"""For a detector whose one class has trucks too, and which should not be charged for what nobody labelled."""


@dataclass(frozen=True)
class _Pairs:
    """What one difficulty makes of a frame.

    Attributes:
        overlaps: float64 [M, K] of detections and objects.
        scores: float64 [M].
        small: bool [M], detections too low in the image.
        excused: bool [M], detections in a DontCare region.
        asked: bool [K], objects that are asked for; the others are ignored.
    """

    overlaps: Floats
    scores: Floats
    small: Bools
    excused: Bools
    asked: Bools


def average_precisions(frames: Sequence[KittiFrame], rules: Rules = OFFICIAL) -> dict[str, dict[str, float]]:
    """``bev`` and ``3d`` -> difficulty -> AP R40 in percent; NaN where no car is asked for."""
    kinds = {"bev": [bev_iou(f.found_boxes, f.boxes) for f in frames]}
    kinds["3d"] = [iou_3d(f.found_boxes, f.boxes, flat) for f, flat in zip(frames, kinds["bev"], strict=True)]
    return {
        kind: {
            level.name: _average_precision([_pairs(*one, level, rules) for one in zip(frames, overlaps, strict=True)])
            for level in DIFFICULTIES
        }
        for kind, overlaps in kinds.items()
    }


def numbers_asked(frames: Sequence[KittiFrame]) -> dict[str, int]:
    """Difficulty -> how many cars are asked for."""
    return {level.name: sum(int(_asked(frame, level).sum()) for frame in frames) for level in DIFFICULTIES}


def iou_3d(a: NDArray, b: NDArray, flat: Floats) -> Floats:
    """Intersection over union [M, K] of upright boxes [M, 7] and [K, 7] whose footprints have the IoU ``flat``."""
    a, b = a[:, None].astype(np.float64), b[None].astype(np.float64)
    areas = [box[..., 3] * box[..., 4] for box in (a, b)]
    shared_area = flat / (1 + flat) * (areas[0] + areas[1])
    low = np.maximum(a[..., 2] - a[..., 5] / 2, b[..., 2] - b[..., 5] / 2)
    high = np.minimum(a[..., 2] + a[..., 5] / 2, b[..., 2] + b[..., 5] / 2)
    shared = shared_area * np.maximum(high - low, 0.0)
    return shared / (areas[0] * a[..., 5] + areas[1] * b[..., 5] - shared)


def _pairs(frame: KittiFrame, overlaps: Floats, level: Difficulty, rules: Rules) -> _Pairs:
    # Objects of any other type do not exist for the benchmark.
    kept = np.isin(frame.types, ("Car", *rules.neighbours))
    small = frame.found_image_boxes[:, 3] - frame.found_image_boxes[:, 1] < level.least_height
    excused = covered_by_dont_care(frame) > IOU if rules.dont_care else np.zeros(len(small), bool)
    return _Pairs(overlaps[:, kept], frame.scores, small, excused, _asked(frame, level)[kept])


def _asked(frame: KittiFrame, level: Difficulty) -> Bools:
    """Which objects [K] are cars that are asked for."""
    heights = frame.image_boxes[:, 3] - frame.image_boxes[:, 1]
    seen = (heights > level.least_height) & (frame.occluded <= level.most_occluded)
    return (frame.types == "Car") & seen & (frame.truncated <= level.most_truncated)


def _average_precision(frames: Sequence[_Pairs]) -> float:
    number = sum(int(frame.asked.sum()) for frame in frames)
    if number == 0:
        return float("nan")
    scores = np.concatenate([_true_scores(frame) for frame in frames])
    thresholds = _thresholds(scores, number)
    true, false = sum((_counts(frame, thresholds) for frame in frames), np.zeros((2, len(thresholds))))
    precision = np.zeros(RECALLS + 1)
    precision[: len(thresholds)] = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(100.0 * best[1:].mean())


def _true_scores(frame: _Pairs) -> Floats:
    """Scores of the detections that find an object at any threshold: each object takes the best free one."""
    free, scores = np.ones(len(frame.scores), bool), []
    for number, asked in enumerate(frame.asked):
        near = free & (frame.overlaps[:, number] > IOU)
        if near.any():
            taken = int(np.argmax(np.where(near, frame.scores, -np.inf)))
            free[taken] = False
            if asked and not frame.small[taken]:
                scores.append(frame.scores[taken])
    return np.array(scores, np.float64)


def _thresholds(scores: Floats, number: int) -> Floats:
    """Those of the scores at which recall comes nearest to 0, 1/40, 2/40 and so on, descending, and the last one."""
    scores = np.sort(scores)[::-1]
    chosen: list[float] = []
    for index, score in enumerate(scores):
        here, next_one = (index + 1) / number, (index + 2) / number
        wanted = len(chosen) / RECALLS
        if index == len(scores) - 1 or next_one - wanted >= wanted - here:
            chosen.append(score)
    return np.array(chosen, np.float64)


def _counts(frame: _Pairs, thresholds: Floats) -> Floats:
    """True and false positives [2, T] at each threshold: each object takes the free detection that overlaps it most.

    One that is too low in the image is taken only where there is no other, and then counts as nothing.
    """
    free = frame.scores[None] >= thresholds[:, None]
    rows, true = np.arange(len(thresholds)), np.zeros(len(thresholds))
    for number, asked in enumerate(frame.asked):
        overlaps = frame.overlaps[:, number]
        # Better than any small one; of the small ones the first.
        rank = np.where(frame.small, np.linspace(-1.0, -2.0, len(overlaps)), overlaps)
        rank = np.where(free & (overlaps > IOU)[None], rank[None], -np.inf)
        if not rank.size:
            continue
        taken = rank.argmax(1)
        valid = np.isfinite(rank[rows, taken])
        free[rows[valid], taken[valid]] = False
        true += valid & asked & ~frame.small[taken]
    false = free & ~(frame.small | frame.excused)[None]
    return np.stack([true, false.sum(1)])
