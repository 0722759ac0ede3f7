"""rosbags messages made from plain values; the way back is in messages/."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from sbnet_perception.bags.types import typestore
from sbnet_perception.masks.road import RoadMap
from sbnet_perception.messages.fields import FLOAT32
from sbnet_perception.messages.intensity import INTENSITY_SCALE
from sbnet_perception.messages.occupancy_grid import ROAD
from sbnet_perception.messages.pointcloud2 import NEEDED


def stamped_header(frame_id: str, stamp_ns: int) -> Any:
    """std_msgs/Header."""
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def quaternion(yaw: float) -> Any:
    """geometry_msgs/Quaternion of a turn about z, in radians."""
    make = typestore().types["geometry_msgs/msg/Quaternion"]
    return make(x=0.0, y=0.0, z=math.sin(yaw / 2), w=math.cos(yaw / 2))


def transform(target: str, source: str, target_from_source: npt.NDArray[np.float64], stamp_ns: int) -> Any:
    """geometry_msgs/TransformStamped: header.frame_id is the target (parent), child_frame_id the source.

    Args:
        target_from_source: float64 [4, 4], p_target = T @ p_source, metres.
    """
    types = typestore().types
    x, y, z, w = (float(v) for v in Rotation.from_matrix(target_from_source[:3, :3]).as_quat())
    return types["geometry_msgs/msg/TransformStamped"](
        header=stamped_header(target, stamp_ns),
        child_frame_id=source,
        transform=types["geometry_msgs/msg/Transform"](
            translation=types["geometry_msgs/msg/Vector3"](*(float(v) for v in target_from_source[:3, 3])),
            rotation=types["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w),
        ),
    )


def tf_message(transforms: Sequence[Any]) -> Any:
    """tf2_msgs/TFMessage."""
    return typestore().types["tf2_msgs/msg/TFMessage"](transforms=list(transforms))


def shift(z: float) -> npt.NDArray[np.float64]:
    """float64 [4, 4] that moves by z metres along z."""
    matrix = np.eye(4)
    matrix[2, 3] = z
    return matrix


def point_cloud2(
    points: npt.NDArray[np.floating[Any]], frame_id: str, stamp_ns: int, intensity_scale: float = INTENSITY_SCALE
) -> Any:
    """The rosbags message sensor_msgs/PointCloud2 with float32 x, y, z, intensity and point_step 16.

    Args:
        points: [P, 4] x, y, z, intensity.
        frame_id: frame of the coordinates.
        stamp_ns: time of the cloud in nanoseconds.
        intensity_scale: what an intensity of 1 becomes in the message, the reverse of `pointcloud2.read_points`; give 1
            where the intensity is 0-255 already.
    """
    if points.ndim != 2 or points.shape[1] != 4:
        raise ValueError(f"points must be [P, 4], was {list(points.shape)}")
    types = typestore().types
    values = points.astype("<f4", order="C")
    values[:, 3] *= np.float32(intensity_scale)
    field = types["sensor_msgs/msg/PointField"]
    return types["sensor_msgs/msg/PointCloud2"](
        header=stamped_header(frame_id, stamp_ns),
        height=1,
        width=len(values),
        fields=[field(name=n, offset=4 * i, datatype=FLOAT32, count=1) for i, n in enumerate(NEEDED)],
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(values),
        data=values.reshape(-1).view(np.uint8),
        is_dense=bool(np.isfinite(values).all()),
    )


def occupancy_grid(road: RoadMap, frame_id: str, stamp_ns: int, z: float = 0.0) -> Any:
    """The rosbags message nav_msgs/OccupancyGrid of a road map, 100 = road, 0 = not.

    Args:
        road: the map.
        frame_id: frame of its origin.
        stamp_ns: time in nanoseconds.
        z: height in metres at which viewers show it; it has no other meaning.
    """
    types = typestore().types
    point, pose = types["geometry_msgs/msg/Point"], types["geometry_msgs/msg/Pose"]
    header = stamped_header(frame_id, stamp_ns)
    origin = pose(position=point(road.origin.x, road.origin.y, z), orientation=quaternion(road.origin.yaw))
    height, width = road.cells.shape
    info = types["nav_msgs/msg/MapMetaData"](
        map_load_time=header.stamp, resolution=road.resolution, width=width, height=height, origin=origin
    )
    data = np.where(road.cells.numpy(), ROAD, 0).astype(np.int8).reshape(-1)
    return types["nav_msgs/msg/OccupancyGrid"](header=header, info=info, data=data)


def labels_message(
    boxes: npt.NDArray[np.floating[Any]],
    names: Sequence[str],
    frame_id: str,
    stamp_ns: int,
    ids: Sequence[object] | None = None,
) -> Any:
    """The rosbags message vision_msgs/Detection3DArray of labelled boxes, each with a score of 1.

    Args:
        boxes: [M, 7] cx, cy, cz, length, width, height, yaw.
        names: their classes.
        frame_id: frame of the boxes.
        stamp_ns: time of the cloud in nanoseconds.
        ids: of their tracks; none are known where it is missing.
    """
    types = typestore().types
    point, vector = types["geometry_msgs/msg/Point"], types["geometry_msgs/msg/Vector3"]
    header, zero = stamped_header(frame_id, stamp_ns), np.zeros(36)
    detections = []
    for box, name, track_id in zip(boxes, names, ids if ids is not None else [""] * len(names), strict=True):
        cx, cy, cz, length, width, height, yaw = (float(v) for v in box)
        pose = types["geometry_msgs/msg/Pose"](position=point(cx, cy, cz), orientation=quaternion(yaw))
        hypothesis = types["vision_msgs/msg/ObjectHypothesisWithPose"](
            hypothesis=types["vision_msgs/msg/ObjectHypothesis"](class_id=name, score=1.0),
            pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=zero),
        )
        bbox = types["vision_msgs/msg/BoundingBox3D"](center=pose, size=vector(length, width, height))
        detections.append(
            types["vision_msgs/msg/Detection3D"](header=header, results=[hypothesis], bbox=bbox, id=str(track_id))
        )
    return types["vision_msgs/msg/Detection3DArray"](header=header, detections=detections)
