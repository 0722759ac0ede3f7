"""`sbnet bench masks`: which mask to use where: its time and what is found under it, in different surroundings."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from rich.console import Console

from sbnet_perception.bench import current
from sbnet_perception.bench.measure import Row, Times, alternate, with_steady_memory, write_rows
from sbnet_perception.bench.screen import at_least_one, closing, milliseconds, progress_bar, table_of
from sbnet_perception.desk.outputs import check_writable
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.weights import weights_path
from sbnet_perception.errors import UserError
from sbnet_perception.learning.evaluate import SENSORS, MeasuredFrame, figures_of, measured, pipeline_under
from sbnet_perception.learning.frames import LabelledFrame, drive_frames
from sbnet_perception.learning.simulator.roadside import SETTINGS
from sbnet_perception.masks.config import MaskConfig

ASKED = ("on the road", "all")
FIRST_SEED = 8_100_001
"""Of the drives: neither trained on nor held out."""
RATE_HZ = 0.5


def frames_in(setting: str, drives: int, frames: int) -> Iterator[LabelledFrame]:
    """The frames of some drives through one of `SETTINGS`, each drive with the next of the sensors."""
    number = list(SETTINGS).index(setting)
    for drive in range(drives):
        seed, sensor = FIRST_SEED + 100 * number + drive, SENSORS[drive % len(SENSORS)]
        yield from drive_frames(seed, frames / RATE_HZ, RATE_HZ, sensor, setting=setting)


def measure(
    pipelines: dict[str, Pipeline], frames: Iterator[LabelledFrame], rounds: int, advance: Callable[[], object]
) -> Iterator[Row]:
    """A row per mask. On each frame the pipelines run in turn, after they were judged, which warms them up."""
    found: dict[str, list[MeasuredFrame]] = {mask: [] for mask in pipelines}
    times: dict[str, list[Times]] = {mask: [] for mask in pipelines}
    for frame in frames:
        for mask, pipeline in pipelines.items():
            found[mask].append(measured(pipeline, frame, lambda _: ASKED))
        runs = {mask: partial(pipeline, frame.points, frame.road) for mask, pipeline in pipelines.items()}
        for mask, of in alternate(runs, rounds, warm_up=0).items():
            times[mask].append(of)
        advance()
    for mask, pipeline in pipelines.items():
        config = pipeline.config
        road, every = figures_of(mask, found[mask], config.objects, (0.5,) * len(config.objects))[:2]
        yield {
            "mask": mask,
            "expression": config.mask.expression,
            "frames": road.frames,
            "vehicles_on_road": road.objects,
            "vehicles": every.objects,
            "ap50_on_road": road.ap50,
            "ap70_on_road": road.ap70,
            "ap50": every.ap50,
            "ap70": every.ap70,
            "pixel_recall_on_road": road.pixel_recall,
            "skipped": road.mean_sparsity["conv-3"],
            "ms": float(np.median([of.median for of in times[mask]])),
            "page_faults": max(of.faults for of in times[mask]),
            "other_programs": max(of.others for of in times[mask]),
        }


def pipelines_of(config: DetectorConfig, masks: Sequence[str]) -> dict[str, Pipeline]:
    """Name or expression -> the pipeline under this mask.

    Raises:
        UserError: a mask is no expression.
    """
    try:
        return {mask: pipeline_under(config, mask) for mask in masks}
    except ValueError as error:
        raise UserError(f"--mask: {error}") from None


def run(arguments: argparse.Namespace) -> int:
    at_least_one(arguments, "drives", "frames")
    check_writable("--json", arguments.json)
    if unknown := [name for name in arguments.setting if name not in SETTINGS]:
        raise UserError(f"--setting is {unknown[0]!r}; use one of {', '.join(SETTINGS)}")
    (dtype, *more) = current.dtypes(arguments)
    if more:
        raise UserError("--dtype is both; measure one at a time")
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = current.configured(arguments.grid, dtype, "", arguments.weights, arguments.region)
    config = replace(config, mask=MaskConfig(weights=arguments.mask_weights))
    pipelines, weights = pipelines_of(config, arguments.mask), weights_path(config).name
    console, rows = Console(), []
    with progress_bar(console) as progress:
        task = progress.add_task("", total=len(arguments.setting) * arguments.drives * arguments.frames)
        for setting in arguments.setting:
            progress.update(task, description=setting)
            frames = frames_in(setting, arguments.drives, arguments.frames)
            found = measure(pipelines, frames, arguments.rounds, lambda: progress.advance(task))
            about = {"setting": setting, "grid": current.grid_of(config), "dtype": dtype, "weights": weights}
            rows += [{**about, **row} for row in found]
            show(rows[-len(pipelines) :], console)
            if arguments.json:
                write_rows(arguments.json, rows)
    closing(rows, console)
    return 0


def show(rows: Sequence[Row], console: Console) -> None:
    """The table of one setting."""
    first = rows[0]
    title = f"{first['setting']}: {first['frames']} frames, {first['grid']} grid, {first['dtype']}; AP at IoU 0.5 / 0.7"
    road, every = (f"AP of {first[key]}\n" for key in ("vehicles_on_road", "vehicles"))
    columns = ["skipped", "cloud to\nboxes, ms", f"{road}on the road", f"{every}vehicles"]
    table = table_of(title, "mask", columns)
    for row in rows:
        pairs = [f"{float(row[f'ap50{of}'] or 0):.3f} / {float(row[f'ap70{of}'] or 0):.3f}" for of in ("_on_road", "")]
        skipped = f"{100 * float(row['skipped'] or 0):.0f} %"
        table.add_row(str(row["mask"]), skipped, milliseconds(row["ms"]), *pairs)
    console.print(table, highlight=False)
