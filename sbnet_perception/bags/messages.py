"""rosbags messages made from plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from sbnet_perception.bags.types import typestore


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
