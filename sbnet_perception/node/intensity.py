"""Intensities from 0 to 1, with the scale that the parameter says or that the clouds show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.messages.intensity import INTENSITY_SCALE, find_scale, scale_warning
from sbnet_perception.messages.pointcloud2 import CloudPoints

STEADY = 10
"""Clouds in a row that must agree on another scale before it is taken."""
# Fewer points need not tell.
_CLOUD = 1000


@dataclass(frozen=True)
class IntensityAnswer:
    """The scale of one cloud.

    Attributes:
        scale: the intensity that means 1; None where the cloud has no intensity.
        warnings: what is wrong, and the remedy.
        news: a sentence when the scale was found for the first time or has changed; otherwise empty.
    """

    scale: float | None
    warnings: tuple[str, ...] = ()
    news: str = ""


class Intensity:
    """Scales the intensities of one sensor's clouds."""

    def __init__(self, intensity_scale: float | str) -> None:
        self.declared = None if isinstance(intensity_scale, str) else intensity_scale
        """What `read_points` divides by; None where it is to be found."""
        self._scale: float | None = None
        self._candidate: float | None = None
        self._agreed = 0

    def __call__(self, cloud: CloudPoints) -> IntensityAnswer:
        """The scale; intensities that are not yet divided by it are now, in place."""
        if self.declared is not None or not cloud.has_intensity:
            return IntensityAnswer(self.declared if cloud.has_intensity else None)
        news = self._learn(find_scale(cloud.points[:, 3]))
        scale = self._scale or INTENSITY_SCALE
        cloud.points[:, 3] *= np.float32(1.0 / scale)
        return IntensityAnswer(scale, self._complaints(cloud.points[:, 3], scale), news)

    def _complaints(self, scaled: NDArray[np.float32], scale: float) -> tuple[str, ...]:
        if self._scale is not None:
            # While others are agreed upon there is no telling which is wrong.
            return tuple(scale_warning(scaled, scale, "found")) if self._candidate == self._scale else ()
        if len(scaled) < _CLOUD:
            return ()
        if not scaled.any():
            return ("all intensities are 0: the LiDAR or its driver gives none",)
        return (f"intensities do not tell their scale: {scale:g} is taken for full reflectance: set intensity_scale",)

    def _learn(self, found: float | None) -> str:
        self._agreed = self._agreed + 1 if found == self._candidate else 1
        self._candidate = found
        if found is None or found == self._scale or (self._scale is not None and self._agreed < STEADY):
            return ""
        self._scale = found
        return f"intensity {found:g} means full reflectance"
