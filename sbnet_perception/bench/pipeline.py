"""`sbnet bench pipeline`: from message to detections, stage by stage, dense and sparse on the same frames."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from rich.console import Console

from sbnet_perception.bench import current, steady
from sbnet_perception.bench.inputs import Input, read_inputs
from sbnet_perception.bench.measure import Row, Samples, with_steady_memory, write_rows
from sbnet_perception.bench.screen import at_least_one, closing, milliseconds, progress_bar, table_of
from sbnet_perception.bench.sides import NETWORK, DenseSide, Laps, Recorder, Sparse, by_frame
from sbnet_perception.desk.outputs import check_writable
from sbnet_perception.masks.config import MaskConfig

STAGES = ("decode", "mask", "voxelize", *NETWORK, "nms", "publish", "network", "total")
"""Stages of the rows, as they run, then sums: "network" of conv-1 to branches, "total" of decode to nms.

"decode" is the bytes of a PointCloud2 to an array, "mask" the computation mask, road included, with all tiles, "nms"
also the decoding of the boxes, "publish" the building of the messages.
"""
WARM_UP = 3
TARGETS_MS = {("paper", "bfloat16"): 50.0, ("paper", "float32"): 80.0, ("compact", "bfloat16"): 10.0}
TARGETS_MS["compact", "float32"] = 10.0
"""What the project wants of "total" in 95 of 100 frames, on two AVX-512 cores under the default mask."""
DENSE_EVERY = {"paper": 10, "compact": 1}


@dataclass(frozen=True)
class Plan:
    """What is measured in one alternating run."""

    source: Input
    grid: str
    region: tuple[float, ...]
    dtype: str
    masks: tuple[str, ...]
    weights: str
    frames: int
    dense_every: int


def measure(plan: Plan, advance: Callable[[], object]) -> list[Row]:
    """A row per mask and stage; the dense side runs on every ``dense_every``-th frame, once per way."""
    sides = {}
    for mask in plan.masks:
        config = current.configured(plan.grid, plan.dtype, mask, plan.weights, plan.region)
        pipeline, weights = current.open_pipeline(config)
        sides[mask] = Sparse(pipeline)
    frames = plan.source.frames()
    dense = DenseSide(sides[plan.masks[0]].pipeline, plan.source.scenes[0].points)
    for number, scene, message in by_frame(frames, WARM_UP):
        for sparse in sides.values():
            sparse(scene, message)
        dense(dense.names[number % len(dense.names)], message)
    recorder, skipped = Recorder(), {mask: _Mean() for mask in plan.masks}
    for number, scene, message in by_frame(frames, plan.frames):
        turn: list[tuple[str, Callable[[], Laps]]] = [
            (mask, partial(sparse, scene, message)) for mask, sparse in sides.items()
        ]
        if number % plan.dense_every == 0:
            turn += [(name, partial(dense, name, message)) for name in dense.names]
        # Whoever is first finds the message cold: each side is so in turn.
        first = number // plan.dense_every % len(turn)
        for side, run_side in turn[first:] + turn[:first]:
            recorder.take(side, run_side)
        for mask, sparse in sides.items():
            skipped[mask].add(sparse.skipped)
        advance()
    return [
        row
        for mask in plan.masks
        for row in _rows(plan, mask, recorder, dense, {"weights": weights, "skipped": skipped[mask]})
    ]


class _Mean:
    """Mean of dictionaries of numbers."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.values.setdefault(name, []).append(value)

    def of(self, name: str) -> float | None:
        return float(np.mean(self.values[name])) if name in self.values else None


def _rows(plan: Plan, mask: str, recorder: Recorder, dense: DenseSide, about: dict) -> Iterator[Row]:
    used = [mask, *dense.names]
    for stage in STAGES:
        ms = recorder.samples(mask, stage)
        ways = {name: samples for name in dense.names if len(samples := recorder.samples(name, stage))}
        best = min(ways, key=lambda name: float(np.median(ways[name])), default=None)
        if not len(ms) and best is None:
            continue
        dense_ms = _percentiles(ways[best]) if best else (None,) * 3
        sparse_ms = _percentiles(ms) if len(ms) else (None,) * 3
        yield {
            "input": plan.source.name,
            "grid": current.grid_of(dense.pipeline.config),
            "mask": mask,
            "dtype": plan.dtype,
            "stage": stage,
            "dense_ms": dense_ms[0],
            "sparse_ms": sparse_ms[0],
            "speedup": dense_ms[0] / sparse_ms[0] if dense_ms[0] and sparse_ms[0] else None,
            "p50_ms": sparse_ms[0],
            "p95_ms": sparse_ms[1],
            "p99_ms": sparse_ms[2],
            "dense_p95_ms": dense_ms[1],
            "dense_p99_ms": dense_ms[2],
            "dense_best": best,
            "tile_sparsity": about["skipped"].of(stage),
            "frames": len(ms),
            "dense_frames": len(ways[best]) if best else 0,
            "weights": about["weights"],
            "page_faults": max(recorder.faults(name) for name in used),
            "other_programs": recorder.others(),
        }


