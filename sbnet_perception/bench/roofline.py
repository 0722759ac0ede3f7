"""`sbnet bench roofline`: a frame on a GPU, on paper. A model: nothing here was measured on a GPU.

The sparse detector of one launch per residual unit, against the best dense engine: what each must move and compute,
by the network's own layers (`launches`), and how long that takes at the limits of a chip (`chips`, `limits`). Only the
active pixels are real: those of the masks of a recording, by the pipeline's own tiles. Left out are ground, masks and
voxels, and of the dense engine also the dense map of the voxels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sbnet_perception.bench import current, launches, limits
from sbnet_perception.bench.chips import CHIPS, DEFAULT_CHIPS, Chip
from sbnet_perception.bench.inputs import Scene, read_inputs
from sbnet_perception.bench.launches import PARTS, Launch
from sbnet_perception.bench.measure import Row
from sbnet_perception.bench.screen import progress_bar, table_of
from sbnet_perception.desk.outputs import check_writable
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import STRIDES, Detector
from sbnet_perception.detector.weights import load_network
from sbnet_perception.errors import UserError
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.frame import Frame

NOTICE = "A MODEL ON PAPER: nothing was measured on a GPU, and no GPU was used."
RESERVATIONS = (
    "What kernels reach of these limits is assumed too (bench/limits.py). Left out: ground, masks and voxels, of dense "
    "also the dense map of the voxels."
)
SHORTER = (0.6, 0.4)
"""Launches this much shorter, besides those as short as dense ones: what that would give."""
SPARSE, DENSE, FRAME = "sparse", "dense", "frame"
COLUMNS = {"launches": 0, "megabytes": 1, "gflop": 2, "microseconds": 0}
"""Numbers of the table, and how many decimals they have."""


@dataclass(frozen=True)
class Active:
    """What the masks of an input leave.

    Attributes:
        pixels: stage -> active pixels of a frame, the mean.
        frames: how many there were.
        without_road: how many of them had no road though the mask asks for one; it counted as everywhere.
    """

    pixels: dict[str, float]
    frames: int
    without_road: int


@torch.inference_mode()
def active_pixels(network: Detector, config: DetectorConfig, scene: Scene) -> tuple[dict[str, float], bool]:
    """The pixels of each stage that the pipeline would compute, and whether a road was asked for and missing."""
    where = computation_mask(Frame(torch.from_numpy(scene.points), config.raster, config.mask, scene.view()))
    mask = torch.ones(config.raster.shape, dtype=torch.bool) if where.mask is None else where.mask
    return {stage: float(len(tiles.pixels)) for stage, tiles in network.tiles(mask).items()}, "road" in where.missing


def rows_of(network: Detector, config: DetectorConfig, pixels: launches.Pixels, chip: Chip) -> list[Row]:
    """A row for each side and part, then for the whole frame, the latter also with shorter launches."""
    height, width = config.raster.shape
    sides = {
        SPARSE: launches.sparse(network, pixels, height * width),
        DENSE: launches.dense(network, height, width),
    }
    rows = [
        _row(chip, side, part, _of(found, part)) for part in PARTS for side, found in sides.items() if _of(found, part)
    ]
    for floor in (chip.launch, *(share * chip.launch for share in SHORTER), chip.dense_launch):
        rows += [_row(replace(chip, launch=floor), side, FRAME, found) for side, found in sides.items()]
    return rows


def _of(found: Sequence[Launch], part: str) -> list[Launch]:
    return [launch for launch in found if launch.part == part]


def _row(chip: Chip, side: str, part: str, found: Sequence[Launch]) -> Row:
    total = limits.total(found, chip)
    return {
        "chip": chip.name,
        "side": side,
        "part": part,
        "launches": total.launches,
        "megabytes": total.bytes / 1e6,
        "gflop": total.flops / 1e9,
        "microseconds": total.seconds * 1e6,
        "limit": total.limit,
        "launch_microseconds": chip.launch * 1e6,
    }


def run(arguments: argparse.Namespace) -> int:
    chips = _chips(arguments.chip or DEFAULT_CHIPS)
    check_writable("--json", arguments.json)
    try:
        config = current.configured(arguments.grid, "bfloat16", arguments.mask)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, network = Console(), load_network(config)
    active = _active(network, config, arguments.input, console)
    name = Path(arguments.input).name
    _introduce(name, config, active, console)
    rows: list[Row] = []
    for chip in chips:
        found = rows_of(network, config, active.pixels, chip)
        show(found, chip, console)
        rows += found
    console.print(f"{NOTICE} {RESERVATIONS}", highlight=False)
    if arguments.json:
        about = {"input": name, "grid": config.grid, "mask": config.mask.expression, "frames": active.frames}
        sources = {chip.name: dict(chip.sources) for chip in chips}
        text = {"model": NOTICE, **about, "active_pixels": active.pixels, "sources": sources, "rows": rows}
        arguments.json.write_text(json.dumps(text, indent=1) + "\n")
    return 0


def _introduce(name: str, config: DetectorConfig, active: Active, console: Console) -> None:
    """What the tables are of."""
    whole = launches.everywhere(*config.raster.shape)
    shares = ", ".join(f"{stage} {100 * active.pixels[stage] / whole[stage]:.1f} %" for stage in STRIDES)
    console.print(NOTICE, style="bold yellow", highlight=False)
    console.print(f"{name}, {config.grid} grid, frames: {active.frames}, {config.mask.expression}", highlight=False)
    if active.without_road:
        console.print(f"{active.without_road} of them without a road, which counts as everywhere", style="yellow")
    console.print(f"active pixels, mean: {shares}\n", highlight=False)


def _chips(names: Sequence[str]) -> list[Chip]:
    for name in names:
        if name not in CHIPS:
            raise UserError(f"--chip is {name!r}; use one of {', '.join(CHIPS)}")
    return [CHIPS[name] for name in dict.fromkeys(names)]


def _active(network: Detector, config: DetectorConfig, name: str, console: Console) -> Active:
    scenes = [scene for source in read_inputs(name) for scene in source.scenes]
    found: list[tuple[dict[str, float], bool]] = []
    with progress_bar(console) as progress:
        for scene in progress.track(scenes, description="masks"):
            try:
                found.append(active_pixels(network, config, scene))
            except ValueError as error:
                raise UserError(f"--mask: {error}") from None
    pixels = {stage: float(np.mean([counts[stage] for counts, _ in found])) for stage in STRIDES}
    return Active(pixels, len(found), sum(missing for _, missing in found))


def show(rows: Sequence[Row], chip: Chip, console: Console) -> None:
    """The table of one chip, what shorter launches would give, and where the chip's numbers are from."""
    table = table_of(f"{chip.name}, on paper", "", ("", "launches", "MB", "GFLOP", "us", "limited by", "times"))
    for part in PARTS:
        _add(table, part, [row for row in rows if row["part"] == part])
    table.add_section()
    frames = [row for row in rows if row["part"] == FRAME]
    _add(table, FRAME, frames[:2], style="bold")
    console.print(table, highlight=False)
    for sparse, dense in zip(frames[2::2], frames[3::2], strict=True):
        text = f"with {sparse['launch_microseconds']:.1f} us a launch: {sparse['microseconds']:.0f} us"
        console.print(f"{text}, {_ratio(dense, sparse):.1f} times", highlight=False)
    for source, numbers in chip.numbers().items():
        console.print(f"{', '.join(numbers)} ({source})", style="dim", highlight=False)
    console.print()


def _add(table: Table, part: str, sides: Sequence[Row], style: str = "") -> None:
    """The sides of a part, the sparse one first; how many times as fast it is stands beside the dense one."""
    for number, row in enumerate(sides):
        numbers = [f"{float(row[key] or 0):,.{digits}f}" for key, digits in COLUMNS.items()]
        times = f"{_ratio(row, sides[0]):.1f}" if number else ""
        table.add_row("" if number else part, str(row["side"]), *numbers, str(row["limit"]), times, style=style)


def _ratio(dense: Row, sparse: Row) -> float:
    return float(dense["microseconds"] or 0) / float(sparse["microseconds"] or 1)
