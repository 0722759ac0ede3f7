"""Templates of plants: trees, bushes, and hedges from clipped to overgrown.

They stand on z = 0 about the z axis, x along the road. Leaves are closed bodies of a porous material.
"""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, cylinder, ellipsoid, join, tube

SUNK = 0.4  # what is long reaches this far into the ground, which is not level [m]


def _leaves(rng: np.random.Generator, loose: float) -> Material:
    """A porous material; `loose`: share of plants that much is seen through."""
    return Material.LOOSE_FOLIAGE if rng.random() < loose else Material.DENSE_FOLIAGE


def tree(rng: np.random.Generator) -> Mesh:
    """A trunk, at times two, and a crown of one to three porous lumps; some crowns hang low."""
    height, radius = rng.uniform(1.2, 3.6), rng.uniform(1.0, 3.4)
    leaves = _leaves(rng, 0.5)
    parts = [cylinder(rng.uniform(0.07, 0.32), height + radius, Material.WOOD, -SUNK)]
    if rng.random() < 0.2:
        parts.append(cylinder(0.1, height + radius, Material.WOOD, -SUNK).moved(*rng.normal(0, 0.3, 2)))
    for _ in range(rng.integers(1, 4)):
        lump = ellipsoid(rng.uniform(0.7, 1.1, 3) * radius, leaves, height + 0.8 * radius, rng)
        parts.append(lump.moved(rng.normal(0, 0.4), rng.normal(0, 0.4), rng.uniform(0, 0.8)))
    return join(parts)


def conifer(rng: np.random.Generator) -> Mesh:
    radius = rng.uniform(0.5, 1.5)
    leaves = rng.choice((Material.DENSE_FOLIAGE, Material.CLIPPED_FOLIAGE))
    parts = [
        ellipsoid((radius * f, radius * f, 0.9), Material(leaves), z, rng)
        for f, z in ((1, 0.9), (0.8, 2.0), (0.5, 3.2))
    ]
    return join([cylinder(0.12, 1.0, Material.WOOD), *parts])


def bush(rng: np.random.Generator) -> Mesh:
    """One to four lumps on the ground, up to the size of a car."""
    leaves = _leaves(rng, 0.5)
    parts = []
    for i in range(rng.integers(1, 5)):
        radii = rng.uniform((0.4, 0.3, 0.3), (1.3, 1.0, 1.1))
        parts.append(ellipsoid(radii, leaves, 0.6 * radii[2], rng).moved(0.8 * i, rng.normal(0, 0.2)))
    return join(parts)


def topiary(rng: np.random.Generator) -> Mesh:
    """A bush cut to a ball or a block, with a firm surface."""
    size = rng.uniform((0.5, 0.5, 0.6), (1.6, 1.4, 1.8))
    if rng.random() < 0.5:
        return ellipsoid(size / 2, Material.CLIPPED_FOLIAGE, 0.45 * size[2], rng)
    return box(size, Material.CLIPPED_FOLIAGE, -0.05)


def thicket(rng: np.random.Generator) -> Mesh:
    """Undergrowth of several metres: lumps of all heights grown into each other, and thin stems."""
    leaves = _leaves(rng, 0.65)
    parts = []
    for _ in range(rng.integers(2, 5)):
        radii = rng.uniform((0.7, 0.6, 0.4), (2.0, 1.5, 1.8))
        parts.append(ellipsoid(radii, leaves, 0.7 * radii[2], rng, "lump").moved(*rng.normal(0, (1.4, 0.6))))
    for _ in range(rng.integers(0, 5)):
        stem = cylinder(rng.uniform(0.02, 0.08), rng.uniform(1.5, 4.0), Material.WOOD, -SUNK)
        parts.append(stem.moved(*rng.normal(0, (1.5, 0.7))))
    return join(parts)


