"""``sbnet demo``: a simulated drive through the real node over DDS, scored and drawn."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sbnet_perception.bags.recorded import Recording
from sbnet_perception.bags.writer import whole_bag
from sbnet_perception.desk.pictures import draw_pictures
from sbnet_perception.desk.playback import ReplayOptions, play
from sbnet_perception.desk.report import show_table
from sbnet_perception.desk.score import score
from sbnet_perception.desk.simulate import write_drive
from sbnet_perception.errors import UserError
from sbnet_perception.learning.simulator import Drive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``sbnet demo``."""
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the drive (default 20)")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another drive (default 7)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default demo)")
    parser.add_argument("--every-frame", action="store_true", help="drop no frame, however slow this machine is")


def run(args: argparse.Namespace) -> int:
    """Simulates (once), replays, scores, draws; 0 when frames were processed."""
    if not 0.0 < args.seconds <= 600.0 or args.seed < 0:
        raise UserError(f"--seconds {args.seconds:g} --seed {args.seed}: seconds up to 600 and a seed from 0 up")
    console = Console()
    drive = simulated_drive(args.out, args.seed, args.seconds, console)

    console.rule("replay through the node")
    recording = args.out / "out.mcap"
    report = play(drive, ReplayOptions(out=recording, every_frame=args.every_frame), console)
    if report.interrupted or report.missing or not report.frames_processed:
        show_table(console, report.rows(), "demo")
        return report.exit_code

    console.rule("what was seen")
    with console.status("scoring"):
        scores = score(Recording(recording))
    pictures = draw_pictures(recording, args.out, console=console)
    show_table(console, [*report.rows(), *(row for scored in scores for row in scored.rows())], "demo")
    console.print(closing_words(recording, pictures), highlight=False)
    return 0


def simulated_drive(folder: Path, seed: int, seconds: float, console: Console) -> Path:
    """The drive's bag in `folder`; one with the same settings is used again."""
    path = folder / f"drive_seed{seed}_{math.ceil(seconds * 10) / 10:g}s.mcap"
    console.rule("simulated drive")
    if path.exists():
        console.print(f"{escape(str(path))} is there already", highlight=False)
        return path
    with whole_bag(path) as writer:
        write_drive(Drive(seed, seconds), writer)
    return path


def closing_words(recording: Path, pictures: list[Path]) -> str:
    """The files, and how to open them."""
    stills = " ".join(str(path) for path in pictures[:-1])
    return escape(
        f"Pictures:  {stills}\nAnimation: {pictures[-1]}\n"
        f"Recording: {recording}\n"
        f"  Foxglove: open the file {recording}\n"
        f"  RViz, on a machine with ROS:\n    ros2 bag play {recording} --clock\n    rviz2 -d config/sbnet.rviz\n"
        f"Your own bag: .venv/bin/sbnet replay BAG --pictures FOLDER"
    )
