"""What the weights take for granted of clouds, looked after while they come.

Each check is a function that returns a sentence, what differs and what mends it, or nothing. In 68 real frames of seven
data sets (docs/measured.md) none comes near the limits below.
"""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid, is_within
from sbnet_perception.bev.ground_level import FARTHEST, LEAST_SUPPORT
from sbnet_perception.node.cloud_sample import CloudSample
from sbnet_perception.node.ground import GroundAnswer

MOST_LIDARS = 64
"""Frames of clouds that are remembered; a vehicle has fewer."""
WINDOW, QUORUM = 20, 10
"""Clouds that count over time, and how many there must be before anything is said."""
BLIND_S = 3.0
"""Seconds without a finite point after which that is an error."""
REPEATS = 100
"""Clouds in a row that are the same, point for point."""
SWEEP = 1000
"""Points that the clouds of a whole sweep hold at least."""
NEAR, NEAR_SHARE = 0.5, 0.95
"""Metres around one place, and the share of points there that is no measurement of a street."""
LOST = 0.05
"""Share of finite points that is left of a sweep without a cause in the street."""
WIDE = 150.0
"""Metres from their middle that hold half of the points, beyond which the unit is another."""
ABSURD_SHARE = 0.2
FEWEST = 100
"""Points of a cloud that must lie somewhere in the grid."""
FEW_SHARE, FEW = 0.01, 200
"""Share and number of points in the grid below which a cloud lies elsewhere."""
HIGHEST = 10.0
"""Metres that the heights of a cloud spread over at least, where they spread over more than its width."""
TALLEST = 4.5
"""Metres above the ground of a LiDAR; it was 1 to 3 m in training."""
AROUND, BENEATH, BENEATH_SHARE = 30.0, 0.5, 0.12
"""Metres around the origin; metres below the ground; share of the points there that is no reflection."""


_Clouds = Sequence[tuple[CloudSample, NDArray[np.float64]]]


@dataclass(frozen=True)
class PremisesAnswer:
    """What one frame's clouds violate.

    Attributes:
        warnings: sentences.
        errors: sentences, where nothing can be detected and has not been for a while.
        unusable: nothing else that is measured in these points is worth a sentence.
    """

    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    unusable: bool = False


