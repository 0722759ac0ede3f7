"""What the program `sbnet_node` runs first.

Importing PyTorch and ROS takes seconds, and Ctrl-C may come meanwhile: it must not end in a traceback.
"""

from __future__ import annotations

import os
import signal
import sys

from sbnet_perception.errors import UserError


def main() -> int:
    """Runs the node. Until its process handles signals itself, SIGINT and SIGTERM end it at once with code 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    try:
        from sbnet_perception.node.node import main as run_node
    except UserError as error:
        print(f"sbnet: cannot start: {error}", file=sys.stderr)
        return 1
    return run_node()
