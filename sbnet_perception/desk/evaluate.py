"""`sbnet evaluate`: what weights reach, on simulated drives held out from training and on real frames."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from sbnet_perception.desk.evaluation_tables import parts_table, simulated_table
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets import frame_files, read_frame
from sbnet_perception.learning.evaluate import (
    HELD_OUT,
    RATE_HZ,
    SECONDS,
    VALIDATION,
    SimulatedResult,
    evaluate_simulated,
    frames_of_drives,
    pipeline_under,
    pipelines,
)
from sbnet_perception.learning.real import Judged, Tally, judge, parts

REAL_MASK = "occupancy"
"""Real frames are measured without a map: most have none."""


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
    real = "instead of simulated drives, measure on labelled real frames FOLDER/*.npz, without a map (docs/frames.md)"
    parser.add_argument("--real", type=Path, metavar="FOLDER", help=real)
    parser.add_argument("--simulated", action="store_true", help="with --real, measure on the held-out drives too")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="measure on the simulated drives that chose the score threshold, not the held-out",
    )
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
    figures: dict[str, Any] = {}
    files = frame_files(arguments.real) if arguments.real else []
    if files:
        figures["real"] = _measure_real(files, config, console)
    if arguments.simulated or arguments.validation or not files:
        figures["simulated"] = [asdict(result) for result in _measure_simulated(arguments.validation, config, console)]
    if arguments.json:
        arguments.json.write_text(json.dumps(_without_nan(figures), indent=1) + "\n")
    return 0


def _measure_simulated(validation: bool, config: DetectorConfig, console: Console) -> list[SimulatedResult]:
    of_mask = pipelines(config)
    seeds, kind = (VALIDATION, "validation") if validation else (HELD_OUT, "held-out")
    drives = frames_of_drives(seeds, config.objects)
    count = int(SECONDS * RATE_HZ) * len(seeds)
    frames = list(track(drives, f"{kind} drives", total=count, console=Console(stderr=True)))
    simulated = evaluate_simulated(of_mask, frames, config.thresholds)
    console.print(simulated_table(simulated, config, kind))
    return simulated


def _measure_real(files: list[Path], config: DetectorConfig, console: Console) -> dict[str, Any]:
    """Figures by class."""
    pipeline = pipeline_under(config, REAL_MASK)
    judged: list[list[Judged]] = [[] for _ in config.classes]
    sources: Counter[str] = Counter()
    for file in track(files, "real frames", console=Console(stderr=True)):
        frame = read_frame(file, config.objects)
        sources[frame.source] += 1
        found = pipeline(frame.points).detections
        for number, of_class in enumerate(judged):
            of_class.append(judge(found, frame, pipeline.grid, number))
    console.print(f"{len(files)} real frames: {', '.join(f'{n} {source}' for source, n in sorted(sources.items()))}")
    results = {}
    for name, threshold, of_class in zip(config.classes, config.thresholds, judged, strict=True):
        measured = parts(of_class, Tally(of_class, threshold))
        console.print(parts_table(measured, name, threshold))
        results[name] = {"threshold": threshold, "parts": [asdict(part) for part in measured]}
    return results


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: a figure that does not exist is null there."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
