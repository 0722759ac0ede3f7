"""`sbnet bench`: dense against sparse, same weights, same input, on this machine."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sbnet_perception.bench.measure import alternate, with_steady_memory
from sbnet_perception.bev.voxelize import voxelize
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.errors import UserError
from sbnet_perception.learning.frames import LabelledFrame, drive_frames, real_frames
from sbnet_perception.masks.computation import MaskConfig, computation_mask

SOURCES = ("road", "occupancy", "road_and_occupancy")
Row = dict[str, float | str]


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
        }
        for source, mask in masks.items()
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    network = kinds.add_parser("network", help="the network of the shipped weights, dense and under each mask")
    network.add_argument("--real", type=Path, metavar="FOLDER", help="measure on FOLDER/frames/*.npz too")
    network.add_argument("--rounds", type=int, default=30, help="alternating rounds per frame (default 30)")
    network.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
    network.add_argument("--weights", default="", help="weights file (default: the shipped ones)")
    network.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")


def run(arguments: argparse.Namespace) -> int:
    if arguments.rounds < 1:
        raise UserError(f"--rounds is {arguments.rounds}; it must be at least 1")
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
    if any(float(row["page_faults"]) > 100 for row in rows):
        console.print("WARNING: page faults distort these times; free some memory and measure again", style="yellow")
    console.print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, float32, compact grid"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0


def _table(rows: Iterable[Row]) -> Table:
    table = Table("input", "mask", "tiles skipped", "dense ms", "sparse ms", "speed-up", "page faults")
    for row in rows:
        figures = f"{100 * float(row['tile_sparsity']):.0f} %", f"{row['dense_ms']:.1f}", f"{row['sparse_ms']:.1f}"
        table.add_row(
            str(row["input"]), str(row["mask"]), *figures, f"{row['speedup']:.2f}", f"{row['page_faults']:.0f}"
        )
    return table
