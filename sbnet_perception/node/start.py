"""What the program `sbnet_node` runs first.

Importing PyTorch and ROS takes seconds, and Ctrl-C may come meanwhile: it must not end in a traceback.
"""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Runs the node and ends the process. Until it handles signals itself, they end it at once with code 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    import sys
    import traceback

    from sbnet_perception import environment, sourced_ros
    from sbnet_perception.errors import UserError
    from sbnet_perception.missing import missing
    from sbnet_perception.node.ending import leave

    try:
        sourced_ros.leave_out()
        for line in environment.prepare_node(os.environ):
            print(f"sbnet: {line}", file=sys.stderr)
        sourced_ros.check()
        from sbnet_perception.node.node import main as run_node

        code = run_node()
    except ModuleNotFoundError as error:
        print(f"sbnet: cannot start: {missing(error)}", file=sys.stderr)
        code = 1
    except UserError as error:
        print(f"sbnet: cannot start: {error}", file=sys.stderr)
        code = 1
    except Exception:
        traceback.print_exc()
        code = 1
    leave(code)
