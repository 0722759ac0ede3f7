"""``sbnet simulate``: a simulated drive as a rosbag2 recording, ground truth included."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from sbnet_perception.bags.messages import labels_message, occupancy_grid, point_cloud2, tf_message, transform
from sbnet_perception.bags.writer import BagWriter, refuse_existing, whole_bag
from sbnet_perception.detector.classes import CLASSES, SIMULATOR, numbered
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.poses import moved
from sbnet_perception.learning.simulator import Drive, SimulatedFrame
from sbnet_perception.learning.simulator.roadside import SETTINGS
from sbnet_perception.learning.simulator.sensors import SENSORS

# A drive counts from 0, which ROS takes for "no time"; the bag's clock starts here.
START_NS = 1_700_000_000 * 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("out", type=Path, metavar="OUT.mcap", help="the bag to write")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same drive (default 0)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the drive (default 20)")
    parser.add_argument("--rate", type=float, default=10.0, help="clouds per second (default 10)")
    parser.add_argument("--sensor", choices=sorted(SENSORS), default="hdl64", help="the LiDAR (default hdl64)")
    beside = "what is beside the roads (default: the seed chooses)"
    parser.add_argument("--setting", choices=list(SETTINGS), default="", help=beside)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.mcap where it exists")


def run(args: argparse.Namespace) -> int:
    """Simulates and writes the bag.

    Raises:
        UserError: an argument is out of its range, or the bag exists or cannot be written.
    """
    refuse_existing(args.out, args.overwrite)
    try:
        drive = Drive(args.seed, args.seconds, args.rate, args.sensor, args.setting)
    except (ValueError, OverflowError) as error:
        raise UserError(f"no such drive: {error}") from error
    with whole_bag(args.out, args.overwrite) as writer:
        write_drive(drive, writer)
    Console().print(f"wrote {args.out}: {len(drive)} clouds", highlight=False)
    return 0


def write_drive(drive: Drive, writer: BagWriter) -> None:
    """Writes /tf_static, /road_mask, and for each frame /tf, /points and /ground_truth.

    Frames: map -> base_link (on the ground) -> lidar. /ground_truth carries the labelled vehicles in
    base_link with the track's number as id.
    """
    static_written = False
    lidar_from_base = np.linalg.inv(drive.base_from_lidar)
    for frame in track(drive.frames(), "simulating", total=len(drive)):
        stamp = START_NS + frame.stamp_ns
        if not static_written:
            mount = transform("base_link", "lidar", drive.base_from_lidar, stamp)
            writer.write("/tf_static", tf_message([mount]), stamp)
            writer.write("/road_mask", occupancy_grid(drive.road_map, "map", stamp), stamp)
            static_written = True
        pose = transform("map", "base_link", frame.map_from_base.matrix(), stamp)
        writer.write("/tf", tf_message([pose]), stamp)
        points = moved(frame.points, lidar_from_base)
        writer.write("/points", point_cloud2(points, "lidar", stamp, intensity_scale=1.0), stamp)
        writer.write("/ground_truth", ground_truth(frame, stamp), stamp)


def ground_truth(frame: SimulatedFrame, stamp_ns: int) -> Any:
    """vision_msgs/Detection3DArray of a frame's boxes in base_link that are of any class of the table."""
    table = tuple(CLASSES.values())
    kept, numbers = numbered(frame.labels, SIMULATOR, table)
    names = [table[number].name for number in numbers]
    return labels_message(frame.boxes[kept], names, "base_link", stamp_ns, frame.track_ids[kept].tolist())
