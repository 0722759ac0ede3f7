"""`sbnet reproduce`: tables and figures of the paper, measured here, one command each."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from sbnet_perception.bench import paper_benches
from sbnet_perception.bench.paper_benches import PAPER_BENCHES
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.registry import FORM, HELP
from sbnet_perception.learning.train import add_field_arguments

TRAINED = {"table5": "dense and sparse detectors trained alike and compared, on simulated drives (paper, Table 5)"}
"""Tables that need trainings of their own -> what is in them; a module each."""
STEPS, SCENES, BATCH, SEEDS = 1200, 1500, 2, 3
"""Small on purpose: some hours on two cores."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="WHAT", required=True)
    summaries = {**TRAINED, **{name: paper.subject for name, paper in PAPER_BENCHES.items()}}
    for kind, summary in sorted(summaries.items(), key=lambda item: (item[0][0] != "t", item[0])):
        command = kinds.add_parser(kind, help=summary.replace("%", "%%"))
        if kind in TRAINED:
            _add_training_arguments(command, kind)
        else:
            paper_benches.add_arguments(command, kind)


def _add_training_arguments(command: argparse.ArgumentParser, kind: str) -> None:
    summary = TRAINED[kind]
    command.description = (
        f"{summary[0].upper()}{summary[1:]}. The same command goes on where it was stopped; what is finished is "
        "not done again. With the first seed done there is a table, and each seed makes it better."
    )
    command.add_argument("--grid", default="compact", help="compact or paper (default compact)")
    for name, default, what in (
        ("steps", STEPS, "optimizer steps of each training"),
        ("scenes", SCENES, "simulated scenes to train on"),
        ("batch", BATCH, "scenes per step"),
        ("seeds", SEEDS, "times that every training is done, from seed 1 on"),
        ("scene-seed", 1_000_000, "seed of the first scene"),
    ):
        command.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default {default})")
    add_field_arguments(command, ("start", "mask_weights", "learning_rate", "data", "data_share"))
    measured = f"measure on this instead of the held-out drives; it needs roads: {HELP}"
    command.add_argument("--measure-on", default="", metavar=FORM, help=measured)
    out = Path("build") / kind
    where = f"folder for scenes, checkpoints, weights, {kind}.json and {kind}.md (default {out})"
    command.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=where)
    device = "where to train: cpu, cuda, cuda:N or auto (default cpu); speed is always that of the CPU"
    command.add_argument("--device", default="cpu", help=device)
    command.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.kind in PAPER_BENCHES:
        return paper_benches.run(arguments)
    for name in ("seeds", "steps", "scenes", "batch"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} is {getattr(arguments, name)}; it must be at least 1")
    if arguments.threads < 0:
        raise UserError(f"--threads is {arguments.threads}; it must be at least 0")
    return int(importlib.import_module(f"sbnet_perception.bench.{arguments.kind}").run(arguments))
