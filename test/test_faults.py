"""What the running node does when things go wrong, by the numbers of the table of faults.

One node process serves the whole module; it is reconfigured where a test needs other parameters.
"""

from __future__ import annotations

import array
import re
import time
from pathlib import Path
from typing import Any

import failing_node
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import serialize_message
from ros_process import (
    SECOND,
    Robot,
    boxes,
    cloud,
    ends,
    ns_of,
    same_answer,
    scene,
    shown,
    transform,
    values,
)
from sensor_msgs.msg import PointCloud2, PointField

from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.network import Detector
from sbnet_perception.detector.weights import load_network, save_weights


def rejected(robot: Robot, msg: PointCloud2, reason: str) -> None:
    """The cloud is rejected, the log says why and names the frame, and the next good one is answered."""
    robot.send(msg)
    robot.wait_printed(rf"rejected \(frame_id '{msg.header.frame_id}'\): .*{reason}")
    robot.detect()
    assert ns_of(msg) not in robot.detections


def structured(points: np.ndarray, dtype: np.dtype, fields: list[tuple[str, int, int]], stamp_ns: int) -> PointCloud2:
    """A cloud of another layout; fields: name, offset, datatype."""
    table = np.zeros(len(points), dtype)
    for column, name in enumerate(("x", "y", "z", "intensity")):
        if name in (dtype.names or ()):
            table[name] = points[:, column]
    msg = cloud(points[:0], stamp_ns)
    msg.width, msg.point_step, msg.row_step = len(points), dtype.itemsize, dtype.itemsize * len(points)
    msg.fields = [PointField(name=name, offset=at, datatype=kind, count=1) for name, at, kind in fields]
    msg.data = array.array("B", table.tobytes())
    return msg


# 1 to 3: layouts that cannot be ------------------------------------------------------------------------


def test_1_a_truncated_cloud_is_rejected_and_the_node_goes_on(robot: Robot) -> None:
    msg = cloud(scene(), robot.tick())
    msg.data = msg.data[:-1]
    rejected(robot, msg, "truncated")
    status = robot.status()
    assert "truncated" in values(status)["last rejected"]
    assert "base_link" in values(status)["last rejected"]
    assert int(values(status)["rejected: cloud malformed"]) >= 1