class Premises:
    """Watches the clouds of a node; deterministic, since it counts clouds and the seconds between their stamps."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._lidars: dict[str, _Lidar] = {}
        self._hangs = 0

    def __call__(
        self,
        clouds: _Clouds,
        grid_frame: str,
        in_grid: int,
        ground: GroundAnswer,
        stamp_ns: int,
    ) -> PremisesAnswer:
        """What is wrong with one frame.

        Args:
            clouds: of each of its clouds a sample, and the transform [4, 4] of its frame to the grid frame.
            grid_frame: that frame's name.
            in_grid: how many points of all clouds lie in the grid.
            ground: what is known of its height.
            stamp_ns: the frame's time.
        """
        warnings: list[str] = []
        errors: list[str] = []
        measured = []
        for sample, grid_from_cloud in clouds:
            if len(self._lidars) >= MOST_LIDARS:
                self._lidars.clear()
            lidar = self._lidars.setdefault(sample.frame_id, _Lidar(sample.frame_id))
            lidar.watch(sample, stamp_ns)
            nothing = no_measurement(sample)
            warnings += (nothing,) if nothing else filter(None, (mostly_lost(sample), *lidar.warnings()))
            errors += filter(None, (lidar.blind(stamp_ns),))
            if not nothing:
                measured.append((sample, grid_from_cloud))
        wrong = self._geometry(measured, grid_frame, in_grid, ground) if measured else ""
        warnings += filter(None, (wrong,))
        return PremisesAnswer(tuple(warnings), tuple(errors), bool(wrong) or not measured)

    def _geometry(self, clouds: _Clouds, grid_frame: str, in_grid: int, ground: GroundAnswer) -> str:
        """The first thing that is wrong with where the points lie: it explains the others."""
        xyz = np.concatenate([sample.moved(grid_from_cloud) for sample, grid_from_cloud in clouds])
        points = sum(sample.points for sample, _ in clouds)
        unit = next(filter(None, (wrong_unit(sample) for sample, _ in clouds)), "")
        if placed := misplaced(xyz, points, in_grid, self._grid, grid_frame, unit):
            return placed
        hangs = upside_down(xyz, ground, grid_frame)
        self._hangs = self._hangs + 1 if hangs else 0
        heights = (too_high(sample, transform, ground) for sample, transform in clouds)
        # A single cloud may show what lies beside a bridge.
        found = (lies_on_its_side(xyz, grid_frame), *heights, hangs if self._hangs >= QUORUM else "")
        return next(filter(None, found), "")


# One cloud ----------------------------------------------------------------------------------------------------


def no_measurement(sample: CloudSample) -> str:
    """There are points, and none of them was measured."""
    name = sample.frame_id
    if not sample.points:
        if not sample.non_finite:
            return ""
        return f"no point of {name} is finite: all {sample.non_finite} are NaN or infinite, check the LiDAR"
    if sample.points < FEWEST or (near := float((sample.off_middle < NEAR).mean())) < NEAR_SHARE:
        return ""
    x, y, z = sample.middle
    what = f"{100 * near:.0f} % of the points of {name} lie within {NEAR:g} m of x {x:.1f}, y {y:.1f}, z {z:.1f}"
    return f"{what}: the LiDAR is covered or measures nothing, or its unit is not metre, or is_bigendian is wrong"


def mostly_lost(sample: CloudSample) -> str:
    """Hardly any point was measured."""
    whole = sample.points + sample.non_finite
    if whole < SWEEP or not 0 < sample.points < LOST * whole:
        return ""
    return f"hardly any point of {sample.frame_id} is finite: {sample.points} of {whole}, check the LiDAR"


def wrong_unit(sample: CloudSample) -> str:
    """The coordinates are no metres."""
    if sample.largest < WIDE:
        return ""
    if sample.absurd > ABSURD_SHARE:
        return "their coordinates are absurd, the driver sets is_bigendian wrong"
    if sample.extent < WIDE:
        return ""
    unit = "millimetres" if sample.extent > 10 * WIDE else "centimetres"
    apart = f"half of them lie more than {sample.extent:.0f} m apart"
    return f"{apart}, the driver gives no metres (perhaps {unit}), which are needed"


# One frame ----------------------------------------------------------------------------------------------------


def misplaced(xyz: NDArray[np.float64], points: int, in_grid: int, grid: Grid, frame: str, cause: str) -> str:
    """No point of the grid frame's xyz [S, 3] lies in the grid, or hardly one, or those that do lie there by chance."""
    few = points >= SWEEP and in_grid < min(FEW, FEW_SHARE * points)
    if not cause and not few and (in_grid or points < FEWEST):
        return ""
    x_min, x_max, y_min, y_max = grid.bounds
    where = f"in the grid (x {x_min:g}..{x_max:g}, y {y_min:g}..{y_max:g} m of {frame})"
    what = f"only {in_grid} of {points} points lie {where}" if in_grid else f"no point of the cloud lies {where}"
    if not cause:
        x, y = np.median(xyz[:, :2], 0)
        cause = f"half of them lie around x {x:.0f}, y {y:.0f}: its frame, units or byte order are wrong; or set region"
        if is_within(-xyz[:, 0], -xyz[:, 1], grid.bounds).mean() > 0.25:
            cause = "they lie behind: the LiDAR or its transform is turned by 180 degrees; or set region"
    return f"{what}: {cause}"


