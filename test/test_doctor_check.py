"""`sbnet doctor --live` and `--bag`: why there are no boxes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from nav_msgs.msg import OccupancyGrid
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rich.console import Console
from ros_process import LATCHED, RELIABLE, START_NS, cloud, own_domain, road_grid, scene, transform
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage

from sbnet_perception import cli
from sbnet_perception.bags.reader import BagReader, Topic
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.desk import check, doctor, inspection, listen
from sbnet_perception.desk.findings import Finding
from sbnet_perception.desk.node_word import Report, box_finding, word_findings
from sbnet_perception.desk.running import Running, choose
from sbnet_perception.desk.topics import CLOUD, choose_topics
from sbnet_perception.errors import UserError
from sbnet_perception.node.spinner import Spinner

QUIET = Console(quiet=True)


def named(findings: Any, what: str) -> Finding:
    return next(finding for finding in findings if finding.what == what)


def seen(*messages: PointCloud2, received_ns: int = 0) -> inspection.Clouds:
    clouds = inspection.Clouds()
    for message in messages:
        inspection.take_cloud(clouds, serialize_message(message), received_ns)
    return clouds


def spoilt(what: str) -> list[PointCloud2]:
    """Ten clouds at 10 Hz with one thing wrong in each, or nothing."""
    points = scene(500)
    if what == "NaN":
        points[:, 0] = np.nan
    messages = [cloud(points, START_NS + index * 10**8, "lidar") for index in range(10)]
    for index, message in enumerate(messages):
        if what == "no intensity":
            message.fields = message.fields[:3]
        elif what == "truncated":
            message.data = message.data[:-1]
        elif what == "no frame_id":
            message.header.frame_id = ""
        elif what == "no stamp":
            message.header.stamp.sec = message.header.stamp.nanosec = 0
        elif what == "twice":
            message.header.stamp = messages[index - index % 2].header.stamp
        elif what == "two sensors":
            message.header.frame_id = f"lidar{index % 2}"
    return messages


@pytest.mark.parametrize(
    ("what", "line", "state", "says"),
    [
        ("nothing", "fields of /points", "OK", "x float32 at 0"),
        ("nothing", "/points", "OK", "10 clouds, 10.0 Hz, 1100 points"),
        ("NaN", "points of /points", "FAIL", "100 % of them are NaN"),
        ("no intensity", "fields of /points", "FAIL", "no intensity among x float32"),
        ("truncated", "fields of /points", "FAIL", "truncated"),
        ("no frame_id", "frame_id of /points", "FAIL", "empty"),
        ("two sensors", "frame_id of /points", "WARN", "'lidar0', 'lidar1'"),
        ("no stamp", "stamps of /points", "FAIL", "0"),
        ("twice", "stamps of /points", "WARN", "5 with a stamp that came before"),
    ],
)
def test_what_is_wrong_with_clouds_is_one_line_of_its_own(what: str, line: str, state: str, says: str) -> None:
    found = named(inspection.cloud_findings("/points", seen(*spoilt(what)), live=False), line)
    assert found.state == state and says in found.found, found
    assert bool(found.remedy) == (state != "OK")


def test_lost_clouds_no_clouds_and_another_clock_are_told() -> None:
    gaps = seen(*(message for index, message in enumerate(spoilt("nothing")) if index not in (3, 4, 7)))
    rate = named(inspection.cloud_findings("/points", gaps, live=False), "/points")
    assert (rate.state, "3 missing between them" in rate.found) == ("WARN", True)
    assert named(inspection.cloud_findings("/points", seen(), live=True), "/points").state == "FAIL"
    late = seen(*spoilt("nothing"), received_ns=START_NS + 7 * 10**9)
    assert "6.5 s behind" in named(inspection.cloud_findings("/points", late, live=True), "stamps of /points").found
    assert named(inspection.cloud_findings("/points", late, live=False), "stamps of /points").state == "OK"


@pytest.mark.parametrize(
    ("offered", "count", "state", "says"),
    [
        (LATCHED, 1, "OK", "can hear it"),
        (RELIABLE, 0, "FAIL", "cannot be heard"),
        (QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.TRANSIENT_LOCAL), 0,
         "FAIL", "cannot be heard"),
        (LATCHED, 0, "FAIL", "nothing arrived"),
    ],
)  # fmt: skip
def test_a_map_that_the_node_cannot_hear_is_told_from_one_that_does_not_arrive(
    offered: QoSProfile, count: int, state: str, says: str
) -> None:
    publisher = SimpleNamespace(node_name="map_server", node_namespace="/", qos_profile=offered)
    found = listen.qos_finding("/map", [publisher], listen.LATCHED, count)
    assert found.state == state and says in found.found and "/map_server" in found.found


def running(*clouds: str, **others: Any) -> Running:
    return Running("/sbnet", dict.fromkeys(clouds, RELIABLE), **others)


@pytest.mark.parametrize(
    ("node", "played", "state", "remedy"),
    [
        (running("/points"), ["/lidar_top"], "FAIL", "points:=/lidar_top"),
        (running("/lidar_top"), ["/lidar_top"], "OK", ""),
        (running("/a", "/b"), ["/a", "/b"], "OK", ""),
        (running("/a"), ["/a", "/b"], "FAIL", "points:=[/a, /b]"),
        (running("/a", "/b"), ["/a"], "FAIL", "is that LiDAR's driver running?"),
        (running(), ["/a"], "WARN", "configure and activate it: ros2 lifecycle set /sbnet configure"),
        (None, ["/a", "/b"], "WARN", "points:=[/a, /b]"),
    ],
)
def test_what_the_node_listens_to_is_compared_with_what_is_published(
    node: Running | None, played: list[str], state: str, remedy: str
) -> None:
    topics = choose_topics({name: Topic(CLOUD, 1, False, "") for name in played}, played, None)
    (found,) = listen.listener_findings(node, topics)
    assert found.state == state and remedy in found.remedy and bool(remedy) == bool(found.remedy)


@pytest.mark.parametrize(("later_s", "state"), [(0.02, "OK"), (0.07, "WARN")])
def test_lidars_whose_stamps_lie_too_far_apart_to_become_one_are_told(later_s: float, state: str) -> None:
    front, rear = seen(*spoilt("nothing")), seen(*spoilt("nothing"))
    rear.stamps = [stamp + int(later_s * 1e9) for stamp in rear.stamps]
    (found,) = inspection.merge_findings({"/front": front, "/rear": rear}, 0.025)
    assert found.state == state and f"{min(later_s, 0.1 - later_s):.3f} s (median) from those of /front" in found.found
    assert not list(inspection.merge_findings({"/front": front}, 0.025))


def test_kernel_buffers_smaller_than_a_cloud_are_told(tmp_path: Path) -> None:
    for name in ("core/rmem_max", "ipv4/ipfrag_high_thresh"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("4194304\n")
    states = [[f.state for f in inspection.size_findings(size, tmp_path)] for size in (1000, 2**21, 2**23)]
    assert states == [[], ["OK"], ["WARN"]]


def test_each_complaint_of_the_node_is_one_line_at_the_level_that_is_its_own() -> None:
    values = {"state": "active", "points": "9", "ground z m": "0.10"}
    reports = [
        Report(1, "no cloud received yet", {"state": "active"}),
        Report(1, "2 clouds dropped: no transform", values),
        Report(2, "rejected: cloud malformed; 5 clouds dropped: no transform", values),
    ]
    findings = list(word_findings("detector", reports))
    assert [(f.state, f.found) for f in findings] == [
        ("FAIL", "rejected: cloud malformed (in 1 of 3 reports)"),
        ("WARN", "5 clouds dropped: no transform (in 2 of 3 reports)"),
        ("OK", "points 9, ground z m 0.10"),
    ]
    assert [f.state for f in word_findings("detector", [])] == ["WARN"]
    states = [box_finding(10, processed, boxes, 0.9).state for processed, boxes in ((0, 0), (9, 0), (3, 5), (10, 5))]
    assert states == ["FAIL", "WARN", "WARN", "OK"]


def test_a_bag_is_looked_at_only_as_far_as_asked_and_without_clouds_the_topics_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sbnet_perception.desk.doctor.examine", lambda with_dds: [])
    bag = tmp_path / "tf.mcap"
    with BagWriter(bag) as writer:
        writer.write("/tf", serialize_message(TFMessage(transforms=[transform("a", "b", START_NS)])), START_NS,
                     msgtype="tf2_msgs/msg/TFMessage")  # fmt: skip
    assert cli.main(["doctor", "--bag", str(bag)]) == 1
    assert "/tf (tf2_msgs/msg/TFMessage)" in capsys.readouterr().out.replace("\n", "")
    assert cli.main(["doctor", "--bag", str(bag), "--seconds", "0"]) == 2
    assert "--seconds is 0" in capsys.readouterr().err


def test_several_topics_are_one_option_and_a_node_is_named_with_live_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    for words in (["--points", "/a", "/b"], ["--points", "/a", "--points-topic", "/b"]):
        assert parser.parse_args(words).points == ["/a", "/b"]
    assert parser.parse_args([]).points == []
    assert cli.main(["doctor", "--node", "/left"]) == 2
    assert "--node is for --live" in capsys.readouterr().err


def test_live_topics_become_a_recording_whose_transforms_and_mask_are_judged(tmp_path: Path) -> None:
    """A cloud at 20 Hz that TF does not lead to the grid's frame, and a road mask without road."""
    with own_domain() as context:
        driver = rclpy.create_node("driver", context=context)
        clouds = driver.create_publisher(PointCloud2, "/lidar_top", RELIABLE)
        driver.create_publisher(OccupancyGrid, "/map/road", LATCHED).publish(
            road_grid(np.zeros((4, 4)), frame_id="map")
        )
        latched = driver.create_publisher(TFMessage, "/tf_static", LATCHED)
        latched.publish(TFMessage(transforms=[transform("map", "base_link", START_NS)]))
        stamps = iter(range(START_NS, START_NS + 10**12, 5 * 10**7))
        driver.create_timer(0.05, lambda: clouds.publish(cloud(scene(500), next(stamps), "lidar")))
        spinner = Spinner(driver)
        try:
            heard = listen.listen(tmp_path / "live.mcap", 2.0, (), None, None, QUIET)
        finally:
            spinner.stop()
            driver.destroy_node()
    assert heard.played is not None and (heard.played.points, heard.played.road_mask) == (("/lidar_top",), "/map/road")
    qos = [f for f in heard.findings if f.what.startswith("QoS")]
    assert len(qos) == 3 and {f.state for f in qos} == {"OK"} and "/driver" in qos[0].found
    with BagReader(tmp_path / "live.mcap") as reader:
        found = list(inspection.inspect(reader, choose_topics(reader.topics, (), None), "base_link", True, 0.05))
    assert named(found, "/lidar_top").found.partition(" clouds")[0] != "0"
    assert named(found, "TF of lidar").state == "FAIL" and named(found, "TF of map").state == "OK"
    assert "nothing is road" in named(found, "/map/road").found


