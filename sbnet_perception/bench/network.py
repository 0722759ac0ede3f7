"""`sbnet bench network`: the speed-up of the network under each mask, as the paper's Table 6 and Figure 7."""

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
from sbnet_perception.bench.plots import SYNTHETIC, plot_network
from sbnet_perception.bench.screen import (
    at_least_one,
    closing,
    column,
    milliseconds,
    progress_bar,
    spread_of,
    table_of,
)
from sbnet_perception.bench.sides import Clock, DenseSide, Laps, Recorder
from sbnet_perception.bev.grid import Grid
from sbnet_perception.blocks import Tiles
from sbnet_perception.desk.outputs import check_plot, check_writable
from sbnet_perception.detector.boxes import corners_bev
from sbnet_perception.detector.mask_network import PreparedMaskNetwork
from sbnet_perception.detector.mask_weights import prepared_mask_network
from sbnet_perception.detector.network import STRIDES
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.errors import UserError
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.polygons import rasterise
from sbnet_perception.masks.predicted import PREDICTED

COMPUTED = {name.replace("_", " "): expression for name, expression in EXPRESSIONS.items()}
"""What rows call a mask -> the expression that makes it."""
DILATIONS = (0.0, 1.0, 3.0)
"""Metres by which true boxes grow in masks like those that a network would predict (paper, Table 6)."""
SPARSITIES = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Of rectangles at the top left."""
KINDS = ("expressions", "boxes", "rectangles")
STAGE = "conv-3"
"""The stage whose share of skipped tiles stands in the rows: the header is there too."""
WARM_UP = 2


def expressions(with_network: bool) -> dict[str, str]:
    """`COMPUTED`, without those that need a mask network where there is none."""
    return {
        name: expression
        for name, expression in COMPUTED.items()
        if with_network or PREDICTED.name not in MaskConfig(expression).names
    }


def masks_of(
    scene: Scene, grid: Grid, mask_network: PreparedMaskNetwork | None = None, kinds: Sequence[str] = KINDS
) -> dict[str, Tensor]:
    """All masks of some of `KINDS` that can be made for a scene, bool [H, W]: without road, true boxes or a mask
    network there are fewer."""
    found: dict[str, Tensor] = {}
    if "expressions" in kinds:
        for name, expression in expressions(mask_network is not None).items():
            mask = current.computed(scene, grid, expression, mask_network)
            found |= {} if mask is None else {name: mask}
    if "boxes" in kinds and scene.boxes is not None:
        footprints = footprints_of(scene.boxes, grid)
        found |= {f"boxes + {metres:g} m": dilate(footprints, metres, grid.resolution) for metres in DILATIONS}
    if "rectangles" in kinds:
        found |= {f"{SYNTHETIC} {100 * sparsity:.0f} %": top_left(grid.shape, sparsity)[0] for sparsity in SPARSITIES}
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
    source: Input, pipeline: Pipeline, kinds: Sequence[str], frames: int, rounds: int, advance: Callable[[], object]
) -> list[Row]:
    """A row per frame and mask; dense runs once per frame and way, in the same run."""
    scenes, dense = source.frames(), DenseSide(pipeline, source.scenes[0].points)
    masks_for = partial(masks_of, grid=pipeline.grid, mask_network=pipeline.mask_network, kinds=kinds)
    for _, scene in zip(range(WARM_UP), scenes, strict=False):
        for name, mask in masks_for(scene).items():
            _sparse(pipeline, scene, name, mask)
    recorder = Recorder()
    sparsities: dict[tuple[int, str], tuple[float, float]] = {}
    for number, scene in zip(range(frames), scenes, strict=False):
        masks = masks_for(scene)
        bev = dense.input(scene.points)
        for name in dense.names:
            recorder.take(name, partial(dense.network, name, bev))
        for _ in range(rounds):
            for name, mask in masks.items():
                recorder.take(f"{number} {name}", partial(_sparse, pipeline, scene, name, mask))
        for name, mask in masks.items():
            sparsities[number, name] = 1.0 - float(mask.float().mean()), _tile_sparsity(pipeline, mask)
        advance()
    return _rows(recorder, dense, sparsities)


@torch.inference_mode()
def _sparse(pipeline: Pipeline, scene: Scene, name: str, mask: Tensor) -> Laps:
    """Milliseconds of "mask", from points to raster, where an expression makes it; and of "network", tiles included."""
    making, clock = Clock(), Clock()
    if name in COMPUTED:
        current.computed(scene, pipeline.grid, COMPUTED[name], pipeline.mask_network)
        making.lap("mask")
        clock = Clock()
    current.sparse_network(pipeline, scene.points, mask, clock.lap)
    return {**making.laps, "network": sum(ms for lap, ms in clock.laps.items() if lap != "voxelize")}


def _tile_sparsity(pipeline: Pipeline, mask: Tensor) -> float:
    tile = pipeline.network.config.tile(STAGE)
    return Tiles.from_mask(mask, tile, STRIDES[STAGE]).sparsity


def _rows(recorder: Recorder, dense: DenseSide, sparsities: Mapping[tuple[int, str], tuple[float, float]]) -> list[Row]:
    medians = {name: float(np.median(recorder.samples(name, "network"))) for name in dense.names}
    best = min(medians, key=lambda name: medians[name])
    rows: list[Row] = []
    for (number, mask), (pixels, tiles) in sparsities.items():
        side = f"{number} {mask}"
        ms = recorder.samples(side, "network")
        making = float(np.median(recorder.samples(side, "mask"))) if mask in COMPUTED else None
        sparse = float(np.median(ms))
        rows.append(
            {
                "mask": mask,
                "frame": number,
                "pixel_sparsity": pixels,
                "tile_sparsity": tiles,
                "dense_ms": medians[best],
                "dense_best": best,
                **{f"contest_{name}_ms": ms for name, ms in dense.contest.items()},
                "sparse_ms": sparse,
                "p95_ms": float(np.percentile(ms, 95)),
                "speedup": medians[best] / sparse,
                "mask_ms": making,
                "speedup_with_mask": None if making is None else medians[best] / (sparse + making),
                "page_faults": max(recorder.faults(one) for one in (best, side)),
                "other_programs": recorder.others(),
            }
        )
    return rows


def run(arguments: argparse.Namespace) -> int:
    chosen = current.dtypes(arguments)
    at_least_one(arguments, "frames")
    _check_only(arguments)
    check_writable("--json", arguments.json)
    check_plot("--plot", arguments.plot)
    kinds = arguments.only or KINDS
    mask = PREDICTED.name if "expressions" in kinds else ""
    files, region = (arguments.weights, arguments.mask_weights), arguments.region
    # A mask network that does not fit is refused before anything is read.
    prepared_mask_network(current.configured(arguments.grid, chosen[0], mask, files[0], region, mask_weights=files[1]))
    inputs = read_inputs(arguments.input)
    _check_boxes(arguments, inputs)
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, rows = Console(), []
    with progress_bar(console) as progress:
        task = progress.add_task("", total=arguments.frames * len(inputs) * len(chosen))
        for source in inputs:
            for dtype in chosen:
                progress.update(task, description=f"{source.name} {dtype}")
                config = current.configured(arguments.grid, dtype, mask, files[0], region, mask_weights=files[1])
                pipeline, weights = current.open_pipeline(config)
                advance = partial(progress.advance, task)
                found = measure(source, pipeline, kinds, arguments.frames, arguments.rounds, advance)
                about = {"input": source.name, "grid": current.grid_of(config), "dtype": dtype, "weights": weights}
                rows += [{**about, **row} for row in found]
                show(rows[-len(found) :], console)
                if arguments.json:
                    write_rows(arguments.json, rows)
    closing(rows, console)
    if arguments.plot:
        plot_network(rows, machine(), arguments.plot)
    return 0


def _check_only(arguments: argparse.Namespace) -> None:
    for kind in arguments.only or ():
        if kind not in KINDS:
            raise UserError(f"--only is {kind!r}; use one of {', '.join(KINDS)}")
    if arguments.mask_weights and arguments.only and "expressions" not in arguments.only:
        raise UserError("--mask-weights makes masks of expressions, which --only leaves out; add expressions to it")


def _check_boxes(arguments: argparse.Namespace, inputs: Sequence[Input]) -> None:
    """Where masks of true boxes alone are asked for, every input must have some."""
    for source in inputs if set(arguments.only or ()) == {"boxes"} else ():
        if any(scene.boxes is None for scene in source.scenes):
            raise UserError(f"--only boxes: {source.name} has no labelled boxes; add expressions or rectangles")


def show(rows: Sequence[Row], console: Console) -> None:
    """The table of one input and dtype, over its frames."""
    first = rows[0]
    title = f"{first['input']}, {first['grid']} grid, {first['dtype']}: the network, ms; skipped: pixels / tiles"
    table = table_of(title, "mask", ("skipped %", "dense", "sparse", "speed-up", "mask", "with mask"))
    for mask in dict.fromkeys(str(row["mask"]) for row in rows):
        of = partial(column, [row for row in rows if row["mask"] == mask])
        skipped = "/".join(f"{100 * of(key).mean():.1f}" for key in ("pixel_sparsity", "tile_sparsity"))
        times = [milliseconds(float(np.median(of(key)))) for key in ("dense_ms", "sparse_ms")]
        making = [milliseconds(float(np.median(of("mask_ms")))), spread_of(of("speedup_with_mask"))]
        table.add_row(mask, skipped, *times, spread_of(of("speedup")), *(making if mask in COMPUTED else ()))
    console.print(table, highlight=False)
    ways = ", ".join(f"{key[8:-3]} {milliseconds(ms)}" for key, ms in first.items() if key.startswith("contest_"))
    console.print(f"dense: {first['dense_best']}; of the contest before: {ways}", highlight=False)
    console.print(f"tiles of {STAGE}; speed-up: mean ± deviation over {len(of('speedup'))} frames; with mask: with")
    console.print(f"the making of the mask, from the points on; weights: {first['weights']}", "")
