"""Pipeline results as ROS messages. Every array that is published carries the header it is given."""

from __future__ import annotations

import array
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from nav_msgs.msg import OccupancyGrid
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose
from visualization_msgs.msg import Marker, MarkerArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections

LONGEST_SIDE = 50.0
"""No road vehicle is longer, in metres; a longer box is a fault of the network."""
COMPUTED = 100


def split_invalid(detections: Detections) -> tuple[Detections, int]:
    """The detections that may be published, and how many may not: not finite, a side not in (0, 50] m."""
    sides = detections.boxes[:, 3:6]
    with np.errstate(invalid="ignore"):
        good = (
            np.isfinite(detections.boxes).all(axis=1)
            & np.isfinite(detections.scores)
            & (sides > 0).all(axis=1)
            & (sides <= LONGEST_SIDE).all(axis=1)
        )
    kept = Detections(detections.boxes[good], detections.scores[good], detections.classes[good])
    return kept, int((~good).sum())


def raised(detections: Detections, ground_z: float) -> Detections:
    """The same detections with their boxes moved up by `ground_z` metres."""
    boxes = detections.boxes.copy()
    boxes[:, 2] += ground_z
    return Detections(boxes, detections.scores, detections.classes)


def detections_message(header: Header, detections: Detections, classes: tuple[str, ...]) -> Detection3DArray:
    """vision_msgs/Detection3DArray; `id` stays empty, since nothing is tracked."""
    out = Detection3DArray(header=header)
    for box, score, label in zip(
        detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True
    ):
        pose = _pose(box)
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = classes[label]
        hypothesis.hypothesis.score = score
        hypothesis.pose.pose = pose
        detection = Detection3D(header=header, results=[hypothesis])
        detection.bbox.center = pose
        detection.bbox.size = Vector3(x=box[3], y=box[4], z=box[5])
        out.detections.append(detection)
    return out


def markers_message(header: Header, detections: Detections, classes: tuple[str, ...]) -> MarkerArray:
    """Boxes, heading arrows and labels; the first marker deletes those of the frame before."""
    out = MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])
    rows = zip(
        detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist(), strict=True
    )
    for number, (box, score, label) in enumerate(rows):
        pose = _pose(box)
        length, width, height = box[3:6]
        nose = [length / 2 + 1.0, 0.0]
        top = Pose(position=Point(x=box[0], y=box[1], z=box[2] + height / 2 + 0.7))
        top.orientation.w = 1.0
        out.markers += [
            _marker(header, "boxes", number, Marker.CUBE, pose, (length, width, height), _color(score, 0.45)),
            _marker(header, "heading", number, Marker.ARROW, pose, (0.15, 0.4, 0.4), _color(score, 1.0)),
            _marker(
                header, "labels", number, Marker.TEXT_VIEW_FACING, top, (0.0, 0.0, 0.9), _color(score, 1.0)
            ),
        ]
        out.markers[-2].points = [Point(), Point(x=nose[0], y=nose[1])]
        out.markers[-1].text = f"{classes[label]} {score:.2f}"
    return out


def computation_mask_message(
    header: Header, computed: npt.NDArray[np.bool_], grid: Grid, ground_z: float
) -> OccupancyGrid:
    """Which pixels of a feature map were computed: 100 = computed, 0 = not.

    Args:
        header: stamp of the cloud and the frame of the grid.
        computed: bool [h, w] at a whole stride of the grid, row 0 at y_min.
        grid: the grid it lies on.
        ground_z: height of the raster in metres.
    """
    out = OccupancyGrid(header=header)
    out.info.map_load_time = header.stamp
    out.info.resolution = grid.resolution * math.ceil(grid.width / computed.shape[1])
    out.info.height, out.info.width = computed.shape
    out.info.origin.position = Point(x=grid.x_min, y=grid.y_min, z=ground_z)
    out.info.origin.orientation.w = 1.0
    out.data = array.array("b", (computed.astype(np.int8) * np.int8(COMPUTED)).tobytes())
    return out


def _pose(box: list[float]) -> Pose:
    yaw = box[6]
    return Pose(
        position=Point(x=box[0], y=box[1], z=box[2]),
        orientation=Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2)),
    )


def _color(score: float, alpha: float) -> ColorRGBA:
    """From orange (doubtful) to green (sure)."""
    sure = min(max(score, 0.0), 1.0)
    return ColorRGBA(r=1.0 - 0.8 * sure, g=0.45 + 0.4 * sure, b=0.15, a=alpha)


def _marker(
    header: Header,
    namespace: str,
    number: int,
    kind: int,
    pose: Pose,
    scale: tuple[Any, ...],
    color: ColorRGBA,
) -> Marker:
    x, y, z = scale
    return Marker(
        header=header,
        ns=namespace,
        id=number,
        type=kind,
        action=Marker.ADD,
        pose=pose,
        scale=Vector3(x=x, y=y, z=z),
        color=color,
    )
