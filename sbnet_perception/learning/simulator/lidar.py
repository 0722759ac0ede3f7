"""A LiDAR scan by ray casting (embree): nearest hits, glass and foliage, lost returns, noise and
intensity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from .materials import FREE_PATH, GLOSS, PASSING, ROUGHNESS, SPECKLE, SWALLOWING, Material
from .sensors import SensorModel

PASSES = 4  # how many panes or leaves a beam may pass before it counts as lost
SKIP = 2e-3  # restart of a passing ray behind the surface that it passed [m]
STEEPEST = 0.003  # a ray that only grazes a surface returns as if it met it at this cosine
PULSE = 2.0  # returns nearer together than this may merge [m]
RETROREFLECTIVE = 1.5  # reflectance from which on a surface throws the light back to where it came from


@dataclass
class Hits:
    """distance: float32 [N] m, infinite where nothing was hit; material: int64 [N]; reflectance: float32 [N];
    cosine: float32 [N], of the angle between ray and outward normal, negative when the ray enters."""

    distance: np.ndarray
    material: np.ndarray
    reflectance: np.ndarray
    cosine: np.ndarray

    def put(self, where: np.ndarray, other: Hits) -> None:
        """Replace the entries at the indices `where` by all of `other`."""
        for name in ("distance", "material", "reflectance", "cosine"):
            getattr(self, name)[where] = getattr(other, name)

    def at(self, rows: np.ndarray) -> Hits:
        """The entries at the indices `rows`."""
        return Hits(self.distance[rows], self.material[rows], self.reflectance[rows], self.cosine[rows])


class RayScene:
    """Triangles float32 [T, 3, 3] with material uint8 [T] and reflectance float32 [T], indexed for ray
    casting."""

    def __init__(self, triangles: np.ndarray, material: np.ndarray, reflectance: np.ndarray) -> None:
        u, v = (triangles[:, k] - triangles[:, 0] for k in (1, 2))
        normal = np.stack([u[:, i] * v[:, j] - u[:, j] * v[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], 1)
        length = np.sqrt(np.einsum("ij,ij->i", normal, normal))[:, None]
        # The last row answers for rays that hit nothing (primitive -1).
        self._normal = np.concatenate([normal / np.maximum(length, 1e-12), np.zeros((1, 3), np.float32)])
        self._corner = np.concatenate([triangles[:, 0], np.zeros((1, 3), np.float32)])
        self._material = np.append(material, 0).astype(np.int64)
        self._reflectance = np.append(reflectance, 0).astype(np.float32)
        self._scene = EmbreeScene()
        self._mesh = TriangleMesh(self._scene, np.ascontiguousarray(triangles, np.float32))

    def cast(self, origins: np.ndarray, directions: np.ndarray, reach: np.ndarray) -> Hits:
        """Nearest hit of each ray (float32 [N, 3] each) within `reach` float32 [N] metres."""
        prim = self._scene.run(origins, directions, dists=reach, query="INTERSECT")
        # The distance follows from the triangle's plane; asking embree for it too (output=True) takes six
        # times as long.
        normal = self._normal[prim]
        cosine = np.einsum("ij,ij->i", normal, directions)
        height = np.einsum("ij,ij->i", normal, self._corner[prim] - origins)
        distance = np.full(len(prim), np.inf, np.float32)
        np.divide(height, cosine, out=distance, where=prim >= 0)
        return Hits(distance, self._material[prim], self._reflectance[prim], cosine)


def cast_nearest(scenes: Sequence[RayScene], origins: np.ndarray, directions: np.ndarray, reach: np.ndarray) -> Hits:
    """Nearest hit over several scenes."""
    hits = scenes[0].cast(origins, directions, reach)
    for scene in scenes[1:]:
        other = scene.cast(origins, directions, reach)
        nearer = np.flatnonzero(other.distance < hits.distance)
        hits.put(nearer, other.at(nearer))
    return hits


def _let_through(
    scenes: Sequence[RayScene], origins: np.ndarray, directions: np.ndarray, reach: np.ndarray, hits: Hits,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Follow the rays that pass glass, fences and leaves, in place in `hits`."""
    rays = np.flatnonzero((PASSING[hits.material] > 0) | (FREE_PATH[hits.material] > 0))
    rays = rays[np.isfinite(hits.distance[rays])]
    for _ in range(PASSES):
        material = hits.material[rays]
        porous = FREE_PATH[material] > 0
        chance = rng.random(len(rays), dtype=np.float32)
        passing = porous | (chance < PASSING[material])
        hits.distance[rays[chance > 1 - SWALLOWING[material]]] = np.inf
        rays, material, porous = rays[passing], material[passing], porous[passing]
        if len(rays) == 0:
            return
        start = hits.distance[rays] + SKIP
        behind = cast_nearest(scenes, origins[rays] + start[:, None] * directions[rays], directions[rays], reach[rays])
        behind.distance += start
        # Inside a porous volume the beam ends after an exponentially distributed depth, unless something
        # solid is nearer.
        entering = porous & (hits.cosine[rays] < 0)
        depth = rng.exponential(1.0, len(rays)).astype(np.float32) * FREE_PATH[material]
        inside = entering & (hits.distance[rays] + depth < behind.distance)
        stopped = rays[inside]
        hits.distance[stopped] += depth[inside]
        hits.cosine[stopped] = -rng.uniform(0.2, 1.0, len(stopped)).astype(np.float32)
        going = ~inside
        hits.put(rays[going], behind.at(going))
        rays = rays[going & np.isfinite(behind.distance)]
        rays = rays[(PASSING[hits.material[rays]] > 0) | (FREE_PATH[hits.material[rays]] > 0)]
    hits.distance[rays] = np.inf


