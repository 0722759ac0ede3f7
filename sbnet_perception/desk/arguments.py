"""Arguments that commands share."""

from __future__ import annotations

import argparse

from sbnet_perception.detector.config import DetectorConfig


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what the detector sees: ``--grid``, ``--region`` and ``--classes``."""
    defaults = DetectorConfig()
    parser.add_argument("--grid", default=defaults.grid, help=f"compact or paper (default {defaults.grid})")
    extent = ("X_MIN", "X_MAX", "Y_MIN", "Y_MAX")
    region = f"where to detect, metres (default {' '.join(map(str, defaults.region))})"
    parser.add_argument("--region", nargs=4, type=float, metavar=extent, default=defaults.region, help=region)
    classes = "the classes of the weights, in their order (default vehicle)"
    parser.add_argument("--classes", nargs="+", metavar="NAME", default=defaults.classes, help=classes)
