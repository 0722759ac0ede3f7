"""Templates of people and two-wheelers. They stand on z = 0 about the z axis, x along the road."""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, cylinder, ellipsoid, join, wheel


def person(rng: np.random.Generator) -> Mesh:
    """Somebody standing or walking, at times with a bag, a pram or a child beside."""
    height = rng.uniform(1.5, 1.9)
    stride = rng.uniform(0.0, 0.3)
    legs = [cylinder(0.09, 0.5 * height, Material.CLOTHES).moved(x=s * stride, y=s * 0.09) for s in (-1, 1)]
    torso = ellipsoid((0.15, rng.uniform(0.2, 0.3), 0.22 * height), Material.CLOTHES, 0.66 * height)
    parts = [*legs, torso, ellipsoid((0.1, 0.09, 0.13), Material.CLOTHES, height - 0.13)]
    extra = rng.random()
    if extra < 0.1:
        parts.append(box((0.8, 0.5, 0.5), Material.CLOTHES, 0.4).moved(0.75))
    elif extra < 0.2:
        parts.append(ellipsoid((0.13, 0.18, 0.55), Material.CLOTHES, 0.55, None, "lump").moved(0.0, 0.55))
    return join(parts)


def group(rng: np.random.Generator) -> Mesh:
    """People standing together."""
    return join(
        [
            person(rng).moved(rng.normal(0, 0.7), rng.normal(0, 0.7), 0, rng.uniform(0, 6))
            for _ in range(rng.integers(2, 6))
        ]
    )


def two_wheeler(rng: np.random.Generator) -> Mesh:
    """A bicycle, scooter or motorcycle standing along x."""
    heavy = rng.random() < 0.4
    radius, apart = (rng.uniform(0.24, 0.32), 0.65) if heavy else (rng.uniform(0.29, 0.36), 0.52)
    wheels = [wheel(radius, 0.14 if heavy else 0.04, Material.RUBBER).moved(s * apart, z=radius) for s in (-1, 1)]
    bar = box((0.06, 0.65, 0.06), Material.METAL, z=1.0).moved(x=0.42)
    if heavy:
        body = ellipsoid((0.75, 0.2, 0.28), Material.PAINT, 0.55, None, "sphere")
        return join([*wheels, body, box((0.7, 0.26, 0.12), Material.CLOTHES, 0.75).moved(-0.25), bar])
    frame = [box((1.0, 0.04, 0.06), Material.METAL, z) for z in (0.3, 0.78)]
    posts = [box((0.05, 0.04, 0.55), Material.METAL, 0.35).moved(x) for x in (-0.15, 0.4)]
    return join([*wheels, *frame, *posts, bar])


def cyclist(rng: np.random.Generator) -> Mesh:
    torso = ellipsoid((0.2, 0.22, 0.36), Material.CLOTHES, 1.2).moved(x=-0.1)
    legs = [cylinder(0.08, 0.6, Material.CLOTHES, 0.35).moved(0.05 * s, 0.12 * s) for s in (-1, 1)]
    return join([two_wheeler(rng), torso, *legs, ellipsoid((0.11, 0.1, 0.14), Material.CLOTHES, 1.65)])


def bicycle_rack(rng: np.random.Generator) -> Mesh:
    """Two-wheelers side by side, square to the road."""
    return join(
        [
            two_wheeler(rng).moved(0.6 * i, rng.normal(0, 0.1), yaw=np.pi / 2 + rng.normal(0, 0.12))
            for i in range(rng.integers(3, 8))
        ]
    )
