"""`sbnet evaluate`: what weights reach, on simulated drives held out from training and on real frames."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.classes import VEHICLE, ObjectClass
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets import real_frames
from sbnet_perception.learning.frames import LabelledFrame, drive_frames, in_grid
from sbnet_perception.learning.metrics import SEEN_IOU, SEEN_POINTS, Matches, average_precision, match
from sbnet_perception.masks.config import EXPRESSIONS

SENSORS = ("hdl64", "vlp32c", "hdl32")
HELD_OUT = range(9_000_001, 9_000_007)
"""Seeds of the drives that no training and no choice has seen."""
VALIDATION = range(8_000_001, 8_000_007)
"""Seeds of the drives that chose the score threshold."""
SECONDS, RATE_HZ = 20.0, 0.5
LOWEST_SCORE = 0.02


PROTOCOLS = (("road_and_occupancy", "on the road"), ("road_and_occupancy", "all"), ("occupancy", "all"))
"""Computation mask, and which objects are asked for. With a road mask the task is to find what is on the
road: objects off it are then neither asked for nor held against a detection, except in the second line,
which shows what the road mask leaves out by design."""


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
    mean_sparsity: dict[str, float]


@dataclass(frozen=True)
class RealResult:
    """One real frame at the configured thresholds: objects with at least 50 points, BEV IoU 0.3."""

    name: str
    found: int
    objects: int
    false_positives: int
    outside_view: int


class _Lowest(DetectorConfig):
    """Reports everything above `LOWEST_SCORE`, of every class."""

    @property
    def thresholds(self) -> tuple[float, ...]:
        return (LOWEST_SCORE,) * len(self.classes)


def pipelines(config: DetectorConfig) -> dict[str, Pipeline]:
    """A pipeline for each mask of the protocols, reporting everything above `LOWEST_SCORE`."""
    sources = dict.fromkeys(source for source, _ in PROTOCOLS)
    masks = {source: replace(config.mask, expression=EXPRESSIONS[source]) for source in sources}
    return {source: Pipeline(_Lowest(**{**vars(config), "mask": mask})) for source, mask in masks.items()}


def evaluate_simulated(
    of_mask: dict[str, Pipeline], frames: list[LabelledFrame], thresholds: Sequence[float]
) -> list[SimulatedResult]:
    """The figures of each protocol and class, those of one threshold at the class's of ``thresholds``."""
    results = []
    for source, pipeline in of_mask.items():
        found = [
            pipeline(frame.points, frame.road)
            for frame in track(frames, f"mask {source}", console=Console(stderr=True))
        ]
        sparsity = {stage: float(np.mean([result.sparsity[stage] for result in found])) for stage in found[0].sparsity}
        for asked in (asked for name, asked in PROTOCOLS if name == source):
            for number, entry in enumerate(pipeline.config.objects):
                matches = {
                    iou: [
                        _match(result.detections, frame, pipeline.grid, asked, (number, entry), iou)
                        for result, frame in zip(found, frames, strict=True)
                    ]
                    for iou in (0.5, 0.7)
                }
                figures = _figures(matches, thresholds[number])
                about = (source, asked, entry.name, len(frames))
                results.append(SimulatedResult(*about, mean_sparsity=sparsity, **figures))
    return results


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


def evaluate_real(detections: Detections, frame: LabelledFrame, grid: Grid) -> RealResult:
    """Compare what was found in a real frame with its labels.

    A detection counts as false when no labelled object of its class, however few its points, overlaps it by 0.3, or
    only one that a better detection found already.
    Detections outside the view that was labelled cannot be judged and are counted apart.
    """
    judged = np.abs(np.arctan2(detections.boxes[:, 1], detections.boxes[:, 0])) <= frame.half_view
    counted = in_grid(frame.boxes, grid) & (frame.point_counts >= SEEN_POINTS)
    matches = [
        match(detections[judged & (detections.classes == number)], frame.boxes[same], counted[same], SEEN_IOU)
        for number in np.union1d(detections.classes, frame.classes)
        for same in [frame.classes == number]
    ]
    return RealResult(
        name=frame.name,
        found=sum(int(m.found.sum()) for m in matches),
        objects=sum(len(m.found) for m in matches),
        false_positives=sum(int((~m.hits).sum()) for m in matches),
        outside_view=int((~judged).sum()),
    )


def frames_of_drives(seeds: Iterable[int], classes: Sequence[ObjectClass] = (VEHICLE,)) -> Iterator[LabelledFrame]:
    """The frames of simulated drives, each drive with the next of the sensors."""
    for number, seed in enumerate(seeds):
        yield from drive_frames(seed, SECONDS, RATE_HZ, SENSORS[number % len(SENSORS)], classes)


