"""From unlabelled clouds to the sensor that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.errors import UserError
from sbnet_perception.learning.sensor.firing import UNKNOWN_THRESHOLD, Firing, firing_of, rows_of
from sbnet_perception.learning.sensor.ground import Plane, ground_plane
from sbnet_perception.learning.sensor.known import KnownSensor
from sbnet_perception.learning.sensor.matching import intensity_curve, matched
from sbnet_perception.learning.sensor.rings import Beams, find_beams
from sbnet_perception.learning.sensor.stand import HEIGHTS, Stand, find_stands
from sbnet_perception.learning.simulator.sensors import SensorModel

CLOUDS = 24
"""Clouds that are looked at, evenly taken from all."""
FEWEST_POINTS = 2000
FEWEST_BEAMS, LEAST_SHARE = 4, 0.6  # what the rings must make of the points to be believed
USUAL_HEIGHT = 1.8  # of a LiDAR on a roof, where the frame's origin is not one [m]
PATTERN = 256  # elevations that stand for a pattern without rings
BLIND = 2.5  # returns nearer to the origin are the vehicle's own [m]
SECTOR, EMPTY, NARROW = 5.0, 0.1, 45.0  # azimuth bins, what counts as empty of the median, gap that limits the view


@dataclass(frozen=True)
class SensorEstimate:
    """A sensor as its clouds show it.

    Attributes:
        clouds, points: clouds that were used, and how many points they have in the mean.
        rings: whether beams were found; without them ``elevations`` are quantiles of those of the points.
        share: of the points, those that the beams account for.
        origin: x, y, z in the clouds' frame [m]; height: over the ground [m].
        tilt: roll and pitch of the axis against the ground, frame_tilt: of the clouds' frame, degrees (pitch > 0
            looks down).
        drift: metres that the origin moves in a revolution of a cloud that was corrected for motion; 0 in others.
        elevations, offsets: float64 [B] degrees and metres.
        firing: azimuth step, loss, threshold and range noise.
        field_of_view: azimuths between which there are points, degrees.
        reach: distance that hardly any point exceeds [m].
        curve: percentiles of the intensity (`matching.LEVELS`), 0-1.
    """

    clouds: int
    points: int
    rings: bool
    share: float
    origin: tuple[float, float, float]
    height: float
    tilt: tuple[float, float]
    frame_tilt: tuple[float, float]
    drift: float
    elevations: NDArray[np.float64]
    offsets: NDArray[np.float64]
    firing: Firing
    field_of_view: tuple[float, float]
    reach: float
    curve: NDArray[np.float64]

    @property
    def stand(self) -> Stand:
        """Where the sensor stands in the clouds' frame."""
        (roll, pitch), (frame_roll, frame_pitch) = np.sin(np.deg2rad((self.tilt, self.frame_tilt)))
        x, y = pitch + frame_pitch, -roll - frame_roll
        return Stand(np.array(self.origin), np.array((x, y, np.sqrt(1 - x**2 - y**2))))

    def known(self) -> KnownSensor:
        """The sensor for the simulator, what its returns depend on fitted to simulated scenes."""
        model = SensorModel(
            "own",
            self.elevations,
            self.offsets.astype(np.float32),
            azimuth_step=self.firing.azimuth_step,
            mount=(self.origin[0], self.origin[1], self.height),
            reach=self.reach,
            range_noise=self.firing.range_noise,
            threshold=self.firing.threshold,
            gain=1.0,
            gamma=1.0,
            beam_spread=0.1,
            loss=self.firing.loss,
            field_of_view=self.field_of_view,
            tilt=self.tilt,
            tilt_error=self.frame_tilt,
        )
        return KnownSensor(matched(model, self.firing if self.rings else None, self.curve), self.rings)


