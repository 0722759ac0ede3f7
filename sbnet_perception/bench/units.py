"""`sbnet bench units`: residual units and 3x3 convolutions under a mask, against the best dense PyTorch."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sbnet_perception.bench.cases import CONVOLUTIONS, DTYPES, MASKS, SPARSITIES, UNITS, Case, Pair, top_left
from sbnet_perception.bench.contest import ALL_TILES, Contest
from sbnet_perception.bench.measure import Row, machine, warnings, with_steady_memory, write_rows
from sbnet_perception.bench.plots import plot_sweep
from sbnet_perception.desk.outputs import check_plot, check_writable
from sbnet_perception.errors import UserError

RATIOS = ("ratio", "lone_ratio")
BOTH = "both"
"""All of `DTYPES`."""


def measure_masks(case: Case, names: Sequence[str], rounds: int, after_round: Callable[[], object]) -> list[Row]:
    """A row for each of the shipped masks ``names``, measured in one run with an all-active mask."""
    contest = Contest(case)
    masks = case.masks(names)
    times = contest.run({**masks, ALL_TILES: top_left(case.size, 0.0)}, rounds, None, after_round)
    all_tiles = contest.sparse(times, ALL_TILES)
    rows = [contest.row(times, name, mask) for name, mask in masks.items()]
    return [{**row, "all_tiles_ms": float(np.median(all_tiles))} for row in rows]


def measure_sweep(
    case: Case, sparsities: Sequence[float], rounds: int, after_round: Callable[[], object]
) -> list[Row]:
    """A row for each sparsity, rising from 0, of a rectangle at the top left; a run each, against the best dense."""
    contest = Contest(case)
    contenders = contest.contenders()
    rows: list[Row] = []
    all_tiles = None
    for sparsity in sparsities:
        mask = top_left(case.size, sparsity)
        masks = {"topleft": mask, ALL_TILES: mask} if sparsity == 0.0 else {"topleft": mask}
        times = contest.run(masks, rounds, contenders, after_round)
        rows.append(contest.row(times, "topleft", mask))
        if ALL_TILES in masks:
            all_tiles = float(np.median(contest.sparse(times, ALL_TILES)))
    return [{**row, "all_tiles_ms": all_tiles} for row in rows]


def run(arguments: argparse.Namespace) -> int:
    cases = _cases(arguments)
    _check(arguments)
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    rows = _measure(cases, arguments, console)
    for table in _tables(rows, arguments.sweep):
        console.print(table, "")
    here = machine()
    console.print(f"{here['cpu']}, {here['threads']} threads, {here['flags']}, torch {here['torch']}")
    for warning in warnings(rows):
        console.print(warning, style="yellow")
    if arguments.plot:
        plot_sweep(rows, machine(), arguments.plot)
    return 0


def _measure(cases: Sequence[Case], arguments: argparse.Namespace, console: Console) -> list[Row]:
    masks = MASKS if arguments.mask is None else (arguments.mask,)
    per_case = arguments.rounds * (len(SPARSITIES) if arguments.sweep else 1)
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=1) as progress:
        task = progress.add_task("", total=per_case * len(cases))
        for case in cases:
            progress.update(task, description=f"{case.layer} {case.dtype}")

            def advance() -> None:
                progress.advance(task)

            if arguments.sweep:
                rows += measure_sweep(case, SPARSITIES, arguments.rounds, advance)
            else:
                rows += measure_masks(case, masks, arguments.rounds, advance)
            if arguments.json:
                write_rows(arguments.json, rows)  # what was measured stays, should the rest be interrupted
    return rows


def _cases(arguments: argparse.Namespace) -> list[Case]:
    """The cases asked for."""
    layers = arguments.only or UNITS + CONVOLUTIONS
    for layer in layers:
        _choose("--only", layer, UNITS + CONVOLUTIONS)
    _choose("--dtype", arguments.dtype, (*DTYPES, BOTH))
    _choose("--mask", arguments.mask, MASKS)
    tile = None if arguments.tile is None else _tile(arguments.tile)
    dtypes = list(DTYPES) if arguments.dtype == BOTH else [arguments.dtype]
    return [Case.named(layer, dtype, tile) for layer in layers for dtype in dtypes]


def _choose(option: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise UserError(f"{option} is {value!r}; use one of {', '.join(known)}")


def _tile(text: str) -> Pair:
    sides = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if sides is None:
        raise UserError(f"--tile is {text!r}; give height x width in pixels, for example 4x8")
    return int(sides[1]), int(sides[2])


def _check(arguments: argparse.Namespace) -> None:
    if arguments.sweep and arguments.mask:
        raise UserError(f"--mask is {arguments.mask!r}, but --sweep has masks of its own; leave one of the two out")
    if arguments.plot and not arguments.sweep:
        raise UserError("--plot draws a sweep; add --sweep")
    check_plot("--plot", arguments.plot)
    check_writable("--json", arguments.json)
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"torch.compile needs the compiler {compiler!r}, which is missing: sudo apt install g++")


def _tables(rows: Sequence[Row], sweep: bool) -> list[Table]:
    """A table per dtype: they fit 80 columns."""
    dtypes = dict.fromkeys(str(row["dtype"]) for row in rows)
    fill = _sweep_table if sweep else _table
    return [fill(dtype, [row for row in rows if row["dtype"] == dtype]) for dtype in dtypes]


def _table(dtype: str, rows: Sequence[Row]) -> Table:
    headings = ("skipped %", "dense", "best", "sparse", "speed\nup", "all\ntiles", "lone", "mask")
    table = _empty_table(f"{dtype}, ms; skipped: pixels / tiles; sparse includes mask", ("mask",), headings)
    for row in rows:
        skipped = "/".join(f"{100 * float(row[key] or 0):.1f}" for key in ("pixel_sparsity", "tile_sparsity"))
        times = [_ms(row[key]) for key in ("all_tiles_ms", "lone_ms", "mask_ms")]
        speed = [_ms(row["dense_ms"]), str(row["dense_best"]), _ms(row["sparse_ms"]), f"{row['speedup']:.1f}"]
        table.add_row(str(row["layer"]), str(row["mask"]), skipped, *speed, *times)
    return table


def _sweep_table(dtype: str, rows: Sequence[Row]) -> Table:
    """Speed-up and ours over dense with its 95 % interval, inside a stage and alone."""
    headings = ("skipped %", "dense", "ours", "speed\nup", "in a stage", "alone")
    title = f"{dtype}, ms; right: ours / dense, median of pairs [95 % interval]"
    table = _empty_table(title, (), headings)
    for row in rows:
        ratios = [f"{row[key]:.2f} [{row[f'{key}_low']:.2f}, {row[f'{key}_high']:.2f}]" for key in RATIOS]
        skipped = f"{100 * float(row['pixel_sparsity'] or 0):.1f}"
        figures = [skipped, _ms(row["dense_ms"]), _ms(row["sparse_ms"])]
        table.add_row(str(row["layer"]), *figures, f"{row['speedup']:.1f}", *ratios)
    return table


def _empty_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="dim")
    for heading in ("layer", *left):
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _ms(value: float | str | None) -> str:
    return "" if value is None else f"{float(value):.3g}"
