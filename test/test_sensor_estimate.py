"""A sensor's estimate from unlabelled clouds, against sensors that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sbnet_perception.errors import UserError
from sbnet_perception.learning.sensor import KnownSensor, estimate_sensor, matching, read_sensor, stand
from sbnet_perception.learning.sensor.ground import simulated_ground
from sbnet_perception.learning.sensor.matching import LEVELS
from sbnet_perception.learning.simulator.sensors import HDL32, HDL64, PANDAR64, SensorModel, randomised_sensor, rotation

FRONT = replace(
    HDL32, elevations=np.linspace(-14, 9, 48), offsets=np.zeros(48, np.float32), azimuth_step=0.25,
    mount=(1.5, 0.1, 1.3), field_of_view=(-60.0, 60.0),
)  # fmt: skip


def place(sensor: SensorModel, seed: int, loss: float = 0.05, noise: float = 0.01) -> np.ndarray:
    """A cloud float32 [P, 4] in base_link: level ground with walls around it, nearer or farther every three degrees, in
    whole centimetres and any order."""
    rng = np.random.default_rng(seed)
    origins, directions, _ = sensor.rays(rng)
    distance = np.where(directions[:, 2] < 0, -origins[:, 2] / np.minimum(directions[:, 2], -1e-9), np.inf)
    sector = np.floor(np.rad2deg(np.arctan2(directions[:, 1], directions[:, 0])) / 3).astype(int) % 120
    walls = rng.uniform(7, 50, 120)[sector] / np.hypot(directions[:, 0], directions[:, 1])
    distance = np.minimum(distance, walls) + noise * rng.standard_normal(len(distance))
    points = np.column_stack([origins + distance[:, None] * directions, np.full(len(distance), 0.3)])
    kept = points[(rng.random(len(points)) > loss) & (points[:, 2] < 8)]
    return rng.permutation(np.round(kept, 2)).astype(np.float32)


def in_own_frame(cloud: np.ndarray, sensor: SensorModel) -> np.ndarray:
    """The cloud of base_link as the driver delivers it."""
    own = cloud.copy()
    own[:, :3] = (cloud[:, :3] - np.float32(sensor.mount)) @ rotation(sensor.tilt).astype(np.float32)
    return own


def beam_errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(found[:, None] - np.sort(true)).min(axis=1)


@pytest.mark.parametrize(
    ("sensor", "tilt"),
    [(HDL64, (0.5, -1.0)), (HDL32, (0.0, 0.0)), (PANDAR64, (-0.8, 1.5))],
    ids=("hdl64", "hdl32", "pandar64"),
)
def test_beams_height_tilt_and_azimuth_step_are_found_in_the_lidars_own_frame(sensor, tilt):
    sensor = replace(sensor, tilt=tilt, mount=(0.9, 0.1, 1.9))
    found = estimate_sensor([in_own_frame(place(sensor, seed), sensor) for seed in range(3)])
    assert found.rings
    errors = beam_errors(found.elevations, sensor.elevations)
    # Those that meet the ground nearer than 5 m are not told apart.
    far = found.elevations > -19.5
    assert np.median(errors[far]) < 0.02 and errors[far].max() < 0.25
    assert far.sum() >= 0.95 * (sensor.elevations > -19.5).sum()
    assert len(found.elevations) == pytest.approx(len(sensor.elevations), rel=0.15)
    assert found.height == pytest.approx(1.9 + sensor.offsets.max(), abs=0.05)
    assert found.tilt == pytest.approx(tilt, abs=0.1)
    assert found.frame_tilt == pytest.approx((-tilt[0], -tilt[1]), abs=0.1)
    assert found.firing.azimuth_step == pytest.approx(sensor.azimuth_step, rel=0.03)
    assert found.firing.loss == pytest.approx(0.05, abs=0.03)
    assert found.firing.range_noise == pytest.approx(0.01, abs=0.006)


def test_the_place_of_a_lidar_in_base_link_and_its_field_of_view_are_found():
    found = estimate_sensor([place(FRONT, seed) for seed in range(3)])
    assert found.rings
    assert found.origin == pytest.approx(FRONT.mount, abs=0.03)
    assert np.median(beam_errors(found.elevations, FRONT.elevations)) < 0.03
    assert found.field_of_view == pytest.approx((-60, 60), abs=5.1)
    assert found.frame_tilt == pytest.approx((0, 0), abs=0.1)


def test_clouds_without_rings_get_a_random_pattern_of_their_density(monkeypatch):
    monkeypatch.setattr(stand, "ALONE", 1)
    rng = np.random.default_rng(0)
    clouds = [place(replace(HDL32, elevations=np.sort(rng.uniform(-20, 8, 32))), seed) for seed in range(24)]
    mixed = np.concatenate(clouds)
    # No ray of one cloud is where one of another is.
    mixed[:, 2] += rng.normal(0, 0.15, len(mixed))
    found = estimate_sensor([mixed[::24].copy()])
    assert not found.rings
    known = KnownSensor(_plain(found), rings=False, others=0.0)
    first, second = known(rng), known(rng)
    assert not np.allclose(first.elevations, second.elevations)
    rays = len(first.rays(rng)[0])
    assert rays == pytest.approx(found.points, rel=0.1)


def _plain(found) -> SensorModel:
    return SensorModel(
        "own", found.elevations, found.offsets, azimuth_step=found.firing.azimuth_step, mount=found.origin, reach=80.0,
        range_noise=0.02, threshold=1e-6, gain=1.0, gamma=1.0, beam_spread=0.1, field_of_view=found.field_of_view,
    )  # fmt: skip


@pytest.mark.parametrize(("size", "word"), [(500, "500 points"), (5000, "ground")])
def test_clouds_that_tell_of_no_sensor_are_refused(size, word):
    # Far walls, and no ground.
    cloud = np.random.default_rng(0).uniform((40, -30, 2, 0), (60, 30, 9, 1), (size, 4)).astype(np.float32)
    with pytest.raises(UserError, match=word):
        estimate_sensor([cloud])


def test_the_simulated_sensor_has_the_returns_and_intensities_of_the_measured_clouds(monkeypatch):
    monkeypatch.setattr(matching, "SCENES", range(2))
    clouds = [in_own_frame(place(PANDAR64, seed), PANDAR64) for seed in range(2)]
    for cloud in clouds:
        cloud[:, 3] = np.linspace(0.1, 0.5, len(cloud))
    estimate = estimate_sensor(clouds)
    model = estimate.known().model
    assert model.mount[2] == pytest.approx(estimate.height)
    assert 0.1 < model.gain < 2.0 and len(estimate.curve) == len(LEVELS)
    # As much of the simulated clouds is lost as of these.
    assert model.loss < 0.12


def test_simulated_clouds_without_ground_have_that_of_their_simulator_and_no_user_is_blamed():
    upward = np.array((0.1, -0.05, 1.0)) / np.linalg.norm((0.1, -0.05, 1.0))
    plane = simulated_ground([np.zeros((10, 4), np.float32)], upward)
    assert plane.offset == 0 and plane.normal == pytest.approx(upward)


def test_a_sensor_is_read_back_from_its_file(tmp_path):
    sensor = randomised_sensor(np.random.default_rng(5))
    KnownSensor(replace(sensor, blocked=((-10.0, 5.0),)), rings=False, others=0.1).write(tmp_path / "own.json")
    back = read_sensor(tmp_path / "own.json")
    again, once = (made(np.random.default_rng(1)) for made in (back, read_sensor(tmp_path / "own.json")))
    assert (back.rings, back.others, back.model.blocked) == (False, 0.1, ((-10.0, 5.0),))
    np.testing.assert_array_equal(back.model.elevations, sensor.elevations)
    np.testing.assert_array_equal(again.rays(np.random.default_rng(2))[1], once.rays(np.random.default_rng(2))[1])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rings": true, "others": 0.1, "elevations": [1], "offsets": []}'])
def test_a_file_that_is_no_sensor_is_named(tmp_path, text):
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(UserError, match=r"own\.json is no sensor"):
        read_sensor(tmp_path / "own.json")
