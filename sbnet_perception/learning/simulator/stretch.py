"""One side of a piece of road, and how props are set along it: in rows, scattered, or as one long piece."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from .props import VARIANTS
from .roads import Road
from .world import World

DEPTH = 30.0  # how far from a road's centre line it is furnished [m]
LINE = 6.0  # length of the templates of walls, fences and hedges [m]
Strip = tuple[float, float]


@dataclass(frozen=True)
class Stretch:
    """One side of a road from `start` to `end` (distances along it); side: +1 left, -1 right; back: where the
    properties begin, metres behind the kerb."""

    road: Road
    side: int
    start: float
    end: float
    back: float

    def pose(self, s: float, beyond: float) -> tuple[float, float, float]:
        """x, y and yaw `beyond` metres behind the kerb; the yaw's left points away from the road."""
        kerb = self.road.left if self.side > 0 else self.road.right
        x, y, yaw = self.road.centre.pose(s)
        out = self.side * (kerb + beyond)
        return x - out * math.sin(yaw), y + out * math.cos(yaw), yaw + (0.0 if self.side > 0 else np.pi)

    @property
    def parking(self) -> float:
        """Width of the parking strip, 0 for none [m]."""
        return self.road.parking[0 if self.side > 0 else 1]

    @property
    def length(self) -> float:
        return self.end - self.start


def stretches(world: World, road: Road) -> list[Stretch]:
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
                pieces.append(Stretch(road, side, start, end, road.pavement))
            start = end
    return pieces


def one_of(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def row(
    world: World, stretch: Stretch, names: Sequence[str], pitch: float, beyond: float, gaps: float = 0.0,
    turn: float = 0.0,
) -> None:  # fmt: skip
    """Props side by side, `turn` radians off the road's direction; with several names each is drawn anew."""
    rng = world.rng
    for s in np.arange(stretch.start + pitch / 2, stretch.end, pitch).tolist():
        if rng.random() >= gaps:
            x, y, yaw = stretch.pose(s, beyond)
            world.put(one_of(rng, names), x, y, yaw + turn)


def scatter(
    world: World, stretch: Stretch, names: Sequence[str], pitch: float, beyond: Strip, turned: float = 0.5
) -> None:
    """Props at random places of a strip, one per `pitch` metres on average; turned: sigma of their yaw [rad]."""
    rng = world.rng
    count = rng.poisson(stretch.length / pitch)
    for s, depth in zip(rng.uniform(stretch.start, stretch.end, count), rng.uniform(*beyond, count), strict=True):
        x, y, yaw = stretch.pose(s, depth)
        size = rng.uniform(0.75, 1.25)
        world.put(one_of(rng, names), x, y, yaw + rng.normal(0, turned), (size, size, size))


def line(world: World, stretch: Stretch, name: str, span: Strip, beyond: float) -> None:
    """One wall, fence or hedge along the road over `span` (distances along it)."""
    rng = world.rng
    length = span[1] - span[0]
    if length < 0.5:
        return
    count = math.ceil(length / 9.0)
    variant, height = int(rng.integers(VARIANTS)), rng.uniform(0.8, 1.2)
    scale = (0.998 * length / count / LINE, rng.uniform(0.8, 1.2), height)
    for i in range(count):
        x, y, yaw = stretch.pose(span[0] + (i + 0.5) * length / count, beyond)
        world.put(name, x, y, yaw, scale, variant=variant, clearance=0.0)


def across(world: World, stretch: Stretch, name: str, s: float, beyond: Strip) -> None:
    """One wall, fence or hedge square to the road between two depths."""
    x, y, yaw = stretch.pose(s, (beyond[0] + beyond[1]) / 2)
    scale = ((beyond[1] - beyond[0]) / LINE, 1.0, world.rng.uniform(0.7, 1.2))
    world.put(name, x, y, yaw + np.pi / 2, scale, clearance=0.05)
