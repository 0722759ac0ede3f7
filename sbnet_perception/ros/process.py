"""The process around the node: signals, executor, an orderly end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

if TYPE_CHECKING:
    from sbnet_perception.ros.node import SbnetNode

END = (signal.SIGINT, signal.SIGTERM)


def run(make_node: Callable[[], SbnetNode], args: list[str] | None) -> int:
    """Runs a node until SIGINT or SIGTERM, any number of them.

    Both signals are blocked in every thread and waited for in the main one: nothing is ever interrupted
    in its middle, and a second signal changes nothing.

    Returns:
        0, or 1 when the node's autostart failed or one of its callbacks raised.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, END)
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = make_node()
    good = node.autostart() and _spin(node)
    if not node.is_finalized:
        node.trigger_shutdown()
    node.destroy_node()
    rclpy.shutdown()
    if node.inference_under_way:
        # The interpreter cannot end in order underneath an inference that outlasts its patience.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if good else 1)
    return 0 if good else 1


def _spin(node: SbnetNode) -> bool:
    """Executes the node's callbacks in a thread until a signal comes; False when one of them raised."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    end: Future = Future()
    failures: list[Exception] = []

    def spin() -> None:
        try:
            executor.spin_until_future_complete(end)
        except Exception as error:
            failures.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=spin, name="sbnet-executor")
    thread.start()
    signal.sigwait(END)
    end.set_result(None)
    thread.join()
    executor.shutdown()
    for error in failures:
        node.get_logger().fatal(f"a callback failed: {type(error).__name__}: {error}")
    return not failures
