"""A node's callbacks in a thread of their own."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile
from ros_process import PATIENCE_S, own_domain
from std_msgs.msg import Header

from sbnet_perception.node.spinner import Spinner


@pytest.fixture
def node() -> Iterator[Node]:
    with own_domain() as context:
        node = rclpy.create_node("spun", context=context)
        yield node
        node.destroy_node()


def test_publishers_and_subscriptions_come_and_go_through_call_without_ending_the_thread(node: Node) -> None:
    spinner, qos = Spinner(node), QoSProfile(depth=1)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(200):
            publisher = spinner.call(lambda: node.create_publisher(Header, "a", qos))
            reader = spinner.call(lambda: node.create_subscription(Header, "a", lambda _: None, qos))
            publisher.publish(Header())
            assert spinner.call(lambda p=publisher: node.destroy_publisher(p))
            assert spinner.call(lambda r=reader: node.destroy_subscription(r))
        spinner.check()
    finally:
        sys.setswitchinterval(usual)
        spinner.stop()
    assert spinner.failure is None


@pytest.mark.parametrize("error", [ZeroDivisionError, TimeoutError, concurrent.futures.TimeoutError])
def test_what_a_call_raises_is_the_callers_and_the_thread_goes_on(node: Node, error: type[Exception]) -> None:
    def fail() -> None:
        raise error("its own")

    spinner = Spinner(node)
    with pytest.raises(error, match="its own"):
        spinner.call(fail)
    assert spinner.call(lambda: 7) == 7
    spinner.stop()


def test_a_callback_that_raises_ends_the_thread_and_every_later_call_says_why(node: Node) -> None:
    ended = threading.Event()
    node.create_timer(0.01, lambda: 1 / 0)
    spinner = Spinner(node, ended.set)
    assert ended.wait(PATIENCE_S)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        spinner.call(lambda: 7)
    spinner.stop()
    assert isinstance(spinner.failure, ZeroDivisionError)
