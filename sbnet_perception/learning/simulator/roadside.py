"""Furnishing of the roads: kerbside parking, street furniture, people, and what stands behind the
sidewalk."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely

from .roads import Road
from .vehicles import random_shape
from .world import World

DEPTH = 30.0  # how far from a road's centre line it is furnished [m]
FRONTAGES = ("buildings", "houses", "wall", "hedge", "park", "lot", "open")
CITY = (0.4, 0.12, 0.1, 0.05, 0.08, 0.15, 0.1)
SUBURB = (0.05, 0.35, 0.1, 0.17, 0.18, 0.08, 0.07)


@dataclass(frozen=True)
class Stretch:
    """One side of a road from `start` to `end` (distances along it); side: +1 left, -1 right."""

    road: Road
    side: int
    start: float
    end: float

    def pose(self, s: float, beyond: float) -> tuple[float, float, float]:
        """x, y and yaw `beyond` metres behind the kerb; the yaw's left points away from the road."""
        kerb = self.road.left if self.side > 0 else self.road.right
        x, y, yaw = self.road.centre.pose(s)
        out = self.side * (kerb + beyond)
        return x - out * math.sin(yaw), y + out * math.cos(yaw), yaw + (0.0 if self.side > 0 else np.pi)

    @property
    def parking(self) -> float:
        return self.road.parking[0 if self.side > 0 else 1]


def furnish(world: World, density: float = 1.0) -> None:
    """Fill both sides of all roads; `density` scales the number of parked vehicles."""
    rng = world.rng
    mix = np.array(CITY if rng.random() < 0.5 else SUBURB)
    # Vehicles first: what is labelled must not lose its place to a bush.
    stretches = [stretch for road in world.network.roads for stretch in _stretches(world, road)]
    styles = [str(rng.choice(FRONTAGES, p=mix)) for _ in stretches]
    for stretch, style in zip(stretches, styles, strict=True):
        if rng.random() < density:
            _park_at_kerb(world, stretch, rng.uniform(0.1, 1.0))
        if style == "lot":
            _parking_lot(world, stretch)
        elif style in ("houses", "open", "buildings"):
            _driveways(world, stretch)
    clutter = rng.uniform(0.2, 1.0)
    for stretch, style in zip(stretches, styles, strict=True):
        _frontage(world, stretch, style)
        _furniture(world, stretch, clutter)
        _people(world, stretch, clutter)


def _stretches(world: World, road: Road) -> list[Stretch]:
    """Both sides of a road cut into pieces that each get one style; pieces far from the world's area are
    left out."""
    rng = world.rng
    pieces = []
    for side in (-1, 1):
        start = 0.0
        while start < road.centre.length - 5:
            end = min(start + rng.uniform(20, 60), road.centre.length)
            line = shapely.LineString(road.centre.line[int(start) : int(end) + 1])
            if shapely.dwithin(world.area, line, DEPTH):
                pieces.append(Stretch(road, side, start, end))
            start = end
    return pieces


def _near_junction(world: World, stretch: Stretch, s: float, gap: float) -> bool:
    """Whether a place along the road lies within `gap` metres of where another road meets it."""
    x, y = stretch.road.centre.at(s)
    for other in world.network.roads:
        if other is not stretch.road:
            distance = np.hypot(*(other.centre.line - (x, y)).T).min()
            if distance < max(other.left, other.right) + gap:
                return True
    return False


def _park_at_kerb(world: World, stretch: Stretch, occupancy: float) -> None:
    """A row in the parking strip; without a strip, now and then a vehicle half on the sidewalk."""
    rng = world.rng
    if stretch.parking == 0.0:
        occupancy *= 0.12
    s = stretch.start + rng.uniform(1, 4)
    while s < stretch.end - 2:
        shape = random_shape(rng, only_cars=rng.random() < 0.9)
        s += shape.size[0] / 2
        if rng.random() < occupancy and not _near_junction(world, stretch, s, 5.0):
            inward = shape.size[1] / 2 + rng.uniform(0.1, 0.4)
            if stretch.parking == 0.0:
                inward -= rng.uniform(0.5, 1.6)
            x, y, yaw = stretch.pose(s, -inward)
            against = rng.random() < (0.15 if stretch.road.backward else 0.5)
            world.park(shape, x, y, yaw + np.pi * (not against) + rng.normal(0, 0.025), clearance=0.15)
        s += shape.size[0] / 2 + rng.uniform(0.5, 1.6)


def _parking_lot(world: World, stretch: Stretch) -> None:
    """Rows of vehicles square or aslant to the road, behind the sidewalk."""
    rng = world.rng
    turn = rng.choice((np.pi / 2, np.pi / 2, np.pi / 3, 0.0))
    pitch = 6.2 if turn == 0.0 else rng.uniform(2.5, 3.0) / np.sin(turn)
    occupancy = rng.uniform(0.3, 1.0)
    beyond = stretch.road.pavement + 3.5
    for _ in range(rng.integers(1, 4)):
        for s in np.arange(stretch.start + 3, stretch.end - 3, pitch):
            if rng.random() < occupancy:
                x, y, yaw = stretch.pose(s, beyond + rng.normal(0, 0.2))
                flip = np.pi * (rng.random() < 0.5)
                world.park(random_shape(rng, only_cars=True), x, y, yaw + turn + flip + rng.normal(0, 0.04))
        beyond += rng.choice((5.3, 10.5)) if turn else rng.choice((2.6, 6.0))


