"""Residential plots: a house behind a front garden, with a boundary, a gate, dividers, a driveway and clutter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .stretch import Stretch, Strip, across, line, one_of
from .vehicles import random_shape
from .world import World

BOUNDARIES = (
    "hedge", "hedge", "hedge", "wall", "wall", "fence", "slat_fence", "hedged_wall", "hedged_wall", "screen",
)  # fmt: skip
GREEN = ("bush", "bush", "tree", "grove", "topiary", "conifer", "hedge_block", "brushwood", "thicket", "tall_grass")
THINGS = ("bin_row", "bin", "planter", "bench", "two_wheeler", "stack", "shed", "cafe", "heap", "person", "hedge_block")


@dataclass(frozen=True)
class Plot:
    """A property from `start` to `end` along its stretch; setback: from the boundary to the house [m]; drive: where
    along the road the driveway begins and ends, None for none."""

    stretch: Stretch
    start: float
    end: float
    setback: float
    drive: Strip | None


def plots(rng: np.random.Generator, stretch: Stretch, terraced: bool) -> list[Plot]:
    """The stretch cut into properties with about one setback; `terraced`: narrow ones, few with a driveway."""
    found = []
    setback = rng.uniform(1.5, 5.0) if terraced else rng.uniform(2.5, 9.0)
    start = stretch.start
    while start < stretch.end - 5:
        end = start + (rng.uniform(5.5, 8.0) if terraced else rng.uniform(10, 20))
        drive = None
        if rng.random() < (0.25 if terraced else 0.75):
            wide = rng.uniform(2.6, 3.6) if rng.random() < 0.75 else rng.uniform(4.8, 6.0)
            drive = (start + 0.3, start + wide) if rng.random() < 0.5 else (end - wide, end - 0.3)
        found.append(Plot(stretch, start, min(end, stretch.end), setback + rng.uniform(-0.5, 1.0), drive))
        start = end
    return found


def park_in(world: World, plot: Plot, occupancy: float) -> None:
    """Vehicles in the driveway, one behind or beside the other, now and then one elsewhere in the front garden."""
    rng = world.rng
    back = plot.stretch.back
    if plot.drive is None:
        return
    lanes = 2 if plot.drive[1] - plot.drive[0] > 4.5 else 1
    middles = np.linspace(*plot.drive, 2 * lanes + 1)[1::2]
    for s in middles.tolist():
        beyond = back + rng.uniform(-0.3, 1.5)
        for _ in range(rng.integers(1, 3)):
            shape = random_shape(rng, only_cars=True)
            if rng.random() < occupancy:
                x, y, yaw = plot.stretch.pose(s, beyond + shape.size[0] / 2)
                turn = np.pi / 2 + np.pi * (rng.random() < 0.5) + rng.normal(0, 0.05)
                world.park(shape, x, y, yaw + turn, clearance=0.1)
            beyond += shape.size[0] + rng.uniform(0.4, 1.5)
    if rng.random() < 0.06:
        x, y, yaw = plot.stretch.pose(rng.uniform(plot.start, plot.end), back + rng.uniform(2.0, 6.0))
        world.park(random_shape(rng, only_cars=True), x, y, yaw + rng.uniform(0, 2 * np.pi))


def build(world: World, plot: Plot, terraced: bool) -> None:
    """Everything on the plot but its vehicles."""
    rng = world.rng
    stretch, back = plot.stretch, plot.stretch.back
    house = plot.setback + back + 0.5
    _house(world, plot, house, terraced)
    if rng.random() < 0.85:
        _boundary(world, plot)
    # Between neighbours: as deep as the front garden, or along the house too.
    if rng.random() < 0.7:
        end = house + (rng.uniform(-1.5, 0.5) if terraced or rng.random() < 0.5 else rng.uniform(2, 9))
        if end > back + 1.0:
            across(world, stretch, one_of(rng, BOUNDARIES), plot.start, (back + rng.uniform(0.4, 0.8), end))
    for names, count in ((GREEN, rng.poisson(1.0 + 0.6 * plot.setback)), (THINGS, rng.poisson(1.0))):
        for _ in range(count):
            x, y, yaw = stretch.pose(rng.uniform(plot.start, plot.end), rng.uniform(back + 0.8, house + 1.0))
            size = rng.uniform(0.6, 1.2)
            world.put(one_of(rng, names), x, y, yaw + rng.normal(0, 0.3), (size, size, size), clearance=0.1)


def _house(world: World, plot: Plot, beyond: float, terraced: bool) -> None:
    """The house beside the driveway, at times a garage at its end, and trees behind."""
    rng = world.rng
    stretch = plot.stretch
    left, right = plot.start, plot.end
    if terraced:
        x, y, yaw = stretch.pose((left + right) / 2, beyond)
        world.put("building", x, y, yaw, ((right - left) / 6.01, 1.0, rng.uniform(0.8, 1.2)), clearance=0.0)
        return
    if plot.drive is not None:
        left, right = (plot.drive[1], right) if plot.drive[0] - left < 1.0 else (left, plot.drive[0])
        x, y, yaw = stretch.pose(sum(plot.drive) / 2, beyond + rng.uniform(0.0, 6.0))
        if rng.random() < 0.5:
            world.put("garage", x, y, yaw)
    x, y, yaw = stretch.pose((left + right) / 2, beyond)
    turn = rng.normal(0, 0.04) if rng.random() < 0.75 else rng.uniform(-0.8, 0.8)
    world.put("house", x, y, yaw + turn, (min(1.0, max(right - left, 6.0) / 10.0), 1.0, rng.uniform(0.85, 1.2)))
    for _ in range(rng.poisson(3.0)):
        x, y, yaw = stretch.pose(rng.uniform(plot.start, plot.end), beyond + rng.uniform(4.0, 16.0))
        world.put(one_of(rng, GREEN), x, y, yaw)


def _boundary(world: World, plot: Plot) -> None:
    """Along the sidewalk, with an opening at the driveway and a gate to the door."""
    rng = world.rng
    beyond = plot.stretch.back + rng.uniform(0.2, 0.9)
    kind = one_of(rng, BOUNDARIES)
    door = rng.uniform(plot.start + 1.5, plot.end - 1.5) if plot.end - plot.start > 4 else plot.end
    openings = [(door - 0.7, door + 0.7), *([plot.drive] if plot.drive else [])]
    edge = plot.start
    for low, high in [*sorted(openings), (plot.end, plot.end)]:
        span = (edge + rng.uniform(0.05, 0.3), low - rng.uniform(0.0, 0.2))
        if kind == "hedge" and span[1] - span[0] > 8:
            x, y, yaw = plot.stretch.pose(sum(span) / 2, beyond)
            world.put("long_hedge", x, y, yaw, ((span[1] - span[0]) / 12.0, 1.0, rng.uniform(0.7, 1.1)), clearance=0.05)
        else:
            line(world, plot.stretch, kind, span, beyond)
        edge = max(edge, high)
    if rng.random() < 0.5:
        x, y, yaw = plot.stretch.pose(door, beyond)
        world.put("gate", x, y, yaw, (0.6, 0.8, 1.0), clearance=0.0)
