"""nuScenes: the annotated key frames of its top LiDAR, in the data set's own layout.

Sources: the schema and the map tutorial of nuScenes (a folder v1.0-VERSION of JSON tables, samples/LIDAR_TOP/*.pcd.bin
of five float32 a point, maps/expansion/LOCATION.json). The grid frame is the ego frame: the middle of the rear axle on
the ground, at the stamp of the sweep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import BOXES, NOTHING, Item, Objects, Reader, RealFrame, make_frame
from sbnet_perception.learning.datasets.nuscenes_splits import SPLITS
from sbnet_perception.learning.datasets.nuscenes_tables import Sweep, Tables, read_tables
from sbnet_perception.learning.datasets.polygons import road_around, union_of
from sbnet_perception.learning.datasets.poses import Matrices, inverse, matrices, moved, yaws
from sbnet_perception.masks.road import RoadMap, RoadView

DETECTION_NAMES = {
    "vehicle.car": "car",
    "vehicle.truck": "truck",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.trailer": "trailer",
    "vehicle.construction": "construction_vehicle",
    "vehicle.bicycle": "bicycle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.barrier": "barrier",
    "movable_object.trafficcone": "traffic_cone",
}
"""Categories of the annotations and the classes of the detection task that they are; others keep their name."""
_FIELDS = 5


def versions(folder: Path) -> list[Path]:
    """The folders of tables."""
    return sorted(path.parent for path in folder.glob("v1.0-*/sample.json"))


def items(folder: Path, split: str = "") -> list[Item]:
    """The key frames of a split's scenes, of the scene ``split``, or of all scenes.

    Raises:
        UserError: there is not one version, no such split in it, or a table or sweep is missing.
    """
    version = _version(folder, split)
    tables = read_tables(version, SPLITS.get(split, {split} if split else None))
    if not tables.sweeps:
        raise UserError(f"{version} has no scene of {split!r}; splits are {', '.join(SPLITS)}, or name a scene")
    missing = [sweep.file for sweep in tables.sweeps if not (folder / sweep.file).is_file()]
    if missing:
        raise UserError(
            f"{folder / missing[0]} and {len(missing) - 1} more of {len(tables.sweeps)} sweeps are missing: complete "
            "the download, or name a split or a scene that is there"
        )
    return [
        Item(
            f"nuscenes_{sweep.stamp_ns}",
            "nuscenes",
            sweep.scene,
            folder / sweep.file,
            partial(_read, folder, tables, number),
        )
        for number, sweep in enumerate(tables.sweeps)
    ]


def _version(folder: Path, split: str) -> Path:
    """The folder of the tables that a split belongs to; of no split or a scene, the one there is."""
    there = versions(folder)
    kinds = {name: "mini" if name.startswith("mini") else "test" if name == "test" else "trainval" for name in SPLITS}
    fitting = [path for path in there if split not in SPLITS or path.name.endswith(kinds[split])]
    if len(fitting) != 1:
        names = ", ".join(path.name for path in there) or "none, which are its metadata"
        wanted = f"v1.0-{kinds[split]}, of which {split} is a split" if split in SPLITS else "one version"
        raise UserError(f"{folder} must have the tables v1.0-*/sample.json of {wanted}; it has {names}")
    return fitting[0]


def _read(folder: Path, tables: Tables, number: int, classes: Sequence[ObjectClass]) -> RealFrame:
    sweep = tables.sweeps[number]
    file = folder / sweep.file
    points = moved(_read_cloud(file), sweep.ego_from_lidar)
    points[:, 3] /= 255
    road, pose = _road(folder, tables, sweep), SE2.from_matrix(sweep.map_from_ego)
    x, y, z = sweep.ego_from_lidar[:3, 3].tolist()
    return make_frame(
        f"nuscenes_{sweep.stamp_ns}",
        "nuscenes",
        points,
        None if road is None else RoadView(road, pose),
        _objects(tables.annotations.get(sweep.sample, []), sweep.map_from_ego),
        classes,
        file=file,
        labelled=BOXES if tables.annotations else NOTHING,
        stamp_ns=sweep.stamp_ns,
        map_from_grid=sweep.map_from_ego,
        eye=(x, y, z),
    )


def _objects(annotations: Sequence[Mapping[str, Any]], map_from_ego: Matrices) -> Objects:
    """In the ego frame; the metric asks for those with a point of the LiDAR or of a radar."""
    if not annotations:
        return Objects(np.zeros((0, 7)), np.zeros(0, np.str_), asked=np.zeros(0, bool))
    poses = inverse(map_from_ego) @ matrices(
        [one["rotation"] for one in annotations], [one["translation"] for one in annotations]
    )
    width, length, height = np.array([one["size"] for one in annotations], np.float64).T
    boxes = np.column_stack([poses[:, :3, 3], length, width, height, yaws(poses)])
    labels = [DETECTION_NAMES.get(one["category"], one["category"]) for one in annotations]
    return Objects(boxes, np.array(labels), asked=np.array([one["points"] > 0 for one in annotations]))


def _read_cloud(file: Path) -> NDArray[np.float32]:
    """float32 [P, 4] x, y, z in the frame of the LiDAR, intensity 0-255."""
    data = file.read_bytes()
    if not data or len(data) % (4 * _FIELDS):
        raise UserError(f"{file} is no nuScenes sweep: {len(data)} bytes are not a number of 20-byte points")
    return np.frombuffer(data, "<f4").reshape(-1, _FIELDS)[:, :4].copy()


def _road(folder: Path, tables: Tables, sweep: Sweep) -> RoadMap | None:
    """The drivable area around the path of the sweep's scene; None without the map expansion."""
    file = folder / "maps" / "expansion" / f"{sweep.location}.json"
    return _scene_road(file, sweep.scene, tables.path(sweep.scene)) if file.is_file() else None


@lru_cache(maxsize=1)
def _drivable(file: Path) -> shapely.Geometry:
    try:
        tables = json.loads(file.read_text(encoding="utf-8"))
        nodes = {node["token"]: (node["x"], node["y"]) for node in tables["node"]}
        polygons = {polygon["token"]: polygon for polygon in tables["polygon"]}
        parts = [polygons[token] for area in tables["drivable_area"] for token in area["polygon_tokens"]]
        return union_of(
            shapely.Polygon(
                [nodes[token] for token in part["exterior_node_tokens"]],
                [[nodes[token] for token in hole["node_tokens"]] for hole in part["holes"]],
            )
            for part in parts
        )
    except (OSError, ValueError, KeyError, TypeError, shapely.errors.ShapelyError) as error:
        raise UserError(f"{file} has no readable drivable_area: {error!r}; download the map expansion anew") from error


_roads: dict[tuple[Path, str], RoadMap | None] = {}


def _scene_road(file: Path, scene: str, path: NDArray[np.float64]) -> RoadMap | None:
    """Frames are read scene by scene: one map is held."""
    if (file, scene) not in _roads:
        _roads.clear()
        _roads[file, scene] = road_around(_drivable(file), path)
    return _roads[file, scene]


NUSCENES = Reader(
    name="nuscenes",
    layout="nuScenes: v1.0-*/sample.json and the other tables, samples/LIDAR_TOP/*.pcd.bin, maps/expansion/*.json",
    frame_id="ego",
    licence="CC BY-NC-SA 4.0 with nuScenes' own terms: not for commercial use",
    recognizes=lambda path: path.is_dir() and (bool(versions(path)) or (path / "samples" / "LIDAR_TOP").is_dir()),
    items=items,
)
