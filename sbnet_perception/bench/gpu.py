"""`sbnet bench gpu`: what a GPU takes, beside the best dense on it and what the model expects of it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Sequence

import torch
from rich.console import Console

from sbnet_perception.bench.chips import Chip, chip_of
from sbnet_perception.bench.measure import Row, write_rows
from sbnet_perception.bench.screen import at_least_one, table_of
from sbnet_perception.blocks.pixels import has_words
from sbnet_perception.desk.outputs import check_writable
from sbnet_perception.detector.device import NO_KERNELS, device_of
from sbnet_perception.errors import UserError

PARTS = {
    "units": "residual units of conv-2 .. conv-5 under synthetic masks",
    "network": "the network under masks of frames",
    "frame": "the steps of a frame, and its boxes against the CPU's",
    "kernels": "the kernels of a frame",
}
WAYS = ("eager", "compile", "autotune", "tensorrt")
LAYER, MASK, STEP, KERNEL = "layer", "mask", "step", "kernel"
COLUMNS = {
    "units": (LAYER, ("pixel_sparsity", "dense_ms", "unit_ms", "unit_speedup", "model_dense_ms", "model_sparse_ms")),
    "network": (MASK, ("pixel_sparsity", "dense_ms", "sparse_ms", "speedup", "model_dense_ms", "model_sparse_ms")),
    "frame": (STEP, ("ms", "model_ms", "p95_ms", "found", "found_by_cpu", "same", "most_metres_apart")),
    "kernels": (KERNEL, ("launches", "microseconds")),
}
"""Of each part: what its rows are called, and the numbers that are shown."""


def run(arguments: argparse.Namespace) -> int:
    at_least_one(arguments, "frames", "rounds")
    check_writable("--json", arguments.json)
    for name in arguments.dense.split(","):
        if name not in WAYS:
            raise UserError(f"--dense is {arguments.dense!r}; name some of {','.join(WAYS)}")
    device = device_of(arguments.device)
    if not has_words(device):
        raise UserError(f"--device is {arguments.device!r}, which has no kernels of a GPU; {NO_KERNELS.remedy}")
    chip = None
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        torch.backends.cudnn.benchmark = True
        chip = chip_of(torch.cuda.get_device_name(device))
    rows: list[Row] = []
    for found in _measure(arguments, device, chip):
        rows += found
        if arguments.json:
            write_rows(arguments.json, rows)  # what was measured stays, should the rest be interrupted
    show(arguments.part, rows, Console(width=160))
    return 0


def _measure(arguments: argparse.Namespace, device: torch.device, chip: Chip | None) -> Iterator[list[Row]]:
    if arguments.part == "units":
        units = importlib.import_module("sbnet_perception.bench.gpu_units")
        yield from units.measure(device, arguments.rounds, chip)
        return
    # These need frames, and what reads or simulates them.
    current, inputs, network, frame = (
        importlib.import_module(f"sbnet_perception.bench.{name}")
        for name in ("current", "inputs", "gpu_network", "gpu_frame")
    )
    config = current.configured(arguments.grid, "bfloat16", "", arguments.weights, arguments.region, str(device))
    pipeline, _ = current.open_pipeline(config)
    for source in inputs.read_inputs(arguments.input):
        if arguments.part == "network":
            ways = arguments.dense.split(",")
            yield from network.measure(source, pipeline, ways, arguments.frames, arguments.rounds, chip)
        elif arguments.part == "frame":
            yield from frame.measure(source, pipeline, arguments.frames, arguments.rounds, chip)
        else:
            yield frame.kernels(source, pipeline)


def show(part: str, rows: Sequence[Row], console: Console) -> None:
    """The rows of a part; what the model says is an expectation on paper, all else was measured."""
    name, numbers = COLUMNS[part]
    table = table_of(PARTS[part], name, [number.replace("_", " ") for number in numbers])
    for row in rows:
        table.add_row(str(row[name])[:70], *(_number(row.get(number)) for number in numbers))
    console.print(table, highlight=False)


def _number(value: float | str | None) -> str:
    return "" if value is None else f"{float(value):.4g}"
