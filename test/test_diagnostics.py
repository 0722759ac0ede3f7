"""What /diagnostics says over time; a real node, no detector."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from ros_process import own_domain

from sbnet_perception.node.diagnostics import NEWER, Diagnostics
from sbnet_perception.node.ground import GroundAnswer
from sbnet_perception.node.intensity import IntensityAnswer
from sbnet_perception.node.status import FrameFacts, Status

FACTS = FrameFacts(
    stamp_ns=1,
    points=1,
    points_in_range=1,
    detections=0,
    latency_ms=1.0,
    pipeline_ms=0.5,
    dense=False,
    road_problem="",
    road_age_s=None,
    ground=GroundAnswer(0.0, None, 0.0),
    intensity=IntensityAnswer(255.0),
    warnings=(),
)


@pytest.fixture
def diagnostics() -> Iterator[Diagnostics]:
    with own_domain() as context:
        node = rclpy.create_node("sbnet", context=context)
        yield Diagnostics(node, Status())
        node.destroy_node()


def process(diagnostics: Diagnostics, count: int) -> None:
    for _ in range(count):
        diagnostics._status.received()
        diagnostics._status.processed(FACTS)


def test_a_sensor_that_never_speaks_is_a_warning_first_and_an_error_after_the_timeout(
    diagnostics: Diagnostics,
) -> None:
    diagnostics.input_timeout_s = 60.0
    diagnostics.activated()
    assert diagnostics.message().message == "no cloud received yet"
    assert diagnostics.message().level == DiagnosticStatus.WARN
    diagnostics._active_since -= 61.0
    assert diagnostics.message().level == DiagnosticStatus.ERROR
    assert "no cloud for" in diagnostics.message().message


def test_neither_the_silence_of_an_inactive_node_nor_counts_before_a_reconfiguration_are_a_complaint(
    diagnostics: Diagnostics,
) -> None:
    diagnostics.input_timeout_s = 60.0
    diagnostics.activated()
    process(diagnostics, 20)
    diagnostics._status.dropped(NEWER, 5)
    assert "slower than the sensor" in diagnostics.message().message
    diagnostics._status.clear()
    diagnostics.activated()
    process(diagnostics, 1)
    assert diagnostics.message().message == "detecting"
    diagnostics._active_since -= 120.0
    diagnostics._status.last_received = time.monotonic() - 61.0
    assert "no cloud for" in diagnostics.message().message
    diagnostics.activated()
    assert diagnostics.message().message == "no cloud received yet"
