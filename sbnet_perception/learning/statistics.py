"""What clouds look like in numbers, by which real and simulated ones are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

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
        group: what it is about.
        name: which one of the group.
        unit: of its value; empty for a share.
        by_ratio: two values are compared by their ratio, otherwise by their difference.
    """

    group: str
    name: str
    unit: str = ""
    by_ratio: bool = True


@dataclass(frozen=True)
class Estimate:
    """Mean of a figure over frames, its standard error (infinite for one frame), and the number of frames that
    have it."""

    mean: float
    error: float
    frames: int


def estimates(frames: Iterable[LabelledFrame], grid: Grid) -> dict[Quantity, Estimate]:
    """The figures of many frames; only what lies in the grid counts."""
    of_frames = [cloud_figures(frame, grid) for frame in frames]
    return {quantity: _estimate([f[quantity] for f in of_frames if quantity in f]) for quantity in _names(of_frames)}


def _names(of_frames: Iterable[Mapping[Quantity, float]]) -> dict[Quantity, None]:
    """Every quantity that a frame has, once, in the order of their groups."""
    names = dict.fromkeys(quantity for figures in of_frames for quantity in figures)
    groups = list(dict.fromkeys(quantity.group for quantity in names))
    return dict.fromkeys(sorted(names, key=lambda quantity: groups.index(quantity.group)))


def _estimate(values: list[float]) -> Estimate:
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return Estimate(float(np.mean(values)), error, len(values))


def cloud_figures(frame: LabelledFrame, grid: Grid) -> dict[Quantity, float]:
    """The figures of one frame. One that it cannot tell, as of vehicles where there are none, is left out."""
    points = frame.points[grid.cells(frame.points)[2]]
    height = height_above_ground(torch.from_numpy(points)).numpy()
    shown = in_grid(frame.boxes, grid) & (np.abs(np.arctan2(frame.boxes[:, 1], frame.boxes[:, 0])) < frame.half_view)
    boxes = frame.boxes[shown]
    ground = points[height < GROUND]
    on_vehicles = points[inside(points, boxes)] if len(boxes) else points[:0]
    return {
        **_by_range("points", points, {"frame": len(points)}),
        **_by_range("ground points", ground),
        **_vehicle_points(boxes, frame.point_counts[shown]),
        **_quantiles("height", points[:, 2], "m", (1, 5, 25, 50, 75, 95, 99)),
        **_intensities("ground", ground[:, 3]),
        **_intensities("vehicles", on_vehicles[:, 3]),
        **_intensities("all", points[:, 3]),
        **_roughness(ground),
        **_structure(points, height),
    }


def _by_range(group: str, points: NDArray, first: Mapping[str, float] | None = None) -> dict[Quantity, float]:
    counts = np.histogram(np.hypot(points[:, 0], points[:, 1]), RANGES)[0]
    named = {**(first or {}), **{_span(low, high): n for (low, high), n in zip(pairwise(RANGES), counts, strict=True)}}
    return {Quantity(group, name, "a frame"): float(count) for name, count in named.items()}


def _span(low: int, high: int) -> str:
    return f"{low} to {high} m"


def _vehicle_points(boxes: NDArray, counts: NDArray) -> dict[Quantity, float]:
    """Median of the points on a car, by distance."""
    distance = np.hypot(boxes[:, 0], boxes[:, 1])
    cars = (boxes[:, 3] > CAR_LENGTHS[0]) & (boxes[:, 3] < CAR_LENGTHS[1]) & (counts >= FEWEST)
    figures = {}
    for low, high in pairwise(RANGES):
        there = counts[cars & (distance >= low) & (distance < high)]
        if len(there):
            figures[Quantity("points on a car", _span(low, high), "points")] = float(np.median(there))
    return figures


def _quantiles(
    group: str, values: NDArray, unit: str, percents: tuple[int, ...], by_ratio: bool = False
) -> dict[Quantity, float]:
    if len(values) == 0:
        return {}
    found = np.percentile(values, percents)
    return {
        Quantity(group, f"{percent} %", unit, by_ratio): float(one)
        for percent, one in zip(percents, found, strict=True)
    }


def _intensities(where: str, intensity: NDArray) -> dict[Quantity, float]:
    """Quantiles of intensities 0-1 on the usual scale to 255, and the share of those that are 0 on it."""
    if len(intensity) == 0:
        return {}
    group, level = f"intensity, {where}", intensity * FULL_REFLECTANCE
    figures = _quantiles(group, level, "of 255", (5, 25, 50, 75, 95), by_ratio=True)
    return {**figures, Quantity(group, "share of zeros"): float((level < 0.5).mean())}


def _roughness(ground: NDArray) -> dict[Quantity, float]:
    """Quartiles of the standard deviation of the ground points of a cell about the plane that fits them best."""
    cell = np.floor(ground[:, :2] / FLAT_CELL).astype(np.int64)
    _, index, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    index = index.reshape(-1)
    enough = count >= PLANE_POINTS
    if not enough.any():
        return {}
    # Normal equations of z = a u + b v + c with u, v about the middle of the cell, and z about its mean.
    uv = ground[:, :2].astype(np.float64) - (cell + 0.5) * FLAT_CELL
    z = ground[:, 2].astype(np.float64)
    z -= (np.bincount(index, z) / count)[index]
    columns = np.column_stack([uv, np.ones(len(z))])
    left = np.stack([np.bincount(index, a * b) for a in columns.T for b in columns.T], -1).reshape(-1, 3, 3)[enough]
    right = np.stack([np.bincount(index, a * z) for a in columns.T], -1)[enough]
    # A cell may hold one line of points only, through which many planes go: the flattest is taken.
    plane = np.linalg.solve(left + 1e-4 * np.eye(3), right[..., None])[..., 0]
    squares = np.bincount(index, z**2)[enough] - np.einsum("ci,ci->c", plane, right)
    deviation = 100 * np.sqrt(np.maximum(squares, 0) / count[enough])
    return _quantiles("roughness of the ground", deviation, "cm", (25, 50, 75), by_ratio=True)


def _structure(points: NDArray, height: NDArray) -> dict[Quantity, float]:
    """Shares of the seen cells by the height of their highest point; of the tall ones, how many tall neighbours they
    have: poles are alone, walls lines, vegetation and roofs areas."""
    if len(points) == 0:
        return {}
    cell = np.floor(points[:, :2] / STRUCTURE_CELL).astype(np.int64)
    cell -= cell.min(0) - 1
    top = np.full(cell.max(0) + 2, -np.inf)
    np.maximum.at(top, (cell[:, 0], cell[:, 1]), height)
    seen = np.isfinite(top)
    kind = np.digitize(top, TOPS)
    figures = {
        Quantity("cells", name): float((kind[seen] == number).mean())
        for number, name in enumerate(("ground", "low", "as high as cars", "tall"))
    }
    tall = seen & (kind == len(TOPS))
    if tall.any():
        around = sum(np.roll(tall, (i, j), (0, 1)).astype(int) for i in (-1, 0, 1) for j in (-1, 0, 1)) - tall
        beside = np.digitize(np.asarray(around)[tall], (2, 6))
        for number, name in enumerate(("alone (pole)", "in a line (wall)", "in an area (vegetation)")):
            figures[Quantity("tall cells", name)] = float((beside == number).mean())
    return figures
