"""The simulator's intensity curve fitted to a real sensor's, quantile by quantile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.simulator.sensors import SensorModel

LEVELS = np.arange(5, 100, 5)
"""Percentiles of the intensity curve."""
REGION = (0.0, 40.0, -20.0, 20.0)  # in front, where both are compared [m]
SCENES = range(7_000_001, 7_000_009)
WEAKEST, STRONGEST = (0.02, 0.2, 0.0), (2.0, 1.6, 0.25)  # gain, gamma and floor (of 255)


def intensity_curve(clouds: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The percentiles `LEVELS` of the intensity (0-1) in the region in front of clouds float32 [P, 4]."""
    parts = []
    for cloud in clouds:
        x, y = cloud[:, 0], cloud[:, 1]
        parts.append(cloud[(x > REGION[0]) & (x < REGION[1]) & (y > REGION[2]) & (y < REGION[3]), 3])
    values = np.concatenate(parts)
    return np.percentile(values, LEVELS) if len(values) else np.zeros(len(LEVELS))


def with_intensity(sensor: SensorModel, curve: NDArray[np.float64]) -> SensorModel:
    """The sensor with the gain, gamma and floor whose simulated intensities have nearly these percentiles."""
    if curve.max() <= 0:
        # No intensity at all.
        return replace(sensor, gain=0.0, gamma=1.0, floor=0.0)
    plain = replace(sensor, gain=1.0, gamma=1.0, floor=0.0, falloff=0.0)
    clouds = [sample_scene(seed, REGION, lambda _: plain)[0].points for seed in SCENES]
    shine = intensity_curve([cloud / np.float32((1, 1, 1, 255)) for cloud in clouds])

    def miss(values: NDArray) -> NDArray:
        gain, gamma, floor = values
        return np.asarray(np.clip(gain * np.maximum(shine, 1e-3) ** gamma - floor, 0, 1) - curve)

    found = least_squares(miss, (0.5, 0.8, 0.02), bounds=(WEAKEST, STRONGEST), x_scale=(0.3, 0.3, 0.05))
    gain, gamma, floor = (float(value) for value in found.x)
    return replace(sensor, gain=gain, gamma=gamma, floor=255 * floor)