def estimate_sensor(clouds: Sequence[NDArray[np.float32]]) -> SensorEstimate:
    """The sensor of unlabelled clouds.

    Args:
        clouds: float32 [P, 4] each, in any order of points: x forward, y left, z up [m] in one frame, intensity 0-1.

    Raises:
        UserError: too few points, or no ground to be seen.
    """
    whole = [cloud for cloud in clouds if len(cloud) >= FEWEST_POINTS]
    if not whole:
        most = max((len(cloud) for cloud in clouds), default=0)
        raise UserError(
            f"the largest of {len(clouds)} clouds has {most} points; to estimate a sensor give clouds of at least "
            f"{FEWEST_POINTS}"
        )
    chosen = [whole[number] for number in np.unique(np.linspace(0, len(whole) - 1, CLOUDS).round().astype(int))]
    ground = ground_plane(chosen)
    seen = find_stands(chosen, ground, np.random.default_rng(0))
    beams = find_beams(seen, ground) if seen else None
    if beams is None or len(beams.elevations) < FEWEST_BEAMS or beams.share < LEAST_SHARE:
        return _without_rings(chosen, ground)
    stand = seen[0][1]
    firing = firing_of(rows_of(seen, beams, ground), float(ground.height(stand.origin[None])[0]))
    drift = 2 * np.pi * float(np.median([s.drift for _, s in seen]))
    return _estimate(chosen, ground, stand, True, beams, firing, drift)


def _estimate(
    clouds: list[NDArray[np.float32]],
    ground: Plane,
    stand: Stand,
    rings: bool,
    beams: Beams,
    firing: Firing,
    drift: float,
) -> SensorEstimate:
    own, level = stand.axis, ground.normal
    distances = np.concatenate([np.linalg.norm(cloud[:, :3] - stand.origin, axis=1) for cloud in clouds])
    x, y, z = (float(value) for value in stand.origin)
    return SensorEstimate(
        clouds=len(clouds),
        points=round(float(np.mean([len(cloud) for cloud in clouds]))),
        rings=rings,
        share=beams.share,
        origin=(x, y, z),
        height=float(ground.height(stand.origin[None])[0]),
        tilt=_tilt(own - level),
        frame_tilt=_tilt(level),
        drift=drift,
        elevations=beams.elevations,
        offsets=beams.offsets,
        firing=firing,
        field_of_view=_field_of_view(clouds, stand),
        reach=float(np.percentile(distances, 99.95)),
        curve=intensity_curve(clouds),
    )


def _tilt(direction: NDArray) -> tuple[float, float]:
    """Roll and pitch in degrees, both small, that turn the vertical towards x and y of ``direction``."""
    return float(-np.rad2deg(np.arcsin(direction[1]))), float(np.rad2deg(np.arcsin(direction[0])))


def _without_rings(clouds: list[NDArray[np.float32]], ground: Plane) -> SensorEstimate:
    """A dense random pattern of the measured density, from the frame's origin or above it."""
    own = -ground.offset * float(ground.normal[2])
    height = own if HEIGHTS[0] < own < HEIGHTS[1] else USUAL_HEIGHT
    stand = Stand(np.array((0.0, 0.0, ground.offset + height / ground.normal[2])), ground.normal)
    elevation = np.concatenate([stand.elevation(cloud) for cloud in clouds])
    elevations = np.percentile(elevation, np.linspace(0.1, 99.9, PATTERN))
    view = _field_of_view(clouds, stand)
    # As many rays as points: what the simulator loses stands for what the pattern's rays to the sky do not show.
    step = (view[1] - view[0]) * PATTERN / float(np.mean([len(cloud) for cloud in clouds]))
    firing = Firing(azimuth_step=step, loss=0.01, threshold=UNKNOWN_THRESHOLD, range_noise=0.02)
    return _estimate(clouds, ground, stand, False, Beams(elevations, np.zeros(PATTERN), 0.0), firing, 0.0)


def _field_of_view(clouds: list[NDArray[np.float32]], stand: Stand) -> tuple[float, float]:
    """Azimuths between which there are points, degrees; all around unless a wide sector about the back is empty."""
    counts = np.zeros(round(360 / SECTOR))
    for cloud in clouds:
        azimuth, distance, _ = stand.seen(cloud)
        counts += np.histogram(np.rad2deg(azimuth[distance > BLIND]), bins=len(counts), range=(-180, 180))[0]
    full = np.flatnonzero(counts > EMPTY * np.median(counts[counts > 0]))
    low, high = float(full[0] * SECTOR - 180), float((full[-1] + 1) * SECTOR - 180)
    return (low, high) if low + 180 + 180 - high > NARROW else (-180.0, 180.0)
