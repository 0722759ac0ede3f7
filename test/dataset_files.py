"""Small data sets in each layout, written for tests: one scene with known points and boxes in all of them."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow
import pyarrow.feather
from scipy.spatial.transform import Rotation

POINTS = np.float32([[20.0, 1.0, 0.8, 0.2], [20.5, 1.2, 0.9, 1.0], [12.0, -3.0, 0.0, 0.6], [-8.0, 2.0, 1.2, 0.0]])
"""Of the grid frame: x, y, z, intensity 0-1; the first two lie in the first box."""
CAR = np.array([20.0, 1.0, 0.8, 4.5, 1.9, 1.6, 0.5])
PERSON = np.array([12.0, -3.0, 0.9, 0.6, 0.6, 1.8, -2.0])
EGO = (1000.0, 500.0, 30.0)
"""Where the vehicle is on the map, in metres; its heading is `HEADING`."""
HEADING = 0.7
STAMP = 1_533_151_603_597_909_000


def map_from_ego() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", HEADING).as_matrix()
    matrix[:3, 3] = EGO
    return matrix


def quaternion(yaw: float) -> list[float]:
    """w, x, y, z."""
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def square(center: np.ndarray, side: float) -> np.ndarray:
    """Corners [4, 2] on the map of a square in the ego frame."""
    corners = center + side / 2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return corners @ map_from_ego()[:2, :2].T + EGO[:2]


def write_nuscenes(root: Path, scene: str = "scene-0103", version: str = "v1.0-mini") -> None:
    """One sample; the LiDAR's axes are turned as on the real vehicle, and the drivable area ends 10 m around it."""
    mount = np.eye(4)
    mount[:3, :3], mount[:3, 3] = Rotation.from_euler("z", -np.pi / 2).as_matrix(), (0.94, 0.0, 1.84)
    inverse = np.linalg.inv(mount)
    cloud = np.zeros((len(POINTS), 5), "<f4")
    cloud[:, :3], cloud[:, 3] = POINTS[:, :3] @ inverse[:3, :3].T + inverse[:3, 3], POINTS[:, 3] * 255
    (root / "samples" / "LIDAR_TOP").mkdir(parents=True)
    name = f"samples/LIDAR_TOP/{scene}.pcd.bin"
    cloud.tofile(root / name)
    turn = Rotation.from_matrix(mount[:3, :3]).as_quat()[[3, 0, 1, 2]].tolist()
    data = {"token": "d", "sample_token": "s", "ego_pose_token": "p", "calibrated_sensor_token": "c"}
    annotations = [
        {"sample_token": "s", "instance_token": f"i{i}", "num_lidar_pts": number, "num_radar_pts": 0}
        | {"translation": (map_from_ego() @ [*box[:3], 1])[:3].tolist(), "rotation": quaternion(box[6] + HEADING)}
        | {"size": [box[4], box[3], box[5]]}
        for i, (box, number) in enumerate([(CAR, 2), (PERSON, 0)])
    ]
    tables: dict[str, Any] = {
        "log": [{"token": "l", "location": "somewhere"}],
        "scene": [{"token": "sc", "name": scene, "log_token": "l"}],
        "sample": [{"token": "s", "timestamp": STAMP // 1000, "scene_token": "sc"}],
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP"}, {"token": "cam", "channel": "CAM_FRONT"}],
        "calibrated_sensor": [
            {"token": "c", "sensor_token": "lidar", "translation": mount[:3, 3].tolist(), "rotation": turn},
            {"token": "x", "sensor_token": "cam", "translation": [0, 0, 0], "rotation": [1, 0, 0, 0]},
        ],
        "sample_data": [
            data | {"timestamp": STAMP // 1000, "is_key_frame": True, "filename": name},
            data | {"token": "e", "timestamp": STAMP // 1000 + 5, "is_key_frame": False, "filename": "sweeps/no.bin"},
            data | {"calibrated_sensor_token": "x", "is_key_frame": True, "filename": "no.jpg", "timestamp": 1},
        ],
        "ego_pose": [{"token": "p", "translation": list(EGO), "rotation": quaternion(HEADING)}],
        "category": [{"token": "k0", "name": "vehicle.car"}, {"token": "k1", "name": "human.pedestrian.adult"}],
        "instance": [{"token": "i0", "category_token": "k0"}, {"token": "i1", "category_token": "k1"}],
        "sample_annotation": annotations,
    }
    (root / version).mkdir()
    for table, rows in tables.items():
        (root / version / f"{table}.json").write_text(json.dumps(rows, indent=0))
    corners = square(np.zeros(2), 20.0)
    nodes = [{"token": f"n{i}", "x": x, "y": y} for i, (x, y) in enumerate(corners.tolist())]
    polygon = {"token": "p", "exterior_node_tokens": [node["token"] for node in nodes], "holes": []}
    (root / "maps" / "expansion").mkdir(parents=True)
    expansion = {"node": nodes, "polygon": [polygon], "drivable_area": [{"token": "d", "polygon_tokens": ["p"]}]}
    (root / "maps" / "expansion" / "somewhere.json").write_text(json.dumps(expansion))


CALIBRATION = """P2: 700 0 621 0 0 700 187 0 0 0 1 0
R0_rect: 1 0 0 0 1 0 0 0 1
Tr_velo_to_cam: 0 -1 0 0 0 0 -1 0 1 0 0 -0.27
"""
KITTI_HEIGHT = 1.73


def write_kitti(root: Path, numbers: tuple[int, ...] = (1, 2), split: str = "val") -> None:
    """Frames that are alike; the list of the split names the last of them, and DontCare lies around the first point."""
    folder = root / "training"
    for name in ("velodyne", "label_2", "calib"):
        (folder / name).mkdir(parents=True)
    labels = [_kitti_label("Car", CAR), _kitti_label("Pedestrian", PERSON)]
    labels.append("DontCare -1 -1 -10 582 190 610 240 -1 -1 -1 -1000 -1000 -1000 -10")
    for number in numbers:
        (POINTS - np.float32([0, 0, KITTI_HEIGHT, 0])).astype("<f4").tofile(folder / "velodyne" / f"{number:06d}.bin")
        (folder / "label_2" / f"{number:06d}.txt").write_text("\n".join(labels) + "\n")
        (folder / "calib" / f"{number:06d}.txt").write_text(CALIBRATION)
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / f"{split}.txt").write_text(f"{numbers[-1]:06d}\n")


def _kitti_label(kind: str, box: np.ndarray) -> str:
    x, y, z, length, width, height, yaw = box
    bottom = z - height / 2 - KITTI_HEIGHT
    place = (-y, -bottom, x - 0.27)
    numbers = (0, 0, 0, 600, 180, 640, 210, height, width, length, *place, -yaw - np.pi / 2)
    return " ".join([kind, *(f"{number:.6f}" if i != 1 else "0" for i, number in enumerate(numbers))])


def write_av2(log: Path) -> None:
    """One sweep with poses around it, labels and a drivable area 30 m ahead and behind, 4 m to each side."""
    up = 0.33
    (log / "sensors" / "lidar").mkdir(parents=True)
    x, y, z, intensity = POINTS.T
    columns = {"x": x, "y": y, "z": z - np.float32(up), "intensity": np.uint8(np.round(intensity * 255))}
    pyarrow.feather.write_feather(pyarrow.table(columns), log / "sensors" / "lidar" / f"{STAMP}.feather")
    pose = {name: np.full(2, value) for name, value in zip(("qw", "qx", "qy", "qz"), quaternion(HEADING), strict=True)}
    height = EGO[2] + up
    pose |= {name: np.full(2, value) for name, value in zip(("tx_m", "ty_m", "tz_m"), (*EGO[:2], height), strict=True)}
    stamps = {"timestamp_ns": np.array([STAMP - 10**7, STAMP + 10**7])}
    pyarrow.feather.write_feather(pyarrow.table(stamps | pose), log / "city_SE3_egovehicle.feather")
    boxes = np.stack([CAR, PERSON, CAR + np.eye(7)[1] * 40])
    labels: dict[str, Any] = {"timestamp_ns": np.full(3, STAMP), "category": ["REGULAR_VEHICLE", "PEDESTRIAN", "BUS"]}
    turns = np.array([quaternion(yaw) for yaw in boxes[:, 6]])
    labels |= dict(zip(("qw", "qx", "qy", "qz"), turns.T, strict=True))
    places = (boxes[:, :3] - (0, 0, up)).T
    labels |= dict(zip(("tx_m", "ty_m", "tz_m"), places, strict=True))
    labels |= dict(zip(("length_m", "width_m", "height_m"), boxes[:, 3:6].T, strict=True))
    labels["num_interior_pts"] = np.array([2, 5, 9])
    pyarrow.feather.write_feather(pyarrow.table(labels), log / "annotations.feather")
    lane = np.array([(-30, -4), (30, -4), (30, 4), (-30, 4)]) @ map_from_ego()[:2, :2].T + EGO[:2]
    boundary = [{"x": a, "y": b, "z": EGO[2]} for a, b in lane.tolist()]
    (log / "map").mkdir()
    areas = {"drivable_areas": {"1": {"area_boundary": boundary}}}
    (log / "map" / "log_map_archive_test____XYZ_city_1.json").write_text(json.dumps(areas))


class DataFrame:
    """What pandas' own table is in a pickle: a manager of blocks, each of columns of one type, and two axes."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.columns = columns

    def __getstate__(self) -> dict[str, Any]:
        names, length = np.array(list(self.columns), object), len(next(iter(self.columns.values())))
        axes = [Index(names), Index(np.arange(length))]
        blocks: list[dict[str, Any]] = []
        for kind in sorted({column.dtype.str for column in self.columns.values()}):
            places = np.array([i for i, column in enumerate(self.columns.values()) if column.dtype.str == kind])
            values = np.stack([column for column in self.columns.values() if column.dtype.str == kind])
            alone = slice(int(places[0]), int(places[0]) + 1)
            blocks.append({"values": values, "mgr_locs": places if len(places) > 1 else alone})
        manager = BlockManager((axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}}))
        return {"_data": manager, "_typ": "dataframe"}


class BlockManager:
    def __init__(self, state: tuple) -> None:
        self.state = state

    def __reduce__(self) -> tuple:
        return BlockManager, (), self.state


class Index:
    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    def __reduce__(self) -> tuple:
        return _new_Index, (Index, {"data": self.data, "name": None})


def _new_Index(kind: type, state: dict[str, Any]) -> None:
    """Only its name is pickled."""


PLACES = {DataFrame: "frame", BlockManager: "internals.managers", Index: "indexes.base", _new_Index: "indexes.base"}


def write_pickle(file: Path, thing: Any) -> None:
    """Pickled as if the classes above were pandas'."""
    before = dict(sys.modules)
    try:
        for one, place in PLACES.items():
            one.__module__ = f"pandas.core.{place}"
            parts = one.__module__.split(".")
            for name in (".".join(parts[: n + 1]) for n in range(len(parts))):
                sys.modules.setdefault(name, ModuleType(name))
            setattr(sys.modules[one.__module__], one.__name__, one)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(pickle.dumps(thing, protocol=4)))
    finally:
        for name in sys.modules.keys() - before.keys():
            del sys.modules[name]


def write_pandaset(root: Path) -> None:
    """One sweep of the sequence 001 over a plane of ground that the frame's origin is 0.2 m above."""
    x, y = (side.ravel() for side in np.meshgrid(np.arange(-20, 15, 0.5), np.arange(-20, 20, 0.5)))
    ground = np.column_stack([x, y, np.zeros(len(x)), np.zeros(len(x))])
    grid = np.concatenate([POINTS.astype(float), ground])
    up = np.array([0, 0, 0.2])
    # The pose's x is to the right: the vehicle's heading is its y.
    world = map_from_ego()
    xyz = grid[:, :3] @ world[:3, :3].T + world[:3, 3]
    columns = {**dict(zip("xyz", xyz.T, strict=True)), "i": grid[:, 3] * 255, "t": np.zeros(len(grid))}
    columns["d"] = np.r_[np.zeros(len(grid) - 1, int), 1]
    write_pickle(root / "001" / "lidar" / "00.pkl.gz", DataFrame(columns))
    boxes = np.stack([CAR, PERSON, CAR])
    centers = boxes[:, :3] @ world[:3, :3].T + world[:3, 3]
    names = ("position", "dimensions")
    values = (centers, boxes[:, [4, 3, 5]])
    cuboids = {f"{n}.{axis}": v[:, i] for n, v in zip(names, values, strict=True) for i, axis in enumerate("xyz")}
    cuboids |= {"yaw": boxes[:, 6] + HEADING - np.pi / 2, "cuboids.sensor_id": np.array([-1, 0, 1])}
    labels = {"label": np.array(["Pickup Truck", "Pedestrian", "Pickup Truck"], object)}
    write_pickle(root / "001" / "annotations" / "cuboids" / "00.pkl.gz", DataFrame(labels | cuboids))
    heading = dict(zip("wxyz", quaternion(HEADING - np.pi / 2), strict=True))
    pose = {"position": dict(zip("xyz", (EGO + up).tolist(), strict=True)), "heading": heading}
    (root / "001" / "lidar" / "poses.json").write_text(json.dumps([pose]))
    (root / "001" / "lidar" / "timestamps.json").write_text(json.dumps([1557539924.0]))
