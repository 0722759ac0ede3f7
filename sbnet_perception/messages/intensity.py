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


def scale_warning(scaled: npt.NDArray[np.float32], scale: float) -> list[str]:
    """A sentence where intensities, divided by their declared scale, contradict it; it names the remedy."""
    high = _high(_sample(scaled))
    if high is None or 1.0 / SCALES[1] * _ROUNDING <= high <= _ROUNDING:
        return []
    found = find_scale(scaled * np.float32(scale))
    remedy = "no scale fits" if found in (None, scale) else f"set intensity_scale to {found:g} or auto"
    return [
        f"intensity: declared scale looks wrong: it is {scale:g}, the 99th percentile is {high * scale:g}; {remedy}"
    ]


def _sample(intensity: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return intensity[:: len(intensity) // _SAMPLE + 1]


def _high(sample: npt.NDArray[np.float32]) -> float | None:
    """The 99th percentile; None of fewer than 100."""
    if len(sample) < _FEWEST:
        return None
    place = int(_PERCENTILE * len(sample))
    return float(np.partition(sample, place)[place])
