"""``sbnet fleet``: work for several processes and machines, by Ray (the optional dependency ``[fleet]``)."""

from __future__ import annotations

import argparse

from sbnet_perception.fleet import detect, evaluate, simulate

KINDS = {
    "detect": (detect, "run the detector over many bags: a bag of detections and masks for each"),
    "simulate": (simulate, "make the scenes that 'sbnet train' trains on"),
    "evaluate": (evaluate, "measure weights on simulated drives: the figures of 'sbnet evaluate'"),
}
ADDRESS = "of a Ray cluster, auto for the one of this machine (default: this machine alone, without a cluster)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    for kind, (module, summary) in KINDS.items():
        command = kinds.add_parser(kind, help=summary, description=summary[0].upper() + summary[1:] + ".")
        module.add_arguments(command)
        command.add_argument("--address", metavar="ADDRESS", help=ADDRESS)
        command.add_argument("--workers", type=int, default=0, help="how many (default 0: as many as fit)")
        command.add_argument("--cpus", type=int, default=1, help="cores and threads of each worker (default 1)")


def run(arguments: argparse.Namespace) -> int:
    """Runs one of `KINDS`; 1 where some of the work failed."""
    return KINDS[arguments.kind][0].run(arguments)
