"""Triangle meshes with a material per triangle, and the primitives that the templates are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import trimesh
from numpy.typing import ArrayLike

from .materials import Material


@dataclass(frozen=True)
class Mesh:
    """triangles: float32 [T, 3, 3] corners in metres, counter-clockwise seen from outside; material: uint8
    [T]."""

    triangles: np.ndarray
    material: np.ndarray

    def placed(self, x: float, y: float, z: float, yaw: float = 0.0, scale: ArrayLike = (1, 1, 1)) -> np.ndarray:
        """Triangles [T, 3, 3] after scaling, turning about z by `yaw` and moving to (x, y, z)."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
        return self.triangles @ (np.asarray(scale, np.float32)[:, None] * turn) + np.array((x, y, z), np.float32)

    def moved(self, x: float = 0, y: float = 0, z: float = 0, yaw: float = 0, scale: ArrayLike = (1, 1, 1)) -> Mesh:
        return Mesh(self.placed(x, y, z, yaw, scale), self.material)


def mesh(triangles: np.ndarray, material: Material) -> Mesh:
    """A mesh of one material."""
    return Mesh(np.asarray(triangles, np.float32), np.full(len(triangles), material, np.uint8))


def join(meshes: Sequence[Mesh]) -> Mesh:
    return Mesh(np.concatenate([m.triangles for m in meshes]), np.concatenate([m.material for m in meshes]))


@lru_cache
def _unit(shape: str) -> np.ndarray:
    """Triangles of a unit solid: box and cylinder stand on z = 0, the sphere and the lump, an icosahedron, have radius
    1 about the origin."""
    if shape == "box":
        solid = trimesh.creation.box(bounds=((-0.5, -0.5, 0), (0.5, 0.5, 1)))
    elif shape == "lump":
        solid = trimesh.creation.icosahedron()
    elif shape == "cylinder":
        solid = trimesh.creation.cylinder(radius=1.0, height=1.0, sections=8)
        solid.apply_translation((0, 0, 0.5))
    else:
        solid = trimesh.creation.icosphere(subdivisions=1)
    return np.asarray(solid.triangles, np.float32)


def box(size: ArrayLike, material: Material, z: float = 0.0) -> Mesh:
    """Cuboid of size [3] (length, width, height) centred on the z axis with its bottom at `z`."""
    return mesh(_unit("box") * np.asarray(size) + (0, 0, z), material)


def cylinder(radius: float, height: float, material: Material, z: float = 0.0) -> Mesh:
    """Upright cylinder with its bottom at `z`."""
    return mesh(_unit("cylinder") * np.array((radius, radius, height)) + (0, 0, z), material)


def wheel(radius: float, width: float, material: Material) -> Mesh:
    """Cylinder lying along y, centred on the origin."""
    upright = _unit("cylinder") * np.array((radius, radius, width)) - (0, 0, width / 2)
    return mesh(upright[..., [0, 2, 1]][:, ::-1], material)


def ellipsoid(radii: ArrayLike, material: Material, z: float, bumps: np.random.Generator | None = None,
              shape: str = "sphere") -> Mesh:  # fmt: skip
    """Ellipsoid centred at height `z`; `bumps` displaces its corners by about a fifth of the radius; the shape "lump"
    has a quarter of the triangles."""
    ball = _unit(shape)
    if bumps is not None:
        corners, inverse = np.unique(ball.reshape(-1, 3), axis=0, return_inverse=True)
        corners = corners * (1 + 0.22 * bumps.standard_normal((len(corners), 1))).clip(0.6, 1.4)
        ball = corners[inverse.reshape(-1)].reshape(-1, 3, 3)
    return mesh(ball * np.asarray(radii) + (0, 0, z), material)


def tube(rings: np.ndarray, material: Material) -> Mesh:
    """Closed body through `rings` [K, R, 3], one behind the other along x, each counter-clockwise seen from +x: faces
    between neighbours, and fans over both ends."""
    after = np.roll(rings, -1, axis=1)
    corners = (rings[:-1], after[:-1], after[1:], rings[1:])
    sides = quads(*(part.reshape(-1, 3) for part in corners))
    ends = [
        np.stack([np.broadcast_to(ring[0], (len(ring) - 2, 3)), ring[1:-1], ring[2:]], 1)[:, ::flip]
        for ring, flip in ((rings[0], -1), (rings[-1], 1))
    ]
    return mesh(np.concatenate([sides, *ends]), material)


def panel(length: float, height: float, material: Material, z: float = 0.0) -> Mesh:
    """Upright rectangle along x in the plane y = 0, without thickness, centred on the z axis, its bottom at `z`."""
    sides = np.array([(-1, 0, 0), (1, 0, 0), (1, 0, 1), (-1, 0, 1)]) * (length / 2, 0, height) + (0, 0, z)
    return mesh(quads(*sides[:, None]), material)


def quads(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Two triangles for each quadrilateral a b c d (arrays [K, 3], counter-clockwise from outside) -> [2 K,
    3, 3]."""
    return np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]).astype(np.float32)
