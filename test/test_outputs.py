"""25: what nobody reads is neither built nor sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from ros_process import PATIENCE_S, own_domain
from std_msgs.msg import Float64MultiArray
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.node import outputs
from sbnet_perception.node.outputs import Outputs

TOPICS = {
    "detections_message": (Detection3DArray, "detections"),
    "markers_message": (MarkerArray, "markers"),
    "computation_mask_message": (OccupancyGrid, "computation_mask"),
    "frame_message": (DiagnosticStatus, "sbnet/debug/frame"),
    "stage_times_message": (Float64MultiArray, "sbnet/debug/stage_times_ms"),
}


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    with own_domain() as context:
        node = LifecycleNode("sbnet", context=context)
        yield node
        node.destroy_node()


def test_25_a_message_is_built_only_while_somebody_reads_its_topic(
    node: LifecycleNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    for name, (kind, _) in TOPICS.items():
        monkeypatch.setattr(outputs, name, lambda *_, n=name, k=kind: built.append(n) or k())
    publishing = Outputs(node, ("vehicle",), Grid.named("compact"), marker_lifetime_s=1.0)
    node.trigger_configure()
    node.trigger_activate()
    frame: Any = SimpleNamespace(
        stamp=Time(sec=1), frame_id="base_link", ground_z=0.0, detections=Detections.empty(),
        result=SimpleNamespace(computed=torch.zeros(2, 2)), facts=None,
    )  # fmt: skip

    def published_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            built.clear()
            publishing.publish(frame)
            if condition():
                return
            assert time.monotonic() < deadline, built
            time.sleep(0.02)

    publishing.publish(frame)
    assert built == []
    for name, (kind, topic) in TOPICS.items():
        reader = node.create_subscription(kind, topic, lambda _: None, 1)
        published_until(lambda name=name: built == [name])
        node.destroy_subscription(reader)
        published_until(lambda: built == [])
