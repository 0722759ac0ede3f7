"""Argoverse 2 sensor logs, in the data set's own layout.

Sources: the layout that the AV2 user guide describes (sensors/lidar/STAMP.feather, annotations.feather,
city_SE3_egovehicle.feather, calibration/egovehicle_SE3_sensor.feather, map/log_map_archive_*.json). A sweep is in the
egovehicle frame (rear axle, 0.33 m above the ground), compensated for the vehicle's motion to the stamp in its name.
Objects are labelled, and asked for by the data set's metric, within `REACH` of the drivable area.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.feather
import shapely
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import (
    BOXES,
    NOTHING,
    Item,
    LabelledArea,
    Objects,
    Reader,
    RealFrame,
    make_frame,
)
from sbnet_perception.learning.datasets.polygons import road_around, union_of
from sbnet_perception.learning.datasets.poses import Matrices, matrices, yaws
from sbnet_perception.masks.road import RoadMap, RoadView

HEIGHT = 0.33
"""Of the egovehicle frame above the ground, metres."""
REACH = 5.0
"""Metres from the drivable area up to which objects are labelled: the data set's region of interest."""
SPLITS = ("train", "val", "test")
_POSES, _SWEEPS = "city_SE3_egovehicle.feather", "sensors/lidar"
_QUATERNION, _PLACE = ["qw", "qx", "qy", "qz"], ["tx_m", "ty_m", "tz_m"]


def find_logs(folder: Path) -> list[Path]:
    """The logs in a folder, which is one itself, a split's, or up to two above the splits' (``sensor``)."""
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        found = {path.parents[mark.count("/")] for mark in (_SWEEPS, _POSES) for path in folder.glob(depth + mark)}
        if found:
            return sorted(found)
    return []


def items(folder: Path, split: str = "") -> list[Item]:
    """The sweeps of all logs, or of those in a folder ``split``, or of the log of that name.

    Raises:
        UserError: there is no such split, or a log has no sweep.
    """
    logs = find_logs(folder)
    chosen = [log for log in logs if split in ("", log.name, log.parent.name)]
    if not chosen:
        there = sorted({log.parent.name for log in logs} & set(SPLITS)) or [log.name for log in logs[:3]]
        raise UserError(f"{folder} has no split or log {split}; it has {', '.join(there) or 'no log at all'}")
    return [item for log in chosen for item in _sweeps(log)]


def _sweeps(log: Path) -> list[Item]:
    files = list((log / _SWEEPS).glob("*.feather"))
    if not files:
        raise UserError(f"{log} has no LiDAR sweep: sensors/lidar/*.feather is empty; download at least one of them")
    unnamed = [path.name for path in files if not path.stem.isdecimal()]
    if unnamed:
        raise UserError(f"sensors/lidar/{unnamed[0]} of {log} is not named by its stamp in nanoseconds")
    files.sort(key=lambda path: int(path.stem))
    return [Item(f"av2_{log.name[:8]}_{file.stem}", "av2", log.name, file, partial(_read, file)) for file in files]


def _read(file: Path, classes: Sequence[ObjectClass]) -> RealFrame:
    log, stamp = _log(file.parents[2]), int(file.stem)
    map_from_grid = log.map_from_ego(stamp) @ _lowered()
    points = np.stack([column.astype(np.float32) for column in _columns(file, ["x", "y", "z", "intensity"])], 1)
    points[:, 2] += HEIGHT
    points[:, 3] /= 255
    pose, area = SE2.from_matrix(map_from_grid), None
    if log.drivable is not None:
        area = LabelledArea(log.region_of_interest, pose)
    return make_frame(
        f"av2_{log.folder.name[:8]}_{stamp}",
        "av2",
        points,
        None if log.road is None else RoadView(log.road, pose),
        log.objects(stamp),
        classes,
        origin_height=HEIGHT,
        file=file,
        labelled=NOTHING if log.annotations is None else BOXES,
        stamp_ns=stamp,
        map_from_grid=map_from_grid,
        eye=log.eye,
        area=area,
    )


def _lowered() -> Matrices:
    """ego_from_grid: the grid frame lies on the ground beneath the egovehicle's."""
    matrix = np.eye(4)
    matrix[2, 3] = -HEIGHT
    return matrix


@lru_cache(maxsize=2)
def _log(folder: Path) -> Log:
    """Frames are read log by log: a map is held while it is needed."""
    return Log(folder)


