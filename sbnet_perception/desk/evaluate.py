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
from sbnet_perception.desk.worst import Worst
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import BOXES
from sbnet_perception.learning.datasets.registry import FORM, HELP, Data, open_data
from sbnet_perception.learning.evaluate import (
    HELD_OUT,
    RATE_HZ,
    SECONDS,
    VALIDATION,
    SimulatedResult,
    evaluate_simulated,
    frames_of_drives,
    own_masks,
    pipeline_under,
)
from sbnet_perception.learning.gathered import Gathered
from sbnet_perception.learning.mistakes import (
    FALSE_KINDS,
    MISS_KINDS,
    FalsePositive,
    Miss,
    deviations,
)
from sbnet_perception.learning.real import Tally, curves, parts
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig

MOST_FRAMES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = DetectorConfig()
    parser.add_argument("--weights", default="", help="weights file (default: the shipped ones of the grid)")
    add_detector_arguments(parser)
    dtypes = f"float32, bfloat16, float16, int8 or auto (default {defaults.dtype})"
    parser.add_argument("--dtype", default=defaults.dtype, help=dtypes)
    parser.add_argument("--data", metavar=FORM, help=f"instead of simulated drives, measure on {HELP}")
    frames = f"with --data, at most N of its frames, evenly taken; more cost time alone (default {MOST_FRAMES})"
    parser.add_argument("--frames", type=int, metavar="N", help=frames)
    parser.add_argument("--simulated", action="store_true", help="with --data, measure on the held-out drives too")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="measure on the simulated drives that chose the score threshold, not the held-out",
    )
    worst = "with --data, draw the worst false positives and misses into FOLDER"
    parser.add_argument("--worst", type=Path, metavar="FOLDER", help=worst)
    masks = f"masks to measure under: expressions, or {', '.join(EXPRESSIONS)}; a data set under the first"
    own = "default: that of the weights, and the same without a map, which most data sets do not have"
    parser.add_argument("--mask", nargs="+", metavar="MASK", help=f"{masks} ({own})")
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
        masks = arguments.mask or own_masks(config)
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
    frames = track(drives, f"{kind} drives", total=count, console=Console(stderr=True))
    simulated = evaluate_simulated(of_mask, frames, config.thresholds)
    console.print(simulated_tables(simulated, config, kind))
    return simulated


def _measure_data(
    data: Data, config: DetectorConfig, arguments: argparse.Namespace, console: Console
) -> dict[str, Any]:
    """Figures by class."""
    mask = arguments.mask[0] if arguments.mask else own_masks(config)[-1]
    pipeline = pipeline_under(config, mask)
    gathered = [Gathered(number, threshold, pipeline.grid) for number, threshold in enumerate(config.thresholds)]
    worst = [Worst(threshold) for threshold in config.thresholds]
    for item in track(data.items, data.reader.name, console=Console(stderr=True)):
        frame = item.read(config.objects)
        if frame.labelled != BOXES:
            raise UserError(f"{frame.name} has no labelled boxes to measure on; name a part or split that has them")
        found = pipeline(frame.points, frame.road).detections
        for of_class, worst_of_class in zip(gathered, worst, strict=True):
            errors = of_class.add(found, frame)
            if arguments.worst:
                worst_of_class.add(*errors)
    console.print(f"{', '.join(f'{n} of {source}' for source, n in data.sources.items())}, mask {mask}")
    results = {}
    of_classes = zip(config.objects, config.thresholds, gathered, worst, strict=True)
    for entry, threshold, of_class, worst_of_class in of_classes:
        tally = Tally(of_class.judged, threshold)
        measured, lines = parts(of_class.judged, tally), curves(of_class.judged, tally)
        console.print(parts_table(measured, entry.name, threshold))
        results[entry.name] = {
            "threshold": threshold,
            "parts": [asdict(part) for part in measured],
            "curves": [asdict(line) for line in lines],
            **official_figures(of_class, entry, pipeline.grid, console),
            **_mistakes(of_class, threshold, console),
        }
        if folder := _for_class(arguments.worst, entry, config):
            console.print(f"{len(worst_of_class.draw(folder))} sheets of the worst errors in {folder}")
        if picture := _for_class(arguments.curves, entry, config):
            plot_curves(lines, entry.name, picture)
    return results


def _for_class(path: Path | None, entry: ObjectClass, config: DetectorConfig) -> Path | None:
    """The path itself where there is one class, else with the class's name."""
    return path if path is None or len(config.classes) == 1 else path.with_stem(f"{path.stem}_{entry.name}")


def _mistakes(gathered: Gathered, threshold: float, console: Console) -> dict[str, Any]:
    """The errors by their kind."""
    frames = Counter(one.frame.source for one in gathered.judged)
    console.print(errors_table("false positives", FALSE_KINDS, gathered.false_positives, frames))
    console.print(errors_table("misses", MISS_KINDS, gathered.misses, frames))
    found_deviations = deviations(gathered.judged, threshold)
    console.print(traits_table(gathered.traits))
    console.print(deviations_table(found_deviations))
    return {
        "false_positives": [_error(one) for one in gathered.false_positives],
        "misses": [_error(one) for one in gathered.misses],
        "traits": [asdict(trait) for trait in gathered.traits],
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
