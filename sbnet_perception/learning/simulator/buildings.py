"""Templates of buildings: fronts with set-back windows, doors, bays and stairs; detached houses, garages and halls.

The face lies along x at y = 0, the road at negative y.
"""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, cylinder, join, panel, quads
from .vegetation import SUNK

STOREY = 2.9  # height of a floor [m]
DETAILED = 2  # floors with windows; what is above is hardly ever hit


def _beams(rng: np.random.Generator, length: float, low: float, depth: float, doors: bool) -> list[Mesh]:
    """One floor's openings in front of a plane at y = `depth`: piers, the wall below and above the windows, glass."""
    count = max(int(length / rng.uniform(1.8, 3.5)), 1)
    pitch = length / count
    width, sill, top = rng.uniform(0.4, 0.75) * pitch, rng.uniform(0.5, 1.1), rng.uniform(2.0, 2.4)
    wall = Material.FACADE
    parts = [box((length, depth, STOREY - top), wall, low + top).moved(y=depth / 2)]
    middles = (np.arange(count) + 0.5) * pitch - length / 2
    edges = [-length / 2]
    for middle in middles:
        door = doors and rng.random() < 0.3
        opening = min(width, 1.2) if door else width
        if not door:
            parts.append(box((opening, depth, sill), wall, low).moved(middle, depth / 2))
        glass = Material.WOOD if door else Material.GLASS
        parts.append(panel(opening, top - (0 if door else sill), glass, low + (0 if door else sill)).moved(
            middle, 0.8 * depth))  # fmt: skip
        edges += [middle - opening / 2, middle + opening / 2]
    edges.append(length / 2)
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        parts.append(box((b - a, depth, top), wall, low).moved((a + b) / 2, depth / 2))
    return parts


def front(rng: np.random.Generator, length: float, height: float, deep: float) -> Mesh:
    """A body behind a face with openings; `deep`: from the face to the back [m]."""
    recess = rng.uniform(0.08, 0.3)
    parts = [box((length, deep - recess, height + SUNK), Material.FACADE, -SUNK).moved(y=(deep + recess) / 2)]
    floors = min(max(int(height / STOREY), 1), DETAILED)
    for floor in range(floors):
        parts += _beams(rng, length, floor * STOREY, recess, floor == 0)
    if height > floors * STOREY:
        parts.append(box((length, recess, height - floors * STOREY), Material.FACADE, floors * STOREY).moved(
            y=recess / 2))  # fmt: skip
    parts.append(box((length, recess, SUNK), Material.FACADE, -SUNK).moved(y=recess / 2))
    return join(parts)


def stairs(rng: np.random.Generator) -> Mesh:
    """Steps up to a door at y = 0, at times with walls beside them."""
    steps, width = int(rng.integers(2, 7)), rng.uniform(1.0, 2.6)
    parts = [box((width, 0.28 * (steps - i), 0.17 * (i + 1)), Material.CONCRETE).moved(y=-0.14 * (steps - i))
             for i in range(steps)]  # fmt: skip
    if rng.random() < 0.5:
        cheek = box((0.2, 0.28 * steps, 0.17 * steps + rng.uniform(0.1, 0.9)), Material.FACADE)
        parts += [cheek.moved(s * (width / 2 + 0.1), -0.14 * steps) for s in (-1, 1)]
    return join(parts)


def porch(rng: np.random.Generator) -> Mesh:
    """A roof on posts before the door, or a closed one."""
    length, deep, height = rng.uniform((1.4, 0.8, 2.1), (4.0, 2.5, 2.8))
    if rng.random() < 0.3:
        return box((length, deep, height), Material.FACADE).moved(y=-deep / 2)
    post = cylinder(rng.uniform(0.05, 0.2), height, Material.FACADE)
    roof = box((length + 0.3, deep + 0.2, 0.15), Material.WOOD, height).moved(y=-deep / 2)
    parapet = box((length, 0.1, rng.uniform(0.6, 1.0)), Material.WOOD).moved(y=-deep)
    posts = [post.moved(s * length / 2, -deep) for s in (-1, 1)]
    return join([roof, *posts, parapet] if rng.random() < 0.4 else [roof, *posts])


def _extras(rng: np.random.Generator, length: float, height: float) -> list[Mesh]:
    """What stands or hangs before a front: bays, stairs, porches, balconies, awnings, pipes."""
    parts = []
    at = (length / 2 - 1.0) * rng.uniform(-1, 1, 4)
    if rng.random() < 0.35:
        deep = rng.uniform(0.3, 1.2)
        bay = front(rng, rng.uniform(1.2, 2.6), min(height, rng.uniform(2.6, 7.0)), deep + 0.3)
        parts.append(bay.moved(at[0], -deep))
    if rng.random() < 0.35:
        parts.append(stairs(rng).moved(at[1]))
    if rng.random() < 0.25:
        parts.append(porch(rng).moved(at[2]))
    if rng.random() < 0.3:
        wide, deep = rng.uniform(1.5, 3.5), rng.uniform(0.8, 1.6)
        parts.append(box((wide, deep, 0.15), Material.CONCRETE, 2.6).moved(at[3], -deep / 2))
        rail = Material(rng.choice((Material.MESH_FENCE, Material.FACADE)))
        parts.append(box((wide, 0.05, 1.0), rail, 2.75).moved(at[3], -deep))
    if rng.random() < 0.2:
        parts.append(box((rng.uniform(2, 5), rng.uniform(0.8, 2.0), 0.1), Material.CLOTHES, rng.uniform(2.3, 3.0)))
    parts += [cylinder(0.05, height, Material.METAL).moved(x, -0.08) for x in at[: rng.integers(0, 3)]]
    return parts


