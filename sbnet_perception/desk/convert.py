"""``sbnet convert``: recordings of public data sets to rosbag2."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from sbnet_perception.bags.messages import (
    labels_message,
    occupancy_grid,
    point_cloud2,
    shift,
    tf_message,
    transform,
)
from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.recorded import ROAD, TRUTH
from sbnet_perception.bags.writer import BagWriter, whole_bag
from sbnet_perception.detector.classes import CLASSES
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import BOXES, POINTS, RealFrame
from sbnet_perception.learning.datasets.labelled_part import RECORD, LabelledPart, common
from sbnet_perception.learning.datasets.registry import FORM, HELP, READERS, Data, open_data

PERIOD_NS = 100_000_000
START_NS = int(datetime(2011, 9, 26, 10, tzinfo=timezone.utc).timestamp()) * 10**9
"""Frames without stamps are laid out at 10 Hz from the day of KITTI's first drive."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("data", metavar=FORM, help=f"one recording of {HELP}; a log's or scene's name is a SPLIT too")
    parser.add_argument("out", type=Path, metavar="OUT.mcap", help="the bag to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.mcap where it exists")


def run(args: argparse.Namespace) -> int:
    """Converts, then says what is in the bag.

    Raises:
        UserError: the source is not usable, or the bag exists or cannot be written.
    """
    data = open_data(args.data)
    console = Console()
    console.print(str(data), highlight=False)
    with whole_bag(args.out, args.overwrite) as writer:
        notes = convert(data, writer)
    with BagReader(args.out) as bag:
        for name, topic in sorted(bag.topics.items()):
            console.print(f"{name}: {topic.count} x {topic.msgtype}", highlight=False)
    for note in notes:
        console.print(f"note: {note}", highlight=False)
    console.print(f"wrote {args.out}", highlight=False)
    return 0


def convert(data: Data, writer: BagWriter) -> list[str]:
    """Writes /points, /tf_static, and where the frames have them /tf, /road_mask and /ground_truth.

    Frames: map -> base_link (on the ground) -> that of the clouds. The truth is of the classes of the table. Where
    objects are labelled is a metadata record, which the reader of bags takes.

    Returns:
        What the bag lacks, one sentence each.

    Raises:
        UserError: the frames are of several recordings, one of them cannot be read, or lacks its vehicles' points.
    """
    recordings = sorted({item.recording for item in data.items})
    if len(recordings) > 1:
        raise UserError(
            f"{data.folder} has {len(recordings)} recordings, and a bag holds one: name it as "
            f"{data.reader.name}:{data.folder}:{recordings[0]}"
        )
    if data.reader is READERS["bag"]:
        raise UserError(f"{data.folder} is a bag already")
    written: set[str] = set()
    parts: list[LabelledPart] = []
    doubtful = False
    for number, item in enumerate(track(data.items, f"{data.reader.name} {recordings[0][:8]}")):
        frame = item.read(tuple(CLASSES.values()))
        if frame.labelled == POINTS:
            raise UserError(
                f"{item.file} has classified points, of which those of vehicles are left out: its clouds are no drive; "
                "convert frames that have boxes"
            )
        if frame.labelled == BOXES:
            area = None if frame.area is None or frame.map_from_grid is None else frame.area.ground
            parts.append(LabelledPart(frame.half_view, area))
            doubtful |= frame.doubtful is not None and bool(frame.doubtful.any())
        stamp = frame.stamp_ns or START_NS + number * PERIOD_NS
        for topic, message in _messages(frame, data.reader.frame_id, stamp, ROAD in written):
            if topic != "/tf_static" or topic not in written:
                writer.write(topic, message, stamp)
                written.add(topic)
    lacks = {topic: thing for topic, thing in ((ROAD, "map"), (TRUTH, "labelled boxes")) if topic not in written}
    notes = [f"{data.folder} has no {thing}: the bag has no {topic}" for topic, thing in lacks.items()]
    if parts:
        writer.add_metadata(RECORD, common(parts).record())
    if doubtful:
        notes.append(
            "points where vehicles may have no box (DontCare regions, what the camera misses) are not marked in the "
            f"bag: train on {data.folder} itself"
        )
    return notes


def _messages(frame: RealFrame, frame_id: str, stamp: int, has_road: bool) -> list[tuple[str, Any]]:
    """Topics and messages of one frame, transforms first."""
    mount = transform("base_link", frame_id, shift(frame.origin_height), stamp)
    messages: list[tuple[str, Any]] = [("/tf_static", tf_message([mount]))]
    if frame.map_from_grid is not None:
        messages.append(("/tf", tf_message([transform("map", "base_link", frame.map_from_grid, stamp)])))
        if frame.road is not None and not has_road:
            height = float(frame.map_from_grid[2, 3])
            messages.append((ROAD, occupancy_grid(frame.road.road, "map", stamp, z=height)))
    points = frame.points.copy()
    points[:, 2] -= np.float32(frame.origin_height)
    messages.append(("/points", point_cloud2(points, frame_id, stamp)))
    if frame.labelled == BOXES:
        names = [tuple(CLASSES)[number] for number in frame.classes]
        messages.append((TRUTH, labels_message(frame.boxes, names, "base_link", stamp)))
    return messages
