"""The ground: gentle slopes and waves, a crowned road, kerbs, sidewalks and banks, as a height function and
a mesh."""

from __future__ import annotations

import numpy as np
import shapely
from scipy.spatial import cKDTree

from .materials import Material
from .mesh import Mesh, join, mesh, quads
from .roads import RoadNetwork

CELL = 4.0  # side of the squares that the ground is made of [m]
KERB = 0.15
DASH, STRIPE = 3, 0.15  # length and width of a road marking [m]
PROUD = 0.015  # markings float this high, because the ground's squares are flat [m]


class Terrain:
    """Height of the ground [m] as a function of the plane, without kerbs."""

    def __init__(self, rng: np.random.Generator, network: RoadNetwork) -> None:
        waves = 5
        length = rng.uniform(25, 120, waves)
        direction = rng.uniform(0, 2 * np.pi, waves)
        self._wave = 2 * np.pi / length * np.stack([np.cos(direction), np.sin(direction)])
        self._phase = rng.uniform(0, 2 * np.pi, waves)
        self._amplitude = rng.uniform(0, 0.0016, waves) * length
        self._slope = rng.normal(0, 0.006, 2)
        self._crown = rng.uniform(0.0, 0.025)
        self._banks = rng.normal(0, 0.035, 2) * (rng.random(2) < 0.6)
        main = network.roads[0]
        self._edges = (main.left + main.pavement, main.right + main.pavement)
        self._line = main.centre.line[::2]
        self._tangent = np.gradient(self._line, axis=0)
        self._tree = cKDTree(self._line)

    def height(self, xy: np.ndarray) -> np.ndarray:
        """z [N] at points [N, 2]."""
        xy = np.asarray(xy, np.float64)
        z = np.sin(xy @ self._wave + self._phase) @ self._amplitude + xy @ self._slope
        distance, nearest = self._tree.query(xy)
        offset = xy - self._line[nearest]
        t = self._tangent[nearest]
        left = t[:, 0] * offset[:, 1] - t[:, 1] * offset[:, 0] > 0
        edge, bank = np.where(left, *self._edges), np.where(left, *self._banks)
        beyond = np.clip(distance - edge, 0, 25)
        return z - self._crown * np.minimum(distance, edge) + bank * beyond


class Ground:
    """The terrain with the network's kerbs on it, within a rectangle (x_min, y_min, x_max, y_max)."""

    def __init__(self, terrain: Terrain, network: RoadNetwork, wild: Material) -> None:
        self.terrain = terrain
        self._network = network
        self._wild = wild
        shapely.prepare(network.surface)

    def lift(self, xy: np.ndarray) -> np.ndarray:
        """Height of the surface above the road's level [N]: a kerb's height off the road."""
        return np.where(shapely.contains_xy(self._network.surface, xy[:, 0], xy[:, 1]), 0.0, KERB)

    def height(self, xy: np.ndarray) -> np.ndarray:
        """z [N] of the surface at points [N, 2], kerbs included."""
        xy = np.atleast_2d(np.asarray(xy, np.float64))
        return self.terrain.height(xy) + self.lift(xy)

    def mesh(self, area: shapely.Polygon) -> Mesh:
        """Triangles of the ground within `area`, split along the kerbs, and the kerbs' faces."""
        surface, paved = self._network.surface, self._network.paved
        cells = _cells(area)
        parts = [
            self._sheet(cells, surface, Material.ASPHALT, 0.0),
            self._sheet(cells, paved.difference(surface), Material.CONCRETE, KERB),
            self._sheet(cells, area.buffer(CELL).difference(paved), self._wild, KERB),
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
        faces = quads(np.hstack([a, za]), np.hstack([b, zb]), np.hstack([b, zb + KERB]), np.hstack([a, za + KERB]))
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
