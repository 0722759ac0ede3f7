"""The ground: gentle slopes and waves, a crowned road, kerbs, sidewalks and banks, as a height function and
a mesh."""

from __future__ import annotations

import numpy as np
import shapely
from scipy.spatial import cKDTree

from .geometry import corners
from .materials import Material
from .mesh import Mesh, join, mesh, quads
from .roads import RoadNetwork

CELL = 3.0  # side of the squares that the ground is made of [m]
DASH, STRIPE = 3, 0.15  # length and width of a road marking [m]
PROUD = 0.015  # markings float this high, because the ground's squares are flat [m]
STEEPEST = 0.05  # slope of the whole terrain
LEVEL = 0.1  # steepest ground that vehicles stand on
FADE = 8.0  # banks and bumps begin this gradually beside a road that runs through them [m]


def _bank(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Profile beside the main road: distances beyond the sidewalk and heights there [m]."""
    start, wide = rng.uniform(0.3, 4.0), rng.uniform(2.0, 6.0)
    style = rng.choice(4, p=(0.35, 0.43, 0.13, 0.09))
    if style == 0:
        return np.array((0.0, 25.0)), np.zeros(2)
    if style == 1:
        return np.array((0.0, 25.0)), np.array((0.0, 25.0 * rng.normal(0, 0.035)))
    if style == 2:
        # An embankment, or a drop.
        rise = rng.choice((-1, 1), p=(0.3, 0.7)) * rng.uniform(0.15, 0.6) * wide
        return np.array((0.0, start, start + wide, 25.0)), np.array((0.0, 0.0, rise, rise * 1.1))
    ditch = -rng.uniform(0.2, 0.9)
    return np.array((0.0, start, start + 1.0, start + 1.6, start + 3.0, 25.0)), np.array(
        (0.0, 0.0, ditch, ditch, rng.uniform(-0.2, 0.5), rng.normal(0, 0.6))
    )


class Terrain:
    """Height of the ground [m] as a function of the plane, without kerbs; kerb: their height [m]."""

    def __init__(self, rng: np.random.Generator, network: RoadNetwork) -> None:
        self.kerb = float(rng.uniform(0.0, 0.05) if rng.random() < 0.15 else rng.uniform(0.06, 0.2))
        self._swell = _waves(rng, 5, (25.0, 120.0), 0.0016)
        self._bumps = _waves(rng, 6, (6.0, 15.0), 0.004 * rng.random())
        tilt = rng.normal(0, 0.03 if rng.random() < 0.2 else 0.008, 2)
        self._slope = tilt * min(1.0, STEEPEST / np.hypot(*tilt))
        self._crown = rng.uniform(0.0, 0.025)
        self._banks = (_bank(rng), _bank(rng))
        main, *others = network.roads
        self._edges = (main.left + main.pavement, main.right + main.pavement)
        self._line = main.centre.line[::2]
        self._tangent = np.gradient(self._line, axis=0)
        self._tree = cKDTree(self._line)
        # How far the other roads are from a place, to the edge of their sidewalks: by their widest one.
        self._reach = max((max(road.left, road.right) + road.pavement for road in others), default=0.0)
        self._others = cKDTree(np.concatenate([road.centre.line[::2] for road in others])) if others else None

    def height(self, xy: np.ndarray) -> np.ndarray:
        """z [N] at points [N, 2]."""
        xy = np.asarray(xy, np.float64)
        distance, nearest = self._tree.query(xy)
        offset = xy - self._line[nearest]
        t = self._tangent[nearest]
        left = t[:, 0] * offset[:, 1] - t[:, 1] * offset[:, 0] > 0
        edge = np.where(left, *self._edges)
        beyond = np.clip(distance - edge, 0, 25)
        wild = np.where(left, *(np.interp(beyond, *bank) for bank in self._banks))
        wild += np.clip(beyond / FADE, 0, 1) * _sum(self._bumps, xy)
        if self._others is not None:
            wild *= np.clip((self._others.query(xy)[0] - self._reach) / FADE, 0, 1)
        return _sum(self._swell, xy) + xy @ self._slope - self._crown * np.minimum(distance, edge) + wild


Waves = tuple[np.ndarray, np.ndarray, np.ndarray]


def _waves(rng: np.random.Generator, count: int, length: tuple[float, float], steepness: float) -> Waves:
    """Wave vectors [2, count], phases and amplitudes of plane waves; steepness: largest amplitude per length."""
    lengths, direction = rng.uniform(*length, count), rng.uniform(0, 2 * np.pi, count)
    vectors = 2 * np.pi / lengths * np.stack([np.cos(direction), np.sin(direction)])
    return vectors, rng.uniform(0, 2 * np.pi, count), rng.uniform(0, steepness, count) * lengths


def _sum(waves: Waves, xy: np.ndarray) -> np.ndarray:
    """Height of the waves [N] at points [N, 2]."""
    vectors, phases, amplitudes = waves
    return np.sin(xy @ vectors + phases) @ amplitudes


class Ground:
    """The terrain with the network's kerbs on it, within a rectangle (x_min, y_min, x_max, y_max)."""

    def __init__(self, terrain: Terrain, network: RoadNetwork, wild: Material) -> None:
        self.terrain = terrain
        self._network = network
        self._wild = wild
        shapely.prepare(network.surface)

    def lift(self, xy: np.ndarray) -> np.ndarray:
        """Height of the surface above the road's level [N]: a kerb's height off the road."""
        return np.where(shapely.contains_xy(self._network.surface, xy[:, 0], xy[:, 1]), 0.0, self.terrain.kerb)

    def height(self, xy: np.ndarray) -> np.ndarray:
        """z [N] of the surface at points [N, 2], kerbs included."""
        xy = np.atleast_2d(np.asarray(xy, np.float64))
        return self.terrain.height(xy) + self.lift(xy)

    def is_steep(self, box: np.ndarray) -> bool:
        """Whether no vehicle would stand there: the ground under the corners of `box` [7] is far from level."""
        z = self.terrain.height(corners(box[None])[0])
        return float(z.max() - z.min()) > LEVEL * float(np.hypot(box[3], box[4]))

    def mesh(self, area: shapely.Polygon) -> Mesh:
        """Triangles of the ground within `area`, split along the kerbs, and the kerbs' faces."""
        surface, paved = self._network.surface, self._network.paved
        cells = _cells(area)
        parts = [
            self._sheet(cells, surface, Material.ASPHALT, 0.0),
            self._sheet(cells, paved.difference(surface), Material.CONCRETE, self.terrain.kerb),
            self._sheet(cells, area.buffer(CELL).difference(paved), self._wild, self.terrain.kerb),
            self._kerbs(shapely.boundary(surface).intersection(area)),
            self._markings(area),
        ]
        return join([part for part in parts if len(part.triangles)])

    def _sheet(self, cells: np.ndarray, zone: shapely.Geometry, material: Material, lift: float) -> Mesh:
        """The cells' parts within a zone, raised by `lift`."""
        shapely.prepare(zone)
        whole = shapely.contains_properly(zone, cells)
        cut = cells[~whole & shapely.intersects(zone, cells)]
        pieces = shapely.constrained_delaunay_triangles(shapely.intersection(zone, cut))
        slivers = shapely.get_parts(pieces)
        squares = shapely.get_coordinates(cells[whole]).reshape(-1, 5, 2)
        flat = np.concatenate(
            [
                squares[:, (0, 1, 2)],
                squares[:, (0, 2, 3)],
                shapely.get_coordinates(slivers).reshape(-1, 4, 2)[:, :3],
            ]
        )
        z = self.terrain.height(flat.reshape(-1, 2)).reshape(-1, 3, 1) + lift
        return mesh(np.concatenate([flat, z], 2), material)

    def _kerbs(self, edge: shapely.Geometry) -> Mesh:
        """Upright faces along the edge of the road."""
        edge = shapely.segmentize(edge, CELL)
        lines = [shapely.get_coordinates(part) for part in shapely.get_parts(edge)]
        if not lines:
            return mesh(np.zeros((0, 3, 3)), Material.CONCRETE)
        a, b = (np.concatenate([line[cut] for line in lines]) for cut in (slice(None, -1), slice(1, None)))
        za, zb = self.terrain.height(a)[:, None], self.terrain.height(b)[:, None]
        kerb = self.terrain.kerb
        faces = quads(np.hstack([a, za]), np.hstack([b, zb]), np.hstack([b, zb + kerb]), np.hstack([a, za + kerb]))
        return mesh(faces, Material.CONCRETE)

    def _markings(self, area: shapely.Polygon) -> Mesh:
        """Dashes between lanes and lines along the middle of the roads, thin sheets just above the
        asphalt."""
        starts, ends = [], []
        for road in self._network.roads:
            for number in range(1 - road.backward, road.forward):
                line = road.centre.offset(-number * road.lane).line
                # A solid line is dashes without gaps; vertices are a metre apart.
                first = np.arange(0, len(line) - DASH, DASH if number == 0 else 3 * DASH)
                starts.append(line[first])
                ends.append(line[first + DASH])
        if not starts:
            return mesh(np.zeros((0, 3, 3)), Material.MARKING)
        a, b = np.concatenate(starts), np.concatenate(ends)
        seen = shapely.contains_xy(area, a[:, 0], a[:, 1])
        a, b = a[seen], b[seen]
        across = np.stack([a[:, 1] - b[:, 1], b[:, 0] - a[:, 0]], 1)
        across *= STRIPE / 2 / np.linalg.norm(across, axis=1, keepdims=True)
        z = [self.terrain.height(p)[:, None] + PROUD for p in (a, b)]
        outline = [
            np.hstack(pair) for pair in ((a - across, z[0]), (b - across, z[1]), (b + across, z[1]), (a + across, z[0]))
        ]
        return mesh(quads(*outline), Material.MARKING)


def _cells(area: shapely.Polygon) -> np.ndarray:
    """Squares that cover an area, aligned with the map frame."""
    x0, y0, x1, y1 = np.array(area.bounds) // CELL * CELL
    x, y = (a.ravel() for a in np.meshgrid(np.arange(x0, x1 + CELL, CELL), np.arange(y0, y1 + CELL, CELL)))
    cells = shapely.box(x, y, x + CELL, y + CELL)
    shapely.prepare(area)
    return cells[shapely.intersects(area, cells)]
