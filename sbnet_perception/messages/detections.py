"""vision_msgs/Detection3DArray: what was detected, as CDR bytes, and back from a message."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from sbnet_perception.bev.grid import Grid, is_within
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.messages.cdr import CdrWriter

LONGEST_SIDE = 50.0
"""No road vehicle is longer, in metres; a longer box is a fault of the network."""
MARGIN, HIGHEST = 10.0, 20.0
"""Metres from the grid to the centre of a box that reaches into it, and from the ground to that of any box."""
_HYPOTHESIS = struct.Struct("<d7d36d")
_BOX = struct.Struct("<7d3d")
_NO_COVARIANCE = (0.0,) * 36


def detections_message(header: Any, detections: Detections, classes: tuple[str, ...]) -> bytes:
    """vision_msgs/Detection3DArray; `id` stays empty, since nothing is tracked.

    All 36 numbers of a pose's covariance are 0: it is not known, as in sensor_msgs/Imu.

    Args:
        header: std_msgs/Header, or what looks like one.
        detections: boxes in its frame.
        classes: their names, by number.
    """
    names = [name.encode() for name in classes]
    out = CdrWriter()
    out.header(header)
    out.length(len(detections))
    for box, score, label in rows(detections):
        pose = pose_of(box)
        out.header(header)
        # The one hypothesis: class, score, pose.
        out.length(1)
        out.string(names[label])
        out.numbers(_HYPOTHESIS, 8, score, *pose, *_NO_COVARIANCE)
        # The box, and no id.
        out.numbers(_BOX, 8, *pose, *box[3:6])
        out.string(b"")
    return out.message()


def detections_of(message: Any, classes: tuple[str, ...]) -> tuple[Detections, tuple[str, ...]]:
    """The boxes, scores and classes in a vision_msgs/Detection3DArray of rclpy or rosbags.

    Each counts by its most likely hypothesis; one without any has a score of 1 and the first class known.

    Args:
        classes: names known so far.

    Returns:
        Detections in the message's frame, and `classes` with the names that were not among them at its end.
    """
    names = list(classes)
    boxes, scores, labels = [], [], []
    for item in message.detections:
        centre, size, turn = item.bbox.center.position, item.bbox.size, item.bbox.center.orientation
        yaw = math.remainder(2.0 * math.atan2(turn.z, turn.w), 2.0 * math.pi)
        boxes.append((centre.x, centre.y, centre.z, size.x, size.y, size.z, yaw))
        hypotheses = [(found.hypothesis.score, found.hypothesis.class_id) for found in item.results]
        score, name = max(hypotheses, default=(1.0, (*classes, "")[0]))
        if name not in names:
            names.append(name)
        scores.append(score)
        labels.append(names.index(name))
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 7), np.array(scores, np.float32), np.array(labels, np.int64)
    )
    return found, tuple(names)


def split_invalid(detections: Detections, grid: Grid) -> tuple[Detections, int]:
    """The detections that may be published, and how many may not.

    Those may not that are not finite, have a side not in (0, 50] m, or a centre more than 10 m beside the grid or 20 m
    from the ground, in its frame.
    """
    sides = detections.boxes[:, 3:6]
    x, y, z = detections.boxes[:, :3].T
    x_min, x_max, y_min, y_max = grid.bounds
    with np.errstate(invalid="ignore"):
        good = (
            np.isfinite(detections.boxes).all(axis=1)
            & np.isfinite(detections.scores)
            & (sides > 0).all(axis=1)
            & (sides <= LONGEST_SIDE).all(axis=1)
            & is_within(x, y, (x_min - MARGIN, x_max + MARGIN, y_min - MARGIN, y_max + MARGIN))
            & (np.abs(z) <= HIGHEST)
        )
    kept = Detections(detections.boxes[good], detections.scores[good], detections.classes[good])
    return kept, int((~good).sum())


def raised(detections: Detections, ground_z: float) -> Detections:
    """The same detections with their boxes moved up by `ground_z` metres."""
    boxes = detections.boxes.copy()
    boxes[:, 2] += ground_z
    return Detections(boxes, detections.scores, detections.classes)


def rows(detections: Detections) -> Iterable[tuple[list[float], float, int]]:
    """Box, score and class of one detection after the other, as Python numbers."""
    return zip(detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True)


def pose_of(box: list[float]) -> tuple[float, ...]:
    """Position and quaternion x, y, z, w."""
    yaw = box[6]
    return (*box[:3], 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2))