def _best_f1_score(scores: NDArray, hits: NDArray, objects: int) -> float:
    """The score that maximises F1 (harmonic mean of precision and recall)."""
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(hits[order]) / (np.arange(1, len(order) + 1) + objects)
    return float(scores[order][np.argmax(f1)]) if len(order) else float("nan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = DetectorConfig()
    parser.add_argument("--weights", default="", help="weights file (default: the shipped ones of the grid)")
    parser.add_argument("--grid", default=defaults.grid, help=f"compact or paper (default {defaults.grid})")
    extent = ("X_MIN", "X_MAX", "Y_MIN", "Y_MAX")
    region = f"where to detect, metres (default {' '.join(map(str, DetectorConfig.region))})"
    parser.add_argument("--region", nargs=4, type=float, metavar=extent, default=defaults.region, help=region)
    classes = "the classes of the weights, in their order (default vehicle)"
    parser.add_argument("--classes", nargs="+", metavar="NAME", default=defaults.classes, help=classes)
    parser.add_argument("--dtype", default=defaults.dtype, help=f"float32 or bfloat16 (default {defaults.dtype})")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="measure on the drives that chose the score threshold, not the held-out",
    )
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="also measure on real frames FOLDER/frames/*.npz")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    try:
        config = DetectorConfig(
            grid=arguments.grid,
            region=tuple(arguments.region),
            classes=tuple(arguments.classes),
            weights=arguments.weights,
            dtype=arguments.dtype,
        )
    except ValueError as error:
        raise UserError(f"--{error}") from None
    console = Console()
    real_ones = list(real_frames(arguments.real, config.objects)) if arguments.real else []
    of_mask = pipelines(config)
    seeds, kind = (VALIDATION, "validation") if arguments.validation else (HELD_OUT, "held-out")
    drives = frames_of_drives(seeds, config.objects)
    count = int(SECONDS * RATE_HZ) * len(seeds)
    frames = list(track(drives, f"{kind} drives", total=count, console=Console(stderr=True)))
    simulated = evaluate_simulated(of_mask, frames, config.thresholds)
    console.print(_simulated_table(simulated, config, kind))
    real: list[RealResult] = []
    if real_ones:
        pipeline = Pipeline(config)
        for frame in real_ones:
            real.append(evaluate_real(pipeline(frame.points, frame.road).detections, frame, pipeline.grid))
        console.print(_real_table(real, config))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"simulated": [asdict(r) for r in simulated], "real": [asdict(r) for r in real]}, indent=1)
        )
    return 0


def _simulated_table(results: list[SimulatedResult], config: DetectorConfig, kind: str) -> Table:
    asked = ", ".join(f"{entry.name}s with at least {entry.least_points} points" for entry in config.objects)
    table = Table(title=f"{results[0].frames} frames of {kind} simulated drives: {asked}")
    thresholds = dict(zip(config.classes, config.thresholds, strict=True))
    by_class = len(config.classes) > 1
    threshold = "threshold" if by_class else f"{config.thresholds[0]}"
    figures = ("AP, IoU 0.5", "AP, IoU 0.7", f"recall at {threshold}", "precision", "best F1 at")
    for column in ("mask", "asked for", *(["class", "threshold"] if by_class else []), "number", *figures):
        table.add_column(column)
    table.add_column("tiles skipped, stride 4")
    for r in results:
        of_class = [r.object, f"{thresholds[r.object]}"] if by_class else []
        numbers = (f"{figure:.3f}" for figure in (r.ap50, r.ap70, r.recall50, r.precision50, r.best_f1_score))
        skipped = f"{100 * r.mean_sparsity['conv-3']:.0f} %"
        table.add_row(r.mask, r.asked, *of_class, str(r.objects), *numbers, skipped)
    return table


def _real_table(results: list[RealResult], config: DetectorConfig) -> Table:
    thresholds = ", ".join(map(str, dict.fromkeys(config.thresholds)))
    title = f"real frames, score {thresholds}: objects with at least {SEEN_POINTS} points, BEV IoU {SEEN_IOU}"
    table = Table("frame", "found", "objects", "false positives", "outside the labelled view", title=title)
    columns = ("found", "objects", "false_positives", "outside_view")
    for r in results:
        table.add_row(r.name, *(str(getattr(r, name)) for name in columns))
    table.add_section()
    table.add_row("all", *(str(sum(getattr(r, name) for r in results)) for name in columns))
    return table
