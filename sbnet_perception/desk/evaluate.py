"""`sbnet evaluate`: what weights reach, on simulated drives held out from training and on real frames."""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from sbnet_perception.bev.grid import Grid
from sbnet_perception.desk.arguments import add_detector_arguments
from sbnet_perception.desk.curves import plot_curves
from sbnet_perception.desk.evaluation_tables import (
    deviations_table,
    errors_table,
    parts_table,
    simulated_tables,
    traits_table,
)
from sbnet_perception.desk.official import official_figures
from sbnet_perception.desk.outputs import check_plot, check_writable
from sbnet_perception.desk.worst import draw_worst
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import BOXES
from sbnet_perception.learning.datasets.registry import FORM, HELP, Data, open_data
from sbnet_perception.learning.evaluate import (
    HELD_OUT,
    MASKS,
    RATE_HZ,
    SECONDS,
    VALIDATION,
    SimulatedResult,
    evaluate_simulated,
    frames_of_drives,
    pipeline_under,
)
from sbnet_perception.learning.kitti_labels import KittiFrame, kitti_frame
from sbnet_perception.learning.mistakes import (
    FALSE_KINDS,
    MISS_KINDS,
    FalsePositive,
    Miss,
    deviations,
    false_positives,
    misses,
    traits,
)
from sbnet_perception.learning.real import Judged, Tally, curves, judge, parts
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig

REAL_MASK = "occupancy"
"""Most data sets have no map."""
MOST_FRAMES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = DetectorConfig()
    parser.add_argument("--weights", default="", help="weights file (default: the shipped ones of the grid)")
    add_detector_arguments(parser)
    dtypes = f"float32, bfloat16, float16, int8 or auto (default {defaults.dtype})"
    parser.add_argument("--dtype", default=defaults.dtype, help=dtypes)
    parser.add_argument("--data", metavar=FORM, help=f"instead of simulated drives, measure on {HELP}")
    frames = f"with --data, at most N of its frames, evenly taken; each takes some MB (default {MOST_FRAMES})"
    parser.add_argument("--frames", type=int, metavar="N", help=frames)
    parser.add_argument("--simulated", action="store_true", help="with --data, measure on the held-out drives too")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="measure on the simulated drives that chose the score threshold, not the held-out",
    )
    worst = "with --data, draw the worst false positives and misses into FOLDER"
    parser.add_argument("--worst", type=Path, metavar="FOLDER", help=worst)
    masks = f"masks to measure under: expressions, or {', '.join(EXPRESSIONS)} (default {' '.join(MASKS)})"
    parser.add_argument("--mask", nargs="+", metavar="MASK", help=f"{masks}; a data set under the first, {REAL_MASK}")
    network = "weights of the mask network, where a mask names predicted"
    parser.add_argument("--mask-weights", default="", metavar="FILE", help=network)
    curve = "with --data, draw precision over recall to FILE (.png, .svg, .pdf)"
    parser.add_argument("--curves", type=Path, metavar="FILE", help=curve)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")


def configuration(arguments: argparse.Namespace) -> DetectorConfig:
    """What is measured, whatever the mask.

    Raises:
        UserError: an option is out of its range.
    """
    try:
        config = DetectorConfig(
            grid=arguments.grid,
            region=tuple(arguments.region),
            classes=tuple(arguments.classes),
            weights=arguments.weights,
            dtype=arguments.dtype,
            mask=MaskConfig(weights=arguments.mask_weights),
        )
        for mask in arguments.mask or ():
            MaskConfig(EXPRESSIONS.get(mask, mask))
    except ValueError as error:
        raise UserError(f"--{error}") from None
    return config


def run(arguments: argparse.Namespace) -> int:
    config = configuration(arguments)
    for option in ("simulated", "worst", "curves", "frames"):
        if getattr(arguments, option) not in (None, False) and not arguments.data:
            raise UserError(f"--{option} is for a data set: name it with --data")
    if arguments.frames is not None and arguments.frames < 1:
        raise UserError(f"--frames is {arguments.frames}; it must be at least 1")
    check_writable("--json", arguments.json)
    check_plot("--curves", arguments.curves)
    check_writable("--worst", arguments.worst)
    console = Console()
    figures: dict[str, Any] = {}
    if arguments.data:
        data = open_data(arguments.data)
        data = data.evenly(arguments.frames or MOST_FRAMES)
        console.print(str(data), highlight=False)
        figures["data"] = _measure_data(data, config, arguments, console)
    if arguments.simulated or arguments.validation or not arguments.data:
        masks = arguments.mask or MASKS
        simulated = _measure_simulated(arguments.validation, config, masks, console)
        figures["simulated"] = [asdict(result) for result in simulated]
    if arguments.json:
        arguments.json.write_text(json.dumps(plain(figures), indent=1) + "\n")
    return 0