def brushwood(rng: np.random.Generator) -> Mesh:
    """Many small tufts, at all heights, that a beam finds its way between."""
    leaves = _leaves(rng, 0.65)
    parts = []
    for _ in range(rng.integers(7, 15)):
        size, height = rng.uniform(0.15, 0.6), abs(rng.normal(0, 1.0))
        tuft = ellipsoid(rng.uniform(0.6, 1.4, 3) * size, leaves, height + 0.2, rng, "lump")
        parts.append(tuft.moved(rng.normal(0, 1.4), rng.normal(0, 0.6), yaw=rng.uniform(0, 6)))
    return join(parts)


def copse(rng: np.random.Generator) -> Mesh:
    """6 m by 5 m of a wood: trunks, tufts at all heights, and twigs too fine to draw, that stop some of the beams."""
    height = rng.uniform(2.0, 5.0)
    parts = [ellipsoid((3.4, 2.9, 0.6 * height), Material.SPARSE_FOLIAGE, 0.55 * height, rng)]
    leaves = _leaves(rng, 0.5)
    for x, y, z in rng.uniform((-3.0, -2.5, 0.1), (3.0, 2.5, height), (int(rng.integers(10, 22)), 3)).tolist():
        tuft = ellipsoid(rng.uniform(0.2, 0.9, 3), leaves, z, rng, "lump")
        parts.append(tuft.moved(x, y))
    for x, y in rng.uniform((-3.0, -2.5), (3.0, 2.5), (int(rng.integers(2, 7)), 2)).tolist():
        parts.append(cylinder(rng.uniform(0.04, 0.2), 6.0, Material.WOOD, -SUNK).moved(x, y))
    return join(parts)


def grove(rng: np.random.Generator) -> Mesh:
    """6 m by 5 m of a light wood, seen through for many metres: trunks, low branches, saplings, hardly any leaves."""
    parts = []
    for x, y in rng.uniform((-3.0, -2.5), (3.0, 2.5), (int(rng.integers(2, 9)), 2)).tolist():
        trunk = cylinder(rng.uniform(0.03, 0.25), 6.0, Material.WOOD, -SUNK)
        parts.append(trunk.moved(x, y))
    leaves = Material.LOOSE_FOLIAGE if rng.random() < 0.6 else Material.SPARSE_FOLIAGE
    for x, y, z in rng.uniform((-3.0, -2.5, 0.2), (3.0, 2.5, 3.5), (int(rng.integers(2, 10)), 3)).tolist():
        parts.append(ellipsoid(rng.uniform(0.15, 0.6, 3), leaves, z, rng, "lump").moved(x, y))
    if rng.random() < 0.5:
        canopy = rng.uniform(1.2, 3.0)
        parts.append(ellipsoid((3.2, 2.8, 2.0), Material.SPARSE_FOLIAGE, canopy + 2.0, rng))
    return join(parts)


def overgrowth(rng: np.random.Generator) -> Mesh:
    """6 m of a dense band of shrubs and young trees, uncut, from knee-high to out of sight."""
    leaves, rough = _leaves(rng, 0.6), rng.uniform(0.15, 0.4)
    band = hedge_body(rng, (6.0, rng.uniform(1.0, 2.8), rng.uniform(1.0, 5.0)), rough, leaves)
    tufts = [
        ellipsoid(rng.uniform(0.2, 0.7, 3), leaves, rng.uniform(0.2, 2.5), rng, "lump").moved(x, rng.normal(0, 0.9))
        for x in rng.uniform(-2.8, 2.8, int(rng.integers(3, 9))).tolist()
    ]
    return join([band, *tufts])


def tall_grass(rng: np.random.Generator) -> Mesh:
    """A patch of grass and weeds, knee-high."""
    radii = rng.uniform((0.8, 0.4, 0.15), (2.5, 1.2, 0.5))
    return ellipsoid(radii, Material.LOOSE_FOLIAGE, 0.1, rng)


