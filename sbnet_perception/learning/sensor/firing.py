"""What the rows of returns along each beam tell: azimuth step, lost returns, range noise, how far the road is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.learning.sensor.ground import Plane
from sbnet_perception.learning.sensor.rings import Beams
from sbnet_perception.learning.sensor.stand import Stand

NEAREST = 8.0  # returns nearer than this, whose azimuth is coarse in clouds of centimetres, are left out [m]
WIDEST = 1.0  # azimuth step [degrees]
LEVEL = 0.02  # neighbours whose ranges differ by less, relatively, belong to one surface
ON_GROUND = 0.25  # height of what counts as ground [m]
LONGEST = 8  # steps without a return, after which the surface is not taken to go on
ROAD = 0.15  # reflectance of asphalt at 905 nm, of which most ground is
STEEPNESS = 2.5  # of the simulator's chance of a return as a function of power
ROAD_RANGES = (15.0, 80.0, 5.0)  # where the road is watched: from, to, step [m]
UNKNOWN_THRESHOLD = 2e-6  # where no road is seen
RUN = 9  # returns in a row that a smooth surface is looked for in


@dataclass(frozen=True)
class Rows:
    """All returns by cloud, beam and azimuth. Arrays [P]: row: cloud and beam; azimuth: degrees; distance: from the
    laser [m]; height: over the ground [m]."""

    row: NDArray[np.int64]
    azimuth: NDArray[np.float64]
    distance: NDArray[np.float64]
    height: NDArray[np.float64]


@dataclass(frozen=True)
class Firing:
    """azimuth_step: degrees; loss: share of the returns that is lost near by; threshold: as in SensorModel;
    range_noise: m."""

    azimuth_step: float
    loss: float
    threshold: float
    range_noise: float


def rows_of(seen: Sequence[tuple[NDArray[np.float32], Stand]], beams: Beams, ground: Plane) -> Rows:
    """The returns of each beam in the order of their azimuth."""
    parts = []
    for number, (cloud, stand) in enumerate(seen):
        azimuth, distance, height = stand.seen(cloud)
        beam = beams.of(distance, height)
        row = np.where(beam < 0, -1, number * len(beams.elevations) + beam)
        parts.append((row, np.rad2deg(azimuth), np.hypot(distance, height), ground.height(cloud)))
    row, azimuth, distance, height = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    used = (row >= 0) & (distance > NEAREST)
    order = np.lexsort((azimuth[used], row[used]))
    return Rows(*(column[used][order] for column in (row, azimuth, distance, height)))


def firing_of(rows: Rows, height: float) -> Firing:
    """How the beams of a LiDAR this high over the ground [m] fire, and what of it returns."""
    gaps = np.where(np.diff(rows.row) == 0, np.diff(rows.azimuth), np.inf)
    step = _step(gaps)
    steps = np.rint(gaps.clip(0, 1e6) / step)
    near = np.minimum(rows.distance[1:], rows.distance[:-1])
    # Two neighbours on one surface, or both on the ground: what is between them should have returned.
    level = np.abs(np.diff(rows.distance)) < LEVEL * near
    ground = level & (np.maximum(np.abs(rows.height[1:]), np.abs(rows.height[:-1])) < ON_GROUND)
    loss = _missing(steps[ground & (near < 20)])
    return Firing(step, loss, _threshold(steps[ground], near[ground], loss, height), _noise(rows, steps))


def _step(gaps: NDArray) -> float:
    """The azimuth step in degrees: the commonest gap, and the mean of those about it."""
    counts, edges = np.histogram(gaps[gaps < WIDEST], bins=round(WIDEST / 0.005), range=(0, WIDEST))
    # Two returns of one shot are no step apart.
    counts[edges[:-1] < 0.04] = 0
    mode = float(edges[int(np.argmax(np.convolve(counts, np.ones(5), "same")))]) + 0.0025
    for _ in range(3):
        about = gaps[np.abs(gaps - mode) < 0.35 * mode]
        mode = float(about.mean()) if len(about) else mode
    return mode


def _missing(steps: NDArray) -> float:
    """Share of lost returns, of the numbers of steps between neighbours on one surface."""
    steps = steps[(steps >= 1) & (steps <= LONGEST)]
    return float(1.0 - len(steps) / max(steps.sum(), 1.0))


def _threshold(steps: NDArray, distance: NDArray, loss: float, height: float) -> float:
    """The power at which half of the returns are lost, from how the share of lost ones on the ground grows with
    distance; what the ground tells of it where it is met at the cosine height over distance."""
    results, weights = [], []
    for low in np.arange(*ROAD_RANGES):
        within = (distance >= low) & (distance < low + ROAD_RANGES[2])
        if within.sum() < 200:
            continue
        power = ROAD * height / (low + ROAD_RANGES[2] / 2) ** 3
        chance = float(np.clip((1.0 - _missing(steps[within])) / (1.0 - loss), 0.02, 0.995))
        # The simulator's chance of a return, solved for its threshold.
        results.append(np.log(power) + np.log(1.0 / chance - 1.0) / STEEPNESS)
        weights.append(within.sum() * chance * (1 - chance))
    return float(np.exp(np.average(results, weights=weights))) if results else UNKNOWN_THRESHOLD


def _noise(rows: Rows, steps: NDArray) -> float:
    """Standard deviation of the range on the smoothest of what is seen [m]."""
    whole = np.ones(max(len(rows.row) - RUN + 1, 0), bool)
    for shift in range(RUN - 1):
        whole &= (steps == 1)[shift : len(whole) + shift]
    starts = np.flatnonzero(whole)
    starts = starts[:: len(starts) // 50_000 + 1]
    if len(starts) < 100:
        return 0.02
    runs = rows.distance[starts[:, None] + np.arange(RUN)]
    # What a parabola over the run leaves.
    basis = np.linalg.qr(np.vander(np.linspace(-1, 1, RUN), 3))[0]
    left = runs - runs @ basis @ basis.T
    sigma = np.sqrt((left**2).sum(axis=1) / (RUN - 3))
    return float(np.percentile(sigma, 25))
