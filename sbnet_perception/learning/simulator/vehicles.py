"""Vehicle shapes: side profiles lofted to closed bodies with tapered cabins, windows, wheels and a gap
underneath.

Every template fills the unit box exactly: x in [-0.5, 0.5] (front at +0.5), y in [-0.5, 0.5], z in [0, 1]; an
instance is a template scaled to its length, width and height, so that its label is tight by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .materials import Material
from .mesh import Mesh, box, join, mesh, quads, wheel

VARIANTS = 6

# One row per station from rear to front: x (0 rear .. 1 front), top height, half width at the top relative
# to the
# body's, side and top of the piece up to the next station: g glass, m metal, o open. Heights in units of the
# vehicle's.
Profile = tuple[tuple[float, float, float, str, str], ...]


@dataclass(frozen=True)
class Kind:
    """length, width, height: ranges in metres; profile: see above; belt: height below which the body is
    closed; sill: height of the underside; wheel: radius in metres; axles, seats: positions along x (0 rear ..
    1 front); bulkhead: top of the wall behind the seats, 0 for none."""

    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    profile: Profile
    belt: float
    sill: float
    wheel: float
    axles: tuple[float, float]
    seats: tuple[float, float] = (0.26, 0.58)
    bulkhead: float = 0.0


SEDAN: Profile = (
    (0.00, 0.56, 0.90, "m", "m"),
    (0.03, 0.66, 0.88, "m", "m"),
    (0.15, 0.67, 0.88, "m", "g"),
    (0.30, 0.95, 0.68, "g", "m"),
    (0.44, 1.00, 0.70, "m", "m"),
    (0.47, 1.00, 0.70, "g", "m"),
    (0.59, 0.97, 0.70, "g", "g"),
    (0.75, 0.66, 0.84, "m", "m"),
    (0.95, 0.54, 0.86, "m", "m"),
    (1.00, 0.44, 0.80, "m", "m"),
)
HATCHBACK: Profile = (
    (0.00, 0.60, 0.90, "m", "g"),
    (0.07, 0.93, 0.72, "m", "m"),
    (0.13, 0.97, 0.72, "g", "m"),
    (0.30, 1.00, 0.74, "m", "m"),
    (0.33, 1.00, 0.74, "g", "m"),
    (0.54, 0.97, 0.72, "g", "g"),
    (0.74, 0.64, 0.86, "m", "m"),
    (0.95, 0.54, 0.86, "m", "m"),
    (1.00, 0.42, 0.80, "m", "m"),
)
SUV: Profile = (
    (0.00, 0.62, 0.94, "m", "g"),
    (0.05, 0.94, 0.78, "m", "m"),
    (0.10, 0.97, 0.78, "g", "m"),
    (0.30, 1.00, 0.80, "m", "m"),
    (0.33, 1.00, 0.80, "g", "m"),
    (0.56, 0.97, 0.78, "g", "g"),
    (0.71, 0.66, 0.90, "m", "m"),
    (0.95, 0.60, 0.90, "m", "m"),
    (1.00, 0.50, 0.86, "m", "m"),
)
VAN: Profile = (
    (0.00, 0.96, 0.88, "m", "m"),
    (0.02, 1.00, 0.88, "m", "m"),
    (0.62, 1.00, 0.88, "m", "m"),
    (0.66, 0.99, 0.86, "g", "m"),
    (0.76, 0.94, 0.82, "g", "g"),
    (0.90, 0.58, 0.90, "m", "m"),
    (1.00, 0.44, 0.86, "m", "m"),
)
MINIVAN: Profile = (
    (0.00, 0.58, 0.92, "m", "g"),
    (0.04, 0.95, 0.78, "m", "m"),
    (0.07, 1.00, 0.78, "g", "m"),
    (0.35, 1.00, 0.80, "m", "m"),
    (0.38, 1.00, 0.80, "g", "m"),
    (0.62, 0.97, 0.76, "g", "g"),
    (0.83, 0.60, 0.88, "m", "m"),
    (1.00, 0.45, 0.84, "m", "m"),
)
PICKUP: Profile = (
    (0.00, 0.58, 0.96, "m", "m"),
    (0.01, 0.58, 0.96, "m", "o"),
    (0.38, 0.60, 0.94, "m", "m"),
    (0.39, 0.60, 0.94, "m", "g"),
    (0.42, 0.96, 0.78, "g", "m"),
    (0.56, 1.00, 0.80, "m", "m"),
    (0.58, 1.00, 0.80, "g", "m"),
    (0.66, 0.96, 0.78, "g", "g"),
    (0.78, 0.64, 0.90, "m", "m"),
    (0.96, 0.58, 0.90, "m", "m"),
    (1.00, 0.48, 0.86, "m", "m"),
)
BOX_TRUCK: Profile = (
    (0.00, 1.00, 1.00, "m", "m"),
    (0.70, 1.00, 1.00, "m", "m"),
    (0.702, 0.40, 0.90, "m", "m"),
    (0.725, 0.40, 0.90, "m", "m"),
    (0.73, 0.74, 0.88, "m", "m"),
    (0.78, 0.76, 0.86, "g", "m"),
    (0.88, 0.74, 0.84, "g", "g"),
    (0.96, 0.44, 0.92, "m", "m"),
    (1.00, 0.34, 0.90, "m", "m"),
)
BUS: Profile = (
    (0.00, 0.97, 0.94, "m", "m"),
    (0.01, 1.00, 0.94, "m", "m"),
    (0.05, 1.00, 0.94, "g", "m"),
    (0.25, 1.00, 0.94, "m", "m"),
    (0.27, 1.00, 0.94, "g", "m"),
    (0.50, 1.00, 0.94, "m", "m"),
    (0.52, 1.00, 0.94, "g", "m"),
    (0.74, 1.00, 0.94, "m", "m"),
    (0.76, 1.00, 0.94, "g", "m"),
    (0.96, 0.98, 0.94, "m", "m"),
    (0.97, 0.97, 0.94, "m", "g"),
    (1.00, 0.42, 0.96, "m", "m"),
)

KINDS: dict[str, Kind] = {
    "sedan": Kind((4.3, 5.0), (1.72, 1.95), (1.38, 1.55), SEDAN, 0.62, 0.15, 0.32, (0.20, 0.81)),
    "hatchback": Kind((3.2, 4.4), (1.45, 1.85), (1.40, 1.60), HATCHBACK, 0.60, 0.15, 0.31, (0.16, 0.81)),
    "suv": Kind((4.2, 5.2), (1.80, 2.05), (1.60, 1.95), SUV, 0.60, 0.16, 0.37, (0.18, 0.80)),
    "minivan": Kind((4.3, 5.2), (1.75, 2.05), (1.60, 1.95), MINIVAN, 0.56, 0.13, 0.34, (0.18, 0.81)),
    "van": Kind((4.8, 6.5), (1.90, 2.20), (1.95, 2.75), VAN, 0.52, 0.12, 0.36, (0.20, 0.84), (0.62, 0.78), 0.9),
    "pickup": Kind((5.0, 6.2), (1.85, 2.10), (1.75, 2.00), PICKUP, 0.60, 0.20, 0.40, (0.20, 0.80), (0.44, 0.66)),
    "box_truck": Kind((6.0, 12.5), (2.10, 2.80), (2.70, 3.70), BOX_TRUCK, 0.46, 0.16, 0.45, (0.20, 0.84), (0.76, 0.88)),
    "bus": Kind((9.5, 12.5), (2.45, 2.90), (2.90, 3.50), BUS, 0.42, 0.10, 0.48, (0.25, 0.78), (0.08, 0.94)),
}
SHARES = {
    "sedan": 0.27,
    "hatchback": 0.2,
    "suv": 0.24,
    "minivan": 0.08,
    "van": 0.09,
    "pickup": 0.05,
    "box_truck": 0.04,
    "bus": 0.03,
}


_NAMES = tuple(SHARES)
_SHARES = np.array(list(SHARES.values()))
# Cumulated shares: of all vehicles, and with `only_cars` of all but trucks and buses.
_BOUNDS = (np.cumsum(_SHARES), np.cumsum(_SHARES[:-2]))


def _loft(kind: Kind, jitter: np.random.Generator) -> Mesh:
    """The closed body: a ring of eight points per station, quadrilaterals between rings and fans at both
    ends."""
    profile = list(kind.profile)
    x = np.array([row[0] for row in profile])
    inner = slice(1, -1)
    x[inner] += jitter.normal(0, 0.006, len(x) - 2)
    x = np.maximum.accumulate(x)
    top = np.array([row[1] for row in profile]) + jitter.normal(0, 0.008, len(x))
    belt = np.minimum(top - 0.01, kind.belt + jitter.normal(0, 0.015))
    # The plan view bulges in the middle and narrows towards both bumpers, and so does the underside.
    end = np.minimum(x, 1 - x)
    bulge = jitter.uniform(0.01, 0.05) * (2 * x - 1) ** 2
    body = 0.5 * (1 - bulge - jitter.uniform(0.10, 0.26) * np.exp(-end / 0.03))
    roof = body * np.array([row[2] for row in profile])
    under = kind.sill * (1 + 0.7 * np.exp(-end / 0.05))
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


def _details(kind: Kind, size: np.ndarray) -> Mesh:
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
    for end in (-1, 1):
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


@lru_cache
def template(name: str, variant: int) -> tuple[Mesh, np.ndarray]:
    """Variant 0 .. VARIANTS - 1 of a kind: the mesh in the unit box, and its size in metres float32 [3]."""
    kind = KINDS[name]
    jitter = np.random.default_rng([variant, *name.encode()])
    size = np.array([jitter.uniform(*limits) for limits in (kind.length, kind.width, kind.height)], np.float32)
    body = join([_loft(kind, jitter), _details(kind, size)])
    corners = body.triangles.reshape(-1, 3)
    low, high = corners.min(0), corners.max(0)
    unit = (body.triangles - low) / (high - low) - np.array((0.5, 0.5, 0.0))
    return Mesh(unit.astype(np.float32), body.material), size


@dataclass(frozen=True)
class Shape:
    """A vehicle to be placed: its template and its size (length, width, height) in metres."""

    kind: str
    variant: int
    size: tuple[float, float, float]

    def box(self, x: float, y: float, yaw: float) -> np.ndarray:
        """Box float64 [7] of the vehicle standing on z = 0."""
        return np.array((x, y, self.size[2] / 2, *self.size, yaw))

    @property
    def mesh(self) -> Mesh:
        return template(self.kind, self.variant)[0]


def random_shape(rng: np.random.Generator, only_cars: bool = False) -> Shape:
    """A shape by its share in traffic, with a few per cent of its own in every dimension."""
    bounds = _BOUNDS[only_cars]
    kind = _NAMES[min(int(np.searchsorted(bounds, rng.random() * bounds[-1], "right")), len(bounds) - 1)]
    variant = int(rng.integers(VARIANTS))
    size = template(kind, variant)[1] * rng.uniform(0.96, 1.04, 3)
    return Shape(kind, variant, (float(size[0]), float(size[1]), float(size[2])))
