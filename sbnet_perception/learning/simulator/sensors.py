"""Spinning and solid-state LiDARs as data: beam angles, mounting, reach, noise, intensity scale and faults.

Beam tables follow the makers' data sheets (Velodyne HDL-64E S2, HDL-32E, VLP-32C, Hesai Pandar64); the mountings are
those published with KITTI (Geiger et al. 2013), nuScenes (Caesar et al. 2020), Argoverse 2 (Wilson et al. 2021) and
PandaSet (Xiao et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

VLP32C_DEGREES = (
    -25.0, -15.639, -11.31, -8.843, -7.254, -6.148, -5.333, -4.667, -4.0, -3.667, -3.333, -3.0, -2.667,
    -2.333, -2.0,
    -1.667, -1.333, -1.0, -0.667, -0.333, 0.0, 0.333, 0.667, 1.0, 1.333, 1.667, 2.333, 3.333, 4.667, 7.0,
    10.333, 15.0,
)  # fmt: skip
# Steps of a sixth of a degree from -6 to +2, coarser ones beyond.
PANDAR64_DEGREES = (
    -25.0, -19.0, -14.0, -13.0, -12.0, -11.0, -10.0, -9.0, -8.0, -7.0, *(k / 6 for k in range(-36, 13)),
    3.0, 5.0, 8.0, 11.0, 15.0,
)  # fmt: skip
SWAY_PERIOD = 30.0  # azimuth over which a solid-state scanner's line swings up and down once [degrees]


@dataclass(frozen=True)
class SensorModel:
    """elevations: degrees [B]; offsets: height of each beam's origin above the mount [B] m; azimuth_step:
    degrees; mount: x, y, z of the sensor in base_link [m]; reach: m; range_noise: m; threshold: received
    power (reflectance times incidence cosine ** gloss over squared metres) at which half of the returns are lost;
    gain, gamma, floor, falloff: intensity in 0-255 is gain * 255 * (reflectance * cosine ** gloss) ** gamma *
    (distance / 10 m) ** -falloff - floor; beam_spread: log-normal sigma of the gain between beams; loss: share of
    the returns that is lost whatever their power.

    field_of_view: azimuths between which there are rays, and blocked: intervals of azimuth without any (masts, lost
    packets) [K, 2], degrees; azimuth_jitter: sigma of a ray's azimuth, degrees; sway: degrees by which the lines of a
    solid-state scanner swing up and down; beam_bias: sigma of the range error between beams [m]; mixing: share of the
    returns at the edge of a thing that lie between it and what is less than two metres behind; bloom: degrees by
    which retroreflectors are seen too wide.

    tilt: roll and pitch of the scanner, degrees (pitch > 0 looks down); tilt_error: by how much the cloud is turned
    against the truth since the tilt is not quite known; drift: metres that the vehicle moves forward during a
    revolution, which the cloud is not corrected for (negative for one that spins clockwise). The labels are
    turned and moved as the cloud is.
    """

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
    floor: float = 0.0
    falloff: float = 0.0
    field_of_view: tuple[float, float] = (-180.0, 180.0)
    blocked: tuple[tuple[float, float], ...] = ()
    azimuth_jitter: float = 0.0
    sway: float = 0.0
    beam_bias: float = 0.0
    mixing: float = 0.0
    bloom: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    tilt_error: tuple[float, float] = (0.0, 0.0)
    drift: float = 0.0

    @property
    def base_from_lidar(self) -> np.ndarray:
        """float64 [4, 4]."""
        pose = np.eye(4)
        pose[:3, :3] = rotation(self.tilt)
        pose[:3, 3] = self.mount
        return pose

    def rays(self, rng: np.random.Generator, half_angle: float = 180.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One revolution, or the sector within `half_angle` degrees of straight ahead.

        Returns origins float32 [N, 3] in base_link, unit directions float32 [N, 3] and the beam of
        each ray int64 [N].
        """
        beams = len(self.elevations)
        start, end = max(-half_angle, self.field_of_view[0]), min(half_angle, self.field_of_view[1])
        azimuth = np.arange(start, end, self.azimuth_step) + rng.uniform(0, self.azimuth_step)
        for low, high in self.blocked:
            azimuth = azimuth[(azimuth < low) | (azimuth > high)]
        # Each beam fires at its own moment within a step.
        phase = np.arange(beams) * 0.381966 % 1.0 * self.azimuth_step
        a = np.deg2rad(azimuth[:, None] + phase).astype(np.float32)
        if self.azimuth_jitter:
            a += np.float32(np.deg2rad(self.azimuth_jitter)) * rng.standard_normal(a.shape, dtype=np.float32)
        e = np.deg2rad(self.elevations)[None].astype(np.float32)
        if self.sway:
            e = e + np.float32(np.deg2rad(self.sway)) * np.sin(a * np.float32(360.0 / SWAY_PERIOD))
        level = np.cos(e)
        parts = np.broadcast_arrays(level * np.cos(a), level * np.sin(a), np.sin(e))
        directions = np.stack(parts, -1).reshape(-1, 3)
        beam = np.tile(np.arange(beams), len(azimuth))
        if any(self.tilt):
            directions = directions @ rotation(self.tilt).T.astype(np.float32)
        origins = np.broadcast_to(np.array(self.mount, np.float32), directions.shape).copy()
        origins[:, 2] += self.offsets[beam]
        return origins, directions, beam

    def reported(self, positions: np.ndarray) -> np.ndarray:
        """Where the cloud has what is at `positions` [N, 3] in base_link: drifted and turned about its origin."""
        moved = positions.copy()
        if self.drift:
            azimuth = np.arctan2(positions[:, 1] - self.mount[1], positions[:, 0] - self.mount[0])
            moved[:, 0] -= (self.drift / (2 * np.pi)) * azimuth
        if any(self.tilt_error):
            moved = moved @ rotation(self.tilt_error).T.astype(moved.dtype)
        return moved