def building(rng: np.random.Generator) -> Mesh:
    """6 m of the front of a terrace or block."""
    height = rng.uniform(3.2, 12.0)
    return join([front(rng, 6.0, height, 5.0), *_extras(rng, 6.0, height)])


def _gable(length: float, deep: float, low: float, high: float, across: bool) -> Mesh:
    """A ridged roof with eaves over a body whose face lies at y = 0; `across`: the ridge runs along y."""
    a, b = (deep / 2 + 0.3, length / 2 + 0.3) if across else (length / 2 + 0.3, deep / 2 + 0.3)
    corners = np.array([(-a, -b, low), (a, -b, low), (a, b, low), (-a, b, low), (-a, 0, high), (a, 0, high)])
    faces = quads(*corners[[[0, 1, 5, 4], [2, 3, 4, 5], [3, 2, 1, 0]]].transpose(1, 0, 2))
    ends = corners[[[0, 4, 3], [1, 2, 5]]]
    roof = Mesh(np.concatenate([faces, ends]).astype(np.float32), np.full(8, Material.FACADE, np.uint8))
    return roof.moved(y=deep / 2, yaw=np.pi / 2 if across else 0.0)


def house(rng: np.random.Generator) -> Mesh:
    """A detached house with openings on the face and both sides, and what belongs to it."""
    length, deep, height = rng.uniform((6.5, 6.5, 2.6), (11.5, 10.0, 6.2))
    parts = [front(rng, length, height, deep)]
    for side in (-1, 1):
        flank = front(rng, deep - 0.6, height, 0.5).moved(y=-0.4, yaw=side * np.pi / 2)
        parts.append(flank.moved(side * length / 2, deep / 2))
    parts.append(_gable(length, deep, height, height + rng.uniform(1.5, 4.0), rng.random() < 0.5))
    parts += _extras(rng, length, height)
    if rng.random() < 0.3:
        wing = rng.uniform((2.5, 1.5, 2.4), (4.5, 4.0, 3.2))
        parts.append(front(rng, wing[0], wing[2], wing[1] + 0.5).moved((length - wing[0]) / 2, -wing[1]))
    return join(parts)


def garage(rng: np.random.Generator) -> Mesh:
    """A garage or carport for one or two vehicles."""
    width, height = rng.choice((2.9, 5.6)) * rng.uniform(0.95, 1.15), rng.uniform(2.2, 2.7)
    if rng.random() < 0.3:
        posts = [box((0.12, 0.12, height), Material.WOOD).moved(s * width / 2, y) for s in (-1, 1) for y in (0.1, 4.5)]
        return join([*posts, box((width + 0.3, 5.2, 0.15), Material.WOOD, height).moved(y=2.4)])
    frame = [
        box((0.25, 0.2, height), Material.FACADE).moved(s * (width / 2 - 0.12), 0.1) for s in (-1, 1)
    ]
    body = box((width, 5.8, height + SUNK), Material.METAL, -SUNK).moved(y=3.1)
    return join([*frame, box((width, 0.2, 0.3), Material.FACADE, height - 0.3).moved(y=0.1), body])


def shed(rng: np.random.Generator) -> Mesh:
    """A garden shed or a small outhouse, as large as a car or a van."""
    length, deep, height = rng.uniform((1.5, 1.4, 1.6), (4.5, 2.6, 2.4))
    material = Material(rng.choice((Material.WOOD, Material.METAL, Material.FACADE)))
    roof = _gable(length, deep, height, height + rng.uniform(0.1, 0.8), rng.random() < 0.3)
    return join([box((length, deep, height + SUNK), material, -SUNK).moved(y=deep / 2), roof])


def hall(rng: np.random.Generator) -> Mesh:
    """12 m of an industrial hall with gates, ramps and a canopy."""
    height = rng.uniform(4.0, 9.0)
    parts = [box((12.0, 8.0, height + SUNK), Material(rng.choice((Material.METAL, Material.FACADE))), -SUNK)]
    parts[0] = parts[0].moved(y=4.2)
    for x in np.arange(-6.0, 6.1, rng.choice((3.0, 4.0, 6.0))):
        parts.append(box((rng.uniform(0.3, 0.8), 0.25, height), Material.CONCRETE).moved(x, 0.1))
    for x in rng.uniform(-4.5, 4.5, rng.integers(0, 3)):
        parts.append(box(rng.uniform((2.5, 0.6, 0.9), (4.0, 2.5, 1.3)), Material.CONCRETE).moved(x, -0.5))
    if rng.random() < 0.4:
        parts.append(box((9.0, 3.0, 0.3), Material.METAL, rng.uniform(3.5, 4.5)).moved(y=-1.2))
    return join(parts)


def hut(rng: np.random.Generator) -> Mesh:
    """A kiosk or site hut: a box with an opening and a roof that stands out."""
    length, width, height = rng.uniform((1.6, 1.5, 2.2), (4.0, 2.5, 3.0))
    roof = box((length + 0.6, width + 0.6, 0.15), Material.METAL, z=height).moved(y=width / 2)
    return join([front(rng, length, height, width), roof])
