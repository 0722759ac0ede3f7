"""Templates of street furniture and of what is left, stored or built at the roadside, up to the size of a truck.

They stand on z = 0 about the z axis, x along the road.
"""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, cylinder, ellipsoid, join, tube
from .vegetation import low_hedge


def pole(rng: np.random.Generator) -> Mesh:
    return cylinder(rng.uniform(0.06, 0.18), rng.uniform(4.0, 8.0), rng.choice((Material.METAL, Material.WOOD)))


def sign(rng: np.random.Generator) -> Mesh:
    height = rng.uniform(1.8, 2.6)
    board = box((0.04, rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.9)), Material.SIGN, z=height)
    return join([cylinder(0.04, height + 0.4, Material.METAL), board])


def traffic_light(rng: np.random.Generator) -> Mesh:
    return join([cylinder(0.09, 3.4, Material.METAL), box((0.3, 0.35, 0.95), Material.METAL, z=rng.uniform(2.2, 3.0))])


def bollard(rng: np.random.Generator) -> Mesh:
    return cylinder(rng.uniform(0.06, 0.15), rng.uniform(0.6, 1.1), rng.choice((Material.METAL, Material.CONCRETE)))


def cone(rng: np.random.Generator) -> Mesh:
    return join([cylinder(0.17, 0.35, Material.SIGN), cylinder(0.08, rng.uniform(0.6, 0.9), Material.CLOTHES)])


def bin_(rng: np.random.Generator) -> Mesh:
    return box(rng.uniform((0.45, 0.45, 0.8), (0.75, 0.8, 1.2)), rng.choice((Material.METAL, Material.CLOTHES)))


def bin_row(rng: np.random.Generator) -> Mesh:
    return join(
        [bin_(rng).moved(x=0.8 * i, y=rng.normal(0, 0.1), yaw=rng.normal(0, 0.1)) for i in range(rng.integers(2, 5))]
    )


def dumpster(rng: np.random.Generator) -> Mesh:
    length, width, height = rng.uniform((1.6, 1.1, 1.1), (3.8, 1.8, 1.8))
    wheels = [box((0.2, 0.1, 0.2), Material.RUBBER).moved(x=s * length * 0.4, y=width * 0.4) for s in (-1, 1)]
    return join([box((length, width, height - 0.2), Material.METAL, z=0.2), *wheels])


def cabinet(rng: np.random.Generator) -> Mesh:
    return box(rng.uniform((0.6, 0.35, 0.9), (2.2, 0.8, 1.6)), Material.METAL)


def stall(rng: np.random.Generator) -> Mesh:
    """A market stall or bus shelter: a roof on posts, a counter or a back wall."""
    length, width, height = rng.uniform((2.5, 1.3, 2.1), (4.5, 2.2, 2.7))
    posts = [
        cylinder(0.05, height, Material.METAL).moved(x * length / 2, y * width / 2) for x in (-1, 1) for y in (-1, 1)
    ]
    back = box((length, 0.06, 0.8 * height), rng.choice((Material.GLASS, Material.FACADE))).moved(y=width / 2)
    counter = box((0.8 * length, 0.5, rng.uniform(0.45, 1.0)), Material.WOOD)
    return join([*posts, back, counter, box((length + 0.3, width + 0.3, 0.1), Material.METAL, z=height)])


def container(rng: np.random.Generator) -> Mesh:
    return box((rng.uniform(3.0, 6.1), 2.4, rng.uniform(2.2, 2.6)), Material.METAL)


def bench(rng: np.random.Generator) -> Mesh:
    length = rng.uniform(1.2, 2.0)
    return join(
        [
            box((length, 0.45, 0.08), Material.WOOD, z=0.42),
            box((length, 0.05, 0.4), Material.WOOD, z=0.5).moved(y=0.22),
            *[box((0.08, 0.4, 0.42), Material.METAL).moved(x=s * length * 0.4) for s in (-1, 1)],
        ]
    )


def planter(rng: np.random.Generator) -> Mesh:
    length, height = rng.uniform(0.8, 3.2), rng.uniform(0.35, 0.9)
    if rng.random() < 0.3:
        plants = low_hedge(rng, length - 0.1)
    else:
        plants = ellipsoid((length / 2, 0.5, 0.5), Material.DENSE_FOLIAGE, 0.0, rng)
    return join([box((length, 1.0, height), Material.CONCRETE), plants.moved(z=height)])