def test_1_bytes_that_are_no_message_are_rejected_and_the_node_goes_on(robot: Robot) -> None:
    raw = serialize_message(cloud(scene(), robot.tick()))
    for damaged in (raw[: len(raw) // 2], raw[:30], b"\x00\x03" + raw[2:]):
        robot.send(damaged)
        robot.wait_printed(r"rejected \(frame_id ''\): cloud malformed: .*(truncated or damaged|no plain CDR)")
        robot.now_ns += 20 * SECOND
        robot.detect()


def test_2_an_impossible_point_step_or_field_is_rejected_and_row_padding_honoured(robot: Robot) -> None:
    msg = cloud(scene(), robot.tick())
    msg.point_step = 0
    rejected(robot, msg, "point_step is 0")
    msg = cloud(scene(), robot.tick())
    msg.fields[3].offset = 14
    rejected(robot, msg, "'intensity' at offset 14 ends (past|beyond) point_step 16")

    points = scene()[-4000:]
    rows = points.reshape(40, 100 * 4).view(np.uint8)
    padded = cloud(points, robot.tick())
    padded.height, padded.width, padded.row_step = 40, 100, 1600 + 24
    padded.data = array.array("B", np.pad(rows, ((0, 0), (0, 24)), constant_values=255).tobytes())
    same_answer(robot, padded, cloud(points, 0))


def test_3_a_cloud_without_floating_point_xyz_is_rejected_listing_its_fields(robot: Robot) -> None:
    msg = cloud(scene(), robot.tick())
    msg.fields = [field for field in msg.fields if field.name != "z"]
    rejected(robot, msg, "'z' is missing.*x.*y.*intensity")
    msg = cloud(scene(), robot.tick())
    msg.fields[0].datatype = PointField.INT32
    rejected(robot, msg, "'x' is neither float32 nor float64")


# 4 to 8: contents that need care -----------------------------------------------------------------------


def test_4_missing_intensity_is_rejected_or_taken_as_zero_with_a_warning(robot: Robot, reconfigured: Any) -> None:
    def without_intensity() -> PointCloud2:
        msg = cloud(scene(), robot.tick())
        del msg.fields[3]
        return msg

    rejected(robot, without_intensity(), "'intensity' is missing")
    reconfigured(missing_intensity="zero")
    assert len(robot.detect(without_intensity()).detections) > 0
    robot.wait_printed("WARN.*'intensity' is missing, 0 is used")
    assert "'intensity' is missing" in robot.status().message
    dark = scene() * np.array([1, 1, 1, 0], np.float32)
    same_answer(robot, without_intensity(), cloud(dark, 0))


@pytest.mark.parametrize(("kind", "datatype"), [("u1", PointField.UINT8), ("<u2", PointField.UINT16)])
def test_5_integer_intensity_means_the_same_as_float(robot: Robot, kind: str, datatype: int) -> None:
    points = scene()
    points[:, 3] = np.floor(points[:, 3])
    dtype = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", kind)])
    fields = [("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("intensity", 12, datatype)]
    same_answer(robot, structured(points, dtype, fields, robot.tick()), cloud(points, 0))


def test_5_intensity_of_another_scale_is_warned_about(robot: Robot) -> None:
    robot.detect(cloud(scene() * np.array([1, 1, 1, 1 / 255], np.float32), robot.tick()))
    robot.wait_printed("WARN.*declared scale looks wrong.*set intensity_scale to 1 or auto")
    assert robot.status().level != DiagnosticStatus.OK


def test_6_a_big_endian_cloud_is_decoded(robot: Robot) -> None:
    dtype = np.dtype([(name, ">f4") for name in ("x", "y", "z", "intensity")])
    fields = [(name, 4 * i, 7) for i, name in enumerate(("x", "y", "z", "intensity"))]
    msg = structured(scene(), dtype, fields, robot.tick())
    msg.is_bigendian = True
    same_answer(robot, msg, cloud(scene(), 0))


def test_7_nan_and_inf_are_dropped_whatever_is_dense_says(robot: Robot) -> None:
    spoilt = np.repeat(scene(), 2, axis=0)
    spoilt[::2] *= np.array([np.nan, 1, np.inf, 1], np.float32)
    msg = cloud(spoilt, robot.tick())
    assert msg.is_dense
    same_answer(robot, msg, cloud(scene(), 0))


def test_8_no_point_or_none_in_range_gives_an_empty_stamped_array(robot: Robot) -> None:
    behind = scene() * np.array([-1, 1, 1, 1], np.float32)
    for points in (scene()[:0], behind):
        msg = cloud(points, robot.tick(), frame_id="some_lidar")
        answer = robot.detect(msg)
        assert answer.header == msg.header
        shown(robot.markers, robot, msg)
    # One without points says nothing; thousands of points beside the grid do.
    robot.wait_printed(r"WARN.*no point of the cloud lies in the grid \(x 0\.\.70\.4, y -20\.\.20 m of some_lidar\)")
    assert "no point of the cloud lies in the grid" in robot.status().message
    assert len(robot.detect(cloud(scene()[:0], robot.tick())).detections) == 0
    assert values(robot.status())["points in range"] == "0"


def test_8_clouds_without_a_finite_point_are_a_warning_at_once_and_an_error_after_three_seconds(robot: Robot) -> None:
    nothing = np.full((4000, 4), np.nan, np.float32)
    robot.detect(cloud(nothing, robot.tick()))
    robot.wait_printed("WARN.*no point of base_link is finite: all 4000 are NaN or infinite")
    assert robot.status().level == DiagnosticStatus.WARN
    robot.now_ns += 4 * SECOND
    robot.detect(cloud(nothing, robot.tick()))
    robot.wait_printed(r"ERROR.*no cloud of base_link has had a finite point for 4\.\d s")
    assert robot.status().level == DiagnosticStatus.ERROR
    robot.detect()
    assert "finite" not in robot.status().message


def test_8_an_empty_cloud_has_no_detection_where_the_network_computes_densely_either(
    robot: Robot, reconfigured: Any
) -> None:
    reconfigured(mask__expression="everywhere")
    assert len(robot.detect().detections) > 0
    assert len(robot.detect(cloud(scene()[:0], robot.tick())).detections) == 0


# 12 to 14: headers and time ----------------------------------------------------------------------------


def test_12_an_empty_frame_id_or_an_invalid_stamp_is_rejected(robot: Robot) -> None:
    rejected(robot, cloud(scene(), robot.tick(), frame_id=""), "frame_id empty")
    for sec, nanosec in ((0, 0), (-5, 0), (robot.now_ns // SECOND, 1_500_000_000)):
        msg = cloud(scene(), robot.tick())
        msg.header.stamp.sec, msg.header.stamp.nanosec = sec, nanosec
        rejected(robot, msg, f"stamp invalid: stamp is {sec} s {nanosec} ns")
    assert robot.counter("rejected: stamp invalid") >= 3


def test_13_duplicates_and_late_clouds_are_dropped_and_counted(robot: Robot) -> None:
    first, second = cloud(scene(), robot.tick()), cloud(scene(), robot.tick())
    robot.detect(second)
    robot.send(second)
    robot.wait(lambda: robot.counter("dropped: duplicate stamp") >= 1, "the duplicate is counted")
    robot.send(first)
    robot.wait(lambda: robot.counter("dropped: out of order") >= 1, "the late one is counted")
    assert ns_of(first) not in robot.detections


def test_13_two_lidars_on_one_topic_are_both_answered_each_in_its_own_order(robot: Robot) -> None:
    for _ in range(4):
        now_ns = robot.tick()
        for behind_ms, frame_id in ((0, "front"), (30, "/rear")):
            answer = robot.detect(cloud(scene(), now_ns - behind_ms * SECOND // 1000, frame_id=frame_id))
            assert answer.header.frame_id == frame_id.removeprefix("/")
    assert sum("'/rear' is taken for 'rear'" in line for line in robot.lines) == 1
    before = robot.counter("dropped: out of order")
    robot.send(cloud(scene(), now_ns - SECOND // 2, frame_id="rear"))
    robot.wait(lambda: robot.counter("dropped: out of order") == before + 1, "the late one is counted")
    assert not robot.printed("time jumped")


def test_two_lidars_on_two_topics_become_one_cloud_and_a_missing_one_is_reported(
    robot: Robot, reconfigured: Any
) -> None:
    # A long window: this machine may be busy.
    reconfigured(points=["points", "rear/points"], grid_frame="base_link", merge_window=1.0)
    robot.send_tf(transform("base_link", "rear", 0, x=-1.0), static=True)
    rear = robot.publisher(PointCloud2, "rear/points")
    first, second = scene()[::2], scene()[1::2] + np.array([1, 0, 0, 0], np.float32)

    def answer(front: np.ndarray, behind: np.ndarray) -> np.ndarray:
        msg = cloud(front, robot.tick())
        rear.publish(cloud(behind, robot.now_ns + 1000, frame_id="rear"))
        return boxes(robot.detect(msg))

    answer(first, second)
    whole = np.concatenate([first, second - np.array([1, 0, 0, 0], np.float32)])
    np.testing.assert_allclose(answer(first, second), answer(whole, second[:0]), rtol=1e-4, atol=1e-4)
    assert any(values(frame)["clouds"] == "2" for frame in robot.frames)
    robot.detect()
    robot.wait_printed("WARN.*no cloud of /rear/points within merge_window 1 s")
    status = robot.status()
    assert "no cloud of /rear/points" in status.message
    assert int(values(status)["frames without: /rear/points"]) >= 1


def test_20_topics_of_clouds_that_are_none_or_the_same_fail_the_configuration(robot: Robot, reconfigured: Any) -> None:
    for topics, reason in ((["points", "/points"], "name each topic once"), (["a b"], "parameter 'points' is")):
        with pytest.raises(AssertionError):
            reconfigured(points=topics)
        robot.wait_printed(f"FATAL.*cannot configure: .*{reason}")
        assert robot.state() == "unconfigured"
        robot.set(points=["points"])
        for label in ("configure", "activate"):
            assert robot.transition(label), robot.log()
        robot.detect()


def test_14_after_a_jump_back_in_time_the_node_starts_afresh_with_one_line(robot: Robot, reconfigured: Any) -> None:
    reconfigured(grid_frame="map")
    robot.send_tf(transform("map", "base_link", robot.tick(), x=1.0))
    robot.detect(cloud(scene(), robot.now_ns))
    robot.now_ns -= 60 * SECOND
    robot.detections.clear()  # clouds to come have stamps of those before
    before = len(robot.detections)

    def answers() -> bool:
        # tf2 refuses old transforms until the node, told by the first cloud, clears it.
        robot.send_tf(transform("map", "base_link", robot.tick(), x=1.0))
        robot.send(cloud(scene(), robot.now_ns))
        time.sleep(0.1)
        return len(robot.detections) > before + 5

    robot.wait(answers, "answers after the jump")
    assert sum("time jumped by -" in line for line in robot.lines) == 1


# 22, 23: the GPU -------------------------------------------------------------------------------------------


def test_22_a_gpu_that_is_not_there_fails_the_configuration_with_the_remedy(robot: Robot, reconfigured: Any) -> None:
    with pytest.raises(AssertionError):
        reconfigured(device="cuda:99")
    assert robot.state() == "unconfigured"
    robot.wait_printed("FATAL.*cannot configure: device is 'cuda:99', but .*; set device to cpu, or to auto")
    robot.set(device="auto")
    for label in ("configure", "activate"):
        assert robot.transition(label), robot.log()
    robot.detect()


def test_23_without_memory_a_frame_is_tried_twice_and_on_a_lost_device_the_process_ends_for_another(
    weights: Path,
) -> None:
    robot = Robot({"weights": weights, "score_threshold": 0.0}, program=failing_node.PROGRAM)
    try:
        robot.ready()
        robot.detect(cloud(points(failing_node.SHORT_OF_MEMORY), robot.tick()))
        robot.wait_printed("WARN.*computed twice, memory was released: CUDA out of memory")
        assert robot.counter("failed") == 0
        lost = cloud(points(failing_node.WITHOUT_MEMORY), robot.tick())
        robot.send(lost)
        robot.wait_printed("ERROR.*a cloud failed: OutOfMemoryError: CUDA out of memory")
        robot.wait(lambda: robot.diagnostics[-1][1].level == DiagnosticStatus.ERROR, "an error in /diagnostics")
        assert "inference failed" in robot.diagnostics[-1][1].message
        robot.detect()
        assert ns_of(lost) not in robot.detections
        robot.send(cloud(points(failing_node.ILLEGAL_ACCESS), robot.tick()))
        ends(robot)
    finally:
        code = robot.close()
    assert code == 1
    (fatal,) = (line for line in robot.lines if "FATAL" in line)
    assert re.search(rf"is lost to this process \({failing_node.FAILURE}\).*exit code 1.*respawn.*device to cpu", fatal)
    assert not robot.printed("Traceback"), robot.log()


def points(count: int) -> np.ndarray:
    return np.resize(scene(), (count, 4))


# 24, 27, 29 --------------------------------------------------------------------------------------------


def test_24_clouds_that_come_faster_than_they_are_processed_are_dropped_oldest_first(
    robot: Robot, reconfigured: Any
) -> None:
    # Computing everywhere takes several times as long as the clouds are apart.
    reconfigured(mask__expression="everywhere")
    robot.detect()
    before, sent = len(robot.detections), 1

    def dropped() -> bool:
        nonlocal sent
        # All of them together fit the shared memory of Fast DDS.
        burst = [cloud(scene(20_000), robot.tick()) for _ in range(30)]
        sent += len(burst)
        for msg in burst:
            robot.send(msg)
            time.sleep(0.002)
        robot.wait(lambda: ns_of(burst[-1]) in robot.detections, "the newest cloud is answered")
        return robot.counter("dropped: newer cloud arrived") >= 1

    robot.wait(dropped, "drops are counted")
    answered = list(robot.detections)[before:]
    assert len(answered) < sent
    assert answered == sorted(answered)
    assert robot.counter("received") + robot.counter("lost") == sent, "what was overwritten on the way is counted"


def test_27_a_sensor_that_falls_silent_is_an_error_until_it_is_back(robot: Robot, reconfigured: Any) -> None:
    reconfigured(input_timeout=1.0)
    robot.detect()
    robot.wait(lambda: "no cloud for" in robot.diagnostics[-1][1].message, "the complaint")
    assert robot.diagnostics[-1][1].level == DiagnosticStatus.ERROR

    def well_again() -> bool:
        robot.detect()
        return robot.diagnostics[-1][1].level != DiagnosticStatus.ERROR

    robot.wait(well_again, "the end of the complaint")


def test_29_boxes_that_are_not_finite_never_leave_the_node(
    robot: Robot, reconfigured: Any, weights: Path, tmp_path: Path
) -> None:
    spoilt = tmp_path / "spoilt.safetensors"
    save_weights(spoilt, exploding(weights), 0.2, (VEHICLE,), {})
    reconfigured(weights=str(spoilt))
    assert len(robot.detect().detections) == 0
    robot.wait_printed("ERROR.*boxes not finite, huge or far away")
    assert robot.counter("invalid boxes") > 0


def exploding(weights: Path) -> Detector:
    """The network with sizes of e^1000 metres."""
    from sbnet_perception.detector.config import DetectorConfig

    network = load_network(DetectorConfig(weights=str(weights)))
    for name, value in network.state_dict().items():
        if "size" in name and name.endswith("bias"):
            value[:] = 1000.0
    return network