def rotation(tilt: tuple[float, float]) -> np.ndarray:
    """float64 [3, 3]: roll about x, then pitch about y, in degrees."""
    (cr, sr), (cp, sp) = ((np.cos(angle), np.sin(angle)) for angle in np.deg2rad(tilt))
    return np.array([[cp, sp * sr, sp * cr], [0, cr, -sr], [-sp, cp * sr, cp * cr]])


def _sensor(name: str, elevations: ArrayLike, mount: tuple[float, float, float], **rest: Any) -> SensorModel:
    angles = np.asarray(elevations, np.float64)
    return SensorModel(name, angles, np.zeros(len(angles), np.float32), mount=mount, **rest)


# The lasers of the upper half sit 8 cm above those of the lower half, both above the origin of KITTI's clouds.
HDL64 = replace(
    _sensor(
        "hdl64",
        np.concatenate([2.0 - np.arange(32) / 3.0, np.linspace(-8.83, -24.8, 32)]),
        (0.0, 0.0, 1.73),
        azimuth_step=0.1728, reach=120.0, range_noise=0.02, threshold=1.2e-5, gain=0.78, gamma=0.3,
        beam_spread=0.15, floor=40.0, beam_bias=0.01, mixing=0.2,
    ),
    offsets=np.repeat(np.array((0.20, 0.12), np.float32), 32),
)  # fmt: skip
HDL32 = _sensor(
    "hdl32",
    np.linspace(-30.67, 10.67, 32),
    (0.94, 0.0, 1.84),
    azimuth_step=0.332, reach=100.0, range_noise=0.02, threshold=2e-5, gain=0.3, gamma=1.0, beam_spread=0.1,
)  # fmt: skip
VLP32C_PAIR = replace(
    _sensor(
        "vlp32c",
        np.concatenate([VLP32C_DEGREES, -np.array(VLP32C_DEGREES)]),
        (1.35, 0.0, 1.93),
        azimuth_step=0.2, reach=200.0, range_noise=0.015, threshold=2e-5, gain=0.3, gamma=1.0,
        beam_spread=0.1,
    ),
    offsets=np.repeat(np.array((0.04, -0.04), np.float32), 32),
)  # fmt: skip
PANDAR64 = _sensor(
    "pandar64",
    PANDAR64_DEGREES,
    (0.0, 0.0, 2.1),
    azimuth_step=0.2, reach=200.0, range_noise=0.012, threshold=2e-6, gain=0.28, gamma=0.95, beam_spread=0.1,
    floor=1.0, bloom=0.1,
)  # fmt: skip
SENSORS = {sensor.name: sensor for sensor in (HDL64, HDL32, VLP32C_PAIR, PANDAR64)}
# Its front half is what a single one sees; ika's is one such.
_VLP32C = replace(
    VLP32C_PAIR, elevations=VLP32C_PAIR.elevations[:32], offsets=np.zeros(32, np.float32), mount=(0.0, 0.0, 1.7)
)


def _crowded(rng: np.random.Generator) -> np.ndarray:
    """Beams evenly spread, or crowded towards the horizon."""
    beams = int(rng.choice((16, 24, 32, 40, 48, 64, 80)))
    low, high = rng.uniform(-32, -15), rng.uniform(1.5, 15)
    even = np.linspace(0, 1, beams)
    centre = -low / (high - low)
    crowded = centre + np.sign(even - centre) * np.abs(even - centre) ** 1.7 / max(centre, 1 - centre) ** 0.7
    blend = rng.choice((0.0, rng.uniform(0.3, 1.0)))
    return np.asarray(low + (high - low) * (blend * crowded + (1 - blend) * even))


def _even(rng: np.random.Generator) -> np.ndarray:
    """Beams evenly spread about the horizon, as digital LiDARs have them."""
    return float(rng.choice((11.25, 16.6, 22.5))) * np.linspace(-1, 1, int(rng.choice((32, 64, 128))))


def _graded(rng: np.random.Generator) -> np.ndarray:
    """A fine middle between coarser beams that grow apart, as long-range LiDARs of 32 to 128 beams have it."""
    step = rng.uniform(0.1, 0.35)
    below, above = rng.uniform(3, 8), rng.uniform(1, 4)
    middle = np.arange(-below, above, step)
    growth = rng.uniform(1.05, 1.35)
    spread = np.cumsum(step * growth ** np.arange(1, 60))
    lower, upper = -below - spread[spread + below < 25], above + spread[spread + above < 15]
    return np.concatenate([lower[::-1], middle, upper])[:128]


