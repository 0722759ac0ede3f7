"""Vehicle shapes: side profiles lofted to closed bodies with tapered cabins, windows, wheels and a gap
underneath.

Every template fills the unit box exactly: x in [-0.5, 0.5] (front at +0.5), y in [-0.5, 0.5], z in [0, 1]; an
instance is a template warped within that box and scaled to its length, width and height, so that its label is tight
by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .bodies import CARS, KINDS, LARGE, Kind, Profile
from .materials import Material
from .mesh import Mesh, box, ellipsoid, join, mesh, quads, wheel

VARIANTS = 12
ARTICULATED = 0.012  # share of tractors with trailers among what drives
Warp = tuple[float, float, float, float]

_NAMES = (*CARS, *LARGE)
# Cumulated shares: of all vehicles, and with `only_cars` of all but trucks and buses.
_BOUNDS = (np.cumsum([*CARS.values(), *LARGE.values()]), np.cumsum([*CARS.values()]))


def _loft(kind: Kind, profile: Profile, jitter: np.random.Generator) -> Mesh:
    """The closed body: a ring of eight points per station, quadrilaterals between rings and fans at both
    ends."""
    x = np.array([row[0] for row in profile])
    inner = slice(1, -1)
    x[inner] += jitter.normal(0, 0.006, len(x) - 2)
    x = np.maximum.accumulate(x)
    top = np.array([row[1] for row in profile]) + jitter.normal(0, 0.008, len(x))
    belt = np.minimum(top - 0.01, kind.belt + jitter.normal(0, 0.015))
    # The plan view bulges in the middle and narrows towards both bumpers, and so does the underside.
    end = np.minimum(x, 1 - x)
    bulge = kind.taper * jitter.uniform(0.01, 0.05) * (2 * x - 1) ** 2
    body = 0.5 * (1 - bulge - kind.taper * jitter.uniform(0.10, 0.26) * np.exp(-end / 0.03))
    roof = body * np.array([row[2] for row in profile])
    under = kind.sill * (1 + 0.7 * kind.taper * np.exp(-end / 0.05))
    shoulder = np.minimum(under + 0.55 * (belt - under), belt)
    half = np.stack([jitter.uniform(0.84, 0.92) * body, body, jitter.uniform(0.93, 0.98) * body, roof], 1)
    height = np.stack([under, shoulder, belt, top], 1)
    ring_y = np.concatenate([half, -half[:, ::-1]], 1)
    ring_z = np.concatenate([height, height[:, ::-1]], 1)
    rings = np.stack([np.broadcast_to(x[:, None] - 0.5, ring_y.shape), ring_y, ring_z], -1)

    parts = []
    for strip in range(8):
        after = (strip + 1) % 8
        faces = quads(rings[:-1, after], rings[1:, after], rings[1:, strip], rings[:-1, strip])
        material = np.full(len(x) - 1, Material.PAINT, np.uint8)
        if strip in (2, 4):
            material[[row[3] == "g" for row in profile[:-1]]] = Material.GLASS
        elif strip == 3:
            material[[row[4] == "g" for row in profile[:-1]]] = Material.GLASS
        solid = np.array([strip != 3 or row[4] != "o" for row in profile[:-1]])
        parts.append(Mesh(faces[np.tile(solid, 2)], np.tile(material[solid], 2)))
    for ring, flip in ((rings[0], 1), (rings[-1], -1)):
        fan = np.stack([np.broadcast_to(ring[0], (6, 3)), ring[1:-1], ring[2:]], 1)[:, ::flip]
        parts.append(mesh(fan, Material.PAINT))
    return join(parts)


def _details(name: str, kind: Kind, size: np.ndarray) -> Mesh:
    """Wheels, seats, licence plates and lamps, in units of the vehicle."""
    start, end = kind.seats
    wall = [box((0.01, 0.84, kind.bulkhead - 0.2), Material.INTERIOR, z=0.2).moved(x=start - 0.5)]
    parts = [box((end - start, 0.7, 0.3), Material.INTERIOR, z=0.32).moved(x=(start + end) / 2 - 0.5)]
    parts += wall if kind.bulkhead else []
    radius, tread = kind.wheel, 0.22
    for axle in kind.axles:
        for side in (-1, 1):
            tyre = wheel(radius, tread, Material.RUBBER).moved(z=radius)
            parts.append(tyre.moved(axle - 0.5, side * (0.49 - tread / 2 / size[1]), 0, scale=1 / size))
    ends = {"tractor": (1,), "trailer": (-1,)}.get(name, (-1, 1))
    for end in ends:
        # A licence plate and two lamps, just proud of the body.
        for y, z, width, height in (
            (0.0, 0.30, 0.5, 0.12),
            (-0.36, 0.42, 0.25, 0.15),
            (0.36, 0.42, 0.25, 0.15),
        ):
            outline = np.array([(0, -0.5, 0), (0, 0.5, 0), (0, 0.5, 1), (0, -0.5, 1)])
            corners = outline * (0, width, height) / size + np.array((end * 0.503, y, z))
            parts.append(mesh(quads(*corners[:, None]), Material.PLATE))
    return join(parts)


def _cargo(kind: Kind, size: np.ndarray, jitter: np.random.Generator) -> list[Mesh]:
    """What some vehicles carry on the roof or on an open bed, in units of the vehicle."""
    parts = []
    if jitter.random() < kind.roof:
        long, wide, tall = jitter.uniform((1.0, 0.5, 0.12), (2.2, 1.0, 0.45)) / size
        bars = [box((0.03, 0.6, 0.05 / size[2]), Material.METAL, 0.98).moved(x - 0.08) for x in (-0.1, 0.1)]
        rails = [box((0.35, 0.03, 0.04 / size[2]), Material.METAL, 0.985).moved(-0.08, y) for y in (-0.3, 0.3)]
        chest = box((long, min(wide, 0.6), tall), Material.PAINT, 1.0).moved(-0.08, jitter.uniform(-0.1, 0.1))
        parts += [*bars, chest] if jitter.random() < 0.4 else rails
    start, end = kind.bed
    if end > start and jitter.random() < 0.4:
        load = jitter.uniform((0.3 * (end - start), 0.3, 0.1), (0.9 * (end - start), 0.8, 0.4))
        material = Material(jitter.choice((Material.WOOD, Material.METAL, Material.CONCRETE, Material.CLOTHES)))
        goods = box(load, material, 0.35) if jitter.random() < 0.6 else ellipsoid(load / 2, material, 0.45)
        parts.append(goods.moved((start + end) / 2 - 0.5))
    return parts


@cache
def template(name: str, variant: int) -> tuple[Mesh, np.ndarray]:
    """Variant 0 .. VARIANTS - 1 of a kind: the mesh in the unit box, and its size in metres float32 [3]."""
    kind = KINDS[name]
    jitter = np.random.default_rng([variant, *name.encode()])
    # Long vehicles are wide and tall, more or less.
    low, high = np.array([kind.length, kind.width, kind.height]).T
    size = low + (high - low) * np.clip(jitter.uniform(0, 1) + jitter.normal(0, 0.2, 3), 0, 1)
    profile = kind.profiles[variant % len(kind.profiles)]
    body = join([_loft(kind, profile, jitter), _details(name, kind, size), *_cargo(kind, size, jitter)])
    corners = body.triangles.reshape(-1, 3)
    start, end = corners.min(0), corners.max(0)
    unit = (body.triangles - start) / (end - start) - np.array((0.5, 0.5, 0.0))
    return Mesh(unit.astype(np.float32), body.material), (size * (end - start)).astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """A vehicle to be placed: its template, its size (length, width, height) in metres, and what moves the template's
    corners within the unit box: the cabin forward, the roof forward, everything up, and the flanks outward."""

    kind: str
    variant: int
    size: tuple[float, float, float]
    warp: Warp = (0.0, 0.0, 0.0, 0.0)

    def box(self, x: float, y: float, yaw: float) -> np.ndarray:
        """Box float64 [7] of the vehicle standing on z = 0."""
        return np.array((x, y, self.size[2] / 2, *self.size, yaw))

    @property
    def mesh(self) -> Mesh:
        """The template, warped; it still fills the unit box."""
        built = template(self.kind, self.variant)[0]
        cabin, roof, lift, flank = self.warp
        x, y, z = np.moveaxis(built.triangles, -1, 0)
        ahead = (cabin + roof * (z - 0.5)) * (0.25 - x * x)
        corners = (x + ahead, y * (1 + flank * (0.25 - y * y)), z * (1 + lift * (1 - z)))
        return Mesh(np.stack(corners, -1).astype(np.float32), built.material)


def _shape(rng: np.random.Generator, kind: str) -> Shape:
    variant = int(rng.integers(VARIANTS))
    size = template(kind, variant)[1] * rng.uniform(0.96, 1.04, 3)
    warp = np.clip(rng.normal(0, (0.1, 0.12, 0.1, 0.3)), -0.3, 0.3)
    length, width, height = size.tolist()
    cabin, roof, lift, flank = warp.tolist()
    return Shape(kind, variant, (length, width, height), (cabin, roof, lift, flank))


def random_shape(rng: np.random.Generator, only_cars: bool = False) -> Shape:
    """A shape by its share in traffic, with a few per cent of its own in every dimension."""
    bounds = _BOUNDS[only_cars]
    return _shape(rng, _NAMES[int(np.searchsorted(bounds, rng.random() * bounds[-1], "right"))])


def articulated(rng: np.random.Generator) -> tuple[Shape, Shape]:
    """A tractor and its trailer, which are labelled one by one."""
    return _shape(rng, "tractor"), _shape(rng, "trailer")