@dataclass(frozen=True)
class Log:
    """What the frames of one log share; each part is read when it is first needed.

    Raises:
        UserError: a file is missing or damaged.
    """

    folder: Path

    @cached_property
    def poses(self) -> tuple[NDArray[np.int64], Matrices]:
        """Stamps [N] in ns, ascending, and map_from_ego [N, 4, 4]."""
        file = self.folder / _POSES
        stamps, *numbers = _columns(file, ["timestamp_ns", *_QUATERNION, *_PLACE])
        try:
            values = np.stack(numbers, axis=1).astype(np.float64)
            poses = matrices(values[:, :4], values[:, 4:])
        except ValueError as error:
            raise UserError(f"{file} has no pose, or one that is no rotation and translation: {error}") from None
        ascending, first = np.unique(stamps.astype(np.int64), return_index=True)
        if not len(ascending):
            raise UserError(f"{file} has no pose")
        return ascending, poses[first]

    def map_from_ego(self, stamp: int) -> Matrices:
        """float64 [4, 4] at a stamp, between the two poses around it."""
        stamps, poses = self.poses
        if not stamps[0] <= stamp <= stamps[-1]:
            raise UserError(
                f"the sweep {stamp} is not within the poses of {self.folder / _POSES} ({stamps[0]} to {stamps[-1]}); "
                "is it another log?"
            )
        after = int(np.searchsorted(stamps, stamp))
        if stamps[after] == stamp:
            return poses[after]
        # Nanoseconds since 1970 do not fit a float64: count from the pose before.
        two = slice(after - 1, after + 1)
        known, asked = (stamps[two] - stamps[after - 1]) * 1e-9, (stamp - stamps[after - 1]) * 1e-9
        result = np.eye(4)
        result[:3, :3] = Slerp(known, Rotation.from_matrix(poses[two, :3, :3]))(asked).as_matrix()
        result[:3, 3] = [np.interp(asked, known, poses[two, axis, 3]) for axis in range(3)]
        return result

    @cached_property
    def drivable(self) -> shapely.Geometry | None:
        """The drivable area of the map, or None where the log has no map."""
        archives = sorted((self.folder / "map").glob("log_map_archive_*.json"))
        if not archives:
            return None
        try:
            areas = json.loads(archives[0].read_text(encoding="utf-8"))["drivable_areas"].values()
            outlines = [[(p["x"], p["y"]) for p in area["area_boundary"]] for area in areas]
            return union_of([shapely.Polygon(outline) for outline in outlines])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
            raise UserError(f"{archives[0]} has no readable drivable_areas: {error!r}") from error

    @cached_property
    def region_of_interest(self) -> shapely.Geometry:
        return shapely.buffer(self.drivable, REACH)

    @cached_property
    def road(self) -> RoadMap | None:
        """The drivable area around the driven path."""
        if self.drivable is None:
            return None
        road = road_around(self.drivable, self.poses[1][:, :2, 3])
        if road is None:
            raise UserError(f"{self.folder}/map: no drivable area near the driven path; is it another log's?")
        return road

    @cached_property
    def annotations(self) -> dict[str, NDArray[Any]] | None:
        """Columns of annotations.feather, or None without it."""
        file = self.folder / "annotations.feather"
        if not file.exists():
            return None
        names = ["timestamp_ns", "category", *_QUATERNION, *_PLACE, "length_m", "width_m", "height_m"]
        names.append("num_interior_pts")
        return dict(zip(names, _columns(file, names), strict=True))

    def objects(self, stamp: int) -> Objects:
        """The labelled objects of a sweep in the grid frame."""
        if self.annotations is None:
            return Objects.none()
        here = self.annotations["timestamp_ns"] == stamp
        of = {name: column[here] for name, column in self.annotations.items()}
        poses = matrices(*(np.stack([of[name] for name in names], 1) for names in (_QUATERNION, _PLACE)))
        sizes = (of[f"{side}_m"] for side in ("length", "width", "height"))
        x, y, z = poses[:, :3, 3].T
        boxes = np.stack([x, y, z + HEIGHT, *sizes, yaws(poses)], axis=1)
        return Objects(boxes, of["category"].astype(np.str_), asked=of["num_interior_pts"] > 0)

    @cached_property
    def eye(self) -> tuple[float, float, float] | None:
        """Between the two LiDARs, in the grid frame; None without the calibration."""
        file = self.folder / "calibration" / "egovehicle_SE3_sensor.feather"
        if not file.exists():
            return None
        names, *place = _columns(file, ["sensor_name", *_PLACE])
        lidars = np.isin(names.astype(np.str_), ("up_lidar", "down_lidar"))
        if not lidars.any():
            raise UserError(f"{file} has no up_lidar and no down_lidar; download it anew")
        x, y, z = (float(values[lidars].mean()) for values in place)
        return x, y, z + HEIGHT


def _columns(path: Path, columns: list[str]) -> list[NDArray[Any]]:
    try:
        table = pyarrow.feather.read_table(path, columns=columns)
        return [table[name].to_numpy() for name in columns]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the log is not complete") from error
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise UserError(f"{path} cannot be read as feather with columns {', '.join(columns)}: {error}") from error


AV2 = Reader(
    name="av2",
    layout="Argoverse 2 logs: sensor/SPLIT/LOG/sensors/lidar/*.feather, or the folder of a split or of one log",
    frame_id="egovehicle",
    licence="CC BY-NC-SA 4.0: not for commercial use",
    recognizes=lambda path: path.is_dir() and bool(find_logs(path)),
    items=items,
)
