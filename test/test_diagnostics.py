"""What /diagnostics says over time; a real node, no detector."""

from __future__ import annotations

import importlib.machinery
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import ClockType
from ros_process import own_domain

from sbnet_perception.node.diagnostics import NEWER, WAITING, Diagnostics
from sbnet_perception.node.ground import GroundAnswer
from sbnet_perception.node.mask_kinds import EXTERNAL_MASK, ROAD_MASK
from sbnet_perception.node.status import Dropped, FrameFacts, Rejected, Status

FACTS = FrameFacts(
    stamp_ns=1,
    clouds=1,
    missing={},
    points=1,
    points_in_range=1,
    detections=0,
    latency_ms=1.0,
    pipeline_ms=0.5,
    dense=False,
    masks={},
    ground=GroundAnswer(0.0, None, 0.0),
    scales={"points": 255.0},
    warnings=(),
    news=(),
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


def test_what_is_lost_late_missing_or_rejected_is_told_apart_and_told_once(diagnostics: Diagnostics) -> None:
    status = diagnostics._status
    diagnostics.activated()
    process(diagnostics, 20)
    status.dropped(WAITING, 9)
    status.lost("gap in the publisher's numbers", 4)
    status.mask(ROAD_MASK, Rejected("road mask malformed", "data holds 1 cell"), "map")
    status.mask(EXTERNAL_MASK)
    status.not_processed(Dropped("too late to be merged", "raise merge_window"), "rear")
    status.not_processed(Rejected("cloud malformed", "truncated"), "rear")
    status.processed(replace(FACTS, missing={"/rear": "no cloud of /rear"}))
    process(diagnostics, 1)
    message = diagnostics.message()
    assert message.level == DiagnosticStatus.WARN
    for complaint in (
        "9 clouds dropped: waiting for a transform",
        "4 clouds sent but not received (gap in the publisher's numbers)",
        "1 road masks rejected, the last good one counts: road mask malformed",
        "1 clouds dropped: too late to be merged",
        "1 clouds rejected: cloud malformed",
        "1 frames without a cloud of /rear",
    ):
        assert complaint in message.message
    assert "slower than the sensor" not in message.message
    shown = {item.key: item.value for item in message.values}
    assert shown.items() >= {
        ("rejected", "1"), ("dropped", "10"), ("lost", "4"), ("road masks rejected", "1"), ("frames", "22"),
        ("frames without: /rear", "1"), ("dropped: waiting for a transform", "9"),
        ("last road mask rejected", "road mask malformed: data holds 1 cell (frame_id 'map')"),
        ("external masks received", "1"), ("external masks rejected", "0"),
    }  # fmt: skip
    process(diagnostics, 1)
    assert diagnostics.message().message == "detecting"


def test_a_slow_cloud_is_a_warning_once_and_clouds_without_an_answer_are_an_error(diagnostics: Diagnostics) -> None:
    diagnostics.activated()
    diagnostics._status.received()
    diagnostics._status.processed(replace(FACTS, latency_ms=250.0))
    process(diagnostics, 1)
    status = diagnostics.message()
    assert (status.level, status.message) == (DiagnosticStatus.WARN, "latency 250 ms, more than latency_warn_ms 200")
    assert diagnostics.message().message == "detecting"
    diagnostics.latency_warn_ms = 0.5
    process(diagnostics, 1)
    assert "latency 1 ms" in diagnostics.message().message

    diagnostics._active_since -= 10.0
    diagnostics._status.last_processed = time.monotonic() - 1.5
    diagnostics._status.received()
    status = diagnostics.message()
    assert status.level == DiagnosticStatus.ERROR
    assert "no cloud processed for 1.5 s" in status.message
    assert status.hardware_id


def test_diagnostic_updater_publishes_the_same_status_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Updater:
        """What diagnostic_updater.Updater does with node and task."""

        def __init__(self, node: Any, period: float) -> None:
            assert node.get_clock() is not None
            self.node, self.timer = node, node.create_timer(period, lambda: None)
            made.append(self)

        def setHardwareID(self, hardware: str) -> None:
            self.hardware = hardware

        def add(self, name: str, task: Any) -> None:
            self.status = task(DiagnosticStatus(name=name, message="No message was set"))
            self.status.name = f"{self.node.get_name()}: {self.status.name}"

    made: list[Updater] = []
    module = ModuleType("diagnostic_updater")
    module.__spec__ = importlib.machinery.ModuleSpec("diagnostic_updater", None)
    module.Updater = Updater  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "diagnostic_updater", module)
    with own_domain() as context:
        node = rclpy.create_node("sbnet", namespace="left", context=context)
        Diagnostics(node, Status())
        (updater,) = made
        assert (updater.status.name, updater.status.message) == ("left/sbnet: detector", "unconfigured")
        assert updater.hardware and updater.timer.clock.clock_type == ClockType.STEADY_TIME
        assert node.count_publishers("/diagnostics") == 0
        node.destroy_node()
