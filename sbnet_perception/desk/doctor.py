"""``sbnet doctor``: what this machine has, what is missing, and how to mend it; live topics and bags too."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from sbnet_perception import environment
from sbnet_perception.desk.arguments import SEVERAL, add_points_argument
from sbnet_perception.desk.findings import Finding, show
from sbnet_perception.desk.machine import examine
from sbnet_perception.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``sbnet doctor``."""
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--live", action="store_true", help="also listen to the topics of a running robot")
    what.add_argument("--bag", type=Path, metavar="BAG", help="also look at a recording")
    add("--seconds", type=float, default=10.0, help="how long, or how much of the recording (default 10)")
    points = "the cloud's topic (default: that of the running node, else found by type and name)"
    add_points_argument(parser, "--points", "--points-topic", help=f"{points}; {SEVERAL}")
    add("--node", metavar="NAME", help="with --live: the node that is meant, /left/sbnet, or its namespace, /left")
    add("--road-mask", "--road-mask-topic", metavar="TOPIC", help="the road mask's topic (default: as for the cloud)")
    add("--params-file", type=Path, metavar="YAML", help="ROS parameters of the node")
    add("-p", "--param", action="append", default=[], metavar="NAME:=VALUE", help="a parameter of the node")
    add("--no-dds", action="store_true", help="leave out the DDS round trip (it takes some seconds)")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 1 where something fails, else 0."""
    console = Console()
    if args.node is not None and not args.live:
        raise UserError("--node is for --live: without it no running node is looked at")
    chosen = args.live or args.bag is not None
    with console.status("looking at this machine"):
        findings = list(examine(with_dds=not args.no_dds and not chosen))
    good = show(console, findings)
    return 0 if good & (not chosen or show(console, _topics(args, console))) else 1


def _topics(args: argparse.Namespace, console: Console) -> Iterator[Finding]:
    """Findings about live topics, or about a bag."""
    prepare = environment.prepare_node if args.live else environment.prepare_desk
    prepare(os.environ)
    # Only now: ROS reads the environment when it is imported.
    from sbnet_perception.desk.check import Check, check_bag, check_live
    from sbnet_perception.desk.replay import parameters

    points = tuple(args.points)
    check = Check(args.seconds, points, args.road_mask, args.node, args.params_file, parameters(args.param))
    if args.live:
        yield from check_live(check, console)
    else:
        yield from check_bag(args.bag, check, console)