def _percentiles(ms: Samples) -> tuple[float, float, float]:
    p50, p95, p99 = np.percentile(ms, (50, 95, 99)).tolist()
    return p50, p95, p99


def run(arguments: argparse.Namespace) -> int:
    plans = _plans(arguments)
    check_writable("--json", arguments.json)
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    closing(_measure(plans, arguments, console), console)
    return 0


def _plans(arguments: argparse.Namespace) -> list[Plan]:
    chosen = current.dtypes(arguments, arguments.mask or [""])
    masks = tuple(arguments.mask or ())
    if not masks:
        masks = (current.configured(arguments.grid, chosen[0], weights=arguments.weights).mask.expression,)
    at_least_one(arguments, "frames", "dense_every", "steady")
    every = arguments.dense_every or DENSE_EVERY[arguments.grid]
    frames = arguments.steady or arguments.frames
    return [
        Plan(source, arguments.grid, tuple(arguments.region), dtype, masks, arguments.weights, frames, every)
        for source in read_inputs(arguments.input)
        for dtype in chosen
    ]


def _measure(plans: Sequence[Plan], arguments: argparse.Namespace, console: Console) -> list[Row]:
    """The rows of all plans; each is shown and written as soon as it is there."""
    rows: list[Row] = []
    with progress_bar(console) as progress:
        runs = len(plans[0].masks) if arguments.steady else 1
        task = progress.add_task("", total=sum(plan.frames for plan in plans) * runs)
        for plan in plans:
            progress.update(task, description=f"{plan.source.name} {plan.dtype}")

            def advance() -> None:
                progress.advance(task)

            if arguments.steady:
                found = []
                for mask in plan.masks:
                    config = current.configured(plan.grid, plan.dtype, mask, plan.weights, plan.region)
                    found.append(steady.measure(plan.source, config, mask, plan.frames, advance))
                    steady.show(found[-1], console)
            else:
                found = measure(plan, advance)
                for mask in plan.masks:
                    show([row for row in found if row["mask"] == mask], console)
            rows += found
            if arguments.json:
                write_rows(arguments.json, rows)
    return rows


def show(rows: Sequence[Row], console: Console) -> None:
    """The table of one mask and dtype, and what it says."""
    first, by_stage = rows[0], {str(row["stage"]): row for row in rows}
    title = f"{first['input']}, {first['grid']} grid, {first['dtype']}, {first['frames']} frames, ms"
    table = table_of(title, "", ("dense", "sparse", "p95", "p99", "speed-up", "tiles skipped"))
    for stage, row in by_stage.items():
        skipped = "" if row["tile_sparsity"] is None else f"{100 * float(row['tile_sparsity']):.1f} %"
        times = [milliseconds(row[key]) for key in ("dense_ms", "sparse_ms", "p95_ms", "p99_ms")]
        speedup = "" if row["speedup"] is None else f"{float(row['speedup']):.1f}"
        label = {"nms": "boxes, NMS", "publish": "(publish)"}.get(stage, stage)
        if stage == "network":
            table.add_section()
        table.add_row(label, *times, speedup, skipped, style="bold" if stage in ("network", "total") else "")
    console.print(table, highlight=False)
    network = by_stage["network"]
    console.print(f"mask: {first['mask']}; weights: {first['weights']}", highlight=False)
    text = f"dense: {network['dense_best']}, the best of all ways, medians of {network['dense_frames']} frames"
    console.print(text, highlight=False)
    console.print(_verdict(by_stage), "", highlight=False)


def _verdict(by_stage: dict[str, Row]) -> str:
    """Whether the total is within the target, and which stages take the most of it."""
    total = float(by_stage["total"]["p95_ms"] or 0)
    sums = ("network", "total", "publish")
    parts = {stage: float(row["sparse_ms"] or 0) for stage, row in by_stage.items() if stage not in sums}
    largest = sorted(parts, key=lambda stage: -parts[stage])[:3]
    first = by_stage["total"]
    verdict = f"total (decode to NMS): p95 {total:.1f} ms"
    target = TARGETS_MS.get((str(first["grid"]), str(first["dtype"])))
    if first["mask"] == MaskConfig().settled and target:
        verdict += f", target {target:g}: " + ("reached" if total <= target else f"missed by {total - target:.1f}")
    return verdict + "; most in " + ", ".join(f"{stage} {parts[stage]:.1f}" for stage in largest)

