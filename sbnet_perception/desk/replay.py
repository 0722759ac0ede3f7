"""``sbnet replay``: plays any rosbag2 through the detector node over DDS and records what it says."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sbnet_perception.desk.arguments import add_topic_arguments
from sbnet_perception.desk.pictures import draw_pictures
from sbnet_perception.desk.playback import ReplayOptions, play
from sbnet_perception.desk.report import show_table
from sbnet_perception.errors import UserError

__all__ = ["ReplayOptions", "play"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``sbnet replay``."""
    add = parser.add_argument
    add("bag", type=Path, help="rosbag2 recording: a folder, an .mcap or a .db3 file")
    add("--rate", type=float, default=1.0, help="speed, 1 = as recorded (default)")
    add(
        "--loop",
        action="store_true",
        help="begin again at the end, until Ctrl-C; the first round is recorded",
    )
    add("--every-frame", action="store_true", help="wait for each result before the next cloud: deterministic")
    add("--frame-timeout", type=float, default=10.0, metavar="S", help="how long to wait for it (default 10)")
    add(
        "--out",
        type=Path,
        metavar="OUT.mcap",
        help="inputs and outputs; replaced where it exists (default: BAG's name + .out.mcap, here)",
    )
    add("--pictures", type=Path, metavar="FOLDER", help="also draw what was seen from above: stills and an animation")
    add("--no-record", action="store_true", help="record nothing")
    add_topic_arguments(parser, several=True)
    add("--params-file", type=Path, metavar="YAML", help="ROS parameters of the node")
    add("-p", "--param", action="append", default=[], metavar="NAME:=VALUE", help="a parameter of the node")
    add("--no-node", action="store_true", help="play only: the node runs elsewhere, with use_sim_time")


def run(args: argparse.Namespace) -> int:
    """Plays the bag, prints the closing table.

    Returns:
        0; 1 when frames waited for had no result, clouds were lost on the way, or the recording is incomplete; 130 when
        interrupted.
    """
    console = Console()
    if args.pictures is not None and args.no_record:
        raise UserError("--pictures draws from the recording; leave out --no-record")
    out = None if args.no_record else args.out or Path(f"{args.bag.resolve().stem}.out.mcap")
    options = ReplayOptions(
        rate=args.rate,
        loop=args.loop,
        every_frame=args.every_frame,
        frame_timeout=args.frame_timeout,
        out=out,
        points_topics=tuple(args.points_topic),
        road_mask_topic=args.road_mask_topic,
        tf_namespace=args.tf_namespace,
        params_file=args.params_file,
        grid_frame=args.grid_frame,
        parameters=parameters(args.param),
        start_node=not args.no_node,
    )
    report = play(args.bag, options, console)
    show_table(console, report.rows(), "replay")
    if args.pictures is not None and report.recording is not None and report.frames_processed:
        pictures = draw_pictures(report.recording, args.pictures, console=console)
        console.print(f"Pictures and animation: {escape(str(args.pictures))} ({len(pictures)} files)", highlight=False)
    return report.exit_code


def parameters(texts: list[str]) -> dict[str, object]:
    """Node parameters by name, of ``NAME:=VALUE`` each.

    Raises:
        UserError: one is written otherwise.
    """
    found: dict[str, object] = {}
    for text in texts:
        name, separator, value = text.partition(":=")
        if not (separator and name and value):
            raise UserError(f"--param {text}: write NAME:=VALUE, for example score_threshold:=0.5")
        found[name] = _of_one_type(value)
    return found


def _of_one_type(value: str) -> str:
    """The text of a list of numbers with a point in each: ROS refuses [-70.4, 40], whose items differ in type."""
    if not re.fullmatch(r"\[[-+.\deE, ]*\]", value) or "." not in value:
        return value
    try:
        return str([float(item) for item in value[1:-1].split(",")])
    except ValueError:
        return value
