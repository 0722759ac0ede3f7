"""PandaSet: sequences of its mechanical LiDAR, in the data set's own layout.

Sources: the layout that its development kit describes (SEQUENCE/lidar/NN.pkl.gz with poses.json and timestamps.json,
SEQUENCE/annotations/cuboids/NN.pkl.gz). Points and cuboids are in the world; the frame of the poses has x to the right,
y forward and z up, and lies a little above the ground. A cuboid is longest along its y, and its yaw turns y.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from sbnet_perception.bev.ground_level import LEAST_SUPPORT, ground_level
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import BOXES, NOTHING, Item, Objects, Reader, RealFrame, make_frame
from sbnet_perception.learning.datasets.pickled_table import read_table
from sbnet_perception.learning.datasets.poses import Matrices, inverse, matrices, moved, yaws

USUAL_HEIGHT = 0.3
"""Of the poses above the ground, where none is found in a cloud; in five frames it was 0.14 to 0.45 m."""
_MECHANICAL, _FORWARD = 0, 1
"""The numbers of the two LiDARs, in points and in cuboids."""
_FORWARD_FIRST = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""pose_from_x_forward: the grid frame's x is the pose's y."""


def sequences(folder: Path) -> list[Path]:
    """A folder is one itself, or holds some."""
    for pattern in ("lidar", "*/lidar"):
        found = sorted(path.parent for path in folder.glob(pattern) if (path / "poses.json").is_file())
        if found:
            return found
    return []


def items(folder: Path, split: str = "") -> list[Item]:
    """The sweeps of all sequences, or of the one of the name ``split``.

    Raises:
        UserError: there is no such sequence, or not as many sweeps as poses.
    """
    there = sequences(folder)
    chosen = [sequence for sequence in there if split in ("", sequence.name)]
    if not chosen:
        raise UserError(f"{folder} has no sequence {split}; it has {', '.join(path.name for path in there[:5])} ...")
    return [item for sequence in chosen for item in _sweeps(sequence)]


def _sweeps(sequence: Path) -> list[Item]:
    files = sorted((sequence / "lidar").glob("*.pkl.gz"))
    poses, stamps = (_json(sequence / "lidar" / name) for name in ("poses.json", "timestamps.json"))
    if not len(files) == len(poses) == len(stamps):
        numbers = f"{len(files)} sweeps, {len(poses)} poses and {len(stamps)} stamps"
        raise UserError(f"{sequence}/lidar has {numbers}; complete the download")
    try:
        turns = [[pose["heading"][axis] for axis in "wxyz"] for pose in poses]
        places = matrices(turns, [[pose["position"][axis] for axis in "xyz"] for pose in poses])
        times = [round(float(stamp) * 1e9) for stamp in stamps]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{sequence}/lidar has poses or stamps that cannot be read: {error!r}") from error
    return [
        Item(_name(file), "pandaset", sequence.name, file, partial(_read, file, place, stamp))
        for file, place, stamp in zip(files, places, times, strict=True)
    ]


def _name(file: Path) -> str:
    return f"pandaset_{file.parents[1].name}_{file.name.split('.')[0]}"


def _json(file: Path) -> list:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}; complete the download") from error
    if not isinstance(found, list):
        raise UserError(f"{file} holds no list; complete the download")
    return found


def _read(file: Path, pose: Matrices, stamp: int, classes: Sequence[ObjectClass]) -> RealFrame:
    columns = read_table(file, ["x", "y", "z", "i", "d"])
    mechanical = columns["d"] == _MECHANICAL
    world = np.stack([columns[name][mechanical].astype(np.float64) for name in "xyzi"], axis=1)
    map_from_grid = pose @ _FORWARD_FIRST
    points = moved(world, inverse(map_from_grid)).astype(np.float32)
    ground = ground_level(torch.from_numpy(points))
    height = -ground.z if ground is not None and ground.support >= LEAST_SUPPORT else USUAL_HEIGHT
    points[:, 2] += np.float32(height)
    points[:, 3] /= 255
    map_from_grid[:3, 3] -= map_from_grid[:3, 2] * height
    cuboids = file.parents[1] / "annotations" / "cuboids"
    labelled = cuboids.is_dir()
    return make_frame(
        _name(file),
        "pandaset",
        points,
        None,
        _objects(cuboids / file.name, map_from_grid) if labelled else Objects.none(),
        classes,
        origin_height=height,
        file=file,
        labelled=BOXES if labelled else NOTHING,
        stamp_ns=stamp,
        map_from_grid=map_from_grid,
    )


def _objects(file: Path, map_from_grid: Matrices) -> Objects:
    """The cuboids that are not the forward LiDAR's second view of an object."""
    place, size = ([f"{name}.{axis}" for axis in "xyz"] for name in ("position", "dimensions"))
    of = read_table(file, ["label", "yaw", *place, *size, "cuboids.sensor_id"])
    kept = of["cuboids.sensor_id"] != _FORWARD
    width, length, height = (of[name][kept].astype(np.float64) for name in size)
    centers = np.stack([of[name][kept].astype(np.float64) for name in place], axis=1)
    boxes = np.zeros((len(centers), 7))
    boxes[:, :3] = moved(centers, inverse(map_from_grid))
    boxes[:, 3:6] = np.stack([length, width, height], axis=1)
    # The length lies a quarter turn from the x that the yaw turns.
    boxes[:, 6] = of["yaw"][kept].astype(np.float64) + np.pi / 2 - yaws(map_from_grid[None])[0]
    return Objects(boxes, np.array([str(word).replace(" ", "_") for word in of["label"][kept]], np.str_))


PANDASET = Reader(
    name="pandaset",
    layout="PandaSet: SEQUENCE/lidar/*.pkl.gz with poses.json and timestamps.json, SEQUENCE/annotations/cuboids",
    frame_id="pandar64",
    licence="CC BY 4.0 (Hesai and Scale AI): name them",
    recognizes=lambda path: path.is_dir() and bool(sequences(path)),
    items=items,
)
