"""A bounded queue of clouds and the thread that works them off, outside the executor's callbacks."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """Keeps the newest `size` items; a worker thread takes them oldest first.

    Args:
        size: items that may wait.
        work: called in the worker thread with each item; what it raises goes to `on_failure`.
        on_drop: called with an item that was dropped to make room.
        on_failure: called with an exception out of `work`; the worker goes on with the next item.
    """

    def __init__(
        self,
        size: int,
        work: Callable[[Item, threading.Event], None],
        on_drop: Callable[[Item], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._items: collections.deque[Item] = collections.deque()
        self._size = size
        self._work = work
        self._on_drop = on_drop
        self._on_failure = on_failure
        self._ready = threading.Condition()
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sbnet-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Item) -> None:
        """Adds the newest item; drops the oldest where the queue is full. Never blocks."""
        with self._ready:
            oldest = self._items.popleft() if len(self._items) >= self._size else None
            self._items.append(item)
            self._ready.notify()
        if oldest is not None:
            self._on_drop(oldest)

    def clear(self) -> list[Item]:
        """Forgets what waits, and returns it."""
        with self._ready:
            waiting = list(self._items)
            self._items.clear()
        return waiting

    def stop(self, timeout: float) -> bool:
        """Takes no further item; True when the worker has ended within `timeout` seconds."""
        self.stopped.set()
        with self._ready:
            self._ready.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._work(item, self.stopped)
            except Exception as error:
                self._on_failure(error)

    def _next(self) -> Item | None:
        with self._ready:
            while not self._items and not self.stopped.is_set():
                self._ready.wait()
            return None if self.stopped.is_set() else self._items.popleft()
