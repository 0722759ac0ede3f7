"""Everything at the roadside that is not a vehicle: templates of trees, street furniture, people, walls and
buildings.

Templates stand on z = 0 about the z axis, x along the road; they are built once per variant.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from .materials import Material
from .mesh import Mesh, box, cylinder, ellipsoid, join

VARIANTS = 4
_Maker = Callable[[np.random.Generator], Mesh]


def _tree(rng: np.random.Generator) -> Mesh:
    """A trunk and a crown of one to three porous lumps; some crowns hang low."""
    height, radius = rng.uniform(1.4, 3.4), rng.uniform(1.2, 3.4)
    leaves = rng.choice((Material.DENSE_FOLIAGE, Material.LOOSE_FOLIAGE))
    parts = [cylinder(rng.uniform(0.08, 0.28), height + radius, Material.WOOD)]
    for _ in range(rng.integers(1, 4)):
        lump = ellipsoid(rng.uniform(0.7, 1.1, 3) * radius, leaves, height + 0.8 * radius, rng)
        parts.append(lump.moved(rng.normal(0, 0.4), rng.normal(0, 0.4), rng.uniform(0, 0.8)))
    return join(parts)


def _bush(rng: np.random.Generator) -> Mesh:
    """One to three lumps on the ground, up to the size of a car."""
    leaves = rng.choice((Material.DENSE_FOLIAGE, Material.LOOSE_FOLIAGE), p=(0.7, 0.3))
    parts = []
    for i in range(rng.integers(1, 4)):
        radii = rng.uniform((0.5, 0.4, 0.4), (1.4, 1.0, 1.0))
        parts.append(ellipsoid(radii, leaves, 0.6 * radii[2], rng).moved(x=0.9 * i))
    return join(parts)


def _thicket(rng: np.random.Generator) -> Mesh:
    """Undergrowth of several metres: lumps of different heights grown into each other."""
    leaves = rng.choice((Material.DENSE_FOLIAGE, Material.LOOSE_FOLIAGE), p=(0.6, 0.4))
    parts = []
    for _ in range(3):
        radii = rng.uniform((1.0, 0.8, 0.5), (2.0, 1.5, 1.8))
        parts.append(ellipsoid(radii, leaves, 0.7 * radii[2], rng).moved(*rng.normal(0, (1.2, 0.5))))
    return join(parts)


def _hedge(rng: np.random.Generator) -> Mesh:
    return box((6.0, rng.uniform(0.5, 1.3), rng.uniform(0.7, 2.2)), Material.DENSE_FOLIAGE)


def _conifer(rng: np.random.Generator) -> Mesh:
    radius = rng.uniform(0.6, 1.4)
    parts = [
        ellipsoid((radius * f, radius * f, 0.9), Material.DENSE_FOLIAGE, z, rng)
        for f, z in ((1, 1.0), (0.8, 2.1), (0.5, 3.2))
    ]
    return join([cylinder(0.12, 1.0, Material.WOOD), *parts])


def _pole(rng: np.random.Generator) -> Mesh:
    return cylinder(rng.uniform(0.06, 0.18), rng.uniform(4.0, 8.0), rng.choice((Material.METAL, Material.WOOD)))


def _sign(rng: np.random.Generator) -> Mesh:
    height = rng.uniform(1.8, 2.6)
    board = box((0.04, rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)), Material.SIGN, z=height)
    return join([cylinder(0.04, height + 0.4, Material.METAL), board])


def _traffic_light(rng: np.random.Generator) -> Mesh:
    return join([cylinder(0.09, 3.4, Material.METAL), box((0.3, 0.35, 0.95), Material.METAL, z=rng.uniform(2.2, 3.0))])


def _bollard(rng: np.random.Generator) -> Mesh:
    return cylinder(rng.uniform(0.06, 0.15), rng.uniform(0.6, 1.1), rng.choice((Material.METAL, Material.CONCRETE)))


def _cone(rng: np.random.Generator) -> Mesh:
    return join([cylinder(0.17, 0.35, Material.SIGN), cylinder(0.08, rng.uniform(0.6, 0.9), Material.CLOTHES)])


def _bin(rng: np.random.Generator) -> Mesh:
    return box(rng.uniform((0.45, 0.45, 0.8), (0.75, 0.8, 1.2)), rng.choice((Material.METAL, Material.CLOTHES)))


def _bin_row(rng: np.random.Generator) -> Mesh:
    return join(
        [_bin(rng).moved(x=0.8 * i, y=rng.normal(0, 0.1), yaw=rng.normal(0, 0.1)) for i in range(rng.integers(2, 5))]
    )


def _dumpster(rng: np.random.Generator) -> Mesh:
    length, width, height = rng.uniform((1.6, 1.1, 1.1), (3.8, 1.8, 1.8))
    wheels = [box((0.2, 0.1, 0.2), Material.RUBBER).moved(x=s * length * 0.4, y=width * 0.4) for s in (-1, 1)]
    return join([box((length, width, height - 0.2), Material.METAL, z=0.2), *wheels])


def _cabinet(rng: np.random.Generator) -> Mesh:
    return box(rng.uniform((0.6, 0.35, 0.9), (2.2, 0.8, 1.6)), Material.METAL)


def _kiosk(rng: np.random.Generator) -> Mesh:
    length, width, height = rng.uniform((1.8, 1.6, 2.3), (4.0, 2.4, 3.0))
    return join(
        [
            box((length, width, height), Material.FACADE),
            box((length + 0.6, width + 0.6, 0.15), Material.METAL, z=height),
        ]
    )


def _stall(rng: np.random.Generator) -> Mesh:
    """A market stall or bus shelter: a roof on posts, a counter or a back wall."""
    length, width, height = rng.uniform((2.5, 1.3, 2.1), (4.5, 2.2, 2.7))
    posts = [
        cylinder(0.05, height, Material.METAL).moved(x * length / 2, y * width / 2) for x in (-1, 1) for y in (-1, 1)
    ]
    back = box((length, 0.06, 0.8 * height), rng.choice((Material.GLASS, Material.FACADE))).moved(y=width / 2)
    counter = box((0.8 * length, 0.5, rng.uniform(0.45, 1.0)), Material.WOOD)
    return join([*posts, back, counter, box((length + 0.3, width + 0.3, 0.1), Material.METAL, z=height)])


def _container(rng: np.random.Generator) -> Mesh:
    return box((rng.uniform(3.0, 6.1), 2.4, rng.uniform(2.2, 2.6)), Material.METAL)


def _bench(rng: np.random.Generator) -> Mesh:
    length = rng.uniform(1.2, 2.0)
    return join(
        [
            box((length, 0.45, 0.08), Material.WOOD, z=0.42),
            box((length, 0.05, 0.4), Material.WOOD, z=0.5).moved(y=0.22),
            *[box((0.08, 0.4, 0.42), Material.METAL).moved(x=s * length * 0.4) for s in (-1, 1)],
        ]
    )


def _person(rng: np.random.Generator) -> Mesh:
    height = rng.uniform(1.5, 1.9)
    stride = rng.uniform(0.0, 0.3)
    legs = [cylinder(0.09, 0.5 * height, Material.CLOTHES).moved(x=s * stride, y=s * 0.09) for s in (-1, 1)]
    torso = ellipsoid((0.15, 0.24, 0.22 * height), Material.CLOTHES, 0.66 * height)
    return join([*legs, torso, ellipsoid((0.1, 0.09, 0.13), Material.CLOTHES, height - 0.13)])


def _group(rng: np.random.Generator) -> Mesh:
    """People standing together."""
    return join(
        [
            _person(rng).moved(rng.normal(0, 0.7), rng.normal(0, 0.7), 0, rng.uniform(0, 6))
            for _ in range(rng.integers(2, 6))
        ]
    )


def _two_wheeler(rng: np.random.Generator) -> Mesh:
    """A bicycle or motorcycle standing along x."""
    thick = rng.choice((0.05, 0.3))
    wheels = [cylinder(0.32, 0.05, Material.RUBBER).moved(x=s * 0.52, z=0.05, scale=(1, 0.1, 12)) for s in (-1, 1)]
    return join(
        [
            *wheels,
            box((1.1, thick, 0.35), Material.METAL, z=0.45),
            box((0.06, 0.6, 0.06), Material.METAL, z=1.0).moved(x=0.42),
        ]
    )


def _cyclist(rng: np.random.Generator) -> Mesh:
    rider = ellipsoid((0.2, 0.22, 0.42), Material.CLOTHES, 1.2).moved(x=-0.1)
    return join([_two_wheeler(rng), rider, ellipsoid((0.11, 0.1, 0.14), Material.CLOTHES, 1.68)])


def _wall(rng: np.random.Generator) -> Mesh:
    return box((6.0, rng.uniform(0.15, 0.4), rng.uniform(0.4, 2.4)), rng.choice((Material.FACADE, Material.CONCRETE)))


def _fence(rng: np.random.Generator) -> Mesh:
    """A see-through fence between posts."""
    height = rng.uniform(0.9, 2.2)
    posts = [cylinder(0.05, height, Material.METAL).moved(x=x) for x in (-3, 0, 3)]
    return join([*posts, box((6.0, 0.03, height), rng.choice((Material.MESH_FENCE, Material.WOOD), p=(0.7, 0.3)))])


def _guard_rail(rng: np.random.Generator) -> Mesh:
    return join(
        [
            box((6.0, 0.08, 0.32), Material.METAL, z=0.45),
            *[box((0.1, 0.1, 0.6), Material.METAL).moved(x=x) for x in (-2, 0, 2)],
        ]
    )


def _barrier(rng: np.random.Generator) -> Mesh:
    return box((rng.uniform(1.2, 3.0), 0.4, rng.uniform(0.8, 1.1)), rng.choice((Material.CONCRETE, Material.CLOTHES)))


def _planter(rng: np.random.Generator) -> Mesh:
    length, height = rng.uniform(1.0, 3.0), rng.uniform(0.4, 0.8)
    return join(
        [
            box((length, 1.0, height), Material.CONCRETE),
            ellipsoid((length / 2, 0.5, 0.5), Material.DENSE_FOLIAGE, height, rng),
        ]
    )


def _building(rng: np.random.Generator) -> Mesh:
    """A front of 6 m along x whose face lies at y = 0 (the road is at negative y), with bays, steps and a
    canopy."""
    height = rng.uniform(3.5, 12.0)
    parts = [box((6.0, 5.0, height), Material.FACADE).moved(y=2.5)]
    for _ in range(rng.integers(0, 4)):
        bay = box(rng.uniform((0.5, 0.2, 0.4), (2.5, 1.6, height)), Material.FACADE)
        parts.append(bay.moved(x=rng.uniform(-2.2, 2.2)))
    if rng.random() < 0.5:
        parts.append(box((rng.uniform(2, 5), 2.0, 0.12), Material.METAL, z=rng.uniform(2.4, 3.2)))
    return join(parts)


def _house(rng: np.random.Generator) -> Mesh:
    """A detached house of about 10 m along x, its face at y = 0."""
    length, height = rng.uniform(7, 11), rng.uniform(2.8, 6.0)
    porch = box(rng.uniform((1.5, 2.0, 0.3), (4.0, 3.0, 2.8)), Material.FACADE).moved(x=rng.uniform(-2, 2))
    return join([box((length, 8.0, height), Material.FACADE).moved(y=4.0), porch])


MAKERS: dict[str, _Maker] = {
    "tree": _tree, "conifer": _conifer, "bush": _bush, "thicket": _thicket, "hedge": _hedge, "pole": _pole,
    "sign": _sign,
    "traffic_light": _traffic_light, "bollard": _bollard, "cone": _cone, "bin": _bin, "bin_row": _bin_row,
    "dumpster": _dumpster, "cabinet": _cabinet, "kiosk": _kiosk, "stall": _stall, "container": _container,
    "bench": _bench, "person": _person, "group": _group, "two_wheeler": _two_wheeler, "cyclist": _cyclist,
    "wall": _wall, "fence": _fence, "guard_rail": _guard_rail, "barrier": _barrier, "planter": _planter,
    "building": _building, "house": _house,
}  # fmt: skip


@lru_cache
def prop(name: str, variant: int) -> tuple[Mesh, tuple[float, float, float, float]]:
    """A template (variant 0 .. VARIANTS - 1) and its footprint below 2.2 m: x_min, y_min, x_max, y_max."""
    built = MAKERS[name](np.random.default_rng([variant, *name.encode()]))
    low = built.triangles[built.triangles[..., 2].min(1) < 2.2].reshape(-1, 3)
    (x0, y0), (x1, y1) = low[:, :2].min(0).tolist(), low[:, :2].max(0).tolist()
    return built, (x0, y0, x1, y1)
