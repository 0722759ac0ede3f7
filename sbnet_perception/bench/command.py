"""`sbnet bench`: dense against sparse, same weights, same input, on this machine."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from sbnet_perception.errors import UserError

KINDS = {
    "network": "the network of the shipped weights, dense and under each mask",
    "node": "what the ROS node costs around the detector, cloud to detections over DDS",
    "tune": "the best tile of every layer and when dense is faster, kept for later runs",
    "units": "each residual unit and 3x3 convolution against the best dense PyTorch",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    for kind, summary in KINDS.items():
        command = kinds.add_parser(kind, help=summary, description=summary[0].upper() + summary[1:] + ".")
        more = "; 200 with --sweep" if kind == "units" else ""
        if kind != "node":
            command.add_argument("--rounds", type=int, help=f"alternating rounds (default 30{more})")
        command.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
        command.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
        if kind == "network":
            command.add_argument("--real", type=Path, metavar="FOLDER", help="measure on FOLDER/frames/*.npz too")
            command.add_argument("--weights", default="", help="weights file (default: the shipped ones)")
        elif kind == "node":
            command.set_defaults(rounds=1)
            command.add_argument("--points", type=int, default=100_000, help="points of each cloud (default 100000)")
            command.add_argument("--messages", type=int, default=200, help="clouds of each layout (default 200)")
            command.add_argument("--layout", metavar="LAYOUT", help="xyzi, velodyne or autoware (default: all)")
            command.add_argument("--grid", default="compact", help="compact or paper (default compact)")
        elif kind == "tune":
            command.add_argument("--dtype", metavar="DTYPE", help="float32 or bfloat16 (default: both)")
            command.epilog = "Kept in SBNET_TUNING if set, else in sbnet_perception/tuning.json of the cache folder."
        else:
            _add_unit_arguments(command)


def _add_unit_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--only", metavar="LAYER", help="one layer: conv-2 .. conv-5, conv-2-3x3 .. conv-5-3x3")
    command.add_argument("--dtype", metavar="DTYPE", help="float32 or bfloat16 (default: both)")
    command.add_argument("--mask", metavar="MASK", help="topleft or road, each 90 %% off (default: both)")
    command.add_argument("--tile", metavar="HxW", help="tile in pixels, for example 4x4 (default: the layer's own)")
    command.add_argument(
        "--sweep", action="store_true", help="sparsities from 0 to 100 %% instead: speed-up, and ours over dense"
    )
    command.add_argument("--plot", type=Path, metavar="FILE", help="with --sweep, also draw the speed-ups to FILE")


def run(arguments: argparse.Namespace) -> int:
    if arguments.rounds is None:
        arguments.rounds = 200 if getattr(arguments, "sweep", False) else 30
    if arguments.rounds < 1:
        raise UserError(f"--rounds is {arguments.rounds}; it must be at least 1")
    if arguments.threads < 0:
        raise UserError(f"--threads is {arguments.threads}; it must be at least 0")
    return int(importlib.import_module(f"sbnet_perception.bench.{arguments.kind}").run(arguments))
