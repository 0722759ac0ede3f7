"""The process around the node: signals, executor, an orderly end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.signals import SignalHandlerOptions

from sbnet_perception.node.spinner import Spinner

if TYPE_CHECKING:
    from sbnet_perception.node.node import SbnetNode

END = (signal.SIGINT, signal.SIGTERM)


def run(make_node: Callable[[], SbnetNode], args: list[str] | None) -> int:
    """Runs a node until SIGINT or SIGTERM, any number of them.

    A signal only writes a byte into a pipe that the main thread reads: nothing is ever interrupted in its
    middle, and a second signal changes nothing. (Blocking the signals would not do: libraries have started
    threads at import that do not block them.)

    Returns:
        0, or 1 when the node's autostart failed, one of its callbacks raised, or its device was lost.
    """
    wake = _WakeUp()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
    except (RuntimeError, ParameterException) as error:
        # Unreadable arguments and parameter files, unusable values of rclpy's own parameters; the message names them.
        print(f"sbnet: cannot start: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    good = node.autostart() and _spin(node, wake)
    if not node.is_finalized:
        node.trigger_shutdown()
    node.destroy_node()
    rclpy.shutdown()
    # The interpreter's end would bring back the default action: to die of an impatient second Ctrl-C.
    for number in END:
        signal.signal(number, signal.SIG_IGN)
    if node.inference_under_way or node.device_lost:
        # The interpreter cannot end in order underneath an inference that outlasts its patience, nor on a device that
        # gives nothing back.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0 if good else 1)
    return 0 if good else 1


class _WakeUp:
    """Wakes the main thread from other threads and from signal handlers."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in END:
            signal.signal(number, lambda *_: None)

    def wait(self) -> None:
        os.read(self._reader, 1)

    def call(self) -> None:
        os.write(self._writer, b"!")


def _spin(node: SbnetNode, wake: _WakeUp) -> bool:
    """Executes the node's callbacks until a signal comes; False when one of them raised or the device was lost."""
    node.on_device_lost = wake.call
    spinner = Spinner(node, wake.call)
    wake.wait()
    spinner.stop()
    if spinner.failure is not None:
        error = spinner.failure
        node.get_logger().fatal(f"a callback failed: {type(error).__name__}: {error}")
    return spinner.failure is None and not node.device_lost
