"""``sbnet adapt``: weights for the user's own sensor, from unlabelled clouds of it."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from sbnet_perception import __version__
from sbnet_perception.desk.adapt_report import draw_comparison, sensor_table
from sbnet_perception.desk.arguments import add_detector_arguments
from sbnet_perception.desk.clouds import read_clouds
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector
from sbnet_perception.detector.weights import load_network, save_weights, weights_path
from sbnet_perception.errors import UserError
from sbnet_perception.learning.adapt import (
    held_out,
    make_plan,
    measured,
    read_plan,
    train_on,
    training,
    write_plan,
)
from sbnet_perception.learning.evaluate import SimulatedResult
from sbnet_perception.learning.sensor import estimate_sensor
from sbnet_perception.learning.sensor.estimate import CLOUDS

PLAN = "plan.json"
MEASURED_ON = 60
"""Simulated scenes that show the gain."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = (
        "Beside OUT.safetensors: OUT.sensor.json (also for 'sbnet train --sensor'), OUT.png (a real cloud beside a "
        "simulated one: look at it), OUT.txt (the report) and the folder OUT.adapt, from which the same command goes "
        "on when it was interrupted; delete it afterwards."
    )
    bag = "rosbag2 recording with clouds, or a folder of frames *.npz (docs/frames.md)"
    parser.add_argument("source", type=Path, metavar="BAG", help=bag + "; labels are not read")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors", help="the weights to write")
    parser.add_argument("--minutes", type=float, default=60.0, help="time that all of it may take (default 60)")
    parser.add_argument("--start", default="", help="weights to go on from (default: the shipped ones of the grid)")
    add_detector_arguments(parser)
    parser.add_argument("--points-topic", metavar="TOPIC", help="the cloud's topic in the bag (default: by type)")
    parser.add_argument("--estimate", action="store_true", help="only estimate the sensor, do not train")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")


def run(args: argparse.Namespace) -> int:
    """Estimates, simulates, trains and reports.

    Raises:
        UserError: an argument is out of its range, or the clouds do not tell of a sensor.
    """
    began = time.monotonic()
    if not args.minutes > 0:
        raise UserError(f"--minutes is {args.minutes}; it must be positive")
    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out} must end in .safetensors; the report and the picture go beside it")
    if args.threads < 0:
        raise UserError(f"--threads is {args.threads}; it must be at least 0")
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        detector = DetectorConfig(
            grid=args.grid, region=tuple(args.region), classes=tuple(args.classes), weights=args.start
        )
    except ValueError as error:
        raise UserError(f"--{error}") from None
    # What cannot go on from the weights should say so before an hour of work.
    load_network(detector)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = Console(record=True)
    sensor = args.out.with_suffix(".sensor.json")
    # What an interrupted run has begun is tied to the sensor that it found.
    if (args.out.with_suffix(".adapt") / PLAN).exists() and sensor.exists():
        report.print(f"going on with {sensor}", highlight=False)
    else:
        _estimated(args, sensor, report)
    if not args.estimate:
        _trained(args, detector, sensor, report, began)
    args.out.with_suffix(".txt").write_text(report.export_text(), encoding="utf-8")
    return 0


def _estimated(args: argparse.Namespace, sensor: Path, report: Console) -> None:
    """Writes the sensor's file and picture and reports it."""
    clouds = read_clouds(args.source, CLOUDS, args.points_topic)
    report.print(f"{len(clouds)} clouds of {args.source}; looking for the sensor, this takes a minute or two")
    estimate = estimate_sensor(clouds)
    known = estimate.known()
    known.write(sensor)
    report.print(sensor_table(estimate, known))
    if not known.rings:
        report.print(
            "There are no rings in these clouds: several LiDARs merged, a solid-state one, or a frame that the LiDAR "
            "is not fixed in. A random pattern of the same density stands for it; its origin is a guess."
        )
    picture = sensor.with_name(sensor.name.removesuffix(".sensor.json") + ".png")
    draw_comparison(clouds, estimate, known, picture)
    report.print(f"wrote {sensor} and {picture}", highlight=False)


def _trained(args: argparse.Namespace, detector: DetectorConfig, sensor: Path, report: Console, began: float) -> None:
    """Writes the weights and reports what they gained."""
    work = args.out.with_suffix(".adapt")
    work.mkdir(exist_ok=True)
    start = weights_path(detector)
    config = training(detector, start, sensor)
    frames = held_out(sensor, detector, MEASURED_ON)
    measuring = time.monotonic()
    before = measured(detector, frames)
    measuring = time.monotonic() - measuring
    if not (work / PLAN).exists():
        left = 60 * args.minutes - (time.monotonic() - began) - measuring
        write_plan(make_plan(config, work, left, args.minutes), work / PLAN)
    plan = read_plan(work / PLAN)
    if plan.minutes != args.minutes:
        raise UserError(f"{work} was begun with --minutes {plan.minutes:g}; say the same to go on, or delete it")
    report.print(f"{plan.scenes} scenes at {plan.scene_seconds:.2f} s, {plan.steps} steps at {plan.step_seconds:.2f} s")
    trainer = train_on(config, plan, work)
    notes = {
        "command": f"sbnet adapt {args.source.name} {args.out.name} --minutes {args.minutes:g} --start {start.name}",
        "data": f"{plan.scenes} simulated scenes of this repository with the sensor estimated from unlabelled clouds",
        "sensor": json.loads(sensor.read_text(encoding="utf-8")),
        "version": __version__,
    }
    network = trainer.averaged.eval()
    assert isinstance(network, Detector)
    save_weights(args.out, network, detector.cell_size, detector.objects, notes, config.mask)
    after = measured(replace(detector, weights=str(args.out)), frames)
    report.print(gain_table(before, after, len(frames)))
    report.print(f"wrote {args.out} after {(time.monotonic() - began) / 60:.0f} minutes", highlight=False)


def gain_table(before: list[SimulatedResult], after: list[SimulatedResult], frames: int) -> Table:
    """Figures of the weights that it began with and of the new ones."""
    table = Table(title=f"{frames} held-out simulated scenes of this sensor, mask {before[0].mask}, all objects")
    for column in ("class", "number", "figure", "before", "after"):
        table.add_column(column)
    names = {"ap50": "AP, IoU 0.5", "ap70": "AP, IoU 0.7", "recall50": "recall", "precision50": "precision"}
    for old, new in zip(before, after, strict=True):
        for name, text in names.items():
            table.add_row(old.object, str(old.objects), text, f"{asdict(old)[name]:.3f}", f"{asdict(new)[name]:.3f}")
    return table
