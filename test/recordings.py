"""Small recordings for the tests of replay and pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rosbags.rosbag2 import StoragePlugin, Writer

from sbnet_perception.bags.messages import occupancy_grid, point_cloud2, shift, stamped_header, tf_message, transform
from sbnet_perception.bags.types import typestore
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap

START_NS = 1_700_000_000_000_000_000
FRAME_NS = 100_000_000
SENSOR_HEIGHT = 1.8


def stamps(frames: int) -> list[int]:
    return [START_NS + index * FRAME_NS for index in range(frames)]


def points(seed: int, count: int = 3000) -> np.ndarray:
    """float32 [P, 4] in the sensor's frame: flat ground and two boxes, intensity 0-1."""
    rng = np.random.default_rng(seed)
    low, high = np.array([1, -19, 0.0, 0]), np.array([69, 19, 0.05, 1])
    ground = rng.uniform(low, high, (count, 4))
    boxes = [
        rng.uniform(np.array([x, y, 0.3, 0]), np.array([x + 4, y + 2, 1.5, 1]), (400, 4))
        for x, y in ((15, 1), (30, -5))
    ]
    out = np.concatenate([ground, *boxes]).astype(np.float32)
    out[:, 2] -= SENSOR_HEIGHT
    return out


def mount() -> Any:
    """base_link -> lidar."""
    return tf_message([transform("base_link", "lidar", shift(SENSOR_HEIGHT), START_NS)])


def write_drive(path: Path, frames: int, cloud_topic: str = "/lidar/points") -> Path:
    """map -> base_link -> lidar, a latched road mask and one cloud every 0.1 s."""
    road = RoadMap(torch.ones(80, 200, dtype=torch.bool), 0.5, SE2(-10.0, -20.0, 0.0))
    with BagWriter(path) as writer:
        writer.write("/tf_static", mount(), START_NS)
        writer.write("/road_mask", occupancy_grid(road, "map", START_NS), START_NS)
        for index, stamp in enumerate(stamps(frames)):
            pose = SE2(0.5 * index, 0.0, 0.0).matrix()
            writer.write("/tf", tf_message([transform("map", "base_link", pose, stamp)]), stamp)
            writer.write(cloud_topic, point_cloud2(points(index), "lidar", stamp), stamp)
    return path


def write_sqlite3(folder: Path, frames: int) -> Path:
    """As a foreign recorder makes it: a .db3 file in a folder, a cloud topic of an odd name, no transforms."""
    store = typestore()
    with Writer(folder, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/sensors/front", "sensor_msgs/msg/PointCloud2", typestore=store)
        for index, stamp in enumerate(stamps(frames)):
            cloud = points(index)
            cloud[:, 2] += SENSOR_HEIGHT
            raw = store.serialize_cdr(point_cloud2(cloud, "sensor", stamp), "sensor_msgs/msg/PointCloud2")
            writer.write(connection, stamp, raw)
    return folder


def detection_array(
    stamp_ns: int, boxes: np.ndarray, score: float, names: Sequence[str] = (), frame_id: str = "base_link"
) -> Any:
    """rosbags vision_msgs/Detection3DArray; boxes of no name are vehicles."""
    types = typestore().types
    header = stamped_header(frame_id, stamp_ns)
    detections = []
    for box, name in itertools.zip_longest(boxes.tolist(), names, fillvalue="vehicle"):
        x, y, z, length, width, height, yaw = box
        pose = types["geometry_msgs/msg/Pose"](
            position=types["geometry_msgs/msg/Point"](x, y, z),
            orientation=types["geometry_msgs/msg/Quaternion"](0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)),
        )
        hypothesis = types["vision_msgs/msg/ObjectHypothesisWithPose"](
            hypothesis=types["vision_msgs/msg/ObjectHypothesis"](class_id=name, score=score),
            pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
        )
        size = types["geometry_msgs/msg/Vector3"](length, width, height)
        bbox = types["vision_msgs/msg/BoundingBox3D"](center=pose, size=size)
        detections.append(types["vision_msgs/msg/Detection3D"](header=header, results=[hypothesis], bbox=bbox, id=""))
    return types["vision_msgs/msg/Detection3DArray"](header=header, detections=detections)


def write_replay(
    path: Path,
    frames: int,
    boxes: np.ndarray,
    computed: np.ndarray | None,
    ground_z: float = 0.0,
    found: np.ndarray | None = None,
    names: Sequence[str] = (),
    truth_frame: str = "base_link",
) -> Path:
    """A recording as `sbnet replay` leaves it: the drive, and the same boxes and mask [50, 88] in every frame.

    The detections are the boxes, or `found` where it is given; `names` are their classes.
    """
    found = boxes if found is None else found
    with BagWriter(path) as writer:
        writer.write("/tf_static", mount(), START_NS)
        for index, stamp in enumerate(stamps(frames)):
            writer.write("/points", point_cloud2(points(index), "lidar", stamp), stamp)
            writer.write("/ground_truth", detection_array(stamp, boxes, 1.0, (), truth_frame), stamp)
            if computed is not None:
                road = RoadMap(torch.from_numpy(computed), 0.8, SE2(0.0, -20.0, 0.0))
                writer.write("/computation_mask", occupancy_grid(road, "base_link", stamp, ground_z), stamp + 1)
            writer.write("/detections", detection_array(stamp, found, 0.9, names), stamp + 2)
    return path
