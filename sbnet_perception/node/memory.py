"""What a node that was cleaned up still holds, and gives back here."""

from __future__ import annotations

import ctypes

from rclpy.node import Node

_LIBC = ctypes.CDLL(None)


def give_back(node: Node) -> None:
    """Once its publishers and subscriptions are destroyed; in the thread that executes the node's callbacks."""
    # rclpy keeps a weak reference to whatever was ever created in a callback group.
    entities = node.default_callback_group.entities
    entities -= {reference for reference in entities if reference() is None}
    # glibc keeps what was freed between blocks that are still in use; other libraries have no such function.
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)
