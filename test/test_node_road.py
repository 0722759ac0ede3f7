"""Where the road is and where the robot is: what the running node makes of maps and transforms.

The numbers are those of the table of faults. One node process serves the whole module.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from ros_process import (
    RELIABLE,
    ROAD,
    SECOND,
    Robot,
    cloud,
    ns_of,
    road_grid,
    same_answer,
    scene,
    shown,
    transform,
    values,
)


def figures(robot: Robot) -> dict[str, str]:
    """What the node tells about a fresh cloud."""
    ns = ns_of(robot.detect())
    named = {"stamp": f"{ns // SECOND}.{ns % SECOND:09d}"}
    robot.wait(lambda: robot.frames and named.items() <= values(robot.frames[-1]).items(), "figures of the cloud")
    return values(robot.frames[-1])


def test_15_without_a_road_mask_the_road_is_everywhere_and_other_masks_still_apply(
    robot: Robot, reconfigured: Any
) -> None:
    reconfigured()
    answer = robot.detect()
    robot.wait_printed("WARN.*no road mask received yet: the road counts as everywhere")
    status = robot.status()
    assert status.level == DiagnosticStatus.WARN
    assert "no road mask received yet" in status.message
    assert values(status)["dense"] == "false"
    computed = np.array(shown(robot.masks, robot, answer).data)
    assert 0 < (computed == 100).mean() < 0.5


def test_15_without_any_mask_the_dense_computation_is_announced(robot: Robot, reconfigured: Any) -> None:
    reconfigured(mask__expression="road")
    answer = robot.detect()
    robot.wait_printed("WARN.*computing densely")
    status = robot.status()
    assert "computing densely" in status.message
    assert values(status)["dense"] == "true"
    assert (np.array(shown(robot.masks, robot, answer).data) == 100).all()


def test_15_without_a_road_mask_clouds_are_refused_where_the_parameter_says_so(robot: Robot, reconfigured: Any) -> None:
    reconfigured(without_road_mask="refuse")
    msg = cloud(scene(), robot.tick())
    robot.send(msg)
    robot.wait_printed("dropped .*no road mask")
    robot.send_road(road_grid(np.full((80, 141), 100)))
    robot.detect()
    assert ns_of(msg) not in robot.detections


def test_16_a_road_mask_that_is_too_old_or_beside_the_grid_counts_as_everywhere(
    robot: Robot, reconfigured: Any
) -> None:
    reconfigured(road_mask_timeout=1.0)

    def in_use() -> bool:
        robot.send_road(road_grid(np.full((80, 141), 100)), heard=False)
        return figures(robot)["road mask"] == "in use"

    robot.wait(in_use, "the road in use")
    time.sleep(1.1)
    assert len(robot.detect().detections) > 0
    robot.wait_printed("WARN.*older than road_mask_timeout 1 s: the road counts as everywhere")
    status = robot.status()
    assert "older than road_mask_timeout" in status.message
    assert float(values(status)["road mask age s"]) > 1.0

    reconfigured()
    robot.send_road(road_grid(np.full((10, 10), 100), xy=(-500.0, 0.0)))
    assert len(robot.detect().detections) > 0
    robot.wait_printed("WARN.*covers no part of the grid: the road counts as everywhere")
    robot.send_road(road_grid(np.full((60, 60), 100), xy=(-15.0, -15.0)))
    assert len(robot.detect().detections) > 0
    robot.wait_printed("WARN.*the road mask covers 16 % of the grid: the rest counts as road")
    assert values(robot.status())["road mask coverage"] == "0.16"
    robot.send_road(road_grid(np.zeros((80, 141))))
    assert len(robot.detect().detections) > 0
    robot.wait_printed("WARN.*no road in the grid .*: the road counts as everywhere")


def test_17_a_road_mask_in_another_frame_resolution_and_rotation_is_placed_at_each_cloud(
    robot: Robot, reconfigured: Any
) -> None:
    reconfigured(mask__expression="road", road_outside="no_road")
    # In the map the road is a strip 6 m wide along y at x = 100; the robot at (100, 50) looks along it,
    # then across.
    cells = np.zeros((300, 40), np.int8)
    cells[:, 14:26] = 100
    robot.send_road(road_grid(cells.T[::-1], 0.5, xy=(90.0, 150.0), yaw=-np.pi / 2, frame_id="map"))
    grid_y = (np.arange(50) + 0.5) * 0.8 - 20
    grid_x = (np.arange(88) + 0.5) * 0.8
    for yaw, along in ((np.pi / 2, True), (0.0, False)):
        msg = cloud(scene(), robot.tick())
        robot.send_tf(transform("map", "base_link", robot.now_ns, x=100.0, y=50.0, yaw=yaw))
        robot.detect(msg)
        computed = np.array(shown(robot.masks, robot, msg).data).reshape(50, 88) == 100
        distance = np.broadcast_to(np.abs(grid_y)[:, None] if along else grid_x[None], computed.shape)
        assert computed[distance < 2.9].all()
        # Whole tiles are computed: 4 pixels of 0.8 m and what the touched cells add.
        assert not computed[distance > 8.0].any()


def test_17_while_the_map_cannot_be_placed_the_road_is_everywhere(robot: Robot, reconfigured: Any) -> None:
    reconfigured()
    robot.send_road(road_grid(np.full((80, 141), 100), frame_id="nowhere"))
    # The first cloud waits for tf_timeout (2 s); those after it, for a second, do not.
    assert float(figures(robot)["ms road"]) >= 1000
    robot.wait_printed("road mask cannot be placed.*nowhere")
    robot.wait(lambda: float(figures(robot)["ms road"]) < 1000, "a cloud that does not wait")


def test_18_a_malformed_road_mask_is_rejected_and_the_last_good_one_kept(robot: Robot, reconfigured: Any) -> None:
    reconfigured(mask__expression="road")
    cells = np.zeros((80, 141), np.int8)
    cells[:, :20] = 100
    robot.send_road(road_grid(cells))

    def computed() -> np.ndarray:
        msg = cloud(scene(), robot.tick())
        robot.detect(msg)
        return np.array(shown(robot.masks, robot, msg).data)

    good = computed()
    assert 0 < (good == 100).mean() < 0.4
    short, flat, lost, nameless = (road_grid(np.full((80, 141), 100)) for _ in range(4))
    short.data = short.data[:-1]
    flat.info.resolution = 0.0
    lost.info.origin.position.x = float("nan")
    nameless.header.frame_id = ""
    for number, bad in enumerate((short, flat, lost, nameless), start=1):
        robot._road.publish(bad)
        robot.wait(lambda n=number: robot.counter("road masks rejected: road mask malformed") == n, "one more rejected")
        np.testing.assert_array_equal(computed(), good)


def test_31_an_external_mask_says_where_to_compute_and_without_it_everything_is(
    robot: Robot, reconfigured: Any
) -> None:
    reconfigured(mask__expression="external", external_mask_timeout=0.0)
    robot.detect()
    robot.wait_printed("WARN.*no external mask received yet: it counts as everywhere")
    assert values(robot.status())["dense"] == "true"

    # It is of the map, in which the robot stands at x = 100 and looks along y: wanted is what lies 10 to 20 m ahead.
    wanted = np.zeros((200, 200), np.int8)
    wanted[60:80] = 100
    masks = robot.publisher(OccupancyGrid, "external_mask", ROAD)
    masks.publish(road_grid(wanted, 0.5, xy=(50.0, -20.0), frame_id="map"))
    robot.wait_printed("INFO.*external mask: 200 x 200 cells of 0.5 m in 'map'")
    msg = cloud(scene(), robot.tick())
    robot.send_tf(transform("map", "base_link", robot.now_ns, x=100.0, yaw=np.pi / 2))
    robot.detect(msg)
    computed = np.array(shown(robot.masks, robot, msg).data).reshape(50, 88) == 100
    x = (np.arange(88) + 0.5) * 0.8
    # The rest of its raster is not; what lies beyond it, from 80 m of the map on, would be.
    assert computed[:, (x > 10) & (x < 20)].all() and not computed[:, (x < 5) | (x > 25)].any()
    status = values(robot.status())
    assert (status["external mask"], status["external mask coverage"]) == ("in use", "1.00")
    assert status["road mask"] == "not used"

    # The computation_mask of another detector is reliable too, but not latched.
    other = robot.publisher(OccupancyGrid, "external_mask", RELIABLE)
    received = robot.counter("external masks received")
    other.publish(road_grid(wanted, 0.5, xy=(50.0, -20.0), frame_id="map"))
    robot.wait(lambda: robot.counter("external masks received") == received + 1, "it is received")
    robot.withdraw(other)

    short = road_grid(wanted)
    short.data = short.data[:-1]
    masks.publish(short)
    robot.wait(lambda: robot.counter("external masks rejected: external mask malformed") == 1, "it is rejected")
    robot.withdraw(masks)
    reconfigured(mask__expression="external or road", without_external_mask="refuse")
    refused = cloud(scene(), robot.tick())
    robot.send(refused)
    robot.wait_printed("dropped .*no external mask received yet .without_external_mask is refuse")
    assert ns_of(refused) not in robot.detections


def test_19_a_cloud_waits_for_its_transform_and_is_dropped_without_one(robot: Robot, reconfigured: Any) -> None:
    reconfigured(grid_frame="base_link", ground_z=-1.0)
    lost = cloud(scene(), robot.tick(), frame_id="lidar")
    robot.send(lost)
    robot.wait_printed("dropped .*no transform: base_link <- lidar: ")
    assert ns_of(lost) not in robot.detections

    # Late by 0.2 s of the 2 s that a cloud waits; the lidar hangs 2 m before and looks to the left.
    late = cloud(scene(), robot.tick(), frame_id="lidar")
    robot.send(late)
    time.sleep(0.2)
    assert ns_of(late) not in robot.detections
    robot.send_tf(transform("base_link", "lidar", 0, x=2.0, z=-1.0, yaw=np.pi / 2), static=True)
    robot.wait(lambda: ns_of(late) in robot.detections, "the late transform helps")
    assert robot.detections[ns_of(late)].header.frame_id == "base_link"

    points = scene()
    moved = np.stack([2.0 - points[:, 1], points[:, 0], points[:, 2] - 1.0, points[:, 3]], 1)
    same_answer(robot, cloud(points, robot.tick(), frame_id="lidar"), cloud(moved, 0))
