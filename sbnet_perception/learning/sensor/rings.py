"""The beams of a spinning LiDAR: peaks of the elevations that are seen from its origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.signal import find_peaks

from sbnet_perception.learning.sensor.ground import Plane
from sbnet_perception.learning.sensor.stand import GAIN, LOW, Stand, above_ground, contrast_of, histogram

RANGES = (5.0, 60.0)  # where beams are told apart [m]
NEAREST = 2.5  # returns nearer are the vehicle's own [m]
WINDOW, STEP = 3.0, 1.0  # elevations that share one height of their lasers, and from one such window to the next
ENOUGH = 2000  # points that tell this height
CLEARER = 1.2  # than the median of the heights, in contrast
LASER_HEIGHTS = np.arange(-0.16, 0.161, 0.01)  # above the common origin [m]
WIDTH = 0.01  # of a bin of elevation; the peaks are smoothed by three of them [degrees]
CLOSEST = 0.08  # two beams [degrees]
FAINTEST, FAINTEST_OF_ALL = 0.2, 0.003  # of the highest peak nearby, and of all
LONELY = 8.0  # a peak this far from any other is no beam [degrees]
BETWEEN = 0.7  # of a peak's height, the most that may be left on both sides of it


@dataclass(frozen=True)
class Beams:
    """elevations: degrees, ascending, and offsets: height of each beam's laser above the origin [m], float64 [B];
    share: of the points, those within 0.06 degrees of a beam."""

    elevations: NDArray[np.float64]
    offsets: NDArray[np.float64]
    share: float

    def of(self, distance: NDArray, height: NDArray) -> NDArray[np.int64]:
        """The beam of points [P] at these distances from and heights along the axis; -1 where it lies between two."""
        offsets = np.interp(np.rad2deg(np.arctan2(height, distance)), self.elevations, self.offsets)
        nearest, off = _nearest(self.elevations, np.rad2deg(np.arctan2(height - offsets, distance)))
        gaps = np.diff(self.elevations)
        spacing = np.minimum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0]))[nearest]
        return np.where(off < np.minimum(0.45 * spacing, 0.3), nearest, -1)


def find_beams(seen: Sequence[tuple[NDArray[np.float32], Stand]], ground: Plane) -> Beams:
    """The beams of clouds with rings, each window of elevations seen from the height of its own lasers."""
    parts = [(*stand.seen(cloud)[1:], above_ground(cloud, ground)) for cloud, stand in seen]
    distance, height, above = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    elevation = np.rad2deg(np.arctan2(height, distance))
    near = elevation[(distance > NEAREST) & (distance < RANGES[0])]
    used = (distance > RANGES[0]) & (distance < RANGES[1])
    distance, height, above, elevation = distance[used], height[used], above[used], elevation[used]
    centres, offsets = _laser_heights(elevation[above], distance[above], height[above])
    true = np.rad2deg(np.arctan2(height - np.interp(elevation, centres, offsets), distance))
    elevations = _peaks(true)
    elevations = _with_steep(elevations, near)
    share = float((_nearest(elevations, true)[1] < 0.06).mean()) if len(elevations) > 1 else 0.0
    return Beams(elevations, np.interp(elevations, centres, offsets), share)


def _nearest(beams: NDArray, elevation: NDArray) -> tuple[NDArray[np.int64], NDArray]:
    """Of each elevation the nearest of two or more ascending beams, and how far off it is."""
    upper = np.searchsorted(beams, elevation).clip(1, len(beams) - 1)
    below, above = elevation - beams[upper - 1], beams[upper] - elevation
    return np.where(below < above, upper - 1, upper), np.minimum(np.abs(below), np.abs(above))


def _laser_heights(elevation: NDArray, distance: NDArray, height: NDArray) -> tuple[NDArray, NDArray]:
    """Elevations [W] degrees and the height of the lasers there [W] m, where one is clearly sharper than others."""
    centres, offsets = [], []
    for centre in np.arange(elevation.min(initial=0) + WINDOW / 2, elevation.max(initial=0) + WINDOW / 2, STEP):
        within = np.flatnonzero(np.abs(elevation - centre) < WINDOW / 2)
        within = within[:: len(within) // 40_000 + 1]
        if len(within) < ENOUGH:
            continue
        values = [
            contrast_of(np.rad2deg(np.arctan2(height[within] - laser, distance[within]))) for laser in LASER_HEIGHTS
        ]
        best = int(np.argmax(values))
        if values[best] > CLEARER * np.median(values):
            centres.append(centre)
            offsets.append(LASER_HEIGHTS[best] if values[best] > GAIN * values[len(values) // 2] else 0.0)
    return (np.array(centres), np.array(offsets)) if centres else (np.zeros(1), np.zeros(1))


def _peaks(elevation: NDArray) -> NDArray[np.float64]:
    """Elevations of the beams, degrees."""
    counts = gaussian_filter1d(histogram(elevation, WIDTH), 3.0)
    nearby = maximum_filter1d(counts, round(4.0 / WIDTH))
    depth = round(0.6 / WIDTH)
    beams = [
        peak
        for peak in find_peaks(counts, height=FAINTEST_OF_ALL * counts.max(), distance=round(CLOSEST / WIDTH))[0]
        if counts[peak] > FAINTEST * nearby[peak]
        and counts[max(peak - depth, 0) : peak].min() < BETWEEN * counts[peak] > counts[peak : peak + depth].min()
    ]
    elevations = LOW + (np.array(beams, np.float64) + 0.5) * WIDTH
    gaps = np.diff(elevations, prepend=-np.inf, append=np.inf)
    return elevations[np.minimum(gaps[:-1], gaps[1:]) < LONELY]


def _with_steep(elevations: NDArray, near: NDArray) -> NDArray[np.float64]:
    """Beams, and as far down as there are points near by (their elevations), others as close as the lowest of these:
    near by the elevations are too coarse to tell them apart."""
    if len(elevations) < 5 or not len(near):
        return elevations
    gap = float(np.median(np.diff(elevations[:5])))
    return np.concatenate([np.arange(elevations[0] - gap, np.percentile(near, 2), -gap)[::-1], elevations])
