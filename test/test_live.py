"""What may change while the node runs, and what stands beside the detections; nodes of this process, over DDS."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros_process import LATCHED, PATIENCE_S, RELIABLE, START_NS, cloud, own_domain, scene, tiny_weights
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64, Float64MultiArray
from vision_msgs.msg import Detection3DArray, LabelInfo, VisionInfo
from visualization_msgs.msg import Marker, MarkerArray

from sbnet_perception.detector import pipeline
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.node.node import SbnetNode
from sbnet_perception.node.parameters import SPECIFICATIONS
from sbnet_perception.node.spinner import Spinner

OVERRIDES = {
    "qos_overrides./left/points.subscription.reliability": "reliable",
    "qos_overrides./left/markers.publisher.depth": 7,
    "qos_overrides./left/pionts.subscription.depth": 7,
}


class Vehicle:
    """Two nodes, left and right, and a listener to the left one."""

    def __init__(self, context: rclpy.Context, weights: Path) -> None:
        given = {"weights": str(weights), "score_threshold": 0.0, "ground_z": 0.0, "intensity_scale": 255.0}
        overrides = [Parameter(name, value=value) for name, value in {**given, **OVERRIDES}.items()]
        self.left, self.right = (
            SbnetNode(context=context, namespace=name, parameter_overrides=overrides) for name in ("left", "right")
        )
        self.peer = rclpy.create_node("peer", context=context, namespace="left")
        self.heard: dict[str, list[Any]] = {}
        for kind, topic, qos in (
            (Detection3DArray, "detections", RELIABLE), (MarkerArray, "markers", RELIABLE),
            (LabelInfo, "label_info", LATCHED), (Float64, "sbnet/debug/latency_ms", RELIABLE),
            (Float64MultiArray, "sbnet/debug/stage_times_ms", RELIABLE),
        ):  # fmt: skip
            self.heard[topic] = []
            self.peer.create_subscription(kind, topic, self.heard[topic].append, qos)
        self._points = self.peer.create_publisher(PointCloud2, "points", RELIABLE)
        for node in (self.left, self.right):
            assert node.autostart()
        self.spinners = [Spinner(node) for node in (self.left, self.right, self.peer)]
        self._ns = START_NS
        self.wait(self._points.get_subscription_count, "the node hears us")
        self.wait(lambda: self.left.count_subscribers("detections"), "we hear the node")

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.005)

    def send(self) -> None:
        self._ns += 10**8
        self._points.publish(cloud(scene(), self._ns))

    def detect(self) -> Detection3DArray:
        """The answer to a new cloud."""
        answers = self.heard["detections"]
        before = len(answers)
        self.send()
        self.wait(lambda: len(answers) > before, "an answer")
        return answers[-1]

    def call(self, function: Callable[[], Any]) -> Any:
        return self.spinners[0].call(function)

    def set(self, **values: Any) -> SetParametersResult:
        """All at once; double underscores stand for dots."""
        parameters = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        return self.call(lambda: self.left.set_parameters_atomically(parameters))

    def values(self) -> dict[str, Any]:
        return {name: self.left.get_parameter(name).value for name in SPECIFICATIONS}


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vehicle]:
    with own_domain() as context:
        vehicle = Vehicle(context, tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))
        vehicle.detect()
        yield vehicle
        for spinner, node in zip(vehicle.spinners, (vehicle.left, vehicle.right, vehicle.peer), strict=True):
            spinner.stop()
            if isinstance(node, SbnetNode):
                node.trigger_shutdown()
            node.destroy_node()


def test_of_a_set_of_parameters_all_change_or_none_and_the_refusal_names_the_culprit(vehicle: Vehicle) -> None:
    before = vehicle.values()
    for culprit, values in (
        ("mask.expression", {"score_threshold": 0.3, "mask__expression": "magic"}),
        ("mask.max_height", {"nms_iou": 0.2, "mask__min_height": 50.0}),
        ("nms_iou", {"max_detections": 3, "nms_iou": "low"}),
        ("score_threshold", {"max_detections": 3, "score_threshold": [0.1, 0.2]}),
        ("score_threshold", {"max_detections": 3, "score_threshold": [1.5]}),
        ("max_detections", {"score_threshold": 0.3, "max_detections": 0}),
        ("mask.weights", {"max_detections": 3, "mask__expression": "predicted", "mask__weights": "none.safetensors"}),
        ("tf_timeout", {"score_threshold": 0.3, "tf_timeout": 1.0}),
        ("score_threshold", {"max_detections": 3, "score_threshold": None}),
    ):
        refused = vehicle.set(**values)
        assert not refused.successful
        assert culprit in refused.reason
        assert vehicle.values() == before
    assert len(vehicle.detect().detections) > 3

    # Each alone would contradict the other.
    assert not vehicle.set(mask__min_height=50.0).successful
    assert vehicle.set(mask__min_height=50.0, mask__max_height=60.0, max_detections=3).successful
    assert len(vehicle.detect().detections) == 0
    assert vehicle.set(mask__min_height=0.35, mask__max_height=3.2).successful
    assert len(vehicle.detect().detections) == 3
    assert vehicle.set(score_threshold=[1.0]).successful
    assert len(vehicle.detect().detections) == 0
    assert vehicle.set(score_threshold=0, max_detections=200).successful
    assert vehicle.values() == before


def test_a_file_of_all_parameters_may_be_loaded_into_the_running_node(vehicle: Vehicle) -> None:
    before = vehicle.values()
    loaded = [Parameter(name, value=value) for name, value in before.items()]
    assert all(result.successful for result in vehicle.call(lambda: vehicle.left.set_parameters(loaded)))
    assert vehicle.values() == before


def test_a_change_during_a_cloud_holds_from_the_next_one_on(vehicle: Vehicle, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    computed = []
    compute = pipeline.compute

    def slow(network: Any, mask_network: Any, config: Any, *args: Any, **others: Any) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        done = compute(network, mask_network, config, *args, **others)
        computed.append((config.mask.expression, config.max_detections, done.dense))
        return done

    monkeypatch.setattr(pipeline, "compute", slow)
    usual = vehicle.left.get_parameter("mask.expression").value
    assert vehicle.set(mask__expression="dilate(occupancy, 0.5)").successful
    vehicle.send()
    assert begun.wait(PATIENCE_S)
    assert vehicle.set(mask__expression="everywhere", max_detections=5).successful
    go_on.set()
    vehicle.wait(lambda: len(computed) == 1, "the cloud under way")
    vehicle.send()
    vehicle.wait(lambda: len(computed) == 2, "the next cloud")
    assert computed == [("dilate(occupancy, 0.5)", 200, False), ("everywhere", 5, True)]

    # While it is inactive too.
    assert vehicle.call(vehicle.left.trigger_deactivate)
    assert vehicle.set(mask__expression=usual, max_detections=200).successful
    assert vehicle.call(vehicle.left.trigger_activate)
    vehicle.send()
    vehicle.wait(lambda: len(computed) == 3, "the cloud after it")
    assert computed[2][:2] == (MaskConfig(usual).settled, 200)


def test_quality_of_service_is_a_parameter_of_each_topic(vehicle: Vehicle) -> None:
    def of(topic: str) -> Any:
        node = vehicle.left
        ends = node.get_subscriptions_info_by_topic(topic) + node.get_publishers_info_by_topic(topic)
        return next(end.qos_profile for end in ends if end.node_name == "sbnet")

    assert of("/left/points").reliability == ReliabilityPolicy.RELIABLE
    assert of("/right/points").reliability == ReliabilityPolicy.BEST_EFFORT
    assert of("/left/road_mask").durability == DurabilityPolicy.TRANSIENT_LOCAL
    depths = [f"qos_overrides./left/{topic}.publisher.depth" for topic in ("markers", "detections")]
    assert [vehicle.left.get_parameter(name).value for name in depths] == [7, 1]


def test_two_nodes_in_two_namespaces_share_diagnostics_and_nothing_else(vehicle: Vehicle) -> None:
    def names(node: SbnetNode) -> set[str]:
        about = (node.get_name(), node.get_namespace())
        found = [
            *node.get_publisher_names_and_types_by_node(*about),
            *node.get_subscriber_names_and_types_by_node(*about),
            *node.get_service_names_and_types_by_node(*about),
        ]
        return {name for name, _ in found}

    left, right = names(vehicle.left), names(vehicle.right)
    assert {"/left/detections", "/left/sbnet/debug/frame", "/left/sbnet/set_parameters"} <= left
    assert {name.replace("/left/", "/right/") for name in left} == right
    assert left & right == {"/diagnostics", "/parameter_events", "/rosout", "/tf", "/tf_static"}


def test_what_the_numbers_of_the_classes_mean_is_told_to_those_who_come_late(vehicle: Vehicle) -> None:
    visions: list[VisionInfo] = []
    labels: list[LabelInfo] = []
    for kind, topic, heard in ((VisionInfo, "vision_info", visions), (LabelInfo, "label_info", labels)):
        vehicle.spinners[2].call(
            lambda k=kind, t=topic, h=heard: vehicle.peer.create_subscription(k, t, h.append, LATCHED)
        )
    vehicle.wait(lambda: visions and labels, "both")
    vision, label = visions[-1], labels[-1]
    assert vision.method == "SBNet, weights tiny.safetensors"
    assert (vision.database_location, vision.database_version) == ("/left/sbnet/classes", 1)
    assert [(entry.class_id, entry.class_name) for entry in label.class_map] == [(0, "vehicle")]
    assert label.threshold == 0.0
    assert vehicle.set(score_threshold=0.25).successful
    vehicle.wait(lambda: labels[-1].threshold == 0.25, "the new threshold")
    assert vehicle.set(score_threshold=0.0).successful


def test_figures_of_each_cloud_are_numbers_too(vehicle: Vehicle) -> None:
    stages = vehicle.heard["sbnet/debug/stage_times_ms"]
    vehicle.detect()
    vehicle.wait(lambda: stages and vehicle.heard["sbnet/debug/latency_ms"], "the figures")
    (dimension,) = stages[-1].layout.dim
    assert dimension.size == dimension.stride == len(stages[-1].data)
    assert dimension.label.split(",")[:3] == ["cloud", "ground", "road"]
    assert min(stages[-1].data) >= 0 and vehicle.heard["sbnet/debug/latency_ms"][-1].data > 0


def test_markers_have_a_lifetime_and_are_deleted_when_the_node_stops_detecting(vehicle: Vehicle) -> None:
    markers = vehicle.heard["markers"]
    vehicle.detect()
    vehicle.wait(lambda: markers and len(markers[-1].markers) > 1, "markers")
    assert all(marker.lifetime.sec == 1 for marker in markers[-1].markers)
    assert vehicle.call(vehicle.left.trigger_deactivate)
    vehicle.wait(lambda: [marker.action for marker in markers[-1].markers] == [Marker.DELETEALL], "their deletion")
    assert vehicle.call(vehicle.left.trigger_activate)
    vehicle.detect()


def test_a_node_that_goes_up_and_down_keeps_nothing(vehicle: Vehicle) -> None:
    node = vehicle.right

    def objects_after(cycles: int) -> int:
        for _ in range(cycles):
            for label in ("deactivate", "cleanup", "configure", "activate"):
                vehicle.spinners[1].call(getattr(node, f"trigger_{label}"))
        gc.collect()
        return sys.getallocatedblocks()

    before = objects_after(3)
    # Weights read and entities made have left hundreds behind each time.
    assert objects_after(8) - before < 8 * 120
