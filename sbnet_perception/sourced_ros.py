"""A ROS sourced in the shell, where the running Python has one of its own: what `make` leaves out, programs leave out.

The wheels of `.venv` bring a whole ROS; PYTHONPATH and LD_LIBRARY_PATH of another would come before it.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from sbnet_perception.errors import UserError

GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
"""Set by the wheels once they have put their libraries into LD_LIBRARY_PATH and begun again."""
MARKS = ("PYTHONHOME", "AMENT_PREFIX_PATH", "COLCON_PREFIX_PATH", "CMAKE_PREFIX_PATH")
NAMES = ("ROS_DISTRO", "ROS_VERSION", "ROS_PYTHON_VERSION")


def leave_out() -> None:
    """Begins the program anew without the sourced ROS, and says so; returns where there is nothing to leave out."""
    if not has_own_ros():
        return
    begun = GUARD in os.environ
    kept, left = without_sourced_ros(os.environ)
    for name in (*MARKS, *NAMES):
        os.environ.pop(name, None)
    if left:
        what = f"{' and '.join(left)} of a sourced ROS {'is' if len(left) == 1 else 'are'} left out"
        print(f"sbnet: {what}: {sys.prefix} has a ROS of its own", file=sys.stderr, flush=True)
    if begun and GUARD not in kept:
        os.execve(sys.executable, sys.orig_argv, kept)


def has_own_ros() -> bool:
    """The running Python's prefix has the wheels of ROS 2."""
    return any(Path(path, "ros_wheels_bootstrapper").is_dir() for path in sys.path if path.startswith(sys.prefix))


def without_sourced_ros(variables: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """An environment for a Python with wheels, and the names of the paths that lost something.

    The variable `GUARD` is missing in it where the program has to begin anew for it to take effect.
    """
    prefixes = [path for name in MARKS for path in variables.get(name, "").split(os.pathsep) if path]
    kept, left = dict(variables), []
    for name, parts in (
        ("PYTHONPATH", ("rclpy", "ament_index_python", "rcl_interfaces")),
        ("LD_LIBRARY_PATH", ("librcl.so",)),
    ):
        entries = [entry for entry in variables.get(name, "").split(os.pathsep) if entry]
        own = [entry for entry in entries if not _foreign(Path(entry), prefixes, parts)]
        if own != entries:
            left.append(name)
            kept[name] = os.pathsep.join(own)
    for name in (*MARKS, *NAMES):
        kept.pop(name, None)
    libraries = str(Path(sys.prefix, "lib"))
    if left or libraries not in kept.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        kept.pop(GUARD, None)
    return kept, left


def _foreign(folder: Path, prefixes: list[str], parts: tuple[str, ...]) -> bool:
    if folder.is_relative_to(sys.prefix):
        return False
    return any(folder.is_relative_to(prefix) for prefix in prefixes) or any((folder / part).exists() for part in parts)


def check() -> None:
    """Raises UserError where ROS cannot be imported into this Python; it names the cause and the remedy."""
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None:
        raise UserError(
            "rclpy cannot be imported: no ROS 2 is sourced, or one of another Python. Remedy: make setup, or "
            "source /opt/ros/DISTRIBUTION/setup.bash"
        )
    folder = Path(spec.origin).parent
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    if any((folder / f"_rclpy_pybind11{suffix}").exists() for suffix in suffixes):
        return
    version = ".".join(map(str, sys.version_info[:2]))
    if str(folder.parent) in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        raise UserError(
            f"PYTHONPATH names {folder.parent}, the ROS of another Python than this {version}. Remedy: a shell without "
            "that ROS, or the Python that it is made for"
        )
    raise UserError(f"rclpy in {folder} is not made for this Python {version}. Remedy: install ROS 2 for it anew")
