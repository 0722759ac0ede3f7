"""Everything at the roadside that is not a vehicle, by name: templates built once per variant.

Templates stand on z = 0 about the z axis, x along the road; those of buildings have their face at y = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from . import buildings, furniture, people, vegetation, walls
from .mesh import Mesh

VARIANTS = 8
LOW = 2.2  # what is lower takes up ground [m]
_Maker = Callable[[np.random.Generator], Mesh]

MAKERS: dict[str, _Maker] = {
    "tree": vegetation.tree, "conifer": vegetation.conifer, "bush": vegetation.bush, "topiary": vegetation.topiary,
    "thicket": vegetation.thicket, "brushwood": vegetation.brushwood, "tall_grass": vegetation.tall_grass,
    "hedge": vegetation.hedge, "long_hedge": vegetation.long_hedge, "hedge_block": vegetation.hedge_block,
    "hedged_wall": vegetation.hedged_wall, "overgrowth": vegetation.overgrowth, "copse": vegetation.copse,
    "grove": vegetation.grove,
    "wall": walls.wall, "gate": walls.gate, "fence": walls.fence, "slat_fence": walls.slat_fence,
    "screen": walls.screen, "guard_rail": walls.guard_rail, "barrier": walls.barrier,
    "concrete_barrier": walls.concrete_barrier, "noise_wall": walls.noise_wall,
    "building": buildings.building, "house": buildings.house, "garage": buildings.garage, "shed": buildings.shed,
    "hall": buildings.hall, "hut": buildings.hut, "stairs": buildings.stairs,
    "pole": furniture.pole, "sign": furniture.sign, "traffic_light": furniture.traffic_light,
    "bollard": furniture.bollard, "cone": furniture.cone, "bin": furniture.bin_, "bin_row": furniture.bin_row,
    "dumpster": furniture.dumpster, "cabinet": furniture.cabinet, "stall": furniture.stall,
    "container": furniture.container, "bench": furniture.bench, "planter": furniture.planter,
    "stack": furniture.stack, "heap": furniture.heap, "skip": furniture.skip, "phone_box": furniture.phone_box,
    "cafe": furniture.cafe, "works": furniture.works, "island": furniture.island,
    "person": people.person, "group": people.group, "two_wheeler": people.two_wheeler, "cyclist": people.cyclist,
    "bicycle_rack": people.bicycle_rack,
}  # fmt: skip


SOFT = frozenset(
    ("tree", "conifer", "bush", "thicket", "brushwood", "tall_grass", "hedge_block", "overgrowth", "copse", "grove")
)
"""Plants that may grow into each other."""


@cache
def prop(name: str, variant: int) -> tuple[Mesh, tuple[float, float, float, float]]:
    """A template (variant 0 .. VARIANTS - 1) and its footprint below `LOW`: x_min, y_min, x_max, y_max."""
    built = MAKERS[name](np.random.default_rng([variant, *name.encode()]))
    low = built.triangles[built.triangles[..., 2].min(1) < LOW].reshape(-1, 3)
    (x0, y0), (x1, y1) = low[:, :2].min(0).tolist(), low[:, :2].max(0).tolist()
    return built, (x0, y0, x1, y1)
