"""Surface materials of the simulated world: how much they reflect and what passes through them.

Reflectances are diffuse reflectances near 905 nm (asphalt 0.1-0.2, concrete 0.3, foliage 0.4, car paint
0.01-0.8).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Material(IntEnum):
    """What a triangle is made of; the value is its row in the tables below."""

    ASPHALT = 0
    CONCRETE = 1
    GRASS = 2
    MARKING = 3
    FACADE = 4
    METAL = 5
    SIGN = 6
    WOOD = 7
    DENSE_FOLIAGE = 8
    LOOSE_FOLIAGE = 9
    CLOTHES = 10
    PAINT = 11
    GLASS = 12
    RUBBER = 13
    PLATE = 14
    INTERIOR = 15
    MESH_FENCE = 16
    CLIPPED_FOLIAGE = 17
    SPARSE_FOLIAGE = 18


class Surface(NamedTuple):
    """reflectance: mean; spread: log-normal sigma between objects; gloss: exponent of the incidence cosine;
    roughness: height of the relief [m]; passing: probability that a beam goes through; free_path: mean
    depth that a beam reaches inside a porous volume [m], 0 for a surface; speckle: log-normal sigma
    between returns; swallowing: probability that a beam is lost."""

    reflectance: float
    spread: float
    gloss: float = 1.0
    roughness: float = 0.0
    passing: float = 0.0
    free_path: float = 0.0
    speckle: float = 0.25
    swallowing: float = 0.0


SURFACES: dict[Material, Surface] = {
    Material.ASPHALT: Surface(0.12, 0.4, 0.35, 0.003),
    Material.CONCRETE: Surface(0.25, 0.3, 0.35, 0.004),
    Material.GRASS: Surface(0.35, 0.25, 0.3, 0.04),
    Material.MARKING: Surface(0.55, 0.25, 0.5, 0.003),
    Material.FACADE: Surface(0.35, 0.5, 1.0, 0.02),
    Material.METAL: Surface(0.3, 0.5, 1.5),
    Material.SIGN: Surface(3.0, 0.4, 0.5),
    Material.WOOD: Surface(0.25, 0.3, 0.7, 0.01),
    Material.DENSE_FOLIAGE: Surface(0.35, 0.3, 0.3, 0.0, 0.0, 0.22),
    Material.CLIPPED_FOLIAGE: Surface(0.35, 0.3, 0.3, 0.0, 0.0, 0.09),
    Material.LOOSE_FOLIAGE: Surface(0.3, 0.3, 0.3, 0.0, 0.0, 1.1),
    Material.SPARSE_FOLIAGE: Surface(0.25, 0.3, 0.3, 0.0, 0.0, 3.5),
    Material.CLOTHES: Surface(0.25, 0.7, 0.7, 0.01),
    Material.PAINT: Surface(1.0, 0.0, 2.2, speckle=0.7),
    Material.GLASS: Surface(0.12, 0.6, 3.0, passing=0.3, swallowing=0.6),
    Material.RUBBER: Surface(0.07, 0.4, 1.0, 0.005),
    Material.PLATE: Surface(2.0, 0.6, 0.3),
    Material.INTERIOR: Surface(0.15, 0.5, 1.0, 0.03),
    Material.MESH_FENCE: Surface(0.3, 0.4, 0.5, 0.0, 0.65),
}

REFLECTANCE = np.array([SURFACES[m].reflectance for m in Material], np.float32)
SPREAD = np.array([SURFACES[m].spread for m in Material], np.float32)
GLOSS = np.array([SURFACES[m].gloss for m in Material], np.float32)
ROUGHNESS = np.array([SURFACES[m].roughness for m in Material], np.float32)
PASSING = np.array([SURFACES[m].passing for m in Material], np.float32)
SPECKLE = np.array([SURFACES[m].speckle for m in Material], np.float32)
SWALLOWING = np.array([SURFACES[m].swallowing for m in Material], np.float32)
FREE_PATH = np.array([SURFACES[m].free_path for m in Material], np.float32)


def sample_reflectances(rng: np.random.Generator) -> np.ndarray:
    """Reflectance of every material on one object, float32 [materials]: dark, coloured or light car paint
    included."""
    table = REFLECTANCE * np.exp(SPREAD * rng.standard_normal(len(SPREAD), dtype=np.float32))
    low, high = ((0.01, 0.06), (0.06, 0.3), (0.3, 0.8))[rng.choice(3, p=(0.35, 0.35, 0.3))]
    table[Material.PAINT] = rng.uniform(low, high)
    return table
