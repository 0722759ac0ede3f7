"""The height of the ground in the grid's frame: as the parameter says, or found from the clouds."""

from __future__ import annotations

import collections
import statistics
from dataclasses import dataclass

from torch import Tensor

from sbnet_perception.bev.ground_level import FARTHEST, LEAST_SUPPORT, GroundLevel, ground_level

AUTO = "auto"
"""Value of a parameter whose number the node finds itself."""
WINDOW = 50
"""Heights of single clouds whose median counts."""
QUICK, EVERY = 10, 10
"""Each cloud is measured until there are so many heights, then one cloud of so many."""
TOLERANCE = 0.25
"""Metres from the parameter's number beyond which the measured ground is a complaint: a box that much off is lost."""
STEEP = 0.065
"""Rise per metre of the ground at the vehicle, over many clouds, beyond which not the road is tilted but the frame."""
_MOVED = 0.2
# Fewer points need not show any ground.
_CLOUD = 1000


@dataclass(frozen=True)
class GroundAnswer:
    """The ground for one cloud.

    Attributes:
        z: what counts as its height, metres in the grid's frame.
        measured: median of what the clouds so far show, of guesses where none was sure; None before any did.
        support: share (0-1) of the area around that agreed with the last measurement.
        warnings: what is wrong with the setting, and the remedy.
        news: a sentence when the ground was found for the first time or has moved; otherwise empty.
        slopes: how much it rises per metre along x and y, the medians of the same clouds.
    """

    z: float
    measured: float | None
    support: float
    warnings: tuple[str, ...] = ()
    news: str = ""
    slopes: tuple[float, float] = (0.0, 0.0)


class Ground:
    """Measures the ground over the clouds of one grid frame; deterministic, since it counts clouds and not time."""

    def __init__(self, ground_z: float | str, frame_id: str) -> None:
        self._setting = ground_z
        self._frame_id = frame_id
        self._levels: collections.deque[GroundLevel] = collections.deque(maxlen=WINDOW)
        self._sure: list[GroundLevel] = []
        self._clouds = 0
        self._said: float | None = None

    def __call__(self, points: Tensor) -> GroundAnswer:
        """The ground, once the points float32 [P, >= 3] in the grid's frame are taken into account."""
        self._measure(points)
        # Guesses count where there is nothing better.
        levels = self._sure or list(self._levels)
        measured = statistics.median_low(level.z for level in levels) if levels else None
        along, across = (statistics.median_low(level.slopes[i] for level in levels) if levels else 0.0 for i in (0, 1))
        slopes = along, across
        support = self._levels[-1].support if self._levels else 0.0
        if isinstance(self._setting, str):
            z = 0.0 if measured is None else measured
            doubts = self._doubts(measured, len(points)) + self._tilted(slopes)
            return GroundAnswer(z, measured, support, doubts, self._news(measured), slopes)
        contradictions = self._contradictions(self._setting, measured) + self._tilted(slopes)
        return GroundAnswer(self._setting, measured, support, contradictions, "", slopes)

    def _measure(self, points: Tensor) -> None:
        self._clouds += 1
        if len(self._sure) >= QUICK and self._clouds % EVERY:
            return
        level = ground_level(points)
        if level is not None:
            self._levels.append(level)
            self._sure = [level for level in self._levels if level.support >= LEAST_SUPPORT]

    def _doubts(self, measured: float | None, points: int) -> tuple[str, ...]:
        if self._sure or points < _CLOUD:
            return ()
        if measured is None:
            where = f"no ground is seen within {FARTHEST:g} m of the origin of {self._frame_id}"
            return (f"{where}, z = 0 counts as the ground: set ground_z",)
        share = f"only {100 * self._levels[-1].support:.0f} % of the area around agrees"
        return (f"{self._lies(measured)}, but {share}: set ground_z",)

    def _news(self, measured: float | None) -> str:
        if not self._sure or measured is None or (self._said is not None and abs(measured - self._said) < _MOVED):
            return ""
        self._said = measured
        return f"{self._lies(measured)} ({100 * self._levels[-1].support:.0f} % of the area around agrees)"

    def _contradictions(self, ground_z: float, measured: float | None) -> tuple[str, ...]:
        if measured is None or len(self._sure) < QUICK or abs(measured - ground_z) <= TOLERANCE:
            return ()
        return (f"{self._lies(measured)}, but ground_z is {ground_z:g}: set ground_z to {measured:.2f} or {AUTO}",)

    def _tilted(self, slopes: tuple[float, float]) -> tuple[str, ...]:
        if len(self._sure) < QUICK:
            return ()
        for slope, word in zip(slopes, "xy", strict=True):
            if abs(slope) > STEEP:
                how = f"{'rises' if slope > 0 else 'falls'} by {abs(100 * slope):.0f} cm a metre along {word}"
                remedy = "level the LiDAR's transform, or set grid_frame to a level frame"
                return (f"the ground {how} of {self._frame_id}: {remedy}",)
        return ()

    def _lies(self, z: float) -> str:
        return f"the ground lies {abs(z):.2f} m {'below' if z < 0 else 'above'} z = 0 of {self._frame_id}"