@pytest.mark.parametrize(
    ("nodes", "wanted", "chosen"),
    [
        ("/talker /sbnet", None, "/sbnet"),
        ("/talker", None, None),
        ("/left/sbnet /right/sbnet", "/left/sbnet", "/left/sbnet"),
        ("/left/sbnet /right/sbnet", "right", "/right/sbnet"),
        ("/left/sbnet /sbnet", "/", "/sbnet"),
        ("/left/detector", "/left/detector", "/left/detector"),
    ],
)
def test_a_node_is_chosen_by_its_name_or_namespace(nodes: str, wanted: str | None, chosen: str | None) -> None:
    assert choose(nodes.split(), wanted) == chosen


@pytest.mark.parametrize(
    ("nodes", "wanted", "says"),
    [
        ("/left/sbnet /right/sbnet", None, "are named sbnet: /left/sbnet, /right/sbnet; choose one with --node"),
        ("/left/sbnet /talker", "/right", "--node /right: no such node is heard of; those named sbnet are /left/sbnet"),
        ("/talker", "/sbnet", "no such node is heard of; none is named sbnet"),
    ],
)
def test_several_nodes_and_a_wrong_name_are_refused_with_the_candidates(
    nodes: str, wanted: str | None, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        choose(nodes.split(), wanted)


def test_what_the_user_gives_wins_over_the_running_node_and_what_counts_is_told(tmp_path: Path) -> None:
    own = {"grid_frame": "", "ground_z": -1.5, "nms_iou": 0.3, "classes": ["vehicle"], "points": ["/a"]}
    node = running("/a", parameters={**own, "autostart": False, "use_sim_time": True})
    assert check.as_running(check.Check(), node).parameters == {
        "grid_frame": '""', "ground_z": "-1.5", "nms_iou": "0.3",
    }  # fmt: skip
    (tmp_path / "p.yaml").write_text("/**: {ros__parameters: {nms_iou: 0.4}}")
    asked = check.Check(params_file=tmp_path / "p.yaml", parameters={"ground_z": "0.2"})
    assert check.as_running(asked, node).parameters == {"grid_frame": '""', "ground_z": "0.2"}
    told = check.parameter_finding(asked, node)
    assert told.state == "OK" and told.found == (
        f"those of /sbnet: grid_frame ''; given here instead: {tmp_path / 'p.yaml'}, ground_z"
    )
    for other, says in ((None, "the defaults: no node sbnet runs"), (running(), "/sbnet does not answer within 5 s")):
        told = check.parameter_finding(check.Check(), other)
        assert told.state == "WARN" and says in told.found and "--params-file" in told.remedy


def test_the_road_is_told_from_another_mask_by_its_name_or_by_how_it_is_asked_for() -> None:
    assert running(grids={"/r/road_mask": LATCHED, "/r/external_mask": RELIABLE}).road_mask == "/r/road_mask"
    assert running(grids={"/map/road": LATCHED, "/other": RELIABLE}).road_mask == "/map/road"
    assert running(grids={"/one": LATCHED, "/two": LATCHED}).road_mask is None


def test_a_running_node_is_judged_by_its_own_topics_quality_of_service_and_parameters(tmp_path: Path) -> None:
    """Two nodes, of which one is asked: it wants its cloud reliable, the driver publishes best effort."""
    wanted = "qos_overrides./left/lidar.subscription.reliability"
    overrides = {"points": ["lidar"], "nms_iou": 0.25, "grid_frame": "base_link", wanted: "reliable"}
    given = [Parameter(name, value=value) for name, value in overrides.items()]
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    with own_domain() as context:
        # The node's inputs and parameters, without the detector.
        nodes = [
            rclpy.create_node("sbnet", context=context, namespace=name, parameter_overrides=given,
                              automatically_declare_parameters_from_overrides=True)
            for name in ("left", "right")
        ]  # fmt: skip
        nodes[0].create_subscription(PointCloud2, "lidar", lambda _: None, RELIABLE)
        driver = rclpy.create_node("driver", context=context)
        clouds = [driver.create_publisher(PointCloud2, name, best_effort) for name in ("/left/lidar", "/lidar_top")]
        driver.create_timer(0.05, lambda: [publisher.publish(cloud(scene(10), START_NS)) for publisher in clouds])
        spinners = [Spinner(node) for node in (*nodes, driver)]
        try:
            heard, refused = (
                listen.listen(tmp_path / "live.mcap", 1.0, (), None, name, QUIET) for name in ("left", None)
            )
        finally:
            for spinner, node in zip(spinners, (*nodes, driver), strict=True):
                spinner.stop()
                node.destroy_node()
    assert heard.running is not None and heard.played is not None and heard.running.parameters is not None
    assert (heard.running.name, heard.played.points) == ("/left/sbnet", ("/left/lidar",))
    assert heard.running.parameters.items() >= overrides.items()
    assert heard.running.own == {"points": ["lidar"], "nms_iou": 0.25, "grid_frame": "base_link"}
    assert named(heard.findings, "QoS of /left/lidar").found.startswith("/driver cannot be heard by the node")
    (finding,) = refused.findings
    assert finding.state == "FAIL" and "/left/sbnet, /right/sbnet; choose one with --node" in finding.found


def test_the_doctors_own_node_is_not_among_those_of_the_robot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setenv("ROS_STATIC_PEERS", "127.0.0.1")
    with check._among_themselves():
        assert not set(check.SHARED) & os.environ.keys()
    assert os.environ["ROS_DOMAIN_ID"] == "7" and os.environ["ROS_STATIC_PEERS"] == "127.0.0.1"
