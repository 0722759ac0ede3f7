"""Spinning LiDARs as data: beam angles, mounting, reach, noise and intensity scale.

Beam tables follow the makers' data sheets (Velodyne HDL-64E S2, HDL-32E, VLP-32C); the mountings are those
published with KITTI (Geiger et al. 2013), nuScenes (Caesar et al. 2020) and Argoverse 2 (Wilson et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

VLP32C_DEGREES = (
    -25.0, -15.639, -11.31, -8.843, -7.254, -6.148, -5.333, -4.667, -4.0, -3.667, -3.333, -3.0, -2.667,
    -2.333, -2.0,
    -1.667, -1.333, -1.0, -0.667, -0.333, 0.0, 0.333, 0.667, 1.0, 1.333, 1.667, 2.333, 3.333, 4.667, 7.0,
    10.333, 15.0,
)  # fmt: skip


@dataclass(frozen=True)
class SensorModel:
    """elevations: degrees [B]; offsets: height of each beam's origin above the mount [B] m; azimuth_step:
    degrees; mount: x, y, z of the sensor in base_link [m]; reach: m; range_noise: m; threshold: received
    power (reflectance times incidence cosine over squared metres) at which half of the returns are lost;
    gain, gamma: intensity in 0-255 is gain * 255 * (reflectance * cosine ** gloss) ** gamma;
    beam_spread: log-normal sigma of the gain between beams; loss: share of the returns that is lost
    whatever their power."""

    name: str
    elevations: np.ndarray
    offsets: np.ndarray
    azimuth_step: float
    mount: tuple[float, float, float]
    reach: float
    range_noise: float
    threshold: float
    gain: float
    gamma: float
    beam_spread: float
    loss: float = 0.01

    @property
    def base_from_lidar(self) -> np.ndarray:
        """float64 [4, 4]."""
        pose = np.eye(4)
        pose[:3, 3] = self.mount
        return pose

    def rays(self, rng: np.random.Generator, half_angle: float = 180.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One revolution, or the sector within `half_angle` degrees of straight ahead.

        Returns origins float32 [N, 3] in base_link, unit directions float32 [N, 3] and the beam of
        each ray int64 [N].
        """
        beams = len(self.elevations)
        azimuth = np.deg2rad(np.arange(-half_angle, half_angle, self.azimuth_step) + rng.uniform(0, self.azimuth_step))
        # Each beam fires at its own moment within a step.
        phase = (np.arange(beams) * 0.381966 % 1.0) * np.deg2rad(self.azimuth_step)
        a = (azimuth[:, None] + phase).ravel()
        e = np.deg2rad(np.broadcast_to(self.elevations, (len(azimuth), beams)).ravel())
        beam = np.broadcast_to(np.arange(beams), (len(azimuth), beams)).ravel()
        directions = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], 1).astype(np.float32)
        origins = np.broadcast_to(np.array(self.mount, np.float32), directions.shape).copy()
        origins[:, 2] += self.offsets[beam]
        return origins, directions, beam


def _sensor(name: str, elevations: ArrayLike, mount: tuple[float, float, float], **rest: float) -> SensorModel:
    angles = np.asarray(elevations, np.float64)
    return SensorModel(name, angles, np.zeros(len(angles), np.float32), mount=mount, **rest)


HDL64 = _sensor(
    "hdl64",
    np.concatenate([2.0 - np.arange(32) / 3.0, np.linspace(-8.83, -24.8, 32)]),
    (0.0, 0.0, 1.73),
    azimuth_step=0.1728, reach=120.0, range_noise=0.02, threshold=1.5e-6, gain=0.75, gamma=0.55,
    beam_spread=0.2,
)  # fmt: skip
HDL32 = _sensor(
    "hdl32",
    np.linspace(-30.67, 10.67, 32),
    (0.94, 0.0, 1.84),
    azimuth_step=0.332, reach=100.0, range_noise=0.02, threshold=4e-6, gain=0.3, gamma=1.0, beam_spread=0.1,
)  # fmt: skip
VLP32C_PAIR = replace(
    _sensor(
        "vlp32c",
        np.concatenate([VLP32C_DEGREES, -np.array(VLP32C_DEGREES)]),
        (1.35, 0.0, 1.93),
        azimuth_step=0.2, reach=200.0, range_noise=0.015, threshold=6e-6, gain=0.3, gamma=1.0,
        beam_spread=0.1,
    ),
    offsets=np.repeat(np.array((0.04, -0.04), np.float32), 32),
)  # fmt: skip
SENSORS = {sensor.name: sensor for sensor in (HDL64, HDL32, VLP32C_PAIR)}


def _random_beams(rng: np.random.Generator) -> SensorModel:
    """A LiDAR that nobody sells: beams evenly spread, or crowded towards the horizon."""
    beams = int(rng.choice((24, 32, 40, 48, 64, 80)))
    low, high = rng.uniform(-32, -18), rng.uniform(1.5, 14)
    even = np.linspace(0, 1, beams)
    centre = -low / (high - low)
    crowded = centre + np.sign(even - centre) * np.abs(even - centre) ** 1.7 / max(centre, 1 - centre) ** 0.7
    blend = rng.choice((0.0, rng.uniform(0.3, 1.0)))
    return _sensor(
        "beams",
        low + (high - low) * (blend * crowded + (1 - blend) * even),
        (0.0, 0.0, 0.0),
        azimuth_step=rng.uniform(0.16, 0.4), reach=120.0, range_noise=0.0, threshold=0.0, gain=0.0, gamma=0.0,
        beam_spread=0.0,
    )  # fmt: skip


def randomised_sensor(rng: np.random.Generator) -> SensorModel:
    """One of the known sensors or a random one, with random mounting, sensitivity, noise and intensity
    curve."""
    known = (HDL64, HDL32, VLP32C_PAIR)
    choice = int(rng.choice(4, p=(0.25, 0.2, 0.25, 0.3)))
    sensor = known[choice] if choice < 3 else _random_beams(rng)
    gamma = rng.uniform(0.5, 1.2)
    return replace(
        sensor,
        elevations=sensor.elevations + rng.normal(0, 0.3) + rng.normal(0, 0.03, len(sensor.elevations)),
        mount=(rng.uniform(-0.3, 1.6), rng.normal(0, 0.05), rng.uniform(1.5, 2.2)),
        range_noise=rng.uniform(0.008, 0.035),
        threshold=float(np.exp(rng.uniform(np.log(5e-7), np.log(2e-5)))),
        gain=float(np.exp(rng.uniform(np.log(0.2), np.log(0.9)))),
        gamma=gamma,
        beam_spread=rng.uniform(0.0, 0.3),
        loss=float(rng.uniform(0.0, 0.2) ** 1.5),
    )
