"""Clouds of a recording, or of a folder of frames, without anything that is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bags.recorded import CLOUD_TYPE
from sbnet_perception.bags.transforms import TransformTable, stamp_ns
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.npz import cloud, frame_files, read_arrays
from sbnet_perception.messages.intensity import INTENSITY_SCALE, find_scale
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import CloudError, RawCloud, read_cloud

BASE = "base_link"
TRANSFORMS = "tf2_msgs/msg/TFMessage"


def read_clouds(source: Path, count: int, topic: str | None = None) -> list[npt.NDArray[np.float32]]:
    """At most ``count`` clouds, evenly taken from the recording, or from a folder of frames (docs/frames.md).

    Args:
        source: a bag, or a folder with ``*.npz``, whose labels are left alone.
        count: of clouds.
        topic: of the bag; None finds it by its type.

    Returns:
        float32 [P, 4] each: x, y, z [m] in base_link, and intensity 0-1 by the scale that `find_scale` finds in all of
        them. Where the transforms know base_link for some clouds only, the others are left out; where they know it
        for none, all are in their own frame.

    Raises:
        UserError: there is no such source, no cloud in it, or it cannot be read.
    """
    files = frame_files(source) if source.is_dir() else []
    clouds = [_of_frame(files[number]) for number in _evenly(len(files), count)] if files else []
    clouds = clouds or _of_bag(source, count, topic)
    scale = find_scale(np.concatenate([points[:, 3] for points in clouds])) or INTENSITY_SCALE
    for points in clouds:
        points[:, 3] /= scale
    return clouds


def _of_frame(file: Path) -> npt.NDArray[np.float32]:
    """The points of a frame as its sensor delivered them: not shifted to the ground, intensities up to 255, say."""
    arrays = read_arrays(file)
    try:
        if "intensity" not in arrays:
            return arrays["points"][:, :4].astype(np.float32).reshape(-1, 4)
        points = cloud(arrays)
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"{file} holds no cloud ({error}); docs/frames.md tells what it must hold") from None
    points[:, 2] -= np.float32(arrays.get("origin_height", 0))
    points[:, 3] *= np.float32(INTENSITY_SCALE)
    return points


def _of_bag(path: Path, count: int, topic: str | None) -> list[npt.NDArray[np.float32]]:
    """Intensities as delivered."""
    delivered, in_base = [], []
    with BagReader(path) as bag:
        name = bag.find_topic(CLOUD_TYPE, topic, preferred="/points")
        transforms = TransformTable()
        for message in bag.messages(bag.topics_of(TRANSFORMS)):
            for item in deserialize(message.raw, message.msgtype).transforms:
                transforms.add(item)
        wanted = set(_evenly(bag.topics[name].count, count))
        progress = track(bag.messages([name]), "reading clouds", bag.topics[name].count, console=Console(stderr=True))
        for number, message in enumerate(progress):
            if number not in wanted:
                continue
            try:
                received = read_cloud(message.raw)
                points = read_points(received, missing_intensity="zero", intensity_scale=1.0).points
            except CloudError as error:
                raise UserError(f"cloud {number} of {name} in {path} cannot be read: {error}") from error
            delivered.append(points)
            in_base += _in_base(points, received, transforms)
    return in_base or delivered


def _in_base(
    points: npt.NDArray[np.float32], received: RawCloud, transforms: TransformTable
) -> list[npt.NDArray[np.float32]]:
    """The points in base_link; nothing if nothing connects them with it."""
    try:
        matrix = transforms.lookup(BASE, received.header.frame_id, stamp_ns(received.header))
    except UserError:
        return []
    moved = points.copy()
    moved[:, :3] = points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    return [moved]


def _evenly(available: int, count: int) -> list[int]:
    """Positions of at most ``count`` of the things there are."""
    return sorted({round(position) for position in np.linspace(0, available - 1, min(count, available))})
