"""Furnishing of the roads: what kind of place it is, who parks there, and what stands along and behind the sidewalk."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import gardens, parking
from .stretch import Stretch, line, one_of, row, scatter, stretches
from .world import World

FRONTAGES = ("buildings", "terrace", "gardens", "wall", "hedge", "park", "lot", "yard", "verge", "open")
GREEN = ("tree", "bush", "thicket", "brushwood", "hedge_block", "conifer")
STORED = ("container", "dumpster", "skip", "stack", "stack", "heap", "shed", "hut", "cabinet", "bin_row", "works")

BACKDROPS = (
    ("building",), ("copse",), ("grove",), ("overgrowth", "grove"), ("wall", "hedge", "tree"), ("hall",),
)  # fmt: skip
"""What stands far behind the sidewalk."""


@dataclass(frozen=True)
class Setting:
    """share: of the scenes; frontages: shares of `FRONTAGES`; parked: share of the stretches with a row at the kerb;
    on_walk: share of rows half on the sidewalk where there is no strip; bays: share of stretches with bays."""

    share: float
    frontages: tuple[float, ...]
    parked: float
    on_walk: float
    bays: float


SETTINGS = {
    # House fronts at the sidewalk.
    "city": Setting(0.25, (0.5, 0.12, 0.02, 0.08, 0.02, 0.08, 0.1, 0.04, 0.0, 0.04), 0.9, 0.4, 0.1),
    # Front gardens, walls and hedges.
    "residential": Setting(0.42, (0.05, 0.23, 0.42, 0.03, 0.12, 0.06, 0.03, 0.01, 0.0, 0.05), 0.85, 0.6, 0.06),
    # Shops, yards and car parks.
    "commercial": Setting(0.13, (0.1, 0.0, 0.0, 0.12, 0.06, 0.07, 0.35, 0.25, 0.0, 0.05), 0.6, 0.15, 0.2),
    # Country roads and motorways.
    "country": Setting(0.2, (0.0, 0.0, 0.08, 0.05, 0.17, 0.2, 0.03, 0.02, 0.35, 0.1), 0.1, 0.1, 0.0),
}
"""What is beside a road, by its name."""


def furnish(world: World, density: float = 1.0, setting: str = "") -> None:
    """Fill both sides of all roads as in this one of `SETTINGS`, or a random one; `density` scales the number of parked
    vehicles."""
    rng = world.rng
    drawn = list(SETTINGS)[int(rng.choice(len(SETTINGS), p=[each.share for each in SETTINGS.values()]))]
    chosen = SETTINGS[setting or drawn]
    places = [stretch for road in world.network.roads for stretch in stretches(world, road)]
    fronts = [_Front(world, stretch, chosen) for stretch in places]
    # Vehicles first: what is labelled must not lose its place to a bush.
    for front in fronts:
        front.park(density)
    clutter = rng.uniform(0.2, 1.0)
    for front in fronts:
        front.build()
        _furniture(world, front.stretch, clutter)
        _people(world, front.stretch, clutter)


class _Front:
    """What one stretch looks like."""

    def __init__(self, world: World, stretch: Stretch, setting: Setting) -> None:
        rng = world.rng
        self.world, self.setting = world, setting
        self.style = FRONTAGES[int(rng.choice(len(FRONTAGES), p=setting.frontages))]
        self.bays = rng.random() < setting.bays and stretch.parking == 0
        self.stretch = replace(stretch, back=stretch.back + parking.BAY) if self.bays else stretch
        self.terraced = self.style == "terrace"
        residential = self.terraced or self.style == "gardens"
        self.plots = gardens.plots(rng, stretch, self.terraced) if residential else []

    def park(self, density: float) -> None:
        """The vehicles at the kerb and on the properties."""
        world, rng, stretch = self.world, self.world.rng, self.stretch
        if self.bays:
            turn = np.pi / 2 if rng.random() < 0.6 else rng.uniform(0.8, 1.3)
            parking.bay_row(world, stretch, rng.uniform(0.0, 0.4), float(turn), density * rng.beta(2.5, 1.0))
        elif rng.random() < self.setting.parked:
            parking.kerb_row(world, stretch, density * rng.beta(2.5, 1.0), rng.random() < self.setting.on_walk)
        if self.style == "lot":
            parking.car_park(world, stretch)
        elif self.style in ("yard", "open"):
            parking.single(world, stretch)
        for plot in self.plots:
            gardens.park_in(world, plot, 0.55 * density)

    def build(self) -> None:
        """Everything behind the sidewalk but the vehicles."""
        world, rng, stretch = self.world, self.world.rng, self.stretch
        for plot in self.plots:
            gardens.build(world, plot, self.terraced)
        if self.style in _BUILDERS:
            _BUILDERS[self.style](world, stretch)
        if self.style not in ("buildings", "terrace") and rng.random() < 0.75:
            names = BACKDROPS[rng.integers(len(BACKDROPS))]
            pitch = 12.1 if names == ("hall",) else 6.1
            turn = rng.normal(0, 0.5) if rng.random() < 0.3 else 0.0
            row(world, stretch, names, pitch, stretch.back + rng.uniform(10, 20), rng.choice((0.05, 0.4)), turn)


def _buildings(world: World, stretch: Stretch) -> None:
    """Fronts side by side, each a little behind or before its neighbour, with passages, and things before them."""
    rng = world.rng
    setback = stretch.back + rng.uniform(0.0, 2.5)
    turn = rng.uniform(-0.5, 0.5) if rng.random() < 0.15 else 0.0
    s = stretch.start
    while s < stretch.end - 3:
        length = rng.uniform(4.5, 9.0)
        if rng.random() > 0.07:
            x, y, yaw = stretch.pose(s + length / 2, setback + rng.uniform(-0.3, 0.6))
            scale = (length / 6.02, 1.0, rng.uniform(0.8, 1.3))
            world.put("building", x, y, yaw + turn, scale, clearance=0.0)
        s += length
    before = ("stairs", "planter", "bench", "bicycle_rack", "cafe", "bin_row", "two_wheeler", "topiary", "stall")
    scatter(world, stretch, before, rng.uniform(5, 20), (setback - 1.2, setback - 0.4), 0.1)


def _wall(world: World, stretch: Stretch) -> None:
    """One long wall or fence, and what stands before, behind and over it."""
    rng = world.rng
    kind = one_of(rng, ("wall", "wall", "fence", "slat_fence", "screen", "hedged_wall", "noise_wall"))
    _pieces(world, stretch, kind, stretch.back + rng.uniform(0.3, 2.0))
    scatter(world, stretch, (*GREEN, *GREEN, *STORED), 1.5, (stretch.back + 1.5, stretch.back + 12))


def _hedge(world: World, stretch: Stretch) -> None:
    """Hedges of every length in a row, or blocks with gaps between."""
    rng = world.rng
    beyond = stretch.back + rng.uniform(0.5, 2.5)
    if rng.random() < 0.3:
        row(world, stretch, ("hedge_block",), rng.uniform(4.0, 9.0), beyond, 0.2)
    else:
        _pieces(world, stretch, one_of(rng, ("hedge", "overgrowth")), beyond)
    if rng.random() < 0.4:
        _wood(world, stretch, beyond + 3.5)
    else:
        scatter(world, stretch, GREEN, 1.5, (beyond + 1.5, beyond + 14))


def _wood(world: World, stretch: Stretch, beyond: float) -> None:
    """Rows of woodland from `beyond` metres behind the kerb on, dense or light."""
    rng = world.rng
    names = ("copse", "copse", "grove", "thicket") if rng.random() < 0.4 else ("grove", "grove", "grove", "tree")
    for depth in np.arange(beyond, beyond + rng.uniform(5, 22), 4.5).tolist():
        row(world, stretch, names, 5.5, depth, 0.15)


def _pieces(world: World, stretch: Stretch, kind: str, beyond: float) -> None:
    """A wall or hedge in pieces of 1 to 12 m, with gates or gaps between."""
    rng = world.rng
    s = stretch.start
    while s < stretch.end - 1:
        length = min(rng.uniform(1.0, 12.0), stretch.end - s)
        line(world, stretch, kind, (s, s + length), beyond)
        s += length + (0.05 if rng.random() < 0.6 else rng.uniform(0.5, 4.0))


def _park(world: World, stretch: Stretch) -> None:
    """Undergrowth along the sidewalk and trees behind."""
    rng = world.rng
    edge = stretch.back + rng.uniform(0.8, 4.0)
    row(world, stretch, ("thicket", "bush", "tree", "brushwood"), rng.uniform(2.2, 5.0), edge, 0.2)
    if rng.random() < 0.5:
        _wood(world, stretch, edge + 3.5)
        return
    names = (*GREEN, "tree", "tall_grass", "hedge", "brushwood")
    scatter(world, stretch, names, rng.uniform(0.4, 1.5), (stretch.back + 1, stretch.back + 16), 1.5)


def _lot(world: World, stretch: Stretch) -> None:
    """What divides and surrounds a car park."""
    row(world, stretch, ("bush", "fence", "guard_rail", "planter", "hedge"), 6.1, stretch.back + 0.4, 0.6)
    names = ("pole", "tree", "cabinet", "dumpster", "container", "hedge_block", "skip", "bin_row", "works")
    scatter(world, stretch, names, 8.0, (stretch.back + 1, stretch.back + 18))


def _yard(world: World, stretch: Stretch) -> None:
    """A fence, stored goods at any angle, and a hall."""
    rng = world.rng
    if rng.random() < 0.7:
        _pieces(world, stretch, one_of(rng, ("fence", "slat_fence", "wall", "screen")), stretch.back + 0.6)
    beyond = stretch.back + rng.uniform(6, 16)
    row(world, stretch, ("hall",), 12.1, beyond, 0.2)
    scatter(world, stretch, STORED, 2.5, (stretch.back + 1.5, beyond), 1.0)


def _verge(world: World, stretch: Stretch) -> None:
    """The side of a country road or motorway: rails or walls, grass and thickets."""
    rng = world.rng
    kind = one_of(rng, ("guard_rail", "guard_rail", "concrete_barrier", "noise_wall", "hedge", "overgrowth", ""))
    if kind:
        row(world, stretch, (kind,), 6.0 if kind != "overgrowth" else 5.0, rng.uniform(0.6, 2.5))
    if rng.random() < 0.3:
        _wood(world, stretch, stretch.back + rng.uniform(3.0, 6.0))
    names = (*GREEN, "thicket", "brushwood", "tall_grass", "tall_grass", "pole")
    scatter(world, stretch, names, rng.uniform(0.5, 2.5), (2.0, stretch.back + 16), 1.0)


def _open(world: World, stretch: Stretch) -> None:
    """Open ground with anything on it, at any angle."""
    names = (*GREEN, *STORED, "stall", "hedge", "wall", "fence", "house", "garage", "phone_box")
    scatter(world, stretch, names, 3.0, (stretch.back + 1, stretch.back + 15), 1.5)


_BUILDERS = {
    "buildings": _buildings, "wall": _wall, "hedge": _hedge, "park": _park, "lot": _lot, "yard": _yard,
    "verge": _verge, "open": _open,
}  # fmt: skip


def _furniture(world: World, stretch: Stretch, clutter: float) -> None:
    """Along the kerb: trees, lamps, signs, bins and whatever else is left on a sidewalk or at the road's edge."""
    rng = world.rng
    edge = rng.uniform(0.3, 0.7)
    pitch = rng.uniform(7, 14)
    main = one_of(rng, ("tree", "tree", "pole", "bollard", "planter"))
    if rng.random() < 0.5 + 0.4 * clutter:
        row(world, stretch, (main,), 2.5 if main == "bollard" else pitch, edge, 0.2)
    small = (
        "sign", "pole", "bin", "bin_row", "cabinet", "traffic_light", "bench", "two_wheeler", "stall", "cone", "bush",
        "phone_box", "bicycle_rack", "topiary",
    )  # fmt: skip
    scatter(world, stretch, small, 12.0 / clutter, (edge, edge + 0.3), 0.3)
    if rng.random() < 0.4:
        # Plants along the edge of the properties, and hanging over it.
        names = (*GREEN, "grove", "tall_grass", "topiary")
        scatter(world, stretch, names, rng.uniform(1.5, 6.0), (stretch.back, stretch.back + 2.0), 0.3)
    if rng.random() < 0.2 * clutter:
        kinds = ("barrier", "cone", "dumpster", "two_wheeler", "guard_rail", "skip", "works", "bin_row", "heap")
        kind, start = one_of(rng, kinds), rng.uniform(stretch.start, stretch.end)
        for s in np.arange(start, min(start + 15, stretch.end), 3.2).tolist():
            x, y, yaw = stretch.pose(s, -rng.uniform(0.5, 1.2))
            world.put(kind, x, y, yaw, on_road=True)
    if stretch.side > 0 and stretch.road.backward and rng.random() < 0.15:
        # In the middle of the road.
        kind, s = one_of(rng, ("island", "concrete_barrier", "guard_rail")), rng.uniform(stretch.start, stretch.end)
        for place in np.arange(s, stretch.end, 6.0)[: 1 if kind == "island" else 10].tolist():
            x, y, yaw = stretch.pose(place, -stretch.road.left)
            world.put(kind, x, y, yaw, on_road=True)


def _people(world: World, stretch: Stretch, clutter: float) -> None:
    """Pedestrians on the sidewalk, some on the road, and cyclists at its edge."""
    rng = world.rng
    scatter(world, stretch, ("person", "person", "group", "cyclist"), 14.0 / clutter, (0.4, stretch.back), 1.5)
    for s in rng.uniform(stretch.start, stretch.end, rng.poisson(0.6 * clutter)):
        x, y, yaw = stretch.pose(s, -rng.uniform(0.6, 6.0))
        name = one_of(rng, ("person", "cyclist", "cyclist", "two_wheeler", "group"))
        world.put(name, x, y, yaw + np.pi + rng.normal(0, 0.15), on_road=True)
