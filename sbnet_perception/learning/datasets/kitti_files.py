"""KITTI's label and calibration files, and where in space and in the image their objects are.

Boxes are in the *upright camera frame*: the rectified camera frame with its axes renamed, x forward (the camera's z),
y left (its -x), z up (its -y); yaw is -rotation_y - pi / 2. Image boxes are left, top, right, bottom in pixels.

Source: the readme of KITTI's object development kit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.errors import UserError

DONT_CARE = "DontCare"
"""Type of image regions whose objects nobody labelled."""
WIDTH, HEIGHT = 1242, 375
"""Of the images, in pixels; some are a few pixels smaller."""
TRUNCATED, OCCLUDED, IMAGE_BOX = 0, 1, slice(3, 7)
"""Columns of the numbers in a label file."""
_SIZE, _PLACE, _ROTATION = slice(7, 10), slice(10, 13), 13
Floats = NDArray[np.float64]


def read_labels(file: Path) -> tuple[NDArray[np.str_], Floats]:
    """Types [N] and the fourteen numbers [N, 14] behind each."""
    rows = [line.split() for line in file.read_text().splitlines() if line.strip()]
    try:
        values = np.array([[float(word) for word in row[1:15]] for row in rows], np.float64).reshape(-1, 14)
    except ValueError as error:
        raise UserError(f"{file} is no KITTI label file: {error}; copy it anew") from None
    return np.array([row[0] for row in rows], np.str_), values


def read_calibration(file: Path) -> tuple[Floats, Floats]:
    """[3, 4] from the velodyne to the rectified camera, and [3, 4] from there to pixels of the left colour image."""
    lines = (line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    try:
        numbers = {name: np.array(text.split(), np.float64) for name, text in lines}
        rectify, to_camera = numbers["R0_rect"].reshape(3, 3), numbers["Tr_velo_to_cam"].reshape(3, 4)
        return rectify @ to_camera, numbers["P2"].reshape(3, 4)
    except (KeyError, ValueError) as error:
        raise UserError(f"{file} is no KITTI calibration file: {error}; copy it anew") from None


def upright_boxes(values: Floats) -> Floats:
    """Boxes [K, 7] in the upright camera frame of the numbers [K, 14] of labels."""
    height, width, length = values[:, _SIZE].T
    x, y, z = values[:, _PLACE].T
    return np.stack([z, -x, -y + height / 2, length, width, height, -values[:, _ROTATION] - np.pi / 2], 1)


def in_velodyne(values: Floats, camera_from_velodyne: Floats) -> Floats:
    """Boxes [K, 7] in the velodyne frame: the middle of the bottom moves, yaw stays."""
    boxes = upright_boxes(values)
    turn, move = camera_from_velodyne[:, :3], camera_from_velodyne[:, 3]
    # The inverse of a rotation that the file gives to a few digits.
    bottom = np.linalg.solve(turn, (values[:, _PLACE] - move).T).T
    boxes[:, :3] = bottom
    boxes[:, 2] += boxes[:, 5] / 2
    return boxes


def seen_by_camera(points: NDArray, camera_from_velodyne: Floats, projection: Floats, hidden: Floats) -> NDArray:
    """bool [P]: points [P, >= 3] of the velodyne frame within the image, but in none of the image boxes [D, 4]."""
    camera = points[:, :3] @ camera_from_velodyne[:, :3].T + camera_from_velodyne[:, 3]
    image = camera @ projection[:, :3].T + projection[:, 3]
    ahead = camera[:, 2] > 0
    u, v = (image[:, :2] / np.where(ahead, image[:, 2], 1.0)[:, None]).T
    seen = ahead & (u >= 0) & (u < WIDTH) & (v >= 0) & (v < HEIGHT)
    for left, top, right, bottom in hidden:
        seen &= ~((left <= u) & (u <= right) & (top <= v) & (v <= bottom))
    return seen
