"""What the simulator hands out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sbnet_perception.bev.se2 import SE2


@dataclass(frozen=True)
class SimulatedFrame:
    """One LiDAR scan with its labels, in base_link (x forward, y left, z up, z = 0 on the ground beneath
    it).

    stamp_ns: time of the scan; points: float32 [P, 4] x y z in metres and intensity 0-255; boxes: float32
    [M, 7] (cx, cy, cz, length, width, height, yaw); track_ids: int64 [M], consistent over a drive; point_counts:
    int64 [M], points inside each box; labels: str [M], what was drawn (sedan, bus ...); map_from_base: pose of
    base_link in the map.
    """

    stamp_ns: int
    points: np.ndarray
    boxes: np.ndarray
    track_ids: np.ndarray
    point_counts: np.ndarray
    labels: np.ndarray
    map_from_base: SE2


def boxes_in_base(boxes: np.ndarray, map_from_base: SE2, ground: float) -> np.ndarray:
    """Boxes float64 [M, 7] of the map frame as float32 in base_link, whose z = 0 lies `ground` metres up in
    the map."""
    moved = boxes.reshape(-1, 7).copy()
    moved[:, :2] = map_from_base.inverse().apply(moved[:, :2])
    moved[:, 2] -= ground
    moved[:, 6] = (moved[:, 6] - map_from_base.yaw + np.pi) % (2 * np.pi) - np.pi
    return moved.astype(np.float32)


def rays_in_map(origins: np.ndarray, directions: np.ndarray, pose: SE2, ground: float) -> tuple[np.ndarray, np.ndarray]:
    """Rays of base_link in the map frame, float32."""
    turned = directions.copy()
    turn = pose.rotation.T.astype(np.float32)
    turned[:, :2] = directions[:, :2] @ turn
    moved = origins.copy()
    moved[:, :2] = origins[:, :2] @ turn + np.array((pose.x, pose.y), np.float32)
    moved[:, 2] += ground
    return moved, turned
