"""Who publishes on /diagnostics: diagnostic_updater where it is installed, as under ROS, otherwise this node itself."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

PERIOD_S = 1.0
"""Of the reports; diagnostic_updater has its own parameter for it, diagnostic_updater.period."""


def report(node: Node, make: Callable[[], DiagnosticStatus]) -> None:
    """Publishes a status once a second from now on, as long as the node exists.

    Its name is ``NAMESPACE/NODE: `` and the name that it is made with, in either way.
    """
    if importlib.util.find_spec("diagnostic_updater") is None:
        _report_by_itself(node, make)
    else:
        from diagnostic_updater import Updater

        updater = Updater(_AsUpdaterSeesIt(node), PERIOD_S)
        # It warns where it is told none; each status has its own.
        updater.setHardwareID("none")
        updater.add(make().name, lambda _: make())


def _report_by_itself(node: Node, make: Callable[[], DiagnosticStatus]) -> None:
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)

    def publish() -> None:
        status = make()
        status.name = f"{_name(node)}: {status.name}"
        message = DiagnosticArray(status=[status])
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)

    _steady_timer(node, PERIOD_S, publish)


class _AsUpdaterSeesIt:
    """A node whose name tells namespaces apart, and whose timers run while simulated time stands still."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def get_name(self) -> str:
        return _name(self._node)

    def get_namespace(self) -> str:
        return ""

    def create_timer(self, period_s: float, callback: Callable[[], None]) -> Any:
        return _steady_timer(self._node, period_s, callback)


def _name(node: Node) -> str:
    return node.get_fully_qualified_name()[1:]


def _steady_timer(node: Node, period_s: float, callback: Callable[[], None]) -> Any:
    return node.create_timer(period_s, callback, clock=Clock(clock_type=ClockType.STEADY_TIME))
