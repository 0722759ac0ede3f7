"""Argoverse 2 sensor logs, in the data set's own layout, to a bag.

Sources: the layout that the AV2 user guide describes (sensors/lidar/STAMP.feather,
city_SE3_egovehicle.feather, map/log_map_archive_*.json). A sweep is in the egovehicle frame (rear axle,
0.33 m above the ground), compensated for the vehicle's motion to the stamp in its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.feather
import shapely
import torch
from rich.progress import track
from scipy.spatial.transform import Rotation, Slerp

from sbnet_perception.bags.messages import occupancy_grid, point_cloud2, shift, tf_message, transform
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets import DATA_SETS
from sbnet_perception.masks.road import RoadMap

GROUND_Z = -DATA_SETS["av2"].height
ROAD_RESOLUTION = 0.2
ROAD_MARGIN = 100.0
POSE_MARGIN_NS = 500_000_000


@dataclass(frozen=True)
class Poses:
    """Where the vehicle was: stamps int64 [N] ascending, map_from_ego float64 [N, 4, 4]."""

    stamps: npt.NDArray[np.int64]
    map_from_ego: npt.NDArray[np.float64]


def convert(log: Path, writer: BagWriter) -> list[str]:
    """Writes /points, /tf, /tf_static and, where the log has a map, /road_mask.

    Frames: map (the log's city frame) -> egovehicle -> base_link (on the ground).

    Returns:
        What the bag lacks, one sentence each.

    Raises:
        UserError: the folder is no log, has no sweep, or a file of it is damaged.
    """
    sweeps = _find_sweeps(log)
    stamps = np.array(list(sweeps), dtype=np.int64)
    poses = _with_stamps(_read_poses(log / "city_SE3_egovehicle.feather"), stamps)
    start = int(poses.stamps[0])

    static = transform("egovehicle", "base_link", shift(GROUND_Z), start)
    writer.write("/tf_static", tf_message([static]), start)
    road = _read_road(log, poses)
    if road is not None:
        ground = float(np.median(poses.map_from_ego[:, 2, 3])) + GROUND_Z
        writer.write("/road_mask", occupancy_grid(road, "map", start, z=ground), start)

    for stamp, map_from_ego in track(_rows(poses), f"Argoverse 2 {log.name[:8]}", total=len(poses.stamps)):
        writer.write("/tf", tf_message([transform("map", "egovehicle", map_from_ego, stamp)]), stamp)
        if stamp in sweeps:
            points = _read_sweep(sweeps[stamp])
            writer.write("/points", point_cloud2(points, "egovehicle", stamp, intensity_scale=1.0), stamp)
    return [] if road is not None else [f"{log}/map has no log_map_archive_*.json: the bag has no /road_mask"]


def _find_sweeps(log: Path) -> dict[int, Path]:
    """Stamp in ns -> file, ascending."""
    if not log.is_dir():
        raise UserError(f"{log} is not a folder; give the folder of one Argoverse 2 log")
    files = list((log / "sensors" / "lidar").glob("*.feather"))
    if not files:
        raise UserError(f"{log} has no LiDAR sweep: sensors/lidar/*.feather is empty; download at least one of them")
    unnamed = [path.name for path in files if not path.stem.isdecimal()]
    if unnamed:
        raise UserError(f"sensors/lidar/{unnamed[0]} of {log} is not named by its stamp in nanoseconds")
    return {int(path.stem): path for path in sorted(files, key=lambda path: int(path.stem))}


def _read_table(path: Path, columns: list[str]) -> list[npt.NDArray[np.generic]]:
    try:
        table = pyarrow.feather.read_table(path, columns=columns)
        return [table[name].to_numpy() for name in columns]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; the log is not complete") from error
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise UserError(f"{path} cannot be read as feather with columns {', '.join(columns)}: {error}") from error


def _read_sweep(path: Path) -> npt.NDArray[np.float32]:
    """float32 [P, 4] x, y, z in the egovehicle frame, intensity 0-255."""
    columns = _read_table(path, ["x", "y", "z", "intensity"])
    return np.stack([column.astype(np.float32) for column in columns], axis=1)


def _read_poses(path: Path) -> Poses:
    names = ["timestamp_ns", "qx", "qy", "qz", "qw", "tx_m", "ty_m", "tz_m"]
    stamps, *numbers = _read_table(path, names)
    values = np.stack(numbers, axis=1).astype(np.float64)
    usable = np.isfinite(values).all() and (np.linalg.norm(values[:, :4], axis=1) > 1e-6).all()
    if not len(values) or not usable:
        raise UserError(f"{path} has no pose, or one that is not a finite rotation and translation")
    matrices = np.tile(np.eye(4), (len(values), 1, 1))
    matrices[:, :3, :3] = Rotation.from_quat(values[:, :4]).as_matrix()
    matrices[:, :3, 3] = values[:, 4:]
    ascending, first = np.unique(stamps.astype(np.int64), return_index=True)
    return Poses(ascending, matrices[first])


def _with_stamps(poses: Poses, stamps: npt.NDArray[np.int64]) -> Poses:
    """The poses around the given stamps, with one at each of them, interpolated where it was missing."""
    if stamps[0] < poses.stamps[0] or stamps[-1] > poses.stamps[-1]:
        raise UserError(
            f"the sweeps at {stamps[0]} to {stamps[-1]} are not within the poses of "
            f"city_SE3_egovehicle.feather ({poses.stamps[0]} to {poses.stamps[-1]}); is it another log?"
        )
    near = (poses.stamps >= stamps[0] - POSE_MARGIN_NS) & (poses.stamps <= stamps[-1] + POSE_MARGIN_NS)
    wanted = np.union1d(poses.stamps[near], stamps)
    if len(poses.stamps) == 1:
        return poses

    # Nanoseconds since 1970 do not fit a float64: count from the first pose.
    known, asked = ((s - poses.stamps[0]) * 1e-9 for s in (poses.stamps, wanted))
    matrices = np.tile(np.eye(4), (len(wanted), 1, 1))
    matrices[:, :3, :3] = Slerp(known, Rotation.from_matrix(poses.map_from_ego[:, :3, :3]))(asked).as_matrix()
    for axis in range(3):
        matrices[:, axis, 3] = np.interp(asked, known, poses.map_from_ego[:, axis, 3])
    return Poses(wanted, matrices)


def _read_road(log: Path, poses: Poses) -> RoadMap | None:
    """The drivable area within `ROAD_MARGIN` of the driven path, or None where the log has no map.

    The raster covers all of this window: what lies beyond the drivable area is no road, not unknown.
    """
    archives = sorted((log / "map").glob("log_map_archive_*.json"))
    if not archives:
        return None
    try:
        areas = json.loads(archives[0].read_text(encoding="utf-8"))["drivable_areas"].values()
        outlines = [[(p["x"], p["y"]) for p in area["area_boundary"]] for area in areas]
        polygons = [shapely.make_valid(shapely.Polygon(outline)) for outline in outlines]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise UserError(f"{archives[0]} has no readable drivable_areas: {error!r}") from error

    low, high = (limit(poses.map_from_ego[:, :2, 3], axis=0) for limit in (np.min, np.max))
    window = shapely.box(*(low - ROAD_MARGIN), *(high + ROAD_MARGIN))
    near = shapely.intersection(shapely.union_all(polygons), window)
    parts = [part for part in shapely.get_parts(near) if part.geom_type == "Polygon"]
    if not parts:
        raise UserError(f"{archives[0]}: no drivable area within {ROAD_MARGIN:g} m of the driven path")
    road = RoadMap.from_polygons(
        [shapely.get_coordinates(part.exterior) for part in parts],
        ROAD_RESOLUTION,
        holes=[shapely.get_coordinates(hole) for part in parts for hole in part.interiors],
    )
    return _covering(road, low - ROAD_MARGIN, high + ROAD_MARGIN)


def _covering(road: RoadMap, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> RoadMap:
    """The map with cells that are no road around it, from x, y ``low`` to ``high`` at least (metres, map frame)."""
    origin, (h, w) = np.array([road.origin.x, road.origin.y]), road.cells.shape
    before = np.ceil((origin - low) / road.resolution).clip(min=0).astype(int)
    after = np.ceil((high - origin) / road.resolution - (w, h)).clip(min=0).astype(int)
    cells = torch.nn.functional.pad(road.cells, (before[0], after[0], before[1], after[1]))
    x, y = (origin - before * road.resolution).tolist()
    return RoadMap(cells, road.resolution, SE2(x, y, 0.0))


def _rows(poses: Poses) -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
    for stamp, matrix in zip(poses.stamps, poses.map_from_ego, strict=True):
        yield int(stamp), matrix
