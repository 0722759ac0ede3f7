"""A node's callbacks in a thread of their own, and calls into that thread."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import TypeVar

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

Result = TypeVar("Result")


class Spinner:
    """Executes a node's callbacks until `stop` is called or one of them raises.

    From then on the node's publishers, subscriptions and clients are made and destroyed in its callbacks or through
    `call` only: rclpy's executor fails with InvalidHandle where one is destroyed while it gathers what to wait for.

    Args:
        node: one that no executor has.
        on_failure: called in the thread when it has ended because of `failure`.

    Attributes:
        failure: what a callback has raised; nothing is executed any more.
    """

    def __init__(self, node: Node, on_failure: Callable[[], None] = lambda: None) -> None:
        self.failure: Exception | None = None
        self._on_failure = on_failure
        self._stopped = threading.Event()
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, name="sbnet-executor", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], Result]) -> Result:
        """What a function returns that runs between two callbacks; what it raises is raised here.

        Not to be called from a callback.

        Raises:
            RuntimeError: the thread has ended; `failure` is the cause.
        """
        done: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def task() -> None:
            try:
                done.set_result(function())
            except Exception as error:
                done.set_exception(error)

        self._executor.create_task(task)
        # Wait apart from result(): a TimeoutError of the function itself must reach the caller.
        while not concurrent.futures.wait([done], timeout=0.1).done:
            self.check()
        return done.result()

    def check(self) -> None:
        """Raises RuntimeError where the thread has ended; `failure` is its cause."""
        if not self._thread.is_alive():
            raise RuntimeError(f"the executor's thread has ended: {self.failure!r}") from self.failure

    def stop(self) -> None:
        """Returns when the callback under way has ended; the node is no executor's any more."""
        if self._thread.is_alive():
            # A task lets the executor return in every version of rclpy.
            self._executor.create_task(self._stopped.set)
            self._thread.join()
        self._executor.shutdown()

    def _spin(self) -> None:
        try:
            while not self._stopped.is_set():
                self._executor.spin_once()
        except Exception as error:
            self.failure = error
            self._on_failure()
