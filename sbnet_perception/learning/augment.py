"""Variants of a labelled frame: what differs between sensors, mountings and places, drawn anew at every use."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.simulator.geometry import count_inside
from sbnet_perception.masks.road import RoadMap, RoadView

TURNED = 0.6
"""Share of the frames that are turned by any angle; the others by a few degrees, as roads run."""
SLIGHT_TURN = math.radians(8.0)
SCALE = 0.1
LIFT = 0.15
TILT = math.radians(0.4)
EYE = 1.8
"""Height in metres at which the LiDAR is taken to be, to tell its beams apart."""
Floats = NDArray[np.float32]


def augment(frame: LabelledFrame, rng: np.random.Generator) -> LabelledFrame:
    """A variant of the frame: mirrored, turned, scaled, raised and tilted, thinned out, with other intensities.

    In two of five cases it has no road any more: without a map the mask is the occupancy alone.
    ``point_counts`` are counted anew.
    """
    frame = mirrored(frame) if rng.random() < 0.5 else frame
    turn = rng.uniform(-math.pi, math.pi) if rng.random() < TURNED else rng.normal(0, SLIGHT_TURN)
    frame = moved(frame, float(turn), float(rng.uniform(1 - SCALE, 1 + SCALE)))
    points, boxes = _on_other_ground(_fewer(frame.points, rng), frame.boxes, rng)
    points[:, 3] = _other_intensity(points[:, 3], rng)
    road = frame.road if rng.random() < 0.6 else None
    return replace(frame, points=points, boxes=boxes, road=road, point_counts=count_inside(points, boxes))


def mirrored(frame: LabelledFrame) -> LabelledFrame:
    """The frame with left and right exchanged."""
    points, boxes = frame.points.copy(), frame.boxes.copy()
    points[:, 1] *= -1
    boxes[:, [1, 6]] *= -1
    return replace(frame, points=points, boxes=boxes, road=frame.road and frame.road.mirrored())


def moved(frame: LabelledFrame, turn: float, scale: float) -> LabelledFrame:
    """The frame turned about the origin by ``turn`` radians, everything in it ``scale`` times as large and as far."""
    points, boxes = frame.points.copy(), frame.boxes.copy()
    matrix = np.float32(scale) * SE2(yaw=turn).rotation.T.astype(np.float32)
    for rows in (points, boxes):
        rows[:, :2] = rows[:, :2] @ matrix
        rows[:, 2] *= scale
    boxes[:, 3:6] *= scale
    boxes[:, 6] = (boxes[:, 6] + turn + np.pi) % (2 * np.pi) - np.pi
    road = None
    if frame.road is not None:
        cells, pose, origin = frame.road.road.cells, frame.road.map_from_grid, frame.road.road.origin
        placed = SE2(origin.x * scale, origin.y * scale, origin.yaw)
        larger = RoadMap(cells, frame.road.road.resolution * scale, placed, frame.road.road.outside)
        road = RoadView(larger, SE2(pose.x * scale, pose.y * scale, pose.yaw - turn))
    return replace(frame, points=points, boxes=boxes, road=road)


def _fewer(points: Floats, rng: np.random.Generator) -> Floats:
    """Points as a coarser, weaker or noisier LiDAR has them."""
    keep = np.ones(len(points), bool)
    reach = np.hypot(points[:, 0], points[:, 1])
    # Half of the beams.
    if rng.random() < 0.15:
        step = math.radians(rng.uniform(0.3, 0.9))
        beam = np.floor(np.arctan2(points[:, 2] - EYE, reach) / step + rng.random())
        keep &= beam % 2 == 0
    # A share of all returns, and of the far ones.
    if rng.random() < 0.3:
        keep &= rng.random(len(points)) < rng.uniform(0.4, 1.0)
    if rng.random() < 0.2:
        keep &= rng.random(len(points)) > (reach / rng.uniform(50.0, 150.0)) ** 2
    points = points[keep]
    # Noise along the beam.
    if rng.random() < 0.3:
        noise = rng.uniform(0.0, 0.04) * rng.standard_normal(len(points), dtype=np.float32)
        offset = points[:, :3] - np.array((0, 0, EYE), np.float32)
        points[:, :3] += offset * (noise / np.maximum(np.linalg.norm(offset, axis=1), 1.0))[:, None]
    return points


def _on_other_ground(points: Floats, boxes: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Ground that lies somewhat above or below z = 0, and that is not quite level."""
    boxes = boxes.copy()
    slope = rng.normal(0, TILT, 2) if rng.random() < 0.5 else np.zeros(2)
    lift = rng.uniform(-LIFT, LIFT)
    for rows in (points, boxes):
        rows[:, 2] += (rows[:, :2] @ slope + lift).astype(np.float32)
    return points, boxes


def _other_intensity(intensity: Floats, rng: np.random.Generator) -> Floats:
    """Sensors disagree most about intensity: another gain and curve, or none at all."""
    if rng.random() < 0.2:
        return np.zeros_like(intensity)
    gain = math.exp(rng.uniform(math.log(0.35), math.log(2.5)))
    return np.clip(gain * intensity ** rng.uniform(0.6, 1.6), 0, 1).astype(np.float32)


def crop(
    frame: LabelledFrame, resolution: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[LabelledFrame, Grid]:
    """A window of ``size`` (rows, columns) anywhere in the frame, and its grid; the network sees no difference.

    It usually holds the centre of an object with points, else a point.
    """
    objects = frame.boxes[frame.point_counts > 0]
    towards = objects if len(objects) and rng.random() < 0.7 else frame.points
    aim = towards[rng.integers(len(towards)), :2].astype(np.float64) if len(towards) else np.zeros(2)
    rows, columns = size
    extent = np.array((columns, rows)) * resolution
    x_min, y_min = aim - rng.uniform(0.05, 0.95, 2) * extent
    grid = Grid(x_min, x_min + extent[0], y_min, y_min + extent[1], resolution)
    return replace(frame, points=frame.points[grid.cells(frame.points)[2]]), grid
