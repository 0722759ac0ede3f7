"""Templates of walls, fences and barriers, most of them 6 m along x.

They stand on z = 0 about the z axis and reach some way into the ground, which is not level.
"""

from __future__ import annotations

import numpy as np

from .materials import Material
from .mesh import Mesh, box, cylinder, ellipsoid, join, panel
from .vegetation import SUNK


def _stone(rng: np.random.Generator) -> Material:
    return Material(rng.choice((Material.FACADE, Material.CONCRETE)))


def _block(size: tuple[float, float, float], material: Material) -> Mesh:
    """A cuboid on z = 0 that goes on into the ground."""
    return box((size[0], size[1], size[2] + SUNK), material, -SUNK)


def wall(rng: np.random.Generator) -> Mesh:
    """A wall, plain, with a coping, or with pillars; the top may step down a slope."""
    height, thick, stone = rng.uniform(0.3, 2.5), rng.uniform(0.15, 0.4), _stone(rng)
    style = rng.integers(4)
    if style == 0:
        step = rng.uniform(0.1, 0.4)
        return join(
            [_block((2.0, thick, height + i * step), stone).moved(2.0 * i - 2.0) for i in range(3)]
        )
    parts = [_block((6.0, thick, height), stone)]
    if style == 1:
        parts.append(box((6.0, thick + 0.12, 0.08), Material.CONCRETE, height))
    if style == 2:
        parts += [_block((thick + 0.15, thick + 0.15, height + 0.2), stone).moved(x) for x in (-2.9, 0.0, 2.9)]
    return join(parts)


def gate(rng: np.random.Generator) -> Mesh:
    """Two pillars, 1 to 4 m apart, at times with a gate between them and an arch or a cap on top."""
    width, height, side = rng.uniform(1.0, 4.0), rng.uniform(0.9, 2.0), rng.uniform(0.25, 0.6)
    stone = _stone(rng)
    parts = [_block((side, side, height), stone).moved(s * (width + side) / 2) for s in (-1, 1)]
    if rng.random() < 0.6:
        leaf = Material(rng.choice((Material.METAL, Material.MESH_FENCE, Material.WOOD)))
        parts.append(box((width, 0.05, 0.85 * height), leaf, 0.08))
    if rng.random() < 0.4:
        parts += [ellipsoid((0.2, 0.2, 0.2), stone, height + 0.15, None, "lump").moved(p * (width + side) / 2)
                  for p in (-1, 1)]  # fmt: skip
    return join(parts)


def fence(rng: np.random.Generator) -> Mesh:
    """A see-through fence between posts, at times on a low wall."""
    height, base = rng.uniform(0.8, 2.2), max(rng.uniform(-0.5, 0.5), 0.0)
    posts = [cylinder(0.04, height + SUNK, Material.METAL, -SUNK).moved(x) for x in (-3, 0, 3)]
    parts = [*posts, box((6.0, 0.03, height - base), Material.MESH_FENCE, base)]
    return join([*parts, _block((6.0, 0.25, base), _stone(rng))] if base else parts)


def slat_fence(rng: np.random.Generator) -> Mesh:
    """Boards between posts, upright or lying, with gaps that show what stands behind."""
    height, share = rng.uniform(0.7, 2.0), rng.uniform(0.45, 0.95)
    posts = [_block((0.09, 0.09, height), Material.WOOD).moved(x) for x in (-3, -1, 1, 3)]
    if rng.random() < 0.5:
        places = np.arange(-2.95, 3.0, 0.15).tolist()
        boards = [panel(0.15 * share, height - 0.1, Material.WOOD, 0.08).moved(x) for x in places]
        return join([*posts, *boards])
    rows = np.arange(0.1, height - 0.1, 0.2).tolist()
    return join([*posts, *[panel(6.0, 0.2 * share, Material.WOOD, z) for z in rows]])


def screen(rng: np.random.Generator) -> Mesh:
    """A closed wooden or sheet-metal screen as tall as a person."""
    height = rng.uniform(1.5, 2.2)
    material = Material(rng.choice((Material.WOOD, Material.METAL)))
    return join([_block((2.0, 0.06, height - d), material).moved(x) for x, d in ((-2, 0.0), (0, 0.0), (2, 0.15))])


def guard_rail(rng: np.random.Generator) -> Mesh:
    rail = box((6.0, 0.08, 0.32), Material.METAL, z=0.45)
    return join([rail, *[_block((0.1, 0.1, 0.6), Material.METAL).moved(x) for x in (-2, 0, 2)]])


def barrier(rng: np.random.Generator) -> Mesh:
    size = (rng.uniform(1.2, 3.0), 0.4, rng.uniform(0.8, 1.1))
    return box(size, Material(rng.choice((Material.CONCRETE, Material.CLOTHES))))


def concrete_barrier(rng: np.random.Generator) -> Mesh:
    """6 m of a motorway's middle barrier: a wide foot and a narrow top."""
    height = rng.uniform(0.75, 1.2)
    return join([_block((6.0, 0.6, 0.25), Material.CONCRETE), box((6.0, 0.28, height), Material.CONCRETE)])


def noise_wall(rng: np.random.Generator) -> Mesh:
    """6 m of a tall wall of panels between posts."""
    height = rng.uniform(2.5, 4.5)
    posts = [_block((0.25, 0.3, height), Material.METAL).moved(x) for x in (-3, 0)]
    return join([_block((6.0, 0.12, height), Material(rng.choice((Material.CONCRETE, Material.WOOD)))), *posts])
