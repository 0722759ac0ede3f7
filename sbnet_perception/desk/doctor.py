"""``sbnet doctor``: what this machine has, what is missing, and how to mend it."""

from __future__ import annotations

import argparse

from rich.console import Console

from sbnet_perception.desk.findings import show
from sbnet_perception.desk.machine import examine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``sbnet doctor``."""
    parser.add_argument("--no-dds", action="store_true", help="leave out the DDS round trip (it takes some seconds)")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 1 where something fails, else 0."""
    console = Console()
    with console.status("looking"):
        findings = list(examine(with_dds=not args.no_dds))
    return 0 if show(console, findings) else 1
