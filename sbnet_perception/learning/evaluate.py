"""What weights reach on simulated drives that training has not seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.classes import VEHICLE, ObjectClass
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline, PipelineResult
from sbnet_perception.detector.trained_masks import with_own_mask, without_road
from sbnet_perception.learning.frames import LabelledFrame, drive_frames, in_grid
from sbnet_perception.learning.metrics import Matches, average_precision, match
from sbnet_perception.learning.targets import make_targets
from sbnet_perception.masks.config import EXPRESSIONS
from sbnet_perception.masks.road import ROAD

SENSORS = ("hdl64", "vlp32c", "hdl32")
HELD_OUT = range(9_000_001, 9_000_007)
"""Seeds of the drives that no training and no choice has seen."""
VALIDATION = range(8_000_001, 8_000_007)
"""Seeds of the drives that chose the score threshold."""
SECONDS, RATE_HZ = 20.0, 0.5
LOWEST_SCORE = 0.02
IOUS = (0.5, 0.7)


@dataclass(frozen=True)
class SimulatedResult:
    """Figures of a class over the simulated drives; its objects in the grid with enough points."""

    mask: str
    asked: str
    object: str
    frames: int
    objects: int
    ap50: float
    ap70: float
    recall50: float
    precision50: float
    best_f1_score: float
    pixel_recall: float
    mask_ms: float
    mean_sparsity: dict[str, float]


class _Lowest(DetectorConfig):
    """Reports everything above `LOWEST_SCORE`, of every class."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        return (LOWEST_SCORE,) * len(self.classes)


def pipeline_under(config: DetectorConfig, mask: str) -> Pipeline:
    """A pipeline under a mask, an expression or the name of one of `EXPRESSIONS`, reporting all above `LOWEST_SCORE`.

    Raises:
        ValueError: the mask is neither.
    """
    expression = EXPRESSIONS.get(mask, mask)
    return Pipeline(_Lowest(**{**vars(config), "mask": replace(config.mask, expression=expression)}))


def own_masks(config: DetectorConfig) -> tuple[str, ...]:
    """What is measured where no mask is asked for: that of the weights and the same without a map, by their names.

    Raises:
        WeightsError: the weights are missing or damaged.
    """
    names = {expression: name for name, expression in EXPRESSIONS.items()}
    own = (with_own_mask(config).mask.expression, without_road(config).mask.expression)
    return tuple(dict.fromkeys(names.get(mask, mask) for mask in own))


def protocols(pipeline: Pipeline) -> tuple[str, ...]:
    """Which objects are asked for under a pipeline's mask.

    With a road mask the task is to find what is on the road: objects off it are then neither asked for nor held
    against a detection, except in the second line, which shows what the road mask leaves out by design.
    """
    return ("on the road", "all") if ROAD.name in pipeline.config.mask.names else ("all",)


@dataclass(frozen=True)
class MeasuredFrame:
    """One frame under one mask; what figures of many are made of, wherever these were measured.

    Attributes:
        mask_ms: how long the mask took, NaN where that is not known.
        sparsity: stage -> share of its pixels that were skipped.
        matches: (what was asked for, position of the class, IoU) -> the detections against the objects.
        pixels: (what was asked for, position of the class) -> of the pixels on which its objects are detected those
            that the mask left to compute, and all.
    """

    mask_ms: float
    sparsity: dict[str, float]
    matches: dict[tuple[str, int, float], Matches]
    pixels: dict[tuple[str, int], tuple[int, int]]


def measured(
    pipeline: Pipeline, frame: LabelledFrame, asked_for: Callable[[Pipeline], Sequence[str]] = protocols
) -> MeasuredFrame:
    """A frame under the pipeline's mask, for each protocol and class."""
    result = pipeline(frame.points, frame.road)
    matches, pixels = {}, {}
    for asked in asked_for(pipeline):
        for number, entry in enumerate(pipeline.config.objects):
            for iou in IOUS:
                found = _match(result.detections, frame, pipeline.grid, asked, (number, entry), iou)
                matches[asked, number, iou] = found
            pixels[asked, number] = _kept_pixels(result, frame, pipeline, asked, number)
    return MeasuredFrame(result.timings_ms.get("mask", np.nan), result.sparsity, matches, pixels)


def figures_of(
    mask: str, frames: Sequence[MeasuredFrame], classes: Sequence[ObjectClass], thresholds: Sequence[float]
) -> list[SimulatedResult]:
    """The figures of frames under a mask, for each protocol and class."""
    mask_ms = float(np.median([frame.mask_ms for frame in frames]))
    sparsity = {stage: float(np.mean([frame.sparsity[stage] for frame in frames])) for stage in frames[0].sparsity}
    results = []
    for asked, number in frames[0].pixels:
        matches = {iou: [frame.matches[asked, number, iou] for frame in frames] for iou in IOUS}
        figures = _figures(matches, thresholds[number])
        kept, total = (sum(counts) for counts in zip(*(frame.pixels[asked, number] for frame in frames), strict=True))
        figures["pixel_recall"] = kept / max(total, 1)
        about = (mask, asked, classes[number].name, len(frames))
        results.append(SimulatedResult(*about, mask_ms=mask_ms, mean_sparsity=sparsity, **figures))
    return results


