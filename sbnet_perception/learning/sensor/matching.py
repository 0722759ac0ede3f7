"""The simulator's sensor fitted to a real one by simulating it: what is measured in its scenes is measured in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from sbnet_perception.learning.frames import FULL_REFLECTANCE
from sbnet_perception.learning.sensor.firing import Firing, firing_of, rows_of
from sbnet_perception.learning.sensor.ground import simulated_ground
from sbnet_perception.learning.sensor.rings import Beams
from sbnet_perception.learning.sensor.stand import Stand
from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.simulator.scene import Bounds
from sbnet_perception.learning.simulator.sensors import SensorModel, rotation

LEVELS = np.arange(5, 100, 5)
"""Percentiles of the intensity curve."""
FRONT = (0.0, 40.0, -20.0, 20.0)  # where intensities are compared [m]
AROUND = (-10.0, 70.0, -30.0, 30.0)  # where scenes are simulated [m]
SCENES = range(7_000_001, 7_000_007)
ROUNDS = 2
RATIOS = 1 / 3, 1.0  # of the simulator's threshold and the measured one, which is a little too high
WEAKEST, BRIGHTEST = (0.02, 0.2, 0.0), (2.0, 1.6, 0.25)  # gain, gamma and floor (of 255)


def intensity_curve(clouds: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """The percentiles `LEVELS` of the intensity (0-1) in the region in front of clouds float32 [P, 4]."""
    parts = []
    for cloud in clouds:
        x, y = cloud[:, 0], cloud[:, 1]
        parts.append(cloud[(x > FRONT[0]) & (x < FRONT[1]) & (y > FRONT[2]) & (y < FRONT[3]), 3])
    values = np.concatenate(parts)
    return np.percentile(values, LEVELS) if len(values) else np.zeros(len(LEVELS))


def matched(sensor: SensorModel, measured: Firing | None, curve: NDArray[np.float64]) -> SensorModel:
    """The sensor with the loss, threshold, noise and intensities with which its simulated clouds measure like the real.

    Args:
        sensor: what else is known of it.
        measured: of the real clouds; None without rings: these values stay as they are.
        curve: percentiles of the real intensities.
    """
    plain = replace(sensor, gain=1.0, gamma=1.0, floor=0.0)
    clouds = _simulated(plain)
    for _ in range(ROUNDS if measured is not None else 0):
        assert measured is not None
        found = _measured(clouds, plain)
        # Where the simulated clouds measure more than the real ones, the parameter was too large.
        ratio = plain.threshold / found.threshold
        plain = replace(
            plain,
            loss=float(np.clip(plain.loss + measured.loss - found.loss, 0.0, 0.9)),
            threshold=measured.threshold * float(np.clip(ratio, *RATIOS)),
            range_noise=float(np.clip(plain.range_noise * measured.range_noise / found.range_noise, 0.002, 0.1)),
        )
        clouds = _simulated(plain)
    return _with_intensity(plain, intensity_curve(clouds), curve)


def simulated_cloud(sensor: SensorModel, seed: int, region: Bounds) -> NDArray[np.float32]:
    """Points [P, 4] of one scene, intensity 0-1."""
    points: NDArray[np.float32] = sample_scene(seed, region, lambda _: sensor)[0].points.copy()
    points[:, 3] /= FULL_REFLECTANCE
    return points


def _simulated(sensor: SensorModel) -> list[NDArray[np.float32]]:
    """Clouds of the scenes that are compared."""
    return [simulated_cloud(sensor, seed, AROUND) for seed in SCENES]


def _measured(clouds: Sequence[NDArray[np.float32]], sensor: SensorModel) -> Firing:
    """The firing of a known sensor in its simulated clouds."""
    turn = rotation(sensor.tilt_error)
    stand = Stand(turn @ np.array(sensor.mount), turn @ rotation(sensor.tilt)[:, 2])
    order = np.argsort(sensor.elevations)
    beams = Beams(sensor.elevations[order], sensor.offsets[order].astype(np.float64), 1.0)
    rows = rows_of([(cloud, stand) for cloud in clouds], beams, simulated_ground(clouds, turn[:, 2]))
    return firing_of(rows, sensor.mount[2])


def _with_intensity(sensor: SensorModel, shine: NDArray[np.float64], curve: NDArray[np.float64]) -> SensorModel:
    """The sensor with the gain, gamma and floor that turn one curve of percentiles nearly into the other."""
    if curve.max() <= 0:
        # The sensor delivers no intensity.
        return replace(sensor, gain=0.0, gamma=1.0, floor=0.0)

    def miss(values: NDArray) -> NDArray:
        gain, gamma, floor = values
        return np.asarray(np.clip(gain * np.maximum(shine, 1e-3) ** gamma - floor, 0, 1) - curve)

    found = least_squares(miss, (0.5, 0.8, 0.02), bounds=(WEAKEST, BRIGHTEST), x_scale=(0.3, 0.3, 0.05))
    gain, gamma, floor = (float(value) for value in found.x)
    return replace(sensor, gain=gain, gamma=gamma, floor=255 * floor)
