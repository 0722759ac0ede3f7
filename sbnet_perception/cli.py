"""The program ``sbnet``: one command line for everything that is not the node itself."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from sbnet_perception import __version__, environment, sourced_ros
from sbnet_perception.errors import UserError
from sbnet_perception.missing import missing
from sbnet_perception.text import printable

COMMANDS = {
    "demo": ("sbnet_perception.desk.demo", "simulate a drive, run it through the node, draw what was seen"),
    "replay": ("sbnet_perception.desk.replay", "play a rosbag through the node and record the detections"),
    "convert": ("sbnet_perception.desk.convert", "turn a recording of a public data set into a rosbag"),
    "doctor": ("sbnet_perception.desk.doctor", "check this machine and say what to mend"),
    "soak": ("sbnet_perception.desk.soak", "the node under load with faults mixed in: leaks, losses, delays"),
    "simulate": ("sbnet_perception.desk.simulate", "write a simulated drive as a rosbag"),
    "train": ("sbnet_perception.learning.train", "train the detector on simulated scenes"),
    "quantize": ("sbnet_perception.learning.quantize", "add to weights what dtype int8 needs: scales of 8-bit maps"),
    "evaluate": ("sbnet_perception.desk.evaluate", "measure weights on simulated drives and data sets"),
    "compare": ("sbnet_perception.learning.realism", "compare real clouds with simulated ones in figures"),
    "adapt": ("sbnet_perception.desk.adapt", "make weights for your own LiDAR from unlabelled clouds of it"),
    "fleet": ("sbnet_perception.fleet.command", "detect, simulate and evaluate on many machines (Ray)"),
    "reproduce": ("sbnet_perception.bench.reproduce", "a table or a figure of the paper, measured here"),
    "bench": ("sbnet_perception.bench.command", "measure dense against sparse on this machine"),
}

WITH_ROS = (["demo"], ["replay"], ["bench", "node"])
"""Commands that start the node in a session of its own. The doctor looks at the environment as it is."""


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """Parser of all commands; only the chosen command's module is imported, so that help is instant."""
    parser = argparse.ArgumentParser(
        prog="sbnet",
        description="LiDAR vehicle detection that computes only where the mask says so.",
        epilog="'sbnet COMMAND --help' explains a command. Bags: MCAP or sqlite3 rosbag2.",
    )
    parser.add_argument("--version", action="version", version=f"sbnet {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code (2: the user can put it right, 130: interrupted)."""
    if argv is None:
        sourced_ros.leave_out()
        # Pictures are files here; another backend that the shell names may not even exist.
        os.environ["MPLBACKEND"] = "agg"
    argv = sys.argv[1:] if argv is None else argv
    chosen = next((word for word in argv if word in COMMANDS), None)
    name = chosen or ""
    try:
        if any(argv[: len(words)] == words for words in WITH_ROS) and not {"-h", "--help"} & set(argv):
            for line in environment.prepare_desk(os.environ):
                print(f"sbnet: {line}", file=sys.stderr)
            sourced_ros.check()
        arguments = build_parser(chosen).parse_args(argv)
        name = arguments.command
        return int(importlib.import_module(COMMANDS[name][0]).run(arguments))
    except ModuleNotFoundError as error:
        print(f"sbnet {name}: {missing(error)}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"sbnet {name}: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
