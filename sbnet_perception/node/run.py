"""The process around the node: signals, executor, an orderly end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.signals import SignalHandlerOptions

from sbnet_perception.errors import UserError
from sbnet_perception.node.ending import Ending
from sbnet_perception.node.params_file import applies, given_files, names_in
from sbnet_perception.node.spinner import Spinner

if TYPE_CHECKING:
    from sbnet_perception.node.node import SbnetNode


def run(make_node: Callable[[], SbnetNode], args: list[str] | None) -> int:
    """Runs a node until SIGINT or SIGTERM, any number of them.

    Returns:
        0, or 1 when the node's autostart failed, one of its callbacks raised, or its device was lost. An inference may
        still be under way then, and a lost device gives nothing back: leave the process by `ending.leave`.
    """
    ending = Ending()
    try:
        files = given_files(sys.argv if args is None else args)
        for file in files:
            names_in(file)  # rcl would read one of any size, and says little of one that it cannot read
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
    except (RuntimeError, ParameterException, UserError) as error:
        # Unreadable arguments and parameter files, unusable values of rclpy's own parameters; the message names them.
        print(f"sbnet: cannot start: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    for file in files:
        _warn_if_passed_over(node, file)
    try:
        with ending.interrupting():
            good = node.autostart()
    except KeyboardInterrupt:
        good = True  # nobody has waited for this node yet, and nothing is lost
    else:
        good = good and _spin(node, ending)
        if not node.is_finalized:
            node.trigger_shutdown()
    node.destroy_node()
    rclpy.shutdown()
    # The process does not end as the interpreter does: DDS gives its shared memory back once nobody holds the node.
    del node
    gc.collect()
    return 0 if good else 1


def _warn_if_passed_over(node: SbnetNode, file: str) -> None:
    """rcl itself passes without a word over a file of parameters that has nothing for the node."""
    name = node.get_fully_qualified_name()
    if not applies(file, name):
        order = "a node's name, ros__parameters and the parameters stand in this order"
        has = ", ".join(names_in(file)) or f"none ({order})"
        node.get_logger().warning(
            f"{file} has nothing for {name}, so it changes nothing: it has {has}; write {name} or /**"
        )


def _spin(node: SbnetNode, ending: Ending) -> bool:
    """Executes the node's callbacks until a signal comes; False when one of them raised or the device was lost."""
    node.on_device_lost = ending.begin
    spinner = Spinner(node, ending.begin)
    ending.wait()
    spinner.stop()
    if spinner.failure is not None:
        error = spinner.failure
        node.get_logger().fatal(f"a callback failed: {type(error).__name__}: {error}")
    return spinner.failure is None and not node.device_lost