def stack(rng: np.random.Generator) -> Mesh:
    """Pallets, bales, boxes or timber piled up to three high."""
    size = rng.uniform((0.8, 0.8, 0.3), (2.4, 1.2, 0.9))
    material = Material(rng.choice((Material.WOOD, Material.CONCRETE, Material.CLOTHES, Material.METAL)))
    across = int(rng.integers(1, 4))
    parts = []
    for column in range(across):
        for level in range(rng.integers(1, 4)):
            place = (column - (across - 1) / 2) * (size[0] + 0.05), rng.normal(0, 0.05), level * size[2]
            parts.append(box(size, material).moved(*place, yaw=rng.normal(0, 0.04)))
    return join(parts)


def heap(rng: np.random.Generator) -> Mesh:
    """A heap of earth or gravel, or goods under a cover."""
    radii = rng.uniform((0.8, 0.7, 0.5), (2.6, 1.6, 1.6))
    material = Material(rng.choice((Material.CONCRETE, Material.GRASS, Material.CLOTHES)))
    return ellipsoid(radii, material, 0.1, rng)


def skip(rng: np.random.Generator) -> Mesh:
    """An open waste container with sloping ends, at times full."""
    low, high, width, height = rng.uniform((1.6, 2.6, 1.4, 1.0), (3.6, 5.5, 2.2, 1.8))
    section = np.array([(1, 0), (1, 1), (-1, 1), (-1, 0)]) * (width / 2, height - 0.1) + (0, 0.1)
    rings = np.stack([np.column_stack([np.full(4, x), section]) for x in (-high / 2, -low / 2, low / 2, high / 2)])
    rings[[0, -1], 0, 1:], rings[[0, -1], 3, 1:] = (width / 2, 0.6 * height), (-width / 2, 0.6 * height)
    shell = tube(rings, Material.METAL)
    if rng.random() < 0.6:
        return shell
    return join([shell, heap(rng).moved(z=height - 0.3, scale=(0.4 * low, 0.4 * width, 0.6))])


def phone_box(rng: np.random.Generator) -> Mesh:
    side, height = rng.uniform(0.8, 1.1), rng.uniform(2.1, 2.5)
    posts = [box((0.06, 0.06, height), Material.METAL).moved(x * side / 2, y * side / 2)
             for x in (-1, 1) for y in (-1, 1)]  # fmt: skip
    panes = box((side, side, height - 0.2), Material.GLASS, 0.1)
    return join([*posts, panes, box((side, side, 0.12), Material.METAL, height)])


def cafe(rng: np.random.Generator) -> Mesh:
    """Tables and chairs, some under a parasol."""
    parts = []
    for i in range(rng.integers(1, 4)):
        table = [cylinder(0.04, 0.7, Material.METAL), cylinder(rng.uniform(0.3, 0.5), 0.03, Material.WOOD, 0.7)]
        for turn in rng.uniform(0, 6.28, rng.integers(1, 4)):
            chair = [box((0.42, 0.42, 0.06), Material.WOOD, 0.42), box((0.04, 0.42, 0.45), Material.WOOD, 0.45)]
            chair = [chair[0], chair[1].moved(0.2), box((0.3, 0.3, 0.42), Material.MESH_FENCE)]
            table.append(join(chair).moved(0.75 * np.cos(turn), 0.75 * np.sin(turn), yaw=turn))
        if rng.random() < 0.4:
            table += [cylinder(0.03, 2.3, Material.METAL), box((2.4, 2.4, 0.25), Material.CLOTHES, 2.2)]
        parts.append(join(table).moved(2.1 * i, rng.normal(0, 0.15)))
    return join(parts)


def works(rng: np.random.Generator) -> Mesh:
    """A fenced excavation: barrier boards on feet around a heap."""
    length, width, height = rng.uniform((2.0, 1.2, 0.9), (5.0, 2.2, 1.1))
    parts = [heap(rng).moved(scale=(0.4, 0.4, 0.5))]
    for x, y, long, yaw in ((0, width / 2, length, 0.0), (0, -width / 2, length, 0.0),
                            (length / 2, 0, width, np.pi / 2), (-length / 2, 0, width, np.pi / 2)):  # fmt: skip
        board = join([box((long, 0.03, 0.25), Material.SIGN, z) for z in (0.15, height - 0.25)])
        feet = [box((0.06, 0.5, 0.1), Material.RUBBER).moved(s * long * 0.45) for s in (-1, 1)]
        parts.append(join([board, *feet]).moved(x, y, yaw=yaw))
    return join(parts)


def island(rng: np.random.Generator) -> Mesh:
    """A kerbed traffic island with signs or bollards."""
    length, width = rng.uniform((2.0, 0.8), (7.0, 1.8))
    parts = [box((length, width, 0.55), Material.CONCRETE, z=-0.4)]
    for x in (-0.4, 0.4):
        part = sign(rng) if rng.random() < 0.5 else bollard(rng)
        parts.append(part.moved(x * length, z=0.1))
    return join(parts)