def measured_under(
    pipelines: Sequence[Pipeline],
    frames: Iterable[LabelledFrame],
    asked_for: Callable[[Pipeline], Sequence[str]] = protocols,
) -> list[list[MeasuredFrame]]:
    """For each pipeline the frames under its mask; a frame is taken once and then let go."""
    of_frames = [[measured(pipeline, frame, asked_for) for pipeline in pipelines] for frame in frames]
    return [list(of_mask) for of_mask in zip(*of_frames, strict=True)]


def evaluate_simulated(
    of_mask: dict[str, Pipeline],
    frames: Iterable[LabelledFrame],
    thresholds: Sequence[float],
    asked_for: Callable[[Pipeline], Sequence[str]] = protocols,
) -> list[SimulatedResult]:
    """The figures of each protocol and class, those of one threshold at the class's of ``thresholds``."""
    found = measured_under(list(of_mask.values()), frames, asked_for)
    return [
        result
        for (mask, pipeline), of_frames in zip(of_mask.items(), found, strict=True)
        for result in figures_of(mask, of_frames, pipeline.config.objects, thresholds)
    ]


def _match(
    detections: Detections, frame: LabelledFrame, grid: Grid, asked: str, of: tuple[int, ObjectClass], iou: float
) -> Matches:
    """The detections of one class (its position and entry) against the frame's objects of that class."""
    number, entry = of
    counted = in_grid(frame.boxes, grid) & (frame.point_counts >= entry.least_points)
    if asked == "on the road":
        counted &= _on_road(frame, grid)
    same = frame.classes == number
    return match(detections[detections.classes == number], frame.boxes[same], counted[same], iou)


def _kept_pixels(
    result: PipelineResult, frame: LabelledFrame, pipeline: Pipeline, asked: str, number: int
) -> tuple[int, int]:
    """Of the pixels on which objects of a class are detected those that the mask left to compute, and all."""
    counted = frame.classes == number
    if asked == "on the road":
        counted &= _on_road(frame, pipeline.grid)
    boxes, points, classes = frame.boxes[counted], frame.point_counts[counted], frame.classes[counted]
    label = make_targets(boxes, points, classes, pipeline.config.objects, pipeline.grid).label > 0
    return int((label & result.computed.cpu().numpy()).sum()), int(label.sum())


def _figures(matches: dict[float, list[Matches]], threshold: float) -> dict[str, Any]:
    """Of the matches of one class by IoU."""
    scores, hits = (np.concatenate([getattr(m, name) for m in matches[0.5]]) for name in ("scores", "hits"))
    objects = sum(len(m.found) for m in matches[0.5])
    chosen = hits[scores > threshold]
    return {
        "objects": objects,
        "ap50": average_precision(matches[0.5]),
        "ap70": average_precision(matches[0.7]),
        "recall50": float(chosen.sum() / max(objects, 1)),
        "precision50": float(chosen.mean()) if len(chosen) else float("nan"),
        "best_f1_score": _best_f1_score(scores, hits, objects),
    }


def _on_road(frame: LabelledFrame, grid: Grid) -> NDArray[np.bool_]:
    """Which objects have their centre on the road."""
    rows, columns, inside = grid.cells(frame.boxes)
    on_road = np.zeros(len(frame.boxes), bool)
    on_road[inside] = True if frame.road is None else frame.road.mask(grid).numpy()[rows, columns]
    return on_road


def frames_of_drives(seeds: Iterable[int], classes: Sequence[ObjectClass] = (VEHICLE,)) -> Iterator[LabelledFrame]:
    """The frames of simulated drives, each drive with the next of the sensors."""
    for number, seed in enumerate(seeds):
        yield from frames_of_drive(number, seed, classes)


def frames_of_drive(number: int, seed: int, classes: Sequence[ObjectClass] = (VEHICLE,)) -> Iterator[LabelledFrame]:
    """Those of the drive at a position of `frames_of_drives`."""
    return drive_frames(seed, SECONDS, RATE_HZ, SENSORS[number % len(SENSORS)], classes)


def _best_f1_score(scores: NDArray, hits: NDArray, objects: int) -> float:
    """The score that maximises F1 (harmonic mean of precision and recall)."""
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(hits[order]) / (np.arange(1, len(order) + 1) + objects)
    return float(scores[order][np.argmax(f1)]) if len(order) else float("nan")
