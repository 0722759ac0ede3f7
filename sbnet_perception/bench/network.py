"""`sbnet bench network`: the speed-up of the network under each mask, as the paper's Tables 5 and 6 and Figure 7."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from sbnet_perception.bench import current
from sbnet_perception.bench.cases import top_left
from sbnet_perception.bench.inputs import Input, Scene, read_inputs
from sbnet_perception.bench.measure import Row, machine, with_steady_memory, write_rows
from sbnet_perception.bench.plots import plot_network
from sbnet_perception.bench.screen import at_least_one, closing, milliseconds, progress_bar, table_of
from sbnet_perception.bench.sides import Clock, DenseSide, Laps, Recorder
from sbnet_perception.bev.grid import Grid
from sbnet_perception.blocks import Tiles
from sbnet_perception.desk.outputs import check_plot, check_writable
from sbnet_perception.detector.boxes import corners_bev
from sbnet_perception.detector.network import STRIDES
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.polygons import rasterise

COMPUTED = {
    "road": current.ROAD,
    "occupancy": current.OCCUPANCY,
    "road and occupancy": current.ROAD_AND_OCCUPANCY,
}
DILATIONS = (0.0, 1.0, 3.0)
"""Metres by which true boxes grow in masks like those that a network would predict (paper, Table 6)."""
SYNTHETIC = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Sparsities of rectangles at the top left."""
STAGE = "conv-3"
"""The stage whose share of skipped tiles stands in the rows: the header is there too."""
WARM_UP = 2


def masks_of(scene: Scene, grid: Grid) -> dict[str, Tensor]:
    """All masks that can be made for a scene, bool [H, W]: without road or true boxes there are fewer."""
    masks = {name: current.computed(scene, grid, expression) for name, expression in COMPUTED.items()}
    found = {name: mask for name, mask in masks.items() if mask is not None}
    if scene.boxes is not None:
        footprints = footprints_of(scene.boxes, grid)
        found |= {f"boxes + {metres:g} m": dilate(footprints, metres, grid.resolution) for metres in DILATIONS}
    for sparsity in SYNTHETIC:
        found[f"top left {100 * sparsity:.0f} %"] = top_left(grid.shape, sparsity)[0]
    return found


def footprints_of(boxes: NDArray[np.float32], grid: Grid) -> Tensor:
    """The cells that any of the boxes [M, 7] touches."""
    mask = np.zeros(grid.shape, np.bool_)
    for corners in corners_bev(boxes):
        outline = (corners - (grid.x_min, grid.y_min)) / grid.resolution
        if (outline.max(axis=0) > 0).all() and (outline.min(axis=0) < (grid.width, grid.height)).all():
            window, inside, crossed = rasterise(outline, grid.shape)
            mask[window] |= inside | crossed
    return torch.from_numpy(mask)


def measure(
    source: Input, pipeline: Pipeline, frames: int, rounds: int, advance: Callable[[], object]
) -> list[Row]:
    """A row per frame and mask; dense runs once per frame and way, in the same run."""
    scenes, dense = source.frames(), DenseSide(pipeline, source.scenes[0].points)
    for _, scene in zip(range(WARM_UP), scenes, strict=False):
        for mask in masks_of(scene, pipeline.grid).values():
            _sparse(pipeline, scene, mask)
    recorder = Recorder()
    sparsities: dict[tuple[int, str], tuple[float, float]] = {}
    for number, scene in zip(range(frames), scenes, strict=False):
        masks = masks_of(scene, pipeline.grid)
        bev = dense.input(scene.points)
        for name in dense.names:
            recorder.take(name, partial(dense.network, name, bev))
        for _ in range(rounds):
            for name, mask in masks.items():
                recorder.take(f"{number} {name}", partial(_sparse, pipeline, scene, mask))
        for name, mask in masks.items():
            sparsities[number, name] = 1.0 - float(mask.float().mean()), _tile_sparsity(pipeline, mask)
        advance()
    return _rows(recorder, dense, sparsities)


