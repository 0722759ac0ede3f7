"""Where a spinning LiDAR stands in its clouds: the elevations of the points are sharpest when seen from its origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import differential_evolution, minimize

from sbnet_perception.learning.sensor.ground import Plane

SAMPLE = 24_000  # points that a stand is judged by; a third of them in the search
RANGES = (6.0, 60.0)  # nearer ones feel the lasers' own places, farther ones say little of the stand [m]
COARSE, FINE = 0.06, 0.03  # width of the bins of elevation [degrees]
LOW, HIGH = -40.0, 40.0  # elevations [degrees]
AROUND = 0.6  # sigma of what a bin is compared with [degrees]
ABOVE = 0.3  # what is higher stands on the ground [m]
HEIGHTS = (0.8, 4.0)  # of the LiDAR over the ground [m]
LIMITS = ((-3.5, 3.5), (-1.2, 1.2), HEIGHTS, (-4.0, 4.0), (-4.0, 4.0))  # x, y, height [m], two tilts [degrees]
SIMPLEX = (0.1, 0.05, 0.03, 0.1, 0.1, 0.05)  # first steps of the polish, likewise, and of the drift
CLEAR, SHARP = 1.8, 1.4  # contrast that ends the search, and that means rings; an even spread has 1
DRIFTS = np.linspace(-0.5, 0.5, 41)  # metres a radian that the origin moves in a cloud corrected for motion
GAIN = 1.1  # what the motion must add to the contrast to be believed
ALONE = 3  # clouds that are searched one by one where no stand fits all


@dataclass(frozen=True)
class Stand:
    """Of a LiDAR in a cloud's frame: origin x, y, z [m], unit vector of its axis, and drift: metres that the origin
    moves forward in a radian, in clouds that were corrected for the vehicle's motion."""

    origin: NDArray[np.float64]
    axis: NDArray[np.float64]
    drift: float = 0.0

    def seen(self, cloud: NDArray[np.float32]) -> tuple[NDArray, NDArray, NDArray]:
        """Azimuth [P] radians, distance from the axis [P] and height along it [P] metres of points [P, >= 3]."""
        moved = cloud[:, :3] - self.origin
        azimuth = np.arctan2(moved[:, 1], moved[:, 0])
        moved[:, 0] -= self.drift * azimuth
        height = moved @ self.axis
        squared = np.einsum("ij,ij->i", moved, moved)
        return azimuth, np.sqrt(np.maximum(squared - height**2, 1e-6)), height

    def elevation(self, cloud: NDArray[np.float32]) -> NDArray:
        """Degrees [P]."""
        _, distance, height = self.seen(cloud)
        return np.rad2deg(np.arctan2(height, distance))