def _hedge(rng: np.random.Generator, length: float, width: float, height: float) -> Mesh:
    """A hedge from clipped and flat to overgrown and ragged."""
    rough = float(rng.choice((0.02, 0.05, 0.1, 0.16)))
    clipped = rough < 0.08 and rng.random() < 0.7
    return hedge_body(rng, (length, width, height), rough, Material.CLIPPED_FOLIAGE if clipped else _leaves(rng, 0.35))


def hedge_body(rng: np.random.Generator, size: tuple[float, float, float], rough: float, leaves: Material) -> Mesh:
    """A closed band along x of `size` (length, width, height), its corners displaced by about `rough` metres."""
    length, width, height = size
    rounding, slant = rng.uniform(0.75, 0.97), rng.uniform(0.7, 1.0)
    # The cross-section, from the bottom left to the bottom right seen from the front, over the top.
    y = np.array((1.0, 1.02, slant, slant * 0.8, 0.0)) * width / 2
    z = np.array((-SUNK, 0.45 * height, rounding * height, height, 1.02 * height))
    ring = np.stack([np.concatenate([y, -y[-2::-1]]), np.concatenate([z, z[-2::-1]])], 1)
    count = max(int(length / 0.45), 2)
    x = np.linspace(-length / 2, length / 2, count + 1)
    # Waves along the hedge: some plants are thicker or taller than others.
    wave = 1 + rough * np.sin(x[:, None] * rng.uniform(0.8, 3.0) + rng.uniform(0, 6, 2)) @ rng.normal(0, 0.5, (2, 1))
    rings = np.empty((len(x), len(ring), 3))
    rings[..., 0] = x[:, None] + rng.normal(0, rough / 2, rings.shape[:2])
    rings[..., 1:] = ring * wave[..., None] + rng.normal(0, rough, (*rings.shape[:2], 2))
    rings[[0, -1], :, 1] *= rng.uniform(0.6, 0.95)
    return tube(rings, leaves)


def hedge(rng: np.random.Generator) -> Mesh:
    """6 m of hedge; in some a plant is missing or has lost its lower leaves."""
    width, height = rng.uniform(0.4, 1.3), rng.uniform(0.5, 2.3)
    if rng.random() < 0.75:
        return _hedge(rng, 6.0, width, height)
    gap, at = rng.uniform(0.4, 1.0), rng.uniform(-1.5, 1.5)
    left, right = at - gap / 2 + 3.0, 3.0 - at - gap / 2
    places = np.arange(at - gap / 2, at + gap / 2, 0.3).tolist()
    stems = [cylinder(0.03, 0.7 * height, Material.WOOD).moved(x) for x in places]
    return join(
        [
            _hedge(rng, left, width, height).moved(left / 2 - 3.0),
            _hedge(rng, right, width, height).moved(3.0 - right / 2),
            *stems,
        ]
    )


def long_hedge(rng: np.random.Generator) -> Mesh:
    """12 m of hedge."""
    return _hedge(rng, 12.0, rng.uniform(0.5, 1.5), rng.uniform(0.6, 2.5))


def hedge_block(rng: np.random.Generator) -> Mesh:
    """A hedge or a group of shrubs as large as a vehicle."""
    return _hedge(rng, *rng.uniform((1.5, 0.9, 0.8), (5.5, 2.4, 2.1)))


def hedged_wall(rng: np.random.Generator) -> Mesh:
    """6 m of low wall with a hedge behind and over it."""
    wall_height, height = rng.uniform(0.3, 1.0), rng.uniform(0.9, 2.0)
    wall = box((6.0, 0.25, wall_height + SUNK), rng.choice((Material.FACADE, Material.CONCRETE)), -SUNK)
    return join([wall, _hedge(rng, 5.9, rng.uniform(0.5, 1.2), height).moved(y=rng.uniform(0.3, 0.6))])


def low_hedge(rng: np.random.Generator, length: float) -> Mesh:
    """The low hedge in a planter of that length."""
    return _hedge(rng, length, 0.7, rng.uniform(0.4, 1.0))
