"""``sbnet convert``: recordings of public data sets to rosbag2."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from sbnet_perception.bags import av2, kitti
from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.writer import whole_bag

CONVERTERS = {"av2": av2.convert, "kitti": kitti.convert}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("format", choices=sorted(CONVERTERS), help="layout of the source")
    parser.add_argument(
        "source",
        type=Path,
        help="av2: the folder of one log; kitti: the folder above training/velodyne, or one raw drive",
    )
    parser.add_argument("out", type=Path, metavar="OUT.mcap", help="the bag to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.mcap where it exists")


def run(args: argparse.Namespace) -> int:
    """Converts, then says what is in the bag.

    Raises:
        UserError: the source is not usable, or the bag exists or cannot be written.
    """
    with whole_bag(args.out, args.overwrite) as writer:
        notes = CONVERTERS[args.format](args.source, writer)
    console = Console()
    with BagReader(args.out) as bag:
        for name, topic in sorted(bag.topics.items()):
            console.print(f"{name}: {topic.count} x {topic.msgtype}", highlight=False)
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    console.print(f"wrote {args.out}", highlight=False)
    return 0
