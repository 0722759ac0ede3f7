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
        hits.put(
            nearer,
            Hits(*(getattr(other, n)[nearer] for n in ("distance", "material", "reflectance", "cosine"))),
        )
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
        hits.put(
            rays[going],
            Hits(*(getattr(behind, n)[going] for n in ("distance", "material", "reflectance", "cosine"))),
        )
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

    # A return survives when its received power, which flickers, exceeds the sensor's threshold.
    keep = np.flatnonzero(hits.distance < limit)
    distance, material = hits.distance[keep], hits.material[keep]
    cosine = np.abs(hits.cosine[keep]).clip(0.003, 1.0)
    power = hits.reflectance[keep] * cosine / distance**2
    chance = 1.0 / (1.0 + (sensor.threshold / np.maximum(power, 1e-12)) ** 2.5)
    lucky = rng.random(len(keep), dtype=np.float32) < (1 - sensor.loss) * chance
    keep, distance, material, cosine = keep[lucky], distance[lucky], material[lucky], cosine[lucky]

    noise = rng.standard_normal((2, len(keep)), dtype=np.float32)
    distance = distance + sensor.range_noise * noise[0]
    points = np.empty((len(keep), 4), np.float32)
    points[:, :3] = origins[keep] + distance[:, None] * directions[keep]
    points[:, 2] += ROUGHNESS[material] * noise[1] * (material <= Material.MARKING)

    gains = sensor.gain * np.exp(sensor.beam_spread * rng.standard_normal(len(sensor.elevations), dtype=np.float32))
    shine = hits.reflectance[keep] * cosine ** GLOSS[material]
    speckle = np.exp(SPECKLE[material] * rng.standard_normal(len(keep), dtype=np.float32))
    points[:, 3] = np.clip(255.0 * gains[beams[keep]] * shine**sensor.gamma * speckle, 0, 255).astype(np.int32)
    return points