def _solid_state(rng: np.random.Generator) -> tuple[np.ndarray, tuple[float, float], float]:
    """Elevations, field of view and sway of a scanner that looks ahead only."""
    beams = int(rng.integers(32, 129))
    half = rng.uniform(30, 65)
    sway = rng.uniform(0.0, 1.5) * float(rng.choice((0, 1)))
    return np.linspace(rng.uniform(-16, -9), rng.uniform(4, 14), beams), (-half, half), sway


def _random_pattern(rng: np.random.Generator) -> SensorModel:
    """A LiDAR that nobody sells."""
    view, sway = (-180.0, 180.0), 0.0
    kind = int(rng.choice(4, p=(0.25, 0.25, 0.3, 0.2)))
    if kind == 3:
        elevations, view, sway = _solid_state(rng)
    else:
        elevations = (_crowded, _even, _graded)[kind](rng)
    # No more rays than the largest that are sold fire.
    step = max(rng.uniform(0.1, 0.4), len(elevations) / 400)
    return _sensor(
        "beams", elevations, (0.0, 0.0, 0.0),
        azimuth_step=step, reach=rng.uniform(80.0, 200.0), range_noise=0.0, threshold=0.0, gain=0.0, gamma=0.0,
        beam_spread=0.0, field_of_view=view, sway=sway,
    )  # fmt: skip


def _with_faults(sensor: SensorModel, rng: np.random.Generator) -> SensorModel:
    """Beams a little off or dead, sectors without returns, unsteady azimuths, range errors, mixed returns, halos."""
    elevations = sensor.elevations + rng.normal(0, 0.15) + rng.normal(0, rng.uniform(0, 0.08), len(sensor.elevations))
    alive = np.ones(len(elevations), bool)
    if rng.random() < 0.2:
        alive[rng.integers(len(alive), size=rng.integers(1, 4))] = False
    starts, widths = rng.uniform(-180, 180, 3).tolist(), rng.uniform(1, 15, 3).tolist()
    sectors = [(start, start + width) for start, width in zip(starts, widths, strict=True)]
    return replace(
        sensor,
        elevations=elevations[alive],
        offsets=sensor.offsets[alive],
        blocked=tuple(sectors[: rng.integers(1, 4)]) if rng.random() < 0.2 else (),
        azimuth_jitter=rng.uniform(0.0, 0.3) * sensor.azimuth_step,
        range_noise=rng.uniform(0.005, 0.035),
        beam_bias=rng.uniform(0.0, 0.02),
        mixing=rng.uniform(0.0, 0.5) * float(rng.choice((0, 1))),
        bloom=rng.uniform(0.0, 0.3) * float(rng.choice((0, 1))),
    )


def _mounted(sensor: SensorModel, rng: np.random.Generator) -> SensorModel:
    """On a roof, bonnet or truck, not quite level, and moving."""
    low, high = (1.5, 2.3) if rng.random() < 0.85 else (1.0, 3.0)
    tilt, error = rng.normal(0, 0.7, 2).clip(-2, 2), rng.normal(0, 0.45, 2).clip(-1.2, 1.2)
    return replace(
        sensor,
        mount=(rng.uniform(-0.5, 1.8), rng.normal(0, 0.1), rng.uniform(low, high)),
        tilt=(float(tilt[0]), float(tilt[1])),
        tilt_error=(float(error[0]), float(error[1])),
        drift=rng.uniform(-1.5, 1.5) * float(rng.random() < 0.4),
    )


def randomised_sensor(rng: np.random.Generator) -> SensorModel:
    """One of the known sensors or a random one, with random mounting, sensitivity, noise, faults and intensity
    curve."""
    known = (HDL64, PANDAR64, HDL32, VLP32C_PAIR, _VLP32C)
    choice = int(rng.choice(6, p=(0.2, 0.15, 0.1, 0.1, 0.1, 0.35)))
    sensor = known[choice] if choice < 5 else _random_pattern(rng)
    gain = float(np.exp(rng.uniform(np.log(0.15), np.log(1.0))))
    sensor = replace(
        sensor,
        azimuth_step=float(sensor.azimuth_step * rng.choice((0.7, 1.0, 1.0, 1.0, 1.0, 2.0)) * rng.uniform(0.97, 1.03)),
        threshold=float(np.exp(rng.uniform(np.log(1e-6), np.log(5e-5)))),
        gain=gain,
        gamma=rng.uniform(0.3, 1.3),
        floor=255 * gain * 0.2 * rng.random() ** 2 * float(rng.choice((0, 1))),
        falloff=rng.normal(0, 0.25),
        beam_spread=rng.uniform(0.0, 0.4),
        loss=float(rng.uniform(0.0, 0.2) ** 1.5),
    )
    return _mounted(_with_faults(sensor, rng), rng)
