"""`sbnet bench zeros`: what is zero after the ReLUs, low-bit copies that predict it, and what that could spare.

The idea is SeerNet's (Cao et al., CVPR 2019): a copy of a layer in few bits says which of its outputs a ReLU will set
to zero, and only the others are computed. Everything is measured on the simulated validation drives.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track

from sbnet_perception.bench.current import configured, grid_of
from sbnet_perception.bench.measure import Row, machine, write_rows
from sbnet_perception.bench.screen import at_least_one, progress_bar
from sbnet_perception.bench.zeros_header import HeaderCopies
from sbnet_perception.bench.zeros_network import Layer, watched
from sbnet_perception.bench.zeros_page import number, page
from sbnet_perception.bench.zeros_plot import plot_zeros
from sbnet_perception.bench.zeros_product import Product, compiled
from sbnet_perception.bench.zeros_shares import BITS, GROUPS, Counts, Shares, Skip
from sbnet_perception.desk.outputs import check_plot, check_writable
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.weights import load_network, weights_path
from sbnet_perception.errors import UserError
from sbnet_perception.learning.evaluate import (
    RATE_HZ,
    SECONDS,
    VALIDATION,
    evaluate_simulated,
    frames_of_drives,
    pipeline_under,
)
from sbnet_perception.learning.frames import LabelledFrame

MASK = "road_and_occupancy"
SWEEP = (0.0, 0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of zeros, at random places, over which the product is timed."""
VOXELS = "conv-1.1 3x3"
"""Adds up rows of weights where the cloud has voxels: no product that could leave out outputs is timed for it."""
PIXELS = 1008
"""Of the map that the sweep runs on."""
RUNS = 5
"""Of each frame, to see how much of the time is the header's."""


def run(arguments: argparse.Namespace) -> int:
    at_least_one(arguments, "frames")
    check_writable("--json", arguments.json)
    check_writable("--page", arguments.page)
    check_plot("--plot", arguments.plot)
    try:
        config = configured(arguments.grid, "float32", weights=arguments.weights)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, library = Console(), compiled()
    network = load_network(config).eval().requires_grad_(False)
    frames = chosen_frames(arguments.frames, config, console)
    layers, rows = measure_accuracy(network, config, frames)
    with progress_bar(console) as progress:
        parts = _parts(layers)
        task = progress.add_task("products", total=len(layers) + len(SWEEP) * len(parts))
        rows += time_layers(library, layers, len(frames), arguments.rounds, lambda: progress.advance(task))
        rows += time_sweep(library, parts, arguments.rounds, lambda: progress.advance(task))
    rows.append(whole_network(network, rows))
    about: Row = {"weights": weights_path(config).name, "grid": grid_of(config), "frames": len(frames)}
    rows = [{**row, **about} for row in rows]
    if arguments.json:
        write_rows(arguments.json, rows)
    if arguments.plot:
        plot_zeros(rows, machine(), arguments.plot)
    text = page(rows, machine(), arguments.plot)
    if arguments.page:
        arguments.page.write_text(text)
    console.print(Markdown(text))
    return 0


def chosen_frames(count: int, config: DetectorConfig, console: Console) -> list[LabelledFrame]:
    """Some frames of the validation drives, evenly over all of them."""
    total = int(SECONDS * RATE_HZ) * len(VALIDATION)
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    with progress_bar(console) as progress:
        drives = progress.track(frames_of_drives(VALIDATION, config.objects), total=total, description="drives")
        return [frame for place, frame in enumerate(drives) if place in wanted]


@torch.inference_mode()
def measure_accuracy(
    network: Detector, config: DetectorConfig, frames: list[LabelledFrame]
) -> tuple[dict[Layer, Counts], list[Row]]:
    """What is zero in every layer, and rows of what the detector reaches and of the header's copies."""
    pipeline = pipeline_under(config, MASK)
    rows = _figures("shipped kernels", pipeline, frames, config)
    header_part = _header_part(pipeline, frames)
    shares, header = Shares(), HeaderCopies(network, config.thresholds, BITS)
    pipeline.network = header.beside(watched(network, shares))
    rows += _figures("float32", pipeline, frames, config)
    for bits in BITS:
        pipeline.network = watched(network, Skip(bits))
        rows += _figures(f"{bits} bits", pipeline, frames, config)
    return shares.counts, rows + [{**row, "header_part": header_part} for row in header.rows()]


def _figures(name: str, pipeline: Pipeline, frames: list[LabelledFrame], config: DetectorConfig) -> list[Row]:
    """Those of `sbnet evaluate` of every class."""
    shown = track(frames, name, console=Console(stderr=True))
    found = evaluate_simulated({f"{MASK}, {name}": pipeline}, shown, config.thresholds)
    return [
        {
            "table": "accuracy",
            "zeros": name,
            "asked": result.asked,
            "class": result.object,
            "objects": result.objects,
            "ap50": result.ap50,
            "ap70": result.ap70,
        }
        for result in found
    ]


