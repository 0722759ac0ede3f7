"""sbnet adapt from end to end, very short, and what it decides on the way."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sbnet_perception.bags.writer import whole_bag
from sbnet_perception.cli import main
from sbnet_perception.desk import adapt as command
from sbnet_perception.desk import clouds
from sbnet_perception.desk.clouds import read_clouds
from sbnet_perception.desk.simulate import write_drive
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector, initialize
from sbnet_perception.detector.weights import read_metadata, save_weights
from sbnet_perception.errors import UserError
from sbnet_perception.learning import adapt, scenes
from sbnet_perception.learning.adapt import planned
from sbnet_perception.learning.scenes import Scenes
from sbnet_perception.learning.sensor import KnownSensor, matching
from sbnet_perception.learning.simulator import Drive
from sbnet_perception.learning.simulator.sensors import HDL32


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """Three clouds of an HDL-32 in its own frame, with a transform to base_link."""
    path = tmp_path_factory.mktemp("bag") / "own.mcap"
    with whole_bag(path) as writer:
        write_drive(Drive(3, 1.5, 2.0, "hdl32"), writer)
    return path


@pytest.fixture
def weights(tmp_path):
    config, path = DetectorConfig(), tmp_path / "start.safetensors"
    save_weights(path, initialize(Detector(1), 0), config.cell_size, config.objects, {})
    return path


def test_clouds_of_a_bag_come_in_base_link_with_intensities_up_to_one(bag):
    clouds = read_clouds(bag, 2)
    assert len(clouds) == 2
    for cloud in clouds:
        assert cloud.dtype == np.float32 and 0 < cloud[:, 3].max() <= 1
        assert abs(np.percentile(cloud[:, 2], 20)) < 0.5, "the ground is z = 0"


def test_clouds_before_the_transform_is_known_do_not_mix_with_those_in_base_link(bag, monkeypatch):
    whole = read_clouds(bag, 2)
    lookup, asked = clouds.TransformTable.lookup, []

    def late(table, target, source, stamp):
        asked.append(stamp)
        if len(asked) == 1:
            raise UserError("not yet")
        return lookup(table, target, source, stamp)

    monkeypatch.setattr(clouds.TransformTable, "lookup", late)
    (second,) = read_clouds(bag, 2)
    np.testing.assert_array_equal(second[:, :3], whole[1][:, :3])


def test_frames_are_read_without_labels_as_the_sensor_delivered_them(tmp_path):
    xyz = np.array([[1000, -200, 0], [2000, 300, 150]], np.int16)
    np.savez(tmp_path / "own_1.npz", xyz_cm=xyz, intensity=np.array([51, 255], np.uint8), origin_height=1.5)
    (cloud,) = read_clouds(tmp_path, 5)
    np.testing.assert_allclose(cloud, [[10, -2, -1.5, 0.2], [20, 3, 0, 1]], atol=1e-6)


def test_the_time_is_shared_between_scenes_and_steps_and_never_exceeded():
    plan = planned(3600, scene_seconds=0.5, step_seconds=1.0, minutes=60)
    assert plan.scenes * 0.5 + plan.steps * 1.0 <= 3600
    assert plan.scenes % scenes.SHARD == 0 and plan.steps > 2500
    with pytest.raises(UserError, match="--minutes"):
        planned(30, scene_seconds=0.5, step_seconds=1.0, minutes=60)


def test_scenes_of_another_sensor_are_other_scenes(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "SHARD", 1)
    grid = DetectorConfig(region=(0.0, 19.2, -9.6, 9.6)).raster
    KnownSensor(HDL32, others=0.0).write(tmp_path / "own.json")
    random, own = Scenes(tmp_path, grid, 1, 7), Scenes(tmp_path, grid, 1, 7, sensor=tmp_path / "own.json")
    assert random.folder != own.folder
    assert len(random[0].points) != len(own[0].points)



@pytest.mark.parametrize("full", [1.0, 255.0])
def test_clouds_are_read_in_the_format_of_users_and_one_odd_intensity_does_not_darken_them(tmp_path, full):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 10, (3000, 3)).astype(np.float32)
    intensity = np.round(rng.uniform(0, 1, 3000) * 255).astype(np.float32) / 255
    intensity[7] = 1.2
    (tmp_path / "delivered").mkdir()
    delivered = np.column_stack([points, intensity * full]).astype(np.float32)
    np.savez(tmp_path / "delivered" / "mine_1.npz", points=delivered)
    (cloud,) = read_clouds(tmp_path / "delivered", 5)
    assert cloud[:, 3] == pytest.approx(intensity, abs=0.005)
    whole = np.round(intensity.clip(0, 1) * 255).astype(np.uint8)
    told = whole if full == 255 else intensity
    np.savez(tmp_path / "mine_1.npz", points=points, intensity=told, origin_height=1.5)
    (cloud,) = read_clouds(tmp_path, 5)
    assert cloud[:, :3] == pytest.approx(points - np.float32([0, 0, 1.5]), abs=1e-5)
    assert cloud[:, 3] == pytest.approx(told / np.float32(full), abs=0.005)


def test_a_frame_without_points_is_named(tmp_path):
    np.savez(tmp_path / "mine_1.npz", points=np.zeros(3, np.float32))
    with pytest.raises(UserError, match=r"mine_1\.npz holds no cloud"):
        read_clouds(tmp_path, 5)


@pytest.mark.parametrize("name", ["own.txt", "own"])
def test_weights_that_the_report_would_overwrite_are_refused(bag, tmp_path, name, capsys):
    assert main(["adapt", str(bag), str(tmp_path / name)]) == 2
    assert "must end in .safetensors" in capsys.readouterr().err


def test_a_bag_becomes_weights_a_sensor_a_picture_and_a_report(bag, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "SHARD", 2)
    monkeypatch.setattr(adapt, "SHARD", 2)
    monkeypatch.setattr(adapt, "PROBE", 2)
    monkeypatch.setattr(adapt, "MOST_SCENES", 2)
    monkeypatch.setattr(command, "MEASURED_ON", 2)
    monkeypatch.setattr(matching, "SCENES", range(1))
    monkeypatch.setattr(command, "make_plan", lambda *_: adapt.Plan(2, 2, 1.0, 1.0, 60.0))
    out = tmp_path / "own.safetensors"
    options = ["--start", str(weights), "--region", "0", "38.4", "-17.6", "17.6", "--threads", "1"]
    assert main(["adapt", str(bag), str(out), *options]) == 0
    sensor = json.loads((tmp_path / "own.sensor.json").read_text())
    assert sensor["rings"] and sensor["mount"] == pytest.approx(HDL32.mount, abs=0.25)
    assert read_metadata(out)["notes"]["sensor"]["azimuth_step"] == pytest.approx(0.332, rel=0.03)
    assert (tmp_path / "own.png").stat().st_size > 10_000
    report = (tmp_path / "own.txt").read_text()
    assert "azimuth step" in report and "before" in report and "after" in report
    # Going on keeps the sensor and the plan.
    written = (tmp_path / "own.sensor.json").stat().st_mtime_ns
    assert main(["adapt", str(bag), str(out), *options]) == 0
    assert (tmp_path / "own.sensor.json").stat().st_mtime_ns == written
    assert main(["adapt", str(bag), str(out), *options, "--minutes", "5"]) == 2