def lies_on_its_side(xyz: NDArray[np.float64], frame: str) -> str:
    """The heights of xyz [S, 3] spread over more than its width."""
    if len(xyz) < FEWEST:
        return ""
    if (up := _spread(xyz[:, 2])) < HIGHEST or up < min(along := _spread(xyz[:, 0]), across := _spread(xyz[:, 1])):
        return ""
    width = f"heights spread over {up:.0f} m, x over {along:.0f} and y over {across:.0f}"
    return f"{width}: {frame} has to have x forward and z up (REP-103), set grid_frame to one that has"


def _spread(values: NDArray[np.float64]) -> float:
    """How far the middle nine tenths of [S] lie apart."""
    last = len(values) - 1
    low, high = round(0.05 * last), round(0.95 * last)
    ordered = np.partition(values, (low, high))
    return float(ordered[high] - ordered[low])


def upside_down(xyz: NDArray[np.float64], ground: GroundAnswer, frame: str) -> str:
    """What should stand on the ground hangs beneath it."""
    if ground.measured is None:
        return ""
    x, y, z = xyz[(np.abs(xyz[:, 0]) < AROUND) & (np.abs(xyz[:, 1]) < AROUND)].T
    heights = z - (ground.measured + ground.slopes[0] * x + ground.slopes[1] * y)
    share = float((heights < -BENEATH).mean()) if len(heights) >= FEWEST else 0.0
    if share < BENEATH_SHARE:
        return ""
    what = f"{100 * share:.0f} % of the points around lie beneath the ground"
    return f"{what}: the LiDAR hangs upside down and its transform to {frame} does not say so"


def too_high(sample: CloudSample, grid_from_cloud: NDArray[np.float64], ground: GroundAnswer) -> str:
    """No vehicle carries a LiDAR that high."""
    x, y, z = grid_from_cloud[:3, 3]
    if ground.measured is None or ground.support < LEAST_SUPPORT or math.hypot(x, y) > FARTHEST:
        return ""
    if (height := float(z) - ground.measured) < TALLEST:
        return ""
    return f"{sample.frame_id} lies {height:.1f} m above the ground: the weights know 1 to 3 m; is the unit metre?"


# Over time ----------------------------------------------------------------------------------------------------


class _Lidar:
    """The last clouds of one frame_id."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._points: collections.deque[int] = collections.deque(maxlen=WINDOW)
        self._blind_since: int | None = None
        self._digest, self._repeats = 0, 0

    def watch(self, sample: CloudSample, stamp_ns: int) -> None:
        self._points.append(sample.points)
        if sample.points:
            self._blind_since = None
        elif self._blind_since is None:
            self._blind_since = stamp_ns
        repeated = sample.points > 0 and sample.digest == self._digest
        self._digest, self._repeats = sample.digest, self._repeats + 1 if repeated else 1

    def blind(self, stamp_ns: int) -> str:
        seconds = 0.0 if self._blind_since is None else (stamp_ns - self._blind_since) / 1e9
        return f"no cloud of {self._name} has had a finite point for {seconds:.1f} s" if seconds >= BLIND_S else ""

    def warnings(self) -> tuple[str, ...]:
        return self._mostly_empty(), self._parts_of_sweeps(), self._stuck()

    def _mostly_empty(self) -> str:
        empty = self._points.count(0)
        if len(self._points) < QUORUM or 2 * empty < len(self._points):
            return ""
        return f"{empty} of the last {len(self._points)} clouds of {self._name} have no finite point: check the LiDAR"

    def _parts_of_sweeps(self) -> str:
        counts = [count for count in self._points if count]
        if len(counts) < QUORUM or (usual := statistics.median_low(counts)) >= SWEEP:
            return ""
        remedy = "the driver has to put a whole sweep into each, tens of thousands"
        return f"the clouds of {self._name} hold few points: {usual} (median); {remedy}"

    def _stuck(self) -> str:
        if self._repeats < REPEATS:
            return ""
        return f"the same cloud of {self._name} comes again and again: {self._repeats} times, its driver is stuck"
