"""Where the files that ship beside the code are: weights, configuration, message definitions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = "sbnet_perception"


def resource(name: str) -> Path:
    """Path of a shipped file or folder, for example ``weights/compact.safetensors``.

    Looks in the source tree first, then in ``share/sbnet_perception`` of every prefix in
    AMENT_PREFIX_PATH (colcon, distribution) and of the running Python.

    Raises:
        FileNotFoundError: it is in none of these places; the message lists them.
    """
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    roots = [Path(__file__).resolve().parent.parent]
    roots += [Path(prefix) / "share" / PACKAGE for prefix in (*prefixes, sys.prefix)]
    for root in roots:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"shipped file {name!r} is in none of: {', '.join(map(str, roots))}")


def shipped(name: str) -> Path | None:
    """The same path, or None where there is no such file."""
    try:
        return resource(name)
    except FileNotFoundError:
        return None


def weights_named(given: str) -> Path:
    """The weights file of a path, or of the name of a shipped one, as ``compact_any_mask``; it may not be there."""
    path = Path(given).expanduser()
    named = given.isidentifier() and not path.is_file()
    return (shipped(f"weights/{given}.safetensors") if named else None) or path
