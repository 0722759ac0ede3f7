"""What stands where a detector saw a vehicle and nobody labelled anything: told by the shape of the points alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from scipy.spatial import cKDTree

REACH = 6.0
"""Metres around a detection's centre that are looked at."""
LOWEST, HIGHEST = 0.3, 3.2
"""Heights above the ground, in metres, of what stands on it."""
FEWEST = 10
"""Points that a shape needs."""
LOW = 0.75
"""Metres above the ground up to which something is low: a kerb, a slope, a bush cut short."""
CELL = 0.4
"""Side of the cells whose neighbourhood makes one thing of points, metres."""
NEIGHBOURS = 12
"""Points whose scatter about their plane is measured."""
SCATTERED = 0.05
"""Share of the variance across the local plane above which something is vegetation rather than a surface."""
LONG, TALL, SMALL = 7.0, 2.2, 1.2
"""Metres: longer or higher than a car, and smaller than one."""
KINDS = (
    *("hardly any points", "low: kerb, slope or ground", "pole or other small thing", "vegetation: scattered"),
    *("surface longer or higher than a car: wall, facade, fence", "surface of a car's size"),
)


@dataclass(frozen=True)
class Shape:
    """The thing under a box, as far as it reaches within `REACH`.

    Attributes:
        points: number of them in the box's footprint that stand on the ground.
        top: their height above the ground, metres (95th percentile).
        length: metres along the thing's main direction.
        scatter: median share of the variance across the local plane, 0 (a surface) to 1/3 (no shape).
    """

    points: int
    top: float
    length: float
    scatter: float

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        few, low, small, vegetation, wall, car_like = KINDS
        if self.points < FEWEST:
            return few
        if self.top < LOW:
            return low
        if self.length < SMALL:
            return small
        if self.scatter > SCATTERED:
            return vegetation
        return wall if self.length >= LONG or self.top >= TALL else car_like


def shape_under(box: NDArray, points: NDArray) -> Shape:
    """The shape of what stands in the footprint of a box [7], of the points [P, >= 3] of its frame (grid frame)."""
    near = points[np.hypot(points[:, 0] - box[0], points[:, 1] - box[1]) < REACH, :3].astype(np.float64)
    if not len(near):
        return Shape(0, 0.0, 0.0, 0.0)
    heights = near[:, 2] - np.percentile(near[:, 2], 5)
    cosine, sine = np.cos(box[6]), np.sin(box[6])
    x, y = (near[:, :2] - box[:2]).T
    inside = (np.abs(x * cosine + y * sine) <= box[3] / 2) & (np.abs(y * cosine - x * sine) <= box[4] / 2)
    stands = (heights > LOWEST) & (heights < HIGHEST)
    mine = inside & stands
    if mine.sum() < FEWEST:
        top = float(np.percentile(heights[inside], 95)) if inside.any() else 0.0
        return Shape(int(mine.sum()), top, 0.0, 0.0)
    top = float(np.percentile(heights[mine], 95))
    return Shape(int(mine.sum()), top, _length(near[stands, :2], near[mine, :2]), _scatter(near[mine], near[stands]))


def _length(standing: NDArray, mine: NDArray) -> float:
    """Of the thing of which most of ``mine`` [K, 2] are a part, along its main direction."""
    low = standing.min(0)
    cells = ((standing - low) / CELL).astype(np.int64)
    raster = np.zeros(cells.max(0) + 1, bool)
    raster[tuple(cells.T)] = True
    things, _ = label(raster, np.ones((3, 3)))
    numbers = things[tuple(((mine - low) / CELL).astype(np.int64).T)]
    thing = np.argwhere(things == np.bincount(numbers).argmax()) * CELL
    centred = thing - thing.mean(0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    return float(np.ptp(centred @ direction)) + CELL


def _scatter(mine: NDArray, standing: NDArray) -> float:
    """Median over points ``mine`` of the share of variance of their neighbours across their plane."""
    count = min(NEIGHBOURS, len(standing))
    _, neighbours = cKDTree(standing).query(mine, count)
    around = standing[neighbours]
    centred = around - around.mean(1, keepdims=True)
    variances = np.linalg.eigvalsh(np.einsum("mki,mkj->mij", centred, centred))
    return float(np.median(variances[:, 0] / np.maximum(variances.sum(1), 1e-12)))
