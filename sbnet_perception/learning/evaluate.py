"""`sbnet evaluate`: what weights reach, on simulated drives held out from training and on real frames."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.errors import UserError
from sbnet_perception.learning.frames import LabelledFrame, drive_frames, in_grid, real_frames
from sbnet_perception.learning.metrics import average_precision, match
from sbnet_perception.learning.targets import LEAST_POINTS

SENSORS = ("hdl64", "vlp32c", "hdl32")
HELD_OUT = range(9_000_001, 9_000_007)
"""Seeds of the drives that no training and no choice has seen."""
VALIDATION = range(8_000_001, 8_000_007)
"""Seeds of the drives that chose the score threshold."""
SECONDS, RATE_HZ = 20.0, 0.5
REAL_POINTS, REAL_IOU = 50, 0.3
LOWEST_SCORE = 0.02


@dataclass(frozen=True)
class SimulatedResult:
    """Average precision over the held-out drives; vehicles in the grid with at least 5 points."""

    frames: int
    vehicles: int
    ap50: float
    ap70: float
    recall50: float
    precision50: float
    best_threshold: float
    mean_sparsity: dict[str, float]


@dataclass(frozen=True)
class RealResult:
    """One real frame at the configured threshold: vehicles with at least 50 points, BEV IoU 0.3."""

    name: str
    found: int
    vehicles: int
    false_positives: int
    outside_view: int


def evaluate_simulated(pipeline: Pipeline, threshold: float, frames: Iterable[LabelledFrame]) -> SimulatedResult:
    """Measure a pipeline whose own score threshold is `LOWEST_SCORE`; ``threshold`` is the shipped one."""
    at50, at70, sparsity = [], [], []
    for frame in frames:
        result = pipeline(frame.points, frame.road)
        counted = in_grid(frame.boxes, pipeline.grid) & (frame.point_counts >= LEAST_POINTS)
        at50.append(match(result.detections, frame.boxes, counted, 0.5))
        at70.append(match(result.detections, frame.boxes, counted, 0.7))
        sparsity.append(result.sparsity)
    scores, hits = np.concatenate([m.scores for m in at50]), np.concatenate([m.hits for m in at50])
    vehicles = sum(len(m.found) for m in at50)
    chosen = hits[scores >= threshold]
    return SimulatedResult(
        frames=len(at50),
        vehicles=vehicles,
        ap50=average_precision(at50),
        ap70=average_precision(at70),
        recall50=float(chosen.sum() / max(vehicles, 1)),
        precision50=float(chosen.mean()) if len(chosen) else float("nan"),
        best_threshold=_best_threshold(scores, hits, vehicles),
        mean_sparsity={stage: float(np.mean([s[stage] for s in sparsity])) for stage in sparsity[0]},
    )


def evaluate_real(detections: Detections, frame: LabelledFrame, grid: Grid) -> RealResult:
    """Compare what was found in a real frame with its labels.

    A detection counts as false when no labelled vehicle, however few its points, overlaps it by 0.3, or
    only one that a better detection found already.
    Detections outside the view that was labelled cannot be judged and are counted apart.
    """
    judged = np.abs(np.arctan2(detections.boxes[:, 1], detections.boxes[:, 0])) <= frame.half_view
    counted = in_grid(frame.boxes, grid) & (frame.point_counts >= REAL_POINTS)
    matches = match(detections[judged], frame.boxes, counted, REAL_IOU)
    return RealResult(
        name=frame.name,
        found=int(matches.found.sum()),
        vehicles=len(matches.found),
        false_positives=int((~matches.hits).sum()),
        outside_view=int((~judged).sum()),
    )


def frames_of_drives(seeds: Iterable[int], grid: Grid) -> Iterator[LabelledFrame]:
    """The frames of simulated drives, each drive with the next of the sensors."""
    for number, seed in enumerate(seeds):
        yield from drive_frames(seed, grid, SECONDS, RATE_HZ, SENSORS[number % len(SENSORS)])


def _best_threshold(scores: np.ndarray, hits: np.ndarray, vehicles: int) -> float:
    """The score that maximises F1 (harmonic mean of precision and recall)."""
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(hits[order]) / (np.arange(1, len(order) + 1) + vehicles)
    return float(scores[order][np.argmax(f1)]) if len(order) else float("nan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = DetectorConfig()
    parser.add_argument("--weights", default="", help="weights file (default: the shipped ones of the grid)")
    parser.add_argument("--grid", default=defaults.grid, help=f"compact or paper (default {defaults.grid})")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="measure on the drives that chose the score threshold, not the held-out",
    )
    parser.add_argument("--real", type=Path, metavar="FOLDER", help="also measure on real frames FOLDER/frames/*.npz")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    try:
        config = DetectorConfig(grid=arguments.grid, weights=arguments.weights)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    console = Console()
    pipeline = Pipeline(replace(config, score_threshold=LOWEST_SCORE))
    seeds, kind = (VALIDATION, "validation") if arguments.validation else (HELD_OUT, "held-out")
    drives = frames_of_drives(seeds, pipeline.grid)
    frames = track(drives, f"{kind} simulated drives", total=int(SECONDS * RATE_HZ) * len(seeds), console=console)
    simulated = evaluate_simulated(pipeline, config.score_threshold, frames)
    console.print(_simulated_table(simulated, config.score_threshold, kind))
    real: list[RealResult] = []
    if arguments.real:
        pipeline = Pipeline(config)
        for frame in real_frames(arguments.real, pipeline.grid):
            real.append(evaluate_real(pipeline(frame.points, frame.road).detections, frame, pipeline.grid))
        console.print(_real_table(real, config.score_threshold))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"simulated": asdict(simulated), "real": [asdict(r) for r in real]}, indent=1)
        )
    return 0


def _simulated_table(result: SimulatedResult, threshold: float, kind: str) -> Table:
    table = Table("figure", "value", title=f"{kind} simulated drives")
    table.add_row("frames / vehicles with at least 5 points", f"{result.frames} / {result.vehicles}")
    table.add_row("AP, BEV IoU 0.5", f"{result.ap50:.3f}")
    table.add_row("AP, BEV IoU 0.7", f"{result.ap70:.3f}")
    table.add_row(
        f"recall / precision at score {threshold}, IoU 0.5",
        f"{result.recall50:.3f} / {result.precision50:.3f}",
    )
    table.add_row("score of the best F1", f"{result.best_threshold:.2f}")
    for stage, value in result.mean_sparsity.items():
        table.add_row(f"tiles skipped, {stage}", f"{100 * value:.0f} %")
    return table


def _real_table(results: list[RealResult], threshold: float) -> Table:
    title = f"real frames, score {threshold}: vehicles with at least {REAL_POINTS} points, BEV IoU {REAL_IOU}"
    table = Table("frame", "found", "vehicles", "false positives", "outside the labelled view", title=title)
    for r in results:
        table.add_row(r.name, *map(str, (r.found, r.vehicles, r.false_positives, r.outside_view)))
    totals = [
        sum(getattr(r, name) for r in results) for name in ("found", "vehicles", "false_positives", "outside_view")
    ]
    table.add_section()
    table.add_row("all", *map(str, totals))
    return table
