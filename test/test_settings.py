"""Settings that the node finds itself, or finds wrong: height of the ground, scale of the intensity."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from ros_process import SECOND, Robot, boxes, cloud, scene, values
from sensor_msgs.msg import PointCloud2

from sbnet_perception.messages.pointcloud2 import CloudPoints
from sbnet_perception.node.ground import QUICK, Ground
from sbnet_perception.node.intensity import STEADY, Intensity

HEIGHT = 1.73
CHANGE = np.array([1, 1, 1, 1 / 255], np.float32)


def kitti_like(robot: Robot) -> PointCloud2:
    """The usual scene from a sensor on the roof, intensity 0-1."""
    return cloud(scene() * CHANGE - np.array([0, 0, HEIGHT, 0], np.float32), robot.tick(), "velodyne")


# The running node ---------------------------------------------------------------------------------------


def test_clouds_of_base_link_and_of_a_sensor_on_the_roof_give_the_same_detections_untouched(
    robot: Robot, reconfigured: Any
) -> None:
    reconfigured(ground_z="auto", intensity_scale="auto")
    low = boxes(robot.detect())
    robot.wait_printed(r"INFO.*found: the ground lies 0\.0\d m (below|above) z = 0 of base_link \(\d+ % of the area")
    robot.wait_printed("INFO.*found: intensity 255 means full reflectance")
    high = boxes(robot.detect(kitti_like(robot)))
    robot.wait_printed(r"INFO.*found: the ground lies 1\.7\d m below z = 0 of velodyne")
    robot.wait_printed("INFO.*found: intensity 1 means full reflectance")
    assert len(low) > 0
    np.testing.assert_allclose(high + np.array([0, 0, HEIGHT, 0, 0, 0, 0, 0]), low, rtol=1e-4, atol=1e-3)

    robot.wait(lambda: values(robot.frames[-1])["intensity scale"] == "1", "figures of the second cloud")
    figures = values(robot.frames[-1])
    assert float(figures["ground z m"]) == pytest.approx(-HEIGHT, abs=0.05)
    assert figures["ground z m"] == figures["ground measured z m"]
    assert float(figures["ground support"]) > 0.8
    # The raster of the computation lies on the ground too.
    robot.wait(lambda: any(m.header.frame_id == "velodyne" for m in robot.masks.values()), "its mask")
    (mask,) = (m for m in robot.masks.values() if m.header.frame_id == "velodyne")
    assert mask.info.origin.position.z == pytest.approx(-HEIGHT, abs=0.05)


def test_a_wrong_height_is_named_with_its_remedy_and_the_right_one_is_not(robot: Robot, reconfigured: Any) -> None:
    reconfigured(ground_z=0.0, intensity_scale="auto")
    for _ in range(QUICK):
        robot.detect(kitti_like(robot))
    robot.wait_printed(
        r"WARN.*the ground lies 1\.7\d m below z = 0 of velodyne, but ground_z is 0: set ground_z to -1\.7\d or auto"
    )
    status = robot.status()
    assert status.level == DiagnosticStatus.WARN
    assert "set ground_z to -1.7" in status.message

    reconfigured(ground_z=-HEIGHT, intensity_scale="auto")
    for _ in range(QUICK + 1):
        robot.detect(kitti_like(robot))
    assert "ground" not in robot.status().message
    assert values(robot.status())["ground z m"] == "-1.73"


def test_a_cloud_without_ground_near_the_origin_is_complained_about_where_the_ground_is_to_be_found(
    robot: Robot, reconfigured: Any
) -> None:
    reconfigured(ground_z="auto")
    robot.detect(cloud(scene() + np.array([30, 0, 0, 0], np.float32), robot.tick()))
    robot.wait_printed("WARN.*no ground is seen within 20 m of the origin of base_link, z = 0 counts as the ground")
    assert "set ground_z" in robot.status().message


def test_after_a_jump_back_in_time_the_ground_is_found_anew(robot: Robot, reconfigured: Any) -> None:
    reconfigured(ground_z="auto")
    for _ in range(3):
        robot.detect()
    robot.now_ns -= 60 * SECOND
    robot.detect(cloud(scene() + np.array([0, 0, 1, 0], np.float32), robot.tick()))
    robot.wait_printed(r"found: the ground lies 0\.9\d m above z = 0 of base_link")


# Over time ----------------------------------------------------------------------------------------------


def at(z: float) -> torch.Tensor:
    points = torch.from_numpy(scene())
    points[:, 2] += z
    return points


def test_the_height_settles_at_the_median_and_one_odd_cloud_does_not_move_it() -> None:
    ground = Ground("auto", "lidar")
    assert ground(at(-1.9)).z == pytest.approx(-1.9, abs=0.03)
    answers = [ground(at(z)) for z in (-1.7, -1.7, -1.7, 3.0, -1.7)]
    assert [answer.z for answer in answers[1:]] == pytest.approx([-1.7] * 4, abs=0.03)
    for _ in range(100):
        last = ground(at(-1.7))
    assert (last.z, last.news, last.warnings) == (pytest.approx(-1.7, abs=0.03), "", ())
    assert ground(torch.zeros(0, 4)).z == last.z


def test_a_guess_counts_with_a_warning_until_a_cloud_is_sure() -> None:
    ground = Ground("auto", "lidar")
    rough = np.random.default_rng(1).uniform((-20, -20, -2.0), (20, 20, 4.0), (8000, 3)).astype(np.float32)
    guess = ground(torch.from_numpy(rough))
    assert guess.z == guess.measured != 0.0
    assert "of the area around agrees: set ground_z" in guess.warnings[0]
    assert guess.news == ""
    sure = ground(at(-1.7))
    assert (sure.z, sure.warnings) == (pytest.approx(-1.7, abs=0.05), ())
    assert "1.7" in sure.news


def test_a_number_is_kept_and_contradicted_only_by_many_clouds_a_quarter_metre_away() -> None:
    near, wrong = Ground(-1.6, "lidar"), Ground(0.3, "lidar")
    for count in range(1, 3 * QUICK):
        assert near(at(-1.8)).warnings == ()
        answer = wrong(at(-1.8))
        assert answer.z == 0.3
        assert len(answer.warnings) == (count >= QUICK)
    assert re.fullmatch(
        r"the ground lies 1\.\d\d m below z = 0 of lidar, but ground_z is 0\.3: set ground_z to -1\.\d\d or auto",
        answer.warnings[0],
    )


def bright(scale: float, whole: bool = True) -> CloudPoints:
    points = scene() * np.array([1, 1, 1, scale / 255], np.float32)
    points[:, 3] = np.floor(points[:, 3]) if whole else points[:, 3]
    return CloudPoints(points)


def test_the_scale_is_found_from_the_first_cloud_and_changes_only_for_good() -> None:
    for largest, whole, expected in ((1.0, False, 1.0), (255.0, True, 255.0), (90.0, True, 255.0), (4e4, True, 65535)):
        cloud = bright(largest, whole)
        raw = cloud.points[:, 3].copy()
        answer = Intensity("auto")(cloud)
        assert (answer.scale, answer.warnings) == (expected, ())
        np.testing.assert_allclose(cloud.points[:, 3], raw / expected, rtol=1e-6)

    intensity = Intensity("auto")
    intensity(bright(255))
    assert [intensity(bright(65535)).scale for _ in range(STEADY - 1)] == [255.0] * (STEADY - 1)
    intensity(bright(255))
    assert [intensity(bright(65535)).scale for _ in range(STEADY)] == [255.0] * (STEADY - 1) + [65535.0]


def test_a_cloud_whose_intensity_tells_nothing_is_warned_about_and_one_without_has_no_scale() -> None:
    dark = Intensity("auto")(bright(0.0))
    assert (dark.scale, dark.warnings) == (255.0, ("all intensities are 0: the LiDAR or its driver gives none",))
    unclear = Intensity("auto")(bright(1.9))
    assert unclear.scale == 255.0
    assert "do not tell their scale" in unclear.warnings[0] and "intensity_scale" in unclear.warnings[0]
    without = CloudPoints(scene(), has_intensity=False)
    assert Intensity("auto")(without).scale is None
    assert Intensity(255.0)(without).warnings == ()


@pytest.mark.parametrize(
    ("intensity", "sentence"),
    [
        (np.linspace(0, 4095, 5000), "found scale looks wrong: it is 65535, .*set intensity_scale to the intensity"),
        (np.linspace(0, 2.5, 5000), "found scale looks wrong: it is 255, .*set intensity_scale to the intensity"),
        (np.linspace(0, 1e6, 5000), "found scale looks wrong: it is 65535, .*set intensity_scale to the intensity"),
        (np.linspace(-30, 200, 5000), "intensity: 13 % are negative"),
    ],
    ids=["12 bits", "up to 2.5", "counts", "decibels"],
)
def test_an_intensity_whose_scale_is_none_that_drivers_use_is_told(intensity: np.ndarray, sentence: str) -> None:
    points = np.zeros((5000, 4), np.float32)
    points[:, 3] = intensity
    assert re.search(sentence, Intensity("auto")(CloudPoints(points)).warnings[0])