def scan(
    scenes: Sequence[RayScene], sensor: SensorModel, rays: tuple[np.ndarray, np.ndarray, np.ndarray],
    rng: np.random.Generator, reach: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Points float32 [P, 4] (x y z in the scenes' frame, intensity 0-255) of the rays (origins, directions,
    beams)."""
    origins, directions, beams = rays
    limit = np.full(len(beams), sensor.reach, np.float32) if reach is None else reach
    hits = cast_nearest(scenes, origins, directions, limit)
    _let_through(scenes, origins, directions, limit, hits, rng)

    kept = _received(hits, limit, sensor, rng)
    hits = hits.at(kept)
    origins, directions, beams = origins[kept], directions[kept], beams[kept]
    intensity = _intensity(hits, beams, sensor, rng)
    if sensor.mixing:
        hits.distance = _mixed(hits.distance, directions, beams, sensor, rng)

    noise = rng.standard_normal((2, len(kept)), dtype=np.float32)
    bias = sensor.beam_bias * rng.standard_normal(len(sensor.elevations), dtype=np.float32)
    hits.distance = hits.distance + bias[beams] + sensor.range_noise * noise[0]
    points = np.empty((len(kept), 4), np.float32)
    points[:, :3] = origins + hits.distance[:, None] * directions
    points[:, 2] += ROUGHNESS[hits.material] * noise[1] * (hits.material <= Material.MARKING)
    points[:, 3] = intensity
    if sensor.bloom:
        points = np.concatenate([points, _halo(points, hits, directions, sensor, rng)])
    return points


def _received(hits: Hits, limit: np.ndarray, sensor: SensorModel, rng: np.random.Generator) -> np.ndarray:
    """Which rays return, int64 indices: those whose power, which flickers, exceeds the sensor's threshold."""
    near = np.flatnonzero(hits.distance < limit)
    returned = hits.reflectance[near] * np.abs(hits.cosine[near]).clip(STEEPEST, 1.0) ** GLOSS[hits.material[near]]
    power = returned / hits.distance[near] ** 2
    chance = 1.0 / (1.0 + (sensor.threshold / np.maximum(power, 1e-12)) ** 2.5)
    return near[rng.random(len(near), dtype=np.float32) < (1 - sensor.loss) * chance]


def _intensity(hits: Hits, beams: np.ndarray, sensor: SensorModel, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers 0-255 [N] for the hits by the sensor's curve, which differs between beams."""
    gains = sensor.gain * np.exp(sensor.beam_spread * rng.standard_normal(len(sensor.elevations), dtype=np.float32))
    shine = hits.reflectance * np.abs(hits.cosine).clip(STEEPEST, 1.0) ** GLOSS[hits.material]
    speckle = np.exp(SPECKLE[hits.material] * rng.standard_normal(len(beams), dtype=np.float32))
    level = 255.0 * gains[beams] * shine**sensor.gamma * speckle
    if sensor.falloff:
        level *= (hits.distance / 10.0) ** -sensor.falloff
    return np.clip(level - sensor.floor, 0, 255).astype(np.int32)


def _mixed(
    distance: np.ndarray, directions: np.ndarray, beams: np.ndarray, sensor: SensorModel, rng: np.random.Generator
) -> np.ndarray:
    """Distances [N] after a share of the beams at edges, which meet two things at once, gave a mean of both."""
    order = np.argsort(beams.astype(np.int16), kind="stable")
    step = np.diff(distance[order])
    edge = np.flatnonzero((np.abs(step) > 0.2) & (np.abs(step) < PULSE) & (np.diff(beams[order]) == 0))
    here, there = order[edge], order[edge + 1]
    # Of the same beam's next ray only, not of one beyond a gap.
    between = np.einsum("ij,ij->i", directions[here], directions[there])
    struck = between > np.cos(np.deg2rad(2.5 * sensor.azimuth_step))
    struck &= rng.random(len(here), dtype=np.float32) < sensor.mixing
    mixed = distance.copy()
    mixed[here[struck]] += rng.random(int(struck.sum()), dtype=np.float32) * step[edge[struck]]
    return mixed


def _halo(
    points: np.ndarray, hits: Hits, directions: np.ndarray, sensor: SensorModel, rng: np.random.Generator
) -> np.ndarray:
    """Points [K, 4] that neighbouring rays, weakly, get from retroreflectors: beside these, as far away."""
    bright = np.flatnonzero(hits.reflectance > RETROREFLECTIVE)
    aside = rng.standard_normal((len(bright), 3), dtype=np.float32) * np.float32(np.deg2rad(sensor.bloom))
    ahead = directions[bright]
    aside -= ahead * np.einsum("ij,ij->i", aside, ahead)[:, None]
    ghosts = points[bright]
    ghosts[:, :3] += aside * hits.distance[bright, None]
    ghosts[:, 3] = np.floor(0.5 * ghosts[:, 3])
    return ghosts
