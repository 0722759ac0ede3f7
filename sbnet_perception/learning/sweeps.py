"""Real sweeps with simulated vehicles put in: backgrounds that are certainly not vehicles.

A simulated vehicle stands on the sweep's ground, and the sweep's own beams meet it: it hides what lies behind, and what
lies before hides it. The vehicles of the sweep itself are known by boxes, and stay or are cut out, or only by the class
of their points, and are cut out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.ground import height_above_ground
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import SIMULATOR, ObjectClass, numbered
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import NOTHING, RealFrame
from sbnet_perception.learning.frames import FULL_REFLECTANCE, LabelledFrame
from sbnet_perception.learning.simulator.geometry import count_inside, inside, overlaps
from sbnet_perception.learning.simulator.lidar import cast_nearest, scan
from sbnet_perception.learning.simulator.materials import sample_reflectances
from sbnet_perception.learning.simulator.sensors import randomised_sensor
from sbnet_perception.learning.simulator.vehicles import random_shape
from sbnet_perception.learning.simulator.world import Assembly, Vehicle

TRIES = 40
"""Places that are tried in one sweep."""
MOST = 25
"""Most vehicles put into a sweep that looks all around; into others by the angle that they see."""
CUT_OUT = 0.4
"""Share of the variants of a sweep with boxes in which its own vehicles are cut out."""
CLEARANCE = 0.3
"""Free ground in metres about a vehicle that is put in."""
EYE = 1.8
"""Height of the LiDAR in metres where the sweep does not say it."""
NEAR, FAR = 4.0, 70.0
"""Vehicles are put in at these distances, in metres."""
_CELL = np.radians((0.25, 0.4))
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sweep:
    """A real sweep without any road.

    Attributes:
        frame: its points, and the labelled vehicles that it shows.
        eye: float32 [3], where the LiDAR is.
        ground: float32 [P], height of the ground beneath each point.
    """

    frame: LabelledFrame
    eye: Floats
    ground: Floats


def sweep_of(frame: RealFrame) -> Sweep:
    """The part of a frame in which every vehicle is labelled.

    Raises:
        UserError: nothing in it is labelled.
    """
    if frame.labelled == NOTHING:
        raise UserError(f"{frame.name} has no labels: whatever vehicles it shows would be taught as background")
    # What nobody labelled may be a vehicle.
    known = frame.is_labelled_at(frame.points[:, :2])
    points = frame.points[known if frame.doubtful is None else known & ~frame.doubtful]
    heights = height_above_ground(torch.from_numpy(points)).numpy()
    height = frame.origin_height if frame.origin_height > 1 else EYE
    eye = np.array(frame.eye or (0, 0, height), np.float32)
    plain = LabelledFrame(frame.name, points, None, frame.boxes, frame.point_counts, frame.classes, frame.half_view)
    return Sweep(plain, eye, points[:, 2] - heights)


def with_simulated_vehicles(sweep: Sweep, objects: Sequence[ObjectClass], rng: np.random.Generator) -> LabelledFrame:
    """The sweep with vehicles of the classes ``objects`` put in at random, its own among them or cut out."""
    frame = sweep.frame
    if rng.random() < CUT_OUT:
        frame = replace(frame, boxes=frame.boxes[:0], classes=frame.classes[:0])
        kept = ~inside(frame.points, sweep.frame.boxes, 0.15)
        points, ground = frame.points[kept], sweep.ground[kept]
    else:
        points, ground = frame.points, sweep.ground
    vehicles = _placed(points, ground, frame.boxes, rng)
    if not vehicles:
        return replace(frame, points=points, point_counts=count_inside(points, frame.boxes))
    points = _scanned(points, sweep.eye, vehicles, rng)
    kept, numbers = numbered([vehicle.shape.kind for vehicle in vehicles], SIMULATOR, objects)
    put_in = np.array([vehicle.box for vehicle in vehicles], np.float32)
    boxes = np.concatenate([frame.boxes, put_in[kept]])
    classes = np.concatenate([frame.classes, numbers])
    return replace(frame, points=points, boxes=boxes, classes=classes, point_counts=count_inside(points, boxes))


def _placed(points: Floats, ground: Floats, boxes: Floats, rng: np.random.Generator) -> list[Vehicle]:
    """Vehicles on free ground, some of them in rows."""
    height = points[:, 2] - ground
    reach = np.hypot(points[:, 0], points[:, 1])
    floor = np.flatnonzero((np.abs(height) < 0.15) & (reach > NEAR) & (reach < FAR))
    obstacles = points[(height > 0.35) & (height < 3.0), :2]
    if len(floor) == 0:
        return []
    taken = [*boxes.astype(np.float64)]
    vehicles: list[Vehicle] = []
    # Few points lie far away, where a vehicle is as likely: every distance gets its share.
    share = reach[floor] ** rng.uniform(0.5, 2.0)
    spots = rng.choice(floor, TRIES, p=share / share.sum())
    main = rng.uniform(-np.pi, np.pi)
    seen = len(np.unique(np.arctan2(points[:, 1], points[:, 0]) // (np.pi / 18))) / 36
    wanted = rng.integers(1, 2 + round(MOST * seen))
    queue = [(points[spot, :2].astype(np.float64), _heading(main, rng), float(ground[spot])) for spot in spots]
    while queue and len(vehicles) < wanted:
        place, yaw, level = queue.pop()
        shape = random_shape(rng)
        box = shape.box(float(place[0]), float(place[1]), yaw)
        box[2] += level
        if np.hypot(*place) < NEAR or (taken and overlaps(box, np.array(taken), CLEARANCE).any()):
            continue
        if _blocked(box, obstacles):
            continue
        taken.append(box)
        vehicles.append(Vehicle(shape, box, sample_reflectances(rng), len(vehicles)))
        # Another one beside it or behind it.
        if rng.random() < 0.5:
            behind, beside = shape.size[0] / 2 + rng.uniform(2.4, 4.0), shape.size[1] + rng.uniform(0.4, 1.0)
            step = (behind, 0.0) if rng.random() < 0.5 else (0.0, beside)
            turned = float(yaw + rng.normal(0, 0.03) + np.pi * rng.integers(2))
            queue.append((SE2(float(place[0]), float(place[1]), yaw).apply(step), turned, level))
    return vehicles


def _heading(main: float, rng: np.random.Generator) -> float:
    """Along the main direction or across it, or any."""
    turn = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.06) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    return float(main + turn)


def _blocked(box: NDArray[np.float64], obstacles: Floats) -> bool:
    """Whether something stands where the box would."""
    offset = obstacles - box[:2]
    c, s = math.cos(box[6]), math.sin(box[6])
    along, across = np.abs(offset @ (c, s)), np.abs(offset @ (-s, c))
    return bool(((along < box[3] / 2 + CLEARANCE) & (across < box[4] / 2 + CLEARANCE)).sum() > 1)


def _scanned(points: Floats, eye: Floats, vehicles: list[Vehicle], rng: np.random.Generator) -> Floats:
    """The points, where a vehicle stands in the way of their beams those on it; the beams that met nothing too."""
    assembly = Assembly()
    for vehicle in vehicles:
        assembly.add_vehicle(vehicle)
    scene = assembly.build()
    offset = points[:, :3] - eye
    distance = np.linalg.norm(offset, axis=1)
    measured = offset / np.maximum(distance, 1e-3)[:, None]
    unanswered = _unanswered(measured)
    directions = np.ascontiguousarray(np.concatenate([measured, unanswered]), np.float32)
    reach = np.concatenate([distance, np.full(len(unanswered), FAR)]).astype(np.float32)
    origins = np.ascontiguousarray(np.broadcast_to(eye, directions.shape))
    hits = cast_nearest([scene], origins, directions, reach)
    met = np.isfinite(hits.distance) & (hits.distance < reach)
    sensor = randomised_sensor(rng)
    beams = np.zeros(int(met.sum()), np.int64)
    seen = scan([scene], sensor, (origins[met], directions[met], beams), rng, reach[met])
    seen[:, 3] /= FULL_REFLECTANCE
    return np.concatenate([points[~met[: len(points)]], seen])


def _unanswered(measured: Floats) -> Floats:
    """Directions of beams that seem to have met nothing: the sweep's own, mirrored, where it has none."""
    mirrored = measured * np.array((1, -1, 1), np.float32)
    cells = [_direction_cells(directions) for directions in (measured, mirrored)]
    return mirrored[~np.isin(cells[1], cells[0])]


def _direction_cells(directions: Floats) -> NDArray[np.int64]:
    """Number of the cell of azimuth and elevation of each direction."""
    azimuth = np.arctan2(directions[:, 1], directions[:, 0])
    elevation = np.arcsin(directions[:, 2].clip(-1, 1))
    number = np.floor(np.stack([azimuth, elevation], 1) / _CELL).astype(np.int64)
    return number[:, 0] * 100_000 + number[:, 1]
