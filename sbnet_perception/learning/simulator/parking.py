"""Vehicles that stand: rows along the kerb, bays side by side, car parks and single ones."""

from __future__ import annotations

import numpy as np

from .stretch import Stretch, Strip
from .vehicles import random_shape
from .world import World

TIGHT: Strip = (0.3, 1.0)  # gaps between bumpers in a full street [m]
LOOSE: Strip = (0.6, 2.5)
BESIDE: Strip = (0.4, 0.85)  # gaps between doors in bays [m]
BAY = 5.2  # depth of a bay [m]


def _near_junction(world: World, stretch: Stretch, s: float, gap: float) -> bool:
    """Whether a place along the road lies within `gap` metres of where another road meets it."""
    x, y = stretch.road.centre.at(s)
    for other in world.network.roads:
        if other is not stretch.road:
            distance = np.hypot(*(other.centre.line - (x, y)).T).min()
            if distance < max(other.left, other.right) + gap:
                return True
    return False


def kerb_row(world: World, stretch: Stretch, occupancy: float, on_walk: bool) -> None:
    """A row along the kerb: in the parking strip, or half on the sidewalk where there is none.

    `on_walk`: without a strip the whole row stands half on the sidewalk, not just a vehicle now and then.
    """
    rng = world.rng
    strip = stretch.parking > 0
    if not strip and not on_walk:
        occupancy *= 0.12
    gaps = TIGHT if rng.random() < 0.7 else LOOSE
    # Everybody in the row stands about as far from the kerb.
    inset = rng.uniform(0.1, 0.4) - (0.0 if strip else rng.uniform(0.4, 1.9))
    s = stretch.start + rng.uniform(1, 4)
    while s < stretch.end - 2:
        shape = random_shape(rng, only_cars=rng.random() < 0.93)
        s += shape.size[0] / 2
        if rng.random() < occupancy and not _near_junction(world, stretch, s, 5.0):
            x, y, yaw = stretch.pose(s, -shape.size[1] / 2 - inset + rng.normal(0, 0.08))
            against = rng.random() < (0.15 if stretch.road.backward else 0.5)
            world.park(shape, x, y, yaw + np.pi * (not against) + rng.normal(0, 0.02), clearance=0.1)
        s += shape.size[0] / 2 + rng.uniform(*gaps)


def bay_row(world: World, stretch: Stretch, beyond: float, turn: float, occupancy: float) -> None:
    """Vehicles side by side at an angle `turn` to the road, the ends nearest to it `beyond` metres behind the kerb."""
    rng = world.rng
    s = stretch.start + rng.uniform(2, 4)
    flips = rng.choice((0.1, 0.5, 0.9))
    while s < stretch.end - 2:
        shape = random_shape(rng, only_cars=True)
        length, width, _ = shape.size
        step = (width + rng.uniform(*BESIDE)) / np.sin(turn)
        s += step / 2
        if rng.random() < occupancy and not _near_junction(world, stretch, s, 6.0):
            depth = (length * np.sin(turn) + width * np.cos(turn)) / 2
            x, y, yaw = stretch.pose(s, beyond + depth + abs(rng.normal(0, 0.25)))
            flip = np.pi * (rng.random() < flips)
            world.park(shape, x, y, yaw + turn + flip + rng.normal(0, 0.025), clearance=0.1)
        s += step / 2


def car_park(world: World, stretch: Stretch) -> None:
    """One to three rows, square, aslant or parallel to the road, with aisles or nose to nose."""
    rng = world.rng
    occupancy = rng.beta(2.5, 1.0)
    turn = float(rng.choice((np.pi / 2, np.pi / 2, np.pi / 2, rng.uniform(0.8, 1.3))))
    beyond = stretch.back + rng.uniform(0.5, 2.0)
    for _ in range(rng.integers(1, 4)):
        bay_row(world, stretch, beyond, turn, occupancy)
        beyond += BAY + rng.choice((0.3, 6.0))


def single(world: World, stretch: Stretch) -> None:
    """A vehicle here and there behind the sidewalk, in any direction."""
    rng = world.rng
    s = stretch.start + rng.uniform(2, 15)
    while s < stretch.end:
        x, y, yaw = stretch.pose(s, stretch.back + rng.uniform(2, 12))
        turn = rng.choice((0.0, np.pi / 2, np.pi, -np.pi / 2)) + rng.normal(0, 0.1)
        world.park(random_shape(rng), x, y, yaw + (turn if rng.random() < 0.7 else rng.uniform(0, 6.28)))
        s += rng.uniform(6, 25)