def find_stands(
    clouds: Sequence[NDArray[np.float32]], ground: Plane, rng: np.random.Generator
) -> list[tuple[NDArray[np.float32], Stand]]:
    """The clouds that show rings, each with the LiDAR's stand in it; none where there are no rings.

    One stand is looked for that fits all clouds. Where there is none, as in clouds of a frame that the LiDAR is not
    fixed in, it is that of one cloud alone, the sharpest of a few.
    """
    count = -(-SAMPLE // len(clouds))
    samples = [_sample(cloud, count, rng) for cloud in clouds]
    stand = _find(np.concatenate([_sample(_standing(cloud, ground), count, rng) for cloud in clouds]), ground)
    stand = _nearby(stand, np.concatenate(samples), ground)
    stands = [replace(stand, drift=_drift(stand, sample)) for sample in samples]
    still, moving = contrast(samples, [stand] * len(clouds)), contrast(samples, stands)
    if max(still, moving) > SHARP:
        return list(zip(clouds, stands if moving > GAIN * still else [stand] * len(clouds), strict=True))
    alone = []
    for number in np.linspace(0, len(clouds) - 1, min(ALONE, len(clouds))).round().astype(int):
        cloud = clouds[number]
        sample = _sample(cloud, SAMPLE, rng)
        stand = _find(_sample(_standing(cloud, ground), SAMPLE, rng), ground, drifting=True)
        stand = _nearby(stand, sample, ground)
        alone.append((contrast([sample], [stand]), cloud, stand))
    sharpness, cloud, stand = max(alone, key=lambda result: result[0])
    return [(cloud, stand)] if sharpness > SHARP else []


def contrast(samples: Sequence[NDArray[np.float32]], stands: Sequence[Stand], width: float = FINE) -> float:
    """How far the histogram of elevations stands out from its own smooth form; 1 where it does not."""
    return contrast_of(np.concatenate([stand.elevation(s) for s, stand in zip(samples, stands, strict=True)]), width)


def contrast_of(elevation: NDArray, width: float = FINE) -> float:
    """`contrast` of elevations in degrees."""
    counts = histogram(elevation, width)
    sharp = gaussian_filter1d(counts, 1.0)
    smooth = gaussian_filter1d(counts, AROUND / width)
    return float((sharp**2 / (smooth + 1.0)).sum() / max(len(elevation), 1))


def histogram(elevation: NDArray, width: float) -> NDArray[np.float64]:
    """Counts of elevations in bins of ``width`` from `LOW` to `HIGH`."""
    size = round((HIGH - LOW) / width)
    bins = np.floor((elevation - LOW) / width).astype(np.int64)
    return np.bincount(bins[(bins >= 0) & (bins < size)], minlength=size).astype(np.float64)


def above_ground(cloud: NDArray[np.float32], ground: Plane) -> NDArray[np.bool_]:
    """Points [P] that tell of the LiDAR's height: rings on level ground look sharp from every height."""
    return np.asarray(ground.height(cloud) > ABOVE)


def _standing(cloud: NDArray[np.float32], ground: Plane) -> NDArray[np.float32]:
    return cloud[above_ground(cloud, ground)]


def _sample(cloud: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    distance = np.hypot(cloud[:, 0], cloud[:, 1])
    useful = np.flatnonzero((distance > RANGES[0]) & (distance < RANGES[1]))
    return cloud[rng.permutation(useful)[:count], :3]


def _find(sample: NDArray[np.float32], ground: Plane, drifting: bool = False) -> Stand:
    """The sharpest stand: near the frame's own origin if it is clear there, or else anywhere within the limits."""
    limits = [*LIMITS, *([(float(DRIFTS[0]), float(DRIFTS[-1]))] if drifting else [])]
    results = [(0.0, np.array([0.0, 0.0, 1.8, 0.0, 0.0]))]
    # Most clouds come in the LiDAR's own frame: its axis, and its origin or one not far above.
    own = np.rad2deg(np.arcsin(-ground.normal[:2]))
    for height in -ground.offset * ground.normal[2] + np.array((0.0, 0.1, 0.2)):
        if HEIGHTS[0] < height < HEIGHTS[1] and np.abs(own).max() < LIMITS[3][1]:
            start = np.array([0.0, 0.0, height, *own, *([0.0] if drifting else [])])
            results.append(_polished(start, sample, ground, limits))
    if max(value for value, _ in results) < CLEAR:
        search = differential_evolution(
            lambda at: -contrast([sample[::3]], [_stand(at, ground)], COARSE),
            limits, popsize=18, maxiter=50, seed=1, polish=False, tol=1e-4,
        )  # fmt: skip
        results.append(_polished(search.x, sample, ground, limits))
    return _stand(max(results, key=lambda result: result[0])[1], ground)


def _nearby(stand: Stand, sample: NDArray[np.float32], ground: Plane) -> Stand:
    """The sharpest stand for a sample with the ground, which tells more of place and tilt, at nearly this height."""
    values = _values(stand, ground)
    spans = (0.4, 0.3, 0.03, 0.5, 0.5, 0.1)[: len(values)]
    limits = [(value - span, value + span) for value, span in zip(values, spans, strict=True)]
    return _stand(_polished(values, sample, ground, limits)[1], ground)


def _polished(
    start: NDArray, sample: NDArray[np.float32], ground: Plane, limits: Sequence[tuple[float, float]]
) -> tuple[float, NDArray]:
    """The contrast of the sharpest stand near by, and its values."""
    simplex = start + np.vstack([np.zeros(len(start)), np.diag(SIMPLEX[: len(start)])])
    low, high = np.array(limits).T
    found = minimize(
        lambda at: -contrast([sample], [_stand(at, ground)]), start, method="Nelder-Mead", bounds=limits,
        options={"initial_simplex": simplex.clip(low, high), "fatol": 1e-3},
    )  # fmt: skip
    return -float(found.fun), found.x


def _values(stand: Stand, ground: Plane) -> NDArray[np.float64]:
    """What `_stand` makes the stand of."""
    x, y, _ = stand.origin
    axis = stand.axis * ground.normal[2] / stand.axis[2]
    tilts = np.rad2deg(np.arcsin((axis - ground.normal)[:2]))
    drift = [stand.drift] if stand.drift else []
    return np.array([x, y, float(ground.height(stand.origin[None])[0]), *tilts, *drift])


def _stand(values: NDArray, ground: Plane) -> Stand:
    """Of x and y of the origin, its height over the ground [m], the axis' tilts against the ground's normal in x and
    y [degrees], and perhaps the drift."""
    x, y, height, *tilts = values[:5]
    z = x * ground.slope[0] + y * ground.slope[1] + ground.offset + height / ground.normal[2]
    axis = ground.normal + np.array((*np.sin(np.deg2rad(tilts)), 0.0))
    return Stand(np.array((x, y, z)), axis / np.linalg.norm(axis), float(values[5]) if len(values) > 5 else 0.0)


def _drift(stand: Stand, sample: NDArray[np.float32]) -> float:
    """The motion of the origin that makes a cloud's sample sharpest."""
    values = [contrast([sample], [replace(stand, drift=drift)]) for drift in DRIFTS]
    return float(DRIFTS[int(np.argmax(values))])
