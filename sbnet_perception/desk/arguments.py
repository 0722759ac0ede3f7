"""Arguments that commands share."""

from __future__ import annotations

import argparse

from sbnet_perception.detector.config import DetectorConfig

SEVERAL = "several LiDARs: their topics one after the other, which become one cloud (parameter points)"


def add_points_argument(parser: argparse.ArgumentParser, *names: str, help: str) -> None:
    """Declares an option that takes one topic or several; without it the list is empty."""
    parser.add_argument(*names, nargs="+", action="extend", default=[], metavar="TOPIC", help=help)


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the detector sees: ``--grid``, ``--region`` and ``--classes``."""
    defaults = DetectorConfig()
    parser.add_argument("--grid", default=defaults.grid, help=f"compact or paper (default {defaults.grid})")
    extent = ("X_MIN", "X_MAX", "Y_MIN", "Y_MAX")
    region = f"where to detect, metres (default {' '.join(map(str, defaults.region))})"
    parser.add_argument("--region", nargs=4, type=float, metavar=extent, default=defaults.region, help=region)
    classes = "the classes of the weights, in their order (default vehicle)"
    parser.add_argument("--classes", nargs="+", metavar="NAME", default=defaults.classes, help=classes)


def add_topic_arguments(parser: argparse.ArgumentParser, several: bool) -> None:
    """Declares which topics and which frame of a bag count, where their types and names do not tell.

    Args:
        several: clouds of several topics may become one; ``points_topic`` is a list then.
    """
    points = "the cloud's topic in the bag (default: found by type and name)"
    if several:
        add_points_argument(parser, "--points-topic", "--points", help=f"{points}; {SEVERAL}")
    else:
        parser.add_argument("--points-topic", metavar="TOPIC", help=points)
    road = "the road mask's topic in the bag, 100 = road (default: the OccupancyGrid that is named as a road)"
    parser.add_argument("--road-mask-topic", metavar="TOPIC", help=road)
    space = "where tf and tf_static are, / for the root (default: nearest to the cloud's topic)"
    parser.add_argument("--tf-namespace", metavar="NAMESPACE", help=space)
    frame = "the node's grid_frame (default: base_link where the bag's TF leads there, else the cloud's own)"
    parser.add_argument("--grid-frame", metavar="FRAME", help=frame)
