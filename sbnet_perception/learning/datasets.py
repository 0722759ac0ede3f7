"""The data sets whose labelled frames are read, and how each delivers its clouds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import VEHICLE, ObjectClass, numbered
from sbnet_perception.errors import UserError
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.simulator.geometry import count_inside
from sbnet_perception.masks.road import RoadMap, RoadView


@dataclass(frozen=True)
class DataSet:
    """How a data set delivers its clouds: height of the origin, scale of intensity, labelled view."""

    height: float
    full_reflectance: float
    half_view: float = math.pi


# KITTI's labels cover the left colour camera: 1242 pixels wide, focal length 721.5 pixels.
DATA_SETS = {
    "av2": DataSet(0.33, 255.0),
    "nuscenes": DataSet(0.0, 255.0),
    "kitti": DataSet(1.73, 1.0, math.atan(621.0 / 721.5)),
}
# Size of a cell in metres and corner of the road rasters in the files.
_RASTER = (0.1, SE2(0.0, -20.0))


def real_frames(folder: Path, classes: Sequence[ObjectClass] = (VEHICLE,)) -> Iterator[LabelledFrame]:
    """The frames ``folder/frames/*.npz`` of Argoverse 2, KITTI and nuScenes.

    Raises:
        UserError: there are none, or a file is of an unknown data set.
    """
    files = sorted((folder / "frames").glob("*.npz"))
    if not files:
        raise UserError(f"no frames at {folder / 'frames'}; name a folder that has frames/*.npz")
    for file in files:
        dataset = file.stem.split("_")[0]
        if dataset not in DATA_SETS:
            raise UserError(f"{file} is of none of the data sets {', '.join(DATA_SETS)}; its name must start with one")
        yield _real_frame(file, dataset, classes)


def _real_frame(file: Path, data_set: str, classes: Sequence[ObjectClass]) -> LabelledFrame:
    source = DATA_SETS[data_set]
    with np.load(file, allow_pickle=False) as data:
        points, boxes, labels = (
            data["points"].astype(np.float32),
            data["boxes"].astype(np.float32),
            data["labels"],
        )
        road = RoadMap(torch.from_numpy(data["road_mask"] > 0), *_RASTER) if "road_mask" in data else None
    # Into the grid frame: the ground at z = 0, intensity from 0 to 1.
    points[:, 2] += source.height
    points[:, 3] /= source.full_reflectance
    boxes[:, 2] += source.height
    kept, numbers = numbered(labels, data_set, classes)
    boxes = boxes[kept]
    view = None if road is None else RoadView(road, SE2())
    return LabelledFrame(file.stem, points, view, boxes, count_inside(points, boxes), numbers, source.half_view)
