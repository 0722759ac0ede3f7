"""`sbnet bench network`: the network of the shipped weights, dense and under each mask."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from functools import partial

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sbnet_perception.bench.measure import (
    Row,
    alternate,
    check_writable,
    machine,
    warnings,
    with_steady_memory,
    write_rows,
)
from sbnet_perception.bev.voxelize import voxelize
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.errors import UserError
from sbnet_perception.learning.frames import LabelledFrame, drive_frames, real_frames
from sbnet_perception.masks.computation import MaskConfig, computation_mask

SOURCES = ("road", "occupancy", "road_and_occupancy")


def measure_frame(pipeline: Pipeline, frame: LabelledFrame, rounds: int) -> list[Row]:
    """Times of the network for one frame: dense, and sparse under each mask; a row per mask."""
    bev = voxelize(frame.points, pipeline.grid)
    masks = {}
    for source in SOURCES:
        where = computation_mask(frame.points, pipeline.grid, frame.road, MaskConfig(source=source))
        if where.mask is not None and not where.missing_road:
            masks[source] = torch.from_numpy(where.mask)[None]
    candidates = {"dense": partial(pipeline.network, bev)}
    candidates |= {source: partial(pipeline.network, bev, mask) for source, mask in masks.items()}
    with torch.inference_mode():
        times = alternate(candidates, rounds)
    return [
        {
            "input": frame.name,
            "mask": source,
            "tile_sparsity": pipeline.network.tiles(mask)["conv-3"].sparsity,
            "dense_ms": times["dense"].median,
            "sparse_ms": times[source].median,
            "p95_ms": times[source].p95,
            "speedup": times["dense"].median / times[source].median,
            "page_faults": max(times["dense"].faults, times[source].faults),
            "other_programs": times[source].others,
        }
        for source, mask in masks.items()
    ]


def run(arguments: argparse.Namespace) -> int:
    check_writable("--json", arguments.json)
    try:
        config = DetectorConfig(weights=arguments.weights, threads=arguments.threads)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    with_steady_memory()
    console = Console()
    pipeline = Pipeline(config)
    frames = list(drive_frames(9_100_001, pipeline.grid, seconds=8.0, rate_hz=0.5, sensor="hdl64"))
    if arguments.real:
        frames += real_frames(arguments.real, pipeline.grid)
    rows: list[Row] = []
    for frame in track(frames, "measuring", console=console):
        rows += measure_frame(pipeline, frame, arguments.rounds)
    console.print(_table(rows))
    for warning in warnings(rows):
        console.print(warning, style="yellow")
    here = machine()
    console.print(f"{here['cpu']}, {here['threads']} threads, torch {here['torch']}, float32, compact grid")
    if arguments.json:
        write_rows(arguments.json, rows)
    return 0


def _table(rows: Iterable[Row]) -> Table:
    table = Table("input", "mask", "tiles skipped", "dense ms", "sparse ms", "speed-up", "page faults")
    for row in rows:
        skipped = 100 * float(row["tile_sparsity"] or 0)
        figures = f"{skipped:.0f} %", f"{row['dense_ms']:.1f}", f"{row['sparse_ms']:.1f}"
        table.add_row(
            str(row["input"]), str(row["mask"]), *figures, f"{row['speedup']:.2f}", f"{row['page_faults']:.0f}"
        )
    return table
