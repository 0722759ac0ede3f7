"""nav_msgs/OccupancyGrid: road masks in, computation masks out.

In a road mask 100 is road and 0 is not; a value of 50 or more counts as road. Unknown (-1) counts as road
too: what the map does not know is computed. This differs from a navigation costmap, where 100 is an obstacle.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.network import OUTPUT_STRIDE
from sbnet_perception.masks.road import RoadMap
from sbnet_perception.messages.cdr import CdrWriter
from sbnet_perception.text import LONGEST_NAME

ROAD, COMPUTED = 100, 100
ROAD_FROM = 50
"""Values from here on count as road."""
_MAP = struct.Struct("<iIfII")
_POSE = struct.Struct("<7d")
_MAX_TILT = 0.01


class MaskError(ValueError):
    """An OccupancyGrid that cannot be a road mask; the message names the field at fault."""


def road_from_occupancy_grid(msg: Any, outside: bool = True) -> RoadMap:
    """The road map in a message of rclpy or rosbags; its frame is the message's, its z is ignored.

    Args:
        outside: whether what lies beyond the raster counts as road, as unknown cells in it do.

    Raises:
        MaskError: no cell or too many, data of another length than width x height, a resolution or an origin that no
            road mask has (`RoadMap`), an origin with a zero quaternion or tilted out of the plane, or a frame_id that
            is longer than `text.LONGEST_NAME`.
    """
    if len(msg.header.frame_id.encode(errors="replace")) > LONGEST_NAME:
        raise MaskError(f"frame_id is longer than {LONGEST_NAME} bytes")
    width, height = int(msg.info.width), int(msg.info.height)
    if width == 0 or height == 0:
        raise MaskError(f"info.width {width} x info.height {height} has no cell")
    if len(msg.data) != width * height:
        raise MaskError(
            f"data holds {len(msg.data)} cells, info.width {width} x info.height {height} = {width * height}"
        )
    resolution = float(msg.info.resolution)
    values = np.asarray(msg.data, dtype=np.int8).reshape(height, width)
    try:
        cells = torch.from_numpy((values >= ROAD_FROM) | (values < 0))
        return RoadMap(cells, resolution, _origin(msg.info.origin), outside)
    except MaskError:
        raise
    except ValueError as error:
        raise MaskError(str(error)) from error


def computation_mask_message(header: Any, computed: npt.NDArray[np.bool_], grid: Grid, ground_z: float) -> bytes:
    """nav_msgs/OccupancyGrid of which pixels of a feature map were computed: 100 = computed, 0 = not.

    Args:
        header: stamp of the cloud and the frame of the grid.
        computed: bool [h, w] at stride 4 of the grid, row 0 at y_min.
        grid: the grid it lies on.
        ground_z: height of the raster in metres.
    """
    out = CdrWriter()
    out.header(header)
    height, width = computed.shape
    resolution = grid.resolution * OUTPUT_STRIDE
    out.numbers(_MAP, 4, header.stamp.sec, header.stamp.nanosec, resolution, width, height)
    out.numbers(_POSE, 8, grid.x_min, grid.y_min, ground_z, 0.0, 0.0, 0.0, 1.0)
    out.data((computed.view(np.int8) * np.int8(COMPUTED)).tobytes())
    return out.message()


def _origin(pose: Any) -> SE2:
    p, q = pose.position, pose.orientation
    if not all(math.isfinite(v) for v in (p.x, p.y, p.z, q.x, q.y, q.z, q.w)):
        raise MaskError("info.origin has a component that is not finite")
    norm = math.hypot(q.x, q.y, q.z, q.w)
    if norm < 1e-6:
        raise MaskError("info.origin.orientation is the zero quaternion")
    x, y, z, w = q.x / norm, q.y / norm, q.z / norm, q.w / norm
    tilt = 2.0 * math.asin(min(1.0, math.hypot(x, y)))
    if tilt > _MAX_TILT:
        raise MaskError(f"info.origin is tilted by {math.degrees(tilt):.1f} degrees out of the plane")
    return SE2(p.x, p.y, math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)))
