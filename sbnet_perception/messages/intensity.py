"""The scale of a cloud's intensities: what value means full reflectance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

INTENSITY_SCALE = 255.0
"""Intensity in a driver's cloud that is 1 inside the core, where nothing else is known."""
SCALES = (1.0, 255.0, 65535.0)
"""Full reflectance in clouds of drivers: a fraction, 8 bits, 16 bits."""

_SAMPLE, _FEWEST = 4000, 100
_PERCENTILE = 0.99
_ROUNDING = 1.001
DARKEST = 0.07
"""Least that the 99th percentile of a scene is, of full reflectance; in 68 real frames it is 0.22 and more."""
_MOST_NEGATIVE = 0.05
_WHOLE = 1e-4


def find_scale(intensity: npt.NDArray[np.float32]) -> float | None:
    """The smallest of `SCALES` that holds 99 % of the intensities.

    Args:
        intensity: [P], as the message has them.

    Returns:
        None where they do not tell: fewer than 100, or all but 1 % of them 0. Whole numbers of 0 and 1 do not either:
        fractions would be between them, 8 bits above.
    """
    sample = _sample(intensity)
    high = _high(sample)
    if not high or (high <= 1.0 and (np.abs(sample - np.rint(sample)) < _WHOLE).all()):
        return None
    return next((scale for scale in SCALES if high <= scale * _ROUNDING), SCALES[-1])


def scale_warning(scaled: npt.NDArray[np.float32], scale: float, origin: str = "declared") -> list[str]:
    """A sentence where intensities, divided by their scale, contradict it; it names the remedy.

    Args:
        scaled: [P], 1 = full reflectance.
        scale: what they were divided by.
        origin: where that comes from, one word.
    """
    sample = _sample(scaled)
    high = _high(sample)
    if high is None:
        return []
    if (negative := float((sample < 0).mean())) > _MOST_NEGATIVE:
        return [f"intensity: {100 * negative:.0f} % are negative: reflectance from 0 on is needed from the driver"]
    if DARKEST <= high <= _ROUNDING:
        return []
    found = find_scale(scaled * np.float32(scale))
    if high == 0.0:
        remedy = "the LiDAR or its driver gives none"
    elif found in (None, scale):
        remedy = "set intensity_scale to the intensity of full reflectance"
    else:
        remedy = f"set intensity_scale to {found:g} or auto"
    wrong = f"{origin} scale looks wrong: it is {scale:g}, the 99th percentile is {high * scale:g}"
    return [f"intensity: {wrong}; {remedy}"]


def _sample(intensity: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return intensity[:: len(intensity) // _SAMPLE + 1]


def _high(sample: npt.NDArray[np.float32]) -> float | None:
    """The 99th percentile; None of fewer than 100."""
    if len(sample) < _FEWEST:
        return None
    place = int(_PERCENTILE * len(sample))
    return float(np.partition(sample, place)[place])