@torch.inference_mode()
def _sparse(pipeline: Pipeline, scene: Scene, mask: Tensor) -> Laps:
    clock = Clock()
    current.sparse_network(pipeline, scene.points, mask, clock.lap)
    laps = {name: ms for name, ms in clock.laps.items() if name != "voxelize"}
    return {"network": sum(laps.values())}


def _tile_sparsity(pipeline: Pipeline, mask: Tensor) -> float:
    tile = pipeline.network.config.tile(STAGE)
    return Tiles.from_mask(mask, tile, STRIDES[STAGE]).sparsity


def _rows(recorder: Recorder, dense: DenseSide, sparsities: Mapping[tuple[int, str], tuple[float, float]]) -> list[Row]:
    medians = {name: float(np.median(recorder.samples(name, "network"))) for name in dense.names}
    best = min(medians, key=lambda name: medians[name])
    rows: list[Row] = []
    for (number, mask), (pixels, tiles) in sparsities.items():
        ms = recorder.samples(f"{number} {mask}", "network")
        rows.append(
            {
                "mask": mask,
                "frame": number,
                "pixel_sparsity": pixels,
                "tile_sparsity": tiles,
                "dense_ms": medians[best],
                "dense_best": best,
                **{f"contest_{name}_ms": ms for name, ms in dense.contest.items()},
                "sparse_ms": float(np.median(ms)),
                "p95_ms": float(np.percentile(ms, 95)),
                "speedup": medians[best] / float(np.median(ms)),
                "page_faults": max(recorder.faults(side) for side in (best, f"{number} {mask}")),
                "other_programs": recorder.others(),
            }
        )
    return rows


def run(arguments: argparse.Namespace) -> int:
    chosen = current.dtypes(arguments)
    at_least_one(arguments, "frames")
    check_writable("--json", arguments.json)
    check_plot("--plot", arguments.plot)
    inputs = read_inputs(arguments.input)
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, rows = Console(), []
    with progress_bar(console) as progress:
        task = progress.add_task("", total=arguments.frames * len(inputs) * len(chosen))
        for source in inputs:
            for dtype in chosen:
                progress.update(task, description=f"{source.name} {dtype}")
                config = current.configured(arguments.grid, dtype, "", arguments.weights, arguments.region)
                pipeline, weights = current.open_pipeline(config)
                found = measure(source, pipeline, arguments.frames, arguments.rounds, lambda: progress.advance(task))
                about = {"input": source.name, "grid": current.grid_of(config), "dtype": dtype, "weights": weights}
                rows += [{**about, **row} for row in found]
                show(rows[-len(found) :], console)
                if arguments.json:
                    write_rows(arguments.json, rows)
    closing(rows, console)
    if arguments.plot:
        plot_network(rows, machine(), arguments.plot)
    return 0


def show(rows: Sequence[Row], console: Console) -> None:
    """The table of one input and dtype, over its frames."""
    first = rows[0]
    title = f"{first['input']}, {first['grid']} grid, {first['dtype']}: the network, ms"
    table = table_of(title, "mask", ("pixels\nskipped", "tiles\nskipped", "dense", "sparse", "speed-up", "deviation"))
    for mask in dict.fromkeys(str(row["mask"]) for row in rows):
        of = partial(_column, [row for row in rows if row["mask"] == mask])
        skipped = (f"{100 * of(key).mean():.1f} %" for key in ("pixel_sparsity", "tile_sparsity"))
        times = (milliseconds(float(np.median(of(key)))) for key in ("dense_ms", "sparse_ms"))
        table.add_row(mask, *skipped, *times, f"{of('speedup').mean():.2f}", f"{of('speedup').std():.2f}")
    console.print(table, highlight=False)
    ways = ", ".join(f"{key[8:-3]} {milliseconds(ms)}" for key, ms in first.items() if key.startswith("contest_"))
    console.print(f"dense: {first['dense_best']}; of the contest before: {ways}", highlight=False)
    console.print(f"tiles of {STAGE}; speed-up: mean over {len(of('speedup'))} frames; weights: {first['weights']}", "")


def _column(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    return np.array([float(row[key] or 0) for row in rows])