def _measure_simulated(
    validation: bool, config: DetectorConfig, masks: Sequence[str], console: Console
) -> list[SimulatedResult]:
    of_mask = {mask: pipeline_under(config, mask) for mask in masks}
    seeds, kind = (VALIDATION, "validation") if validation else (HELD_OUT, "held-out")
    drives = frames_of_drives(seeds, config.objects)
    count = int(SECONDS * RATE_HZ) * len(seeds)
    frames = list(track(drives, f"{kind} drives", total=count, console=Console(stderr=True)))
    simulated = evaluate_simulated(of_mask, frames, config.thresholds)
    console.print(simulated_tables(simulated, config, kind))
    return simulated


def _measure_data(
    data: Data, config: DetectorConfig, arguments: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Figures by class."""
    mask = arguments.mask[0] if arguments.mask else REAL_MASK
    pipeline = pipeline_under(config, mask)
    judged: list[list[Judged]] = [[] for _ in config.classes]
    for item in track(data.items, data.reader.name, console=Console(stderr=True)):
        frame = item.read(config.objects)
        if frame.labelled != BOXES:
            raise UserError(f"{frame.name} has no labelled boxes to measure on; name a part or split that has them")
        found = pipeline(frame.points, frame.road).detections
        for number, of_class in enumerate(judged):
            of_class.append(judge(found, frame, pipeline.grid, number))
    console.print(f"{', '.join(f'{n} of {source}' for source, n in data.sources.items())}, mask {mask}")
    results = {}
    of_classes = zip(config.objects, config.thresholds, judged, strict=True)
    for number, (entry, threshold, of_class) in enumerate(of_classes):
        tally = Tally(of_class, threshold)
        measured, lines = parts(of_class, tally), curves(of_class, tally)
        labelled = [kitti_frame(one.detections, one.frame) for one in of_class]
        console.print(parts_table(measured, entry.name, threshold))
        results[entry.name] = {
            "threshold": threshold,
            "parts": [asdict(part) for part in measured],
            "curves": [asdict(line) for line in lines],
            **official_figures(of_class, labelled, entry, number, pipeline.grid, console),
            **_mistakes(
                of_class, labelled, threshold, pipeline.grid, _for_class(arguments.worst, entry, config), console
            ),
        }
        if picture := _for_class(arguments.curves, entry, config):
            plot_curves(lines, entry.name, picture)
    return results


def _for_class(path: Path | None, entry: ObjectClass, config: DetectorConfig) -> Path | None:
    """The path itself where there is one class, else with the class's name."""
    return path if path is None or len(config.classes) == 1 else path.with_stem(f"{path.stem}_{entry.name}")


def _mistakes(
    judged: list[Judged],
    labelled: list[KittiFrame | None],
    threshold: float,
    grid: Grid,
    worst: Path | None,
    console: Console,
) -> dict[str, Any]:
    """The errors by their kind, and pictures of the worst in the folder ``worst``."""
    pairs = zip(judged, labelled, strict=True)
    false = [one for frame, with_labels in pairs for one in false_positives(frame, threshold, with_labels)]
    missed = [one for frame in judged for one in misses(frame, threshold)]
    frames = Counter(one.frame.source for one in judged)
    console.print(errors_table("false positives", FALSE_KINDS, false, frames))
    console.print(errors_table("misses", MISS_KINDS, missed, frames))
    found_traits, found_deviations = traits(judged, threshold, grid), deviations(judged, threshold)
    console.print(traits_table(found_traits))
    console.print(deviations_table(found_deviations))
    if worst:
        drawn = draw_worst(false, missed, threshold, worst)
        console.print(f"{len(drawn)} sheets of the worst errors in {worst}")
    return {
        "false_positives": [_error(one) for one in false],
        "misses": [_error(one) for one in missed],
        "traits": [asdict(trait) for trait in found_traits],
        "deviations": [asdict(deviation) for deviation in found_deviations],
    }


def _error(error: FalsePositive | Miss) -> dict[str, Any]:
    """For the JSON file: what it is and where."""
    place = [round(float(value), 2) for value in error.box]
    return {"frame": error.judged.frame.name, "kind": error.kind, "score": error.score, "box": place}


def plain(value: Any) -> Any:
    """As JSON has it: no arrays, and null for a figure that does not exist."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return [round(float(one), 4) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
