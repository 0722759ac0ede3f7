"""KITTI: the object benchmark's folder with its labels, or one raw drive without any.

Sources: the layouts of the KITTI development kits (training/velodyne, calib, label_2; ImageSets/SPLIT.txt as detectors
divide the training frames; velodyne_points/data and timestamps.txt of a raw drive). A cloud is float32 x, y, z,
reflectance (0-1) in the velodyne frame, which is above the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import BOXES, NOTHING, Item, Objects, Reader, RealFrame, make_frame
from sbnet_perception.learning.datasets.kitti_files import (
    DONT_CARE,
    IMAGE_BOX,
    in_velodyne,
    read_calibration,
    read_labels,
    seen_by_camera,
)
from sbnet_perception.learning.datasets.npz import DELIVERIES

SPLITS = ("training", "testing")
_KITTI = DELIVERIES["kitti"]


def items(folder: Path, split: str = "") -> list[Item]:
    """The frames of training, testing, or of the list ImageSets/SPLIT.txt; or of a raw drive, which has no split.

    Without a split those of training, or of testing where there is nothing else.

    Raises:
        UserError: there is no cloud, no such split, or a listed frame is missing.
    """
    drive = sorted((folder / "velodyne_points" / "data").glob("*.bin"))
    if drive and split:
        raise UserError(f"{folder} is a raw drive of KITTI, which has no split {split}; leave the split out")
    if drive:
        stamps = _drive_stamps(folder / "velodyne_points" / "timestamps.txt", drive)
        return [_item(file, folder.name, stamp) for stamp, file in sorted(zip(stamps, drive, strict=True))]
    part = split if split in SPLITS else "training"
    if not split and not (folder / "training" / "velodyne").is_dir():
        part = "testing"
    clouds = sorted((folder / part / "velodyne").glob("*.bin"))
    if not clouds:
        raise UserError(
            f"{folder} has no KITTI cloud: neither {part}/velodyne/*.bin nor velodyne_points/data/*.bin is there"
        )
    if split not in ("", *SPLITS):
        clouds = _listed(folder, split, clouds)
    return [_item(file, part, 0) for file in clouds]


def _item(file: Path, recording: str, stamp: int) -> Item:
    return Item(f"kitti_{file.stem}", "kitti", recording, file, partial(_read, file, stamp))


def _listed(folder: Path, split: str, clouds: list[Path]) -> list[Path]:
    """The clouds that ImageSets/SPLIT.txt names, in its order."""
    lists = {file.stem: file for file in sorted((folder / "ImageSets").glob("*.txt"))}
    if split not in lists:
        there = ", ".join([*SPLITS, *lists])
        raise UserError(f"{folder} has no list ImageSets/{split}.txt, which names a split's frames; there is {there}")
    by_name = {cloud.stem: cloud for cloud in clouds}
    names = lists[split].read_text(encoding="utf-8").split()
    missing = [name for name in names if name not in by_name]
    if not names:
        raise UserError(f"{lists[split]} is empty; it must name the frames of the split, one a line")
    if missing:
        rest = f"{missing[0]}.bin and {len(missing) - 1} more of its {len(names)} frames"
        raise UserError(f"{rest} in {lists[split]} are not in training/velodyne; complete the download")
    return [by_name[name] for name in names]


def _read(file: Path, stamp: int, classes: Sequence[ObjectClass]) -> RealFrame:
    points = _read_cloud(file).copy()
    objects, doubtful, labelled = Objects.none(), None, NOTHING
    folder = file.parents[1]
    if (folder / "label_2").is_dir():
        labels, calibration = (folder / name / f"{file.stem}.txt" for name in ("label_2", "calib"))
        for needed in (labels, calibration):
            if not needed.is_file():
                raise UserError(f"{needed} is missing, but its cloud is there; complete the download")
        words, values = read_labels(labels)
        camera_from_velodyne, projection = read_calibration(calibration)
        known, labelled = words != DONT_CARE, BOXES
        boxes = in_velodyne(values[known], camera_from_velodyne)
        boxes[:, 2] += _KITTI.height
        objects = Objects(boxes, words[known])
        regions = values[~known][:, IMAGE_BOX]
        doubtful = ~seen_by_camera(points, camera_from_velodyne, projection, regions)
    points[:, 2] += _KITTI.height
    return make_frame(
        f"kitti_{file.stem}",
        "kitti",
        points,
        None,
        objects,
        classes,
        half_view=_KITTI.half_view,
        origin_height=_KITTI.height,
        file=file,
        labelled=labelled,
        stamp_ns=stamp,
        eye=(0.0, 0.0, _KITTI.height),
        doubtful=doubtful,
    )


def _drive_stamps(path: Path, clouds: list[Path]) -> list[int]:
    """One stamp for each cloud; the number in a cloud's name is its line in the file."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [_nanoseconds(lines[int(cloud.stem)]) for cloud in clouds]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; a raw drive needs it") from error
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} has no stamp for every cloud in data/: {error}") from error


def _nanoseconds(text: str) -> int:
    """'2011-09-26 13:02:25.594360375' as nanoseconds, taken as UTC."""
    whole, _, fraction = text.strip().partition(".")
    seconds = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def _read_cloud(path: Path) -> NDArray[np.float32]:
    """float32 [P, 4] x, y, z, intensity 0-1."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not data or len(data) % 16:
        raise UserError(f"{path} is no KITTI cloud: {len(data)} bytes are not a number of 16-byte points")
    return np.frombuffer(data, dtype="<f4").reshape(-1, 4)


KITTI = Reader(
    name="kitti",
    layout="KITTI: training/velodyne/*.bin with calib and label_2, or velodyne_points/data/*.bin of a raw drive",
    frame_id="velodyne",
    licence="CC BY-NC-SA 3.0: not for commercial use",
    recognizes=lambda path: any(
        (path / place).is_dir() for place in ("training/velodyne", "testing/velodyne", "velodyne_points/data")
    ),
    items=items,
)
