"""`sbnet bench`: dense against sparse, same weights, same input, on this machine; and on a GPU, on paper."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from sbnet_perception.bench.chips import CHIPS, DEFAULT_CHIPS
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.errors import UserError
from sbnet_perception.learning.simulator.roadside import SETTINGS
from sbnet_perception.masks.config import EXPRESSIONS

KINDS = {
    "gpu": "on a GPU: units, network or a frame beside the best dense ones there, and the model's expectation",
    "masks": "which mask to use where: time and average precision in town and country, under each mask",
    "network": "the network under each mask against the best dense one, over sparsity as the paper's Figure 7",
    "node": "what the ROS node costs around the detector, cloud to detections over DDS",
    "pipeline": "every stage from message to detections, dense and sparse, on perturbed frames",
    "roofline": "what a frame would move and compute on a GPU, on paper: a model, nothing is measured",
    "sparsity": "the network over the share of weights that are 0, beside smaller dense networks",
    "units": "each residual unit and 3x3 convolution against the best dense PyTorch",
    "zeros": "what is zero after the ReLUs, low-bit copies that predict it, and what leaving it out would spare",
}
INPUT = "a bag, an Argoverse 2 log, labelled frames (*.npz), or 'simulated'"
CHIP = f"{', '.join(CHIPS)}; may be given several times (default {' and '.join(DEFAULT_CHIPS)})"
ROUNDS = {"gpu": 50, "masks": 3, "network": 3, "sparsity": 10, "units": 30, "zeros": 30}
"""Kinds with alternating rounds, and how many of them by default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    for kind, summary in KINDS.items():
        command = kinds.add_parser(kind, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if kind == "network":
            _add_network_arguments(command)
        elif kind == "masks":
            _add_mask_arguments(command)
        elif kind == "pipeline":
            _add_pipeline_arguments(command)
        elif kind == "node":
            _add_node_arguments(command)
        elif kind == "gpu":
            _add_gpu_arguments(command)
        elif kind == "roofline":
            _add_roofline_arguments(command)
        elif kind == "zeros":
            _add_zeros_arguments(command)
        elif kind == "sparsity":
            _add_sparsity_arguments(command)
        else:
            _add_unit_arguments(command)
        if kind in ROUNDS:
            more = "; 200 with --sweep" if kind == "units" else ""
            command.add_argument("--rounds", type=int, help=f"alternating rounds (default {ROUNDS[kind]}{more})")
        command.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
        command.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")


def _add_network_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", nargs="?", default="simulated", metavar="INPUT", help=INPUT + " (default)")
    _add_detector_arguments(command, frames=24)
    network = "weights of the mask network, for masks that name predicted (default: the shipped ones)"
    command.add_argument("--mask-weights", default="", metavar="FILE", help=network)
    only = "masks of expressions, of true boxes and rectangles: the kinds to measure (default: all)"
    command.add_argument("--only", nargs="+", metavar="KIND", help=f"expressions, boxes, rectangles: {only}")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw the speed-up over sparsity to FILE")


def _add_mask_arguments(command: argparse.ArgumentParser) -> None:
    settings = f"surroundings to drive through, of {', '.join(SETTINGS)} (default: all)"
    command.add_argument("--setting", nargs="+", default=list(SETTINGS), metavar="NAME", help=settings)
    masks = f"masks: expressions, everywhere, or {', '.join(EXPRESSIONS)} (default: all of these)"
    command.add_argument("--mask", nargs="+", default=[*EXPRESSIONS, "everywhere"], metavar="MASK", help=masks)
    network = "weights of the mask network, where a mask names predicted (default: the shipped ones)"
    command.add_argument("--mask-weights", default="", metavar="FILE", help=network)
    command.add_argument("--drives", type=int, default=3, help="drives in each setting (default 3)")
    _add_detector_arguments(command, frames=10, each="of each drive", dtype=False)
    dtypes = "float32, bfloat16, or int8 with weights of sbnet quantize (default float32)"
    command.add_argument("--dtype", default="float32", help=dtypes)


def _add_gpu_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("part", choices=("units", "network", "frame", "kernels"), help="what to measure")
    command.add_argument("input", nargs="?", default="simulated", metavar="INPUT", help=INPUT + " (default)")
    command.add_argument("--device", default="cuda", help="cuda or cuda:N (default cuda)")
    ways = "dense networks to beat, of eager, compile, autotune and tensorrt (default eager,compile)"
    command.add_argument("--dense", default="eager,compile", metavar="WAYS", help=ways)
    _add_detector_arguments(command, frames=3, grid="paper", dtype=False)


def _add_node_arguments(command: argparse.ArgumentParser) -> None:
    command.set_defaults(rounds=1)
    command.add_argument("--points", type=int, default=100_000, help="points of each cloud (default 100000)")
    command.add_argument("--messages", type=int, default=200, help="clouds of each layout (default 200)")
    command.add_argument("--layout", metavar="LAYOUT", help="xyzi, velodyne or autoware (default: all)")
    command.add_argument("--grid", default="compact", help="compact or paper (default compact)")


def _add_pipeline_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", metavar="INPUT", help=INPUT)
    _add_detector_arguments(command, frames=300)
    several = "mask expression; may be given several times (default: that of the weights)"
    command.add_argument("--mask", action="append", metavar="EXPR", help=several)
    command.add_argument(
        "--dense-every", type=int, metavar="N", help="dense on every N-th frame only (default: paper 10, compact 1)"
    )
    command.add_argument("--steady", type=int, metavar="N", help="instead: N frames, memory and repeated results")


def _add_roofline_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", nargs="?", default="simulated", metavar="INPUT", help=INPUT + " (default)")
    command.add_argument("--grid", default="compact", help="compact or paper (default compact)")
    command.add_argument("--chip", action="append", metavar="NAME", help=CHIP)
    command.add_argument("--mask", default="", metavar="EXPR", help="mask expression (default: that of the weights)")


def _add_zeros_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--weights", default="", help="weights file (default: the grid's own)")
    command.add_argument("--grid", default="compact", help="compact or paper (default compact)")
    frames = "frames of the simulated validation drives, evenly over them (default 60: all)"
    command.add_argument("--frames", type=int, default=60, help=frames)
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw zeros and times to FILE")
    command.add_argument("--page", type=Path, metavar="FILE", help="also write what is shown to FILE, as Markdown")


def _add_sparsity_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("input", nargs="?", default="simulated", metavar="INPUT", help=INPUT + " (default)")
    _add_detector_arguments(command, frames=8, dtype=False)
    trained = "weights to measure too, with their figures of 'sbnet evaluate --json'; may be given several times"
    names = ("WEIGHTS", "FIGURES")
    command.add_argument("--dtype", default="both", help="float32, bfloat16 or both (default both)")
    command.add_argument("--trained", nargs=2, action="append", default=[], metavar=names, help=trained)
    plot = "also draw the speed-up over the zeros to FILE, and the accuracy of --trained over the time"
    command.add_argument("--plot", type=Path, metavar="FILE", help=plot)


def _add_detector_arguments(
    command: argparse.ArgumentParser,
    frames: int,
    grid: str = "compact",
    dtype: bool = True,
    each: str = "each perturbed",
) -> None:
    command.add_argument("--grid", default=grid, help=f"compact or paper (default {grid})")
    extent = ("X_MIN", "X_MAX", "Y_MIN", "Y_MAX")
    region = f"where to detect, metres (default {' '.join(map(str, DetectorConfig.region))})"
    command.add_argument("--region", nargs=4, type=float, metavar=extent, default=DetectorConfig.region, help=region)
    if dtype:
        dtypes = "float32, bfloat16, both, or int8 beside dense float32 (default both)"
        command.add_argument("--dtype", default="both", help=dtypes)
    command.add_argument("--frames", type=int, default=frames, help=f"frames, {each} (default {frames})")
    command.add_argument("--weights", default="", help="weights file (default: the grid's own)")


def _add_unit_arguments(command: argparse.ArgumentParser) -> None:
    layers = "these layers alone: conv-2 .. conv-5, conv-2-3x3 .. conv-5-3x3"
    command.add_argument("--only", nargs="+", metavar="LAYER", help=layers)
    command.add_argument("--dtype", default="both", help="float32, bfloat16 or both (default both)")
    command.add_argument("--mask", metavar="MASK", help="topleft or road, each 90 %% off (default: both)")
    command.add_argument("--tile", metavar="HxW", help="tile in pixels, for example 4x4 (default: the layer's own)")
    command.add_argument(
        "--sweep", action="store_true", help="sparsities from 0 to 100 %% instead: speed-up, and ours over dense"
    )
    command.add_argument("--plot", type=Path, metavar="FILE", help="with --sweep, also draw the speed-ups to FILE")


def run(arguments: argparse.Namespace) -> int:
    if arguments.kind in ROUNDS:
        if arguments.rounds is None:
            arguments.rounds = 200 if getattr(arguments, "sweep", False) else ROUNDS[arguments.kind]
        if arguments.rounds < 1:
            raise UserError(f"--rounds is {arguments.rounds}; it must be at least 1")
    if arguments.threads < 0:
        raise UserError(f"--threads is {arguments.threads}; it must be at least 0")
    return int(importlib.import_module(f"sbnet_perception.bench.{arguments.kind}").run(arguments))
