"""`sbnet bench sparsity`: the network's time over the share of weights that are 0, beside smaller dense networks.

The claim to be looked at is that of Fast Sparse ConvNets (Elsen, Dukhan, Gale, Simonyan, CVPR 2020): at equal time a
network with sparse weights is more accurate than a thinner dense one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from sbnet_perception.bench import current
from sbnet_perception.bench.inputs import Input, read_inputs
from sbnet_perception.bench.measure import Row, alternate, machine, with_steady_memory, write_rows
from sbnet_perception.bench.plots import plot_sparsity
from sbnet_perception.bench.screen import at_least_one, closing, milliseconds, progress_bar, table_of
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Voxels
from sbnet_perception.desk.outputs import check_plot, check_writable
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector, NetworkConfig, PreparedDetector, initialize
from sbnet_perception.detector.weights import load_network, share_of_zeros
from sbnet_perception.errors import UserError
from sbnet_perception.learning.pruning import Pruning
from sbnet_perception.learning.train_config import TrainConfig

SHARES = (0.0, 0.5, 0.7, 0.8, 0.9)
WHOLE, PRUNED, RIVAL, TRAINED = "the weights", "zeros", "rival", "trained"
"""Kinds of networks: that of --weights; the same with its smallest blocks set to 0; smaller dense ones; given ones."""


def rivals(config: NetworkConfig) -> dict[str, NetworkConfig]:
    """Dense networks that are faster because they are smaller."""
    half = replace(config, header_convolutions=max(1, config.header_convolutions // 2))
    return {
        f"{half.header_convolutions} header convolutions": half,
        "0.75 as wide": config.thinner(3 / 4),
        "0.625 as wide": config.thinner(5 / 8),
        "0.5 as wide": config.thinner(1 / 2),
    }


def pruned(network: Detector, share: float) -> Detector:
    """The network with its smallest blocks set to 0, a share of those of each weight; it finds little until trained."""
    Pruning(network, share, TrainConfig.zeros_inputs).advance(network, 1.0)
    return network


def networks_of(config: DetectorConfig, trained: Sequence[str]) -> dict[str, tuple[str, Detector]]:
    """Name -> kind and network. Rivals have random weights: they show times alone."""
    whole = load_network(config)
    found = {WHOLE: (WHOLE, whole)}
    found |= {f"{share:.0%} zeros": (PRUNED, pruned(load_network(config), share)) for share in SHARES if share}
    for name, shape in rivals(whole.config).items():
        found[name] = RIVAL, initialize(Detector(len(config.classes), shape), 0).eval()
    for file in trained:
        given = current.configured(config.grid, config.dtype, "", file, config.region)
        found[file] = TRAINED, load_network(given)
    return found


@torch.inference_mode()
def _predict(network: PreparedDetector, bev: Voxels, mask: Tensor) -> None:
    network.predict(bev, network.tiles(mask))


def measure(
    source: Input, config: DetectorConfig, trained: Sequence[str], frames: int, rounds: int,
    advance: Callable[[], object],
) -> list[Row]:
    """A row per network, all of them in alternation on each frame under road and occupancy."""
    networks, dtype = networks_of(config, trained), getattr(torch, config.dtype)
    prepared = {name: network.prepare(dtype) for name, (_, network) in networks.items()}
    ms: dict[str, list[float]] = {name: [] for name in networks}
    speedups: dict[str, list[float]] = {name: [] for name in networks}
    faults, others = 0.0, 0.0
    for _, scene in zip(range(frames), source.frames(), strict=False):
        bev = voxels(torch.from_numpy(scene.points), config.raster)
        mask = current.computed(scene, config.raster, current.ROAD_AND_OCCUPANCY)
        if mask is None:
            mask = current.computed(scene, config.raster, current.OCCUPANCY)
        assert mask is not None
        candidates = {name: partial(_predict, network, bev, mask[None]) for name, network in prepared.items()}
        times = alternate(candidates, rounds, warm_up=1)
        for name, of in times.items():
            ms[name].append(of.median)
            speedups[name].append(float(np.median(times[WHOLE].ms / of.ms)))
            faults, others = max(faults, of.faults), max(others, of.others)
        advance()
    return [
        {
            "network": name,
            "kind": kind,
            "zeros": share_of_zeros(network),
            "millions": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
            "ms": float(np.median(ms[name])),
            "speedup": float(np.median(speedups[name])),
            "least_speedup": min(speedups[name]),
            "most_speedup": max(speedups[name]),
            "page_faults": faults,
            "other_programs": others,
        }
        for name, (kind, network) in networks.items()
    ]


def read_figures(path: Path) -> dict[str, float]:
    """AP at IoU 0.5 and 0.7 of the first mask in what `sbnet evaluate --json` wrote of simulated drives.

    Raises:
        UserError: it is something else.
    """
    try:
        first = json.loads(path.read_text())["simulated"][0]
        return {"ap50": float(first["ap50"]), "ap70": float(first["ap70"])}
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"--trained: {path} has no figures of simulated drives ({error}); write them with "
            "'sbnet evaluate --validation --weights WEIGHTS --json FILE'"
        ) from None


def run(arguments: argparse.Namespace) -> int:
    chosen = current.dtypes(arguments)
    if "int8" in chosen:
        raise UserError("--dtype is int8, for which the smaller networks have no scales; use float32, bfloat16 or both")
    at_least_one(arguments, "frames")
    check_writable("--json", arguments.json)
    check_plot("--plot", arguments.plot)
    figures = {weights: read_figures(Path(file)) for weights, file in arguments.trained}
    source = read_inputs(arguments.input)[0]
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, rows = Console(), []
    trained = [weights for weights, _ in arguments.trained]
    with progress_bar(console) as progress:
        task = progress.add_task("", total=arguments.frames * len(chosen))
        for dtype in chosen:
            progress.update(task, description=f"{source.name} {dtype}")
            config = current.configured(arguments.grid, dtype, "", arguments.weights, arguments.region)
            found = measure(
                source, config, trained, arguments.frames, arguments.rounds, lambda: progress.advance(task)
            )
            about = {"input": source.name, "grid": current.grid_of(config), "dtype": dtype}
            rows += [{**about, **row, **figures.get(str(row["network"]), {})} for row in found]
            show(rows[-len(found) :], console)
            if arguments.json:
                write_rows(arguments.json, rows)
    closing(rows, console)
    if arguments.plot:
        plot_sparsity(rows, machine(), arguments.plot)
    return 0


def show(rows: Sequence[Row], console: Console) -> None:
    """The table of one dtype."""
    first = rows[0]
    title = f"{first['input']}, {first['grid']} grid, {first['dtype']}: the network"
    figures = [key for key in ("ap50", "ap70") if any(key in row for row in rows)]
    columns = ["zeros", "million\nweights", "ms", "speed-up", "over the\nframes"]
    table = table_of(title, "network", columns + [f"AP,\nIoU 0.{key[2]}" for key in figures])
    for row in rows:
        zeros, millions = f"{100 * float(row['zeros'] or 0):.0f} %", f"{float(row['millions'] or 0):.2f}"
        frames = f"{float(row['least_speedup'] or 0):.2f} - {float(row['most_speedup'] or 0):.2f}"
        accuracy = (f"{float(row[key] or 0):.3f}" if key in row else "" for key in figures)
        speedup = f"{float(row['speedup'] or 0):.2f}"
        name, ms = Path(str(row["network"])).name, milliseconds(row["ms"])
        table.add_row(name, zeros, millions, ms, speedup, frames, *accuracy)
    console.print(table, highlight=False)
