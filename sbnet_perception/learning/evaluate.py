"""`sbnet evaluate`: what weights reach, on simulated drives held out from training and on real frames."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
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
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.errors import UserError
from sbnet_perception.learning.frames import LabelledFrame, drive_frames, in_grid, real_frames
from sbnet_perception.learning.metrics import SEEN_IOU, SEEN_POINTS, Matches, average_precision, match
from sbnet_perception.learning.targets import LEAST_POINTS
from sbnet_perception.masks.config import EXPRESSIONS

SENSORS = ("hdl64", "vlp32c", "hdl32")
HELD_OUT = range(9_000_001, 9_000_007)
"""Seeds of the drives that no training and no choice has seen."""
VALIDATION = range(8_000_001, 8_000_007)
"""Seeds of the drives that chose the score threshold."""
SECONDS, RATE_HZ = 20.0, 0.5
LOWEST_SCORE = 0.02


PROTOCOLS = (("road_and_occupancy", "on the road"), ("road_and_occupancy", "all"), ("occupancy", "all"))
"""Computation mask, and which vehicles are asked for. With a road mask the task is to find what is on the
road: vehicles off it are then neither asked for nor held against a detection, except in the second line,
which shows what the road mask leaves out by design."""


@dataclass(frozen=True)
class SimulatedResult:
    """Figures over the simulated drives; vehicles in the grid with at least 5 points."""

    mask: str
    asked: str
    frames: int
    vehicles: int
    ap50: float
    ap70: float
    recall50: float
    precision50: float
    best_f1_score: float
    mean_sparsity: dict[str, float]


@dataclass(frozen=True)
class RealResult:
    """One real frame at the configured threshold: vehicles with at least 50 points, BEV IoU 0.3."""

    name: str
    found: int
    vehicles: int
    false_positives: int
    outside_view: int


def pipelines(config: DetectorConfig) -> dict[str, Pipeline]:
    """A pipeline for each mask of the protocols, reporting everything above `LOWEST_SCORE`."""
    sources = dict.fromkeys(source for source, _ in PROTOCOLS)
    masks = {source: replace(config.mask, expression=EXPRESSIONS[source]) for source in sources}
    return {s: Pipeline(replace(config, mask=mask, score_threshold=LOWEST_SCORE)) for s, mask in masks.items()}


def evaluate_simulated(
    of_mask: dict[str, Pipeline], frames: list[LabelledFrame], threshold: float
) -> list[SimulatedResult]:
    """The figures of each protocol, those of one threshold at ``threshold``."""
    results = []
    for source, pipeline in of_mask.items():
        found = [
            pipeline(frame.points, frame.road)
            for frame in track(frames, f"mask {source}", console=Console(stderr=True))
        ]
        sparsity = {stage: float(np.mean([result.sparsity[stage] for result in found])) for stage in found[0].sparsity}
        for asked in (asked for name, asked in PROTOCOLS if name == source):
            figures = _figures([r.detections for r in found], frames, pipeline.grid, asked, threshold)
            results.append(SimulatedResult(source, asked, len(frames), mean_sparsity=sparsity, **figures))
    return results


def _figures(
    found: list[Detections], frames: list[LabelledFrame], grid: Grid, asked: str, threshold: float
) -> dict[str, Any]:
    matches: dict[float, list[Matches]] = {0.5: [], 0.7: []}
    for detections, frame in zip(found, frames, strict=True):
        counted = in_grid(frame.boxes, grid) & (frame.point_counts >= LEAST_POINTS)
        if asked == "on the road":
            counted &= _on_road(frame, grid)
        for iou, of_frames in matches.items():
            of_frames.append(match(detections, frame.boxes, counted, iou))
    scores, hits = (np.concatenate([getattr(m, name) for m in matches[0.5]]) for name in ("scores", "hits"))
    vehicles = sum(len(m.found) for m in matches[0.5])
    chosen = hits[scores > threshold]
    return {
        "vehicles": vehicles,
        "ap50": average_precision(matches[0.5]),
        "ap70": average_precision(matches[0.7]),
        "recall50": float(chosen.sum() / max(vehicles, 1)),
        "precision50": float(chosen.mean()) if len(chosen) else float("nan"),
        "best_f1_score": _best_f1_score(scores, hits, vehicles),
    }


def _on_road(frame: LabelledFrame, grid: Grid) -> NDArray[np.bool_]:
    """Which vehicles have their centre on the road."""
    rows, columns, inside = grid.cells(frame.boxes)
    on_road = np.zeros(len(frame.boxes), bool)
    on_road[inside] = True if frame.road is None else frame.road.mask(grid).numpy()[rows, columns]
    return on_road


def evaluate_real(detections: Detections, frame: LabelledFrame, grid: Grid) -> RealResult:
    """Compare what was found in a real frame with its labels.

    A detection counts as false when no labelled vehicle, however few its points, overlaps it by 0.3, or
    only one that a better detection found already.
    Detections outside the view that was labelled cannot be judged and are counted apart.
    """
    judged = np.abs(np.arctan2(detections.boxes[:, 1], detections.boxes[:, 0])) <= frame.half_view
    counted = in_grid(frame.boxes, grid) & (frame.point_counts >= SEEN_POINTS)
    matches = match(detections[judged], frame.boxes, counted, SEEN_IOU)
    return RealResult(
        name=frame.name,
        found=int(matches.found.sum()),
        vehicles=len(matches.found),
        false_positives=int((~matches.hits).sum()),
        outside_view=int((~judged).sum()),
    )


def frames_of_drives(seeds: Iterable[int]) -> Iterator[LabelledFrame]:
    """The frames of simulated drives, each drive with the next of the sensors."""
    for number, seed in enumerate(seeds):
        yield from drive_frames(seed, SECONDS, RATE_HZ, SENSORS[number % len(SENSORS)])


def _best_f1_score(scores: NDArray, hits: NDArray, vehicles: int) -> float:
    """The score that maximises F1 (harmonic mean of precision and recall)."""
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(hits[order]) / (np.arange(1, len(order) + 1) + vehicles)
    return float(scores[order][np.argmax(f1)]) if len(order) else float("nan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = DetectorConfig()
    parser.add_argument("--weights", default="", help="weights file (default: the shipped ones of the grid)")
    parser.add_argument("--grid", default=defaults.grid, help=f"compact or paper (default {defaults.grid})")
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
        config = DetectorConfig(grid=arguments.grid, weights=arguments.weights, dtype=arguments.dtype)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    console = Console()
    real_ones = list(real_frames(arguments.real)) if arguments.real else []
    of_mask = pipelines(config)
    seeds, kind = (VALIDATION, "validation") if arguments.validation else (HELD_OUT, "held-out")
    count = int(SECONDS * RATE_HZ) * len(seeds)
    frames = list(track(frames_of_drives(seeds), f"{kind} drives", total=count, console=Console(stderr=True)))
    simulated = evaluate_simulated(of_mask, frames, config.score_threshold)
    console.print(_simulated_table(simulated, config.score_threshold, kind))
    real: list[RealResult] = []
    if real_ones:
        pipeline = Pipeline(config)
        for frame in real_ones:
            real.append(evaluate_real(pipeline(frame.points, frame.road).detections, frame, pipeline.grid))
        console.print(_real_table(real, config.score_threshold))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"simulated": [asdict(r) for r in simulated], "real": [asdict(r) for r in real]}, indent=1)
        )
    return 0


def _simulated_table(results: list[SimulatedResult], threshold: float, kind: str) -> Table:
    title = f"{results[0].frames} frames of {kind} simulated drives: vehicles with at least {LEAST_POINTS} points"
    columns = (
        "mask",
        "vehicles",
        "number",
        "AP, IoU 0.5",
        "AP, IoU 0.7",
        f"recall at {threshold}",
        "precision",
        "best F1 at",
    )
    table = Table(*columns, "tiles skipped, stride 4", title=title)
    for r in results:
        figures = (r.ap50, r.ap70, r.recall50, r.precision50, r.best_f1_score)
        skipped = f"{100 * r.mean_sparsity['conv-3']:.0f} %"
        table.add_row(r.mask, r.asked, str(r.vehicles), *(f"{figure:.3f}" for figure in figures), skipped)
    return table


def _real_table(results: list[RealResult], threshold: float) -> Table:
    title = f"real frames, score {threshold}: vehicles with at least {SEEN_POINTS} points, BEV IoU {SEEN_IOU}"
    table = Table("frame", "found", "vehicles", "false positives", "outside the labelled view", title=title)
    for r in results:
        table.add_row(r.name, *map(str, (r.found, r.vehicles, r.false_positives, r.outside_view)))
    totals = [
        sum(getattr(r, name) for r in results) for name in ("found", "vehicles", "false_positives", "outside_view")
    ]
    table.add_section()
    table.add_row("all", *map(str, totals))
    return table