def _driveways(world: World, stretch: Stretch) -> None:
    """Single vehicles beside houses, in any direction now and then."""
    rng = world.rng
    s = stretch.start + rng.uniform(2, 12)
    while s < stretch.end:
        for place in range(rng.integers(0, 3)):
            x, y, yaw = stretch.pose(s, stretch.road.pavement + 3 + 5.5 * place + rng.uniform(-0.5, 1.5))
            turn = np.pi / 2 + np.pi * (rng.random() < 0.5) + rng.normal(0, 0.08)
            if rng.random() < 0.15:
                turn = rng.uniform(0, 2 * np.pi)
            world.park(random_shape(rng, only_cars=True), x, y, yaw + turn)
        s += rng.uniform(9, 22)


def _frontage(world: World, stretch: Stretch, style: str) -> None:
    """What stands behind the sidewalk."""
    rng = world.rng
    back = stretch.road.pavement
    if style == "buildings":
        _row(world, stretch, ("building",), 6.25, back + rng.uniform(0.8, 3.0))
    elif style == "houses":
        _row(world, stretch, ("house",), rng.uniform(12, 20), back + rng.uniform(3.0, 10.0))
        _row(world, stretch, ("hedge", "fence", "wall", "bush", "bush"), 6.1, back + 0.7, gaps=0.4)
        _scatter(world, stretch, ("tree", "bush", "conifer", "thicket"), 5.0, (back + 1, back + 9))
    elif style == "lot":
        _row(world, stretch, ("bush", "fence", "guard_rail", "planter"), 6.1, back + 0.5, gaps=0.6)
        _scatter(world, stretch, ("pole", "tree", "cabinet", "dumpster", "container"), 12.0, (back + 1, back + 16))
    elif style in ("wall", "hedge"):
        kind = str(rng.choice(("wall", "fence", "guard_rail"))) if style == "wall" else "hedge"
        _row(world, stretch, (kind,), 6.02, back + rng.uniform(0.6, 2.0), gaps=0.05)
        _scatter(world, stretch, ("tree", "bush", "thicket", "dumpster", "container"), 4.0, (back + 2, back + 14))
    elif style == "park":
        _row(
            world,
            stretch,
            ("thicket", "bush", "tree"),
            rng.uniform(2.5, 5.0),
            back + rng.uniform(1.0, 4.0),
            gaps=0.2,
        )
        _scatter(world, stretch, ("tree", "tree", "bush", "thicket", "conifer"), 2.0, (back + 1, back + 15))
    else:
        _scatter(
            world,
            stretch,
            ("bush", "tree", "dumpster", "cabinet", "kiosk", "stall", "container"),
            5.0,
            (back + 1, back + 14),
        )
    if style != "buildings" and rng.random() < 0.7:
        backdrop = (("building",), ("thicket", "tree"), ("wall", "hedge", "tree"))[rng.integers(3)]
        _row(world, stretch, backdrop, 6.2, back + rng.uniform(11, 20), gaps=rng.choice((0.05, 0.4)))


def _row(
    world: World, stretch: Stretch, names: tuple[str, ...], pitch: float, beyond: float, gaps: float = 0.0
) -> None:
    """Props side by side, parallel to the road; with several names each is drawn anew."""
    rng = world.rng
    for s in np.arange(stretch.start + pitch / 2, stretch.end, pitch).tolist():
        if rng.random() >= gaps:
            x, y, yaw = stretch.pose(s, beyond)
            world.put(str(rng.choice(names)), x, y, yaw)


def _scatter(world: World, stretch: Stretch, names: tuple[str, ...], pitch: float, beyond: tuple[float, float]) -> None:
    """Props at random places of a strip, one per `pitch` metres on average."""
    rng = world.rng
    for s in rng.uniform(stretch.start, stretch.end, rng.poisson((stretch.end - stretch.start) / pitch)):
        x, y, yaw = stretch.pose(s, rng.uniform(*beyond))
        size = rng.uniform(0.75, 1.25)
        world.put(str(rng.choice(names)), x, y, yaw + rng.normal(0, 0.5), (size, size, size))


def _furniture(world: World, stretch: Stretch, clutter: float) -> None:
    """Along the kerb: trees, lamps, signs, bins and whatever else is left on a sidewalk."""
    rng = world.rng
    edge = rng.uniform(0.3, 0.7)
    pitch = rng.uniform(7, 14)
    main = str(rng.choice(("tree", "pole", "bollard", "planter")))
    if rng.random() < 0.5 + 0.4 * clutter:
        _row(world, stretch, (main,), 2.5 if main == "bollard" else pitch, edge, gaps=0.2)
    small = (
        "sign",
        "pole",
        "bin",
        "bin_row",
        "cabinet",
        "traffic_light",
        "bench",
        "two_wheeler",
        "stall",
        "cone",
        "bush",
    )
    _scatter(world, stretch, small, 12.0 / clutter, (edge, edge + 0.3))
    if rng.random() < 0.15 * clutter:
        kind = str(rng.choice(("barrier", "cone", "dumpster", "two_wheeler", "guard_rail")))
        start = rng.uniform(stretch.start, stretch.end)
        for s in np.arange(start, min(start + 15, stretch.end), 3.2).tolist():
            x, y, yaw = stretch.pose(s, -rng.uniform(0.5, 1.2))
            world.put(kind, x, y, yaw, on_road=True)


def _people(world: World, stretch: Stretch, clutter: float) -> None:
    """Pedestrians on the sidewalk, some on the road, and cyclists at its edge."""
    rng = world.rng
    _scatter(world, stretch, ("person", "person", "group"), 14.0 / clutter, (0.4, stretch.road.pavement))
    for s in rng.uniform(stretch.start, stretch.end, rng.poisson(0.35 * clutter)):
        x, y, yaw = stretch.pose(s, -rng.uniform(0.6, 6.0))
        name = str(rng.choice(("person", "cyclist", "two_wheeler")))
        world.put(name, x, y, yaw + np.pi + rng.normal(0, 0.15), on_road=True)