def _header_part(pipeline: Pipeline, frames: list[LabelledFrame]) -> float:
    """Share of the network's time that the header takes, the median of the frames; of each step the fastest time."""
    parts = []
    for frame in frames:
        runs = [pipeline(frame.points, frame.road).timings_ms for _ in range(RUNS)]
        laps = {name: min(run[name] for run in runs) for name in runs[0] if name not in ("mask", "voxelize", "nms")}
        parts.append(laps["header"] / sum(laps.values()))
    return float(np.median(parts))


def _parts(layers: dict[Layer, Counts]) -> dict[str, Layer]:
    """The last layer of each part stands for it."""
    return {layer.part: layer for layer in layers if layer.name != VOXELS}


def time_layers(
    library: object, layers: dict[Layer, Counts], frames: int, rounds: int, advance: Callable[[], object]
) -> list[Row]:
    """A row for each layer: what is zero, what the copies know of it, and the product's time with its true zeros."""
    rows = []
    for layer, counts in layers.items():
        row: Row = {
            "table": "layer",
            "layer": layer.name,
            "part": layer.part,
            "terms": layer.shape.terms,
            "depth": layer.shape.depth,
            "outputs": layer.shape.outputs,
            "pixels": counts.pixels / frames,
            **{f"zero_{name}": counts.share(name) for name in (*GROUPS, "pixel")},
            **{f"missed_{bits}": counts.missed_share(bits) for bits in BITS},
            **{f"found_{bits}": counts.found_share(bits) for bits in BITS},
        }
        if layer.name != VOXELS:
            row |= {"timed_zeros": 1.0 - float(counts.mask.mean()), **_times(library, layer, counts.mask, rounds)}
        rows.append(row)
        advance()
    return rows


def time_sweep(library: object, parts: dict[str, Layer], rounds: int, advance: Callable[[], object]) -> list[Row]:
    """A row for each part and share of zeros, at random places."""
    rows = []
    for part, layer in parts.items():
        for share in SWEEP:
            rng = np.random.default_rng(round(100 * share))
            mask = rng.random((PIXELS, layer.shape.outputs)) >= share
            rows.append({"table": "sweep", "part": part, "zeros": share, **_times(library, layer, mask, rounds)})
            advance()
    return rows


def _times(library: object, layer: Layer, mask: NDArray[np.bool_], rounds: int) -> Row:
    return Product(library, layer.shape, len(mask)).times(mask, rounds)  # type: ignore[arg-type]


def whole_network(network: Detector, rows: Sequence[Row]) -> Row:
    """All products that a ReLU follows together, as the layers' rows have them: against all of them dense.

    ``chosen`` leaves out outputs only where that is faster; ``of_all`` is their share of the network's multiplications,
    conv-1's first layer left out.
    """
    timed = [row for row in rows if row["table"] == "layer" and "dense_us" in row]
    keys = ("pixels", "dense_us", "some_us", "copy_us")
    pixels, dense, some, copies = (np.array([number(row, key) for row in timed]) for key in keys)
    total = pixels @ dense
    own = sum(number(row, "pixels") * _work(row) for row in timed)
    times = {
        "free": some,
        "free_chosen": np.minimum(some, dense),
        "copy": copies,
        "with_copy": some + copies,
        "with_copy_chosen": np.minimum(some + copies, dense),
    }
    shares = {name: float(pixels @ each / total) for name, each in times.items()}
    found: Row = {name: None if math.isnan(share) else share for name, share in shares.items()}
    return {"table": "network", **found, "of_all": own / (own + _others(network, timed))}


def _work(row: Row) -> float:
    """Multiplications of a pixel."""
    return number(row, "terms") * number(row, "depth") * number(row, "outputs")


def _others(network: Detector, timed: Sequence[Row]) -> float:
    """Multiplications of a frame in the layers that no ReLU follows: expansions, projections and branches."""
    pixels = {str(row["layer"]): number(row, "pixels") for row in timed}
    total = 0.0
    for stage in ("conv2", "conv3", "conv4", "conv5"):
        for place, unit in enumerate(getattr(network, stage).units, 1):
            weights = [layer.weight.numel() for layer in (unit.expand, unit.project) if layer is not None]
            total += sum(weights) * pixels[f"conv-{stage[-1]}.{place} 3x3"]
    branches = sum(branch.weight.numel() for branch in (network.logits, network.size, network.orientation))
    return total + branches * pixels["up-3"]
