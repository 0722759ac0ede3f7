"""What clouds look like in numbers, by which real and simulated ones are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import convolve

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.ground import height_above_ground
from sbnet_perception.learning.frames import FULL_REFLECTANCE, LabelledFrame, in_grid
from sbnet_perception.learning.simulator.geometry import inside

RANGES = (0, 10, 20, 30, 50, 70)
"""Metres from the origin in the plane between which points and vehicles are counted."""
CAR_LENGTHS = (3.2, 5.6)
"""Vehicles as long as this are the ones whose points are counted: cars and small vans."""
FEWEST = 5
"""Vehicles with fewer points are left out: who labels them differs between data sets."""
GROUND = 0.2
"""Points below this height above the ground are ground, metres."""
FLAT_CELL, STRUCTURE_CELL = 1.0, 0.4
"""Sides in metres of the cells whose roughness, and whose highest point, is looked at."""
PLANE_POINTS = 12
"""Fewest ground points of a cell whose roughness is measured."""
TOPS = (0.3, 1.0, 2.2)
"""Heights above the ground in metres at which the highest point of a cell makes it ground, low, medium or tall."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """One figure of a cloud.

    Attributes:
        group: what it is about, with the unit.
        name: which one of the group.
        by_ratio: two values are compared by their ratio, otherwise by their difference.
    """

    group: str
    name: str
    by_ratio: bool = True


@dataclass(frozen=True)
class Estimate:
    """Mean of a figure over the frames that have it (NaN if none has), its standard deviation between them (NaN for
    fewer than two), and their number."""

    mean: float
    spread: float
    frames: int


def estimates(frames: Iterable[LabelledFrame], grid: Grid) -> dict[Quantity, Estimate]:
    """The figures of one or more frames, in a fixed order; only what lies in the grid counts."""
    of_frames = [cloud_figures(frame, grid) for frame in frames]
    return {quantity: _estimate([figures[quantity] for figures in of_frames]) for quantity in of_frames[0]}


def _estimate(values: list[float]) -> Estimate:
    known = np.array(values)[np.isfinite(values)]
    mean = float(np.mean(known)) if len(known) else math.nan
    return Estimate(mean, float(np.std(known, ddof=1)) if len(known) > 1 else math.nan, len(known))


def cloud_figures(frame: LabelledFrame, grid: Grid) -> dict[Quantity, float]:
    """The figures of one frame; NaN for one that it cannot tell, as of vehicles where there are none."""
    points = frame.points[grid.cells(frame.points)[2]]
    height = height_above_ground(torch.from_numpy(points)).numpy()
    shown = in_grid(frame.boxes, grid) & (np.abs(np.arctan2(frame.boxes[:, 1], frame.boxes[:, 0])) < frame.half_view)
    boxes = frame.boxes[shown]
    ground = points[height < GROUND]
    on_vehicles = points[inside(points, boxes)] if len(boxes) else points[:0]
    return {
        Quantity("points a frame", "all"): float(len(points)),
        **_by_range("points a frame", points),
        **_by_range("ground points a frame", ground),
        **_vehicle_points(boxes, frame.point_counts[shown]),
        **_quantiles("height, m", points[:, 2], (1, 5, 25, 50, 75, 95, 99), by_ratio=False),
        **_intensities("ground", ground[:, 3]),
        **_intensities("vehicles", on_vehicles[:, 3]),
        **_intensities("all", points[:, 3]),
        **_quantiles("ground roughness, cm", 100 * ground_roughness(ground), (25, 50, 75)),
        **_structure(points, height),
    }


def _spans() -> list[tuple[str, int, int]]:
    return [(f"{low} to {high} m", low, high) for low, high in pairwise(RANGES)]


def _by_range(group: str, points: NDArray) -> dict[Quantity, float]:
    distance = np.hypot(points[:, 0], points[:, 1])
    return {Quantity(group, name): float(((distance >= low) & (distance < high)).sum()) for name, low, high in _spans()}


def _vehicle_points(boxes: NDArray, counts: NDArray) -> dict[Quantity, float]:
    """Median of the points on a car, by distance."""
    distance = np.hypot(boxes[:, 0], boxes[:, 1])
    cars = (boxes[:, 3] > CAR_LENGTHS[0]) & (boxes[:, 3] < CAR_LENGTHS[1]) & (counts >= FEWEST)
    figures = {}
    for name, low, high in _spans():
        there = counts[cars & (distance >= low) & (distance < high)]
        figures[Quantity("points on a car", name)] = float(np.median(there)) if len(there) else math.nan
    return figures


def _quantiles(group: str, values: NDArray, percents: tuple[int, ...], by_ratio: bool = True) -> dict[Quantity, float]:
    found = np.percentile(values, percents) if len(values) else np.full(len(percents), math.nan)
    return {Quantity(group, f"{percent} %", by_ratio): float(one) for percent, one in zip(percents, found, strict=True)}


def _intensities(where: str, intensity: NDArray) -> dict[Quantity, float]:
    """Quantiles of intensities 0-1 on the usual scale to 255, and the share of those that are 0 on it."""
    level = intensity * FULL_REFLECTANCE
    figures = _quantiles(f"intensity, {where}", level, (5, 25, 50, 75, 95))
    zeros = float((level < 0.5).mean()) if len(level) else math.nan
    return {**figures, Quantity(f"intensity, {where}", "share of 0"): zeros}


def ground_roughness(ground: NDArray) -> Floats:
    """Standard deviation of z about the plane that fits best, metres [C], of the points [P, >= 3] in each cell that has
    enough of them."""
    cell = np.floor(ground[:, :2] / FLAT_CELL).astype(np.int64)
    _, index, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    enough = count >= PLANE_POINTS
    # Normal equations of z = a u + b v + c with u, v about the middle of the cell, and z about its mean.
    uv = ground[:, :2].astype(np.float64) - (cell + 0.5) * FLAT_CELL
    z = ground[:, 2].astype(np.float64)
    z -= (np.bincount(index, z) / count)[index]
    columns = np.column_stack([uv, np.ones(len(z))])
    left = np.stack([np.bincount(index, a * b) for a in columns.T for b in columns.T], -1).reshape(-1, 3, 3)[enough]
    right = np.stack([np.bincount(index, a * z) for a in columns.T], -1)[enough]
    # A cell may hold one line of points only, through which many planes go: the flattest is taken.
    plane = np.linalg.solve(left + 1e-6 * np.eye(3), right[..., None])[..., 0]
    squares = np.bincount(index, z**2)[enough] - np.einsum("ci,ci->c", plane, right)
    return np.sqrt(np.maximum(squares, 0) / count[enough])


def _structure(points: NDArray, height: NDArray) -> dict[Quantity, float]:
    """Shares of the seen cells by the height of their highest point; of the tall ones, by how many tall neighbours they
    have: poles are alone, walls are lines, vegetation and roofs areas."""
    cell = np.floor(points[:, :2] / STRUCTURE_CELL).astype(np.int64)
    corner = cell.min(0, initial=0)
    top = np.full(cell.max(0, initial=0) - corner + 3, -np.inf)
    np.maximum.at(top, tuple((cell - corner + 1).T), height)
    seen = np.isfinite(top)
    kind = np.digitize(top, TOPS)
    tall = seen & (kind == len(TOPS))
    around = convolve(tall.astype(np.int64), np.ones((3, 3), np.int64)) - 1
    return {
        **_shares("share of cells", kind[seen], ("ground", "low", "as high as cars", "tall")),
        **_shares(
            "share of tall cells", np.digitize(around[tall], (2, 6)), ("pole (alone)", "wall (line)", "tree (area)")
        ),
    }


def _shares(group: str, kinds: NDArray, names: tuple[str, ...]) -> dict[Quantity, float]:
    """How many of the numbers [N] are each name's."""
    total = len(kinds) or math.nan
    return {Quantity(group, name): float((kinds == number).sum()) / total for number, name in enumerate(names)}
