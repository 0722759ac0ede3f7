"""What to install where a package is missing."""

from __future__ import annotations

from sbnet_perception.errors import UserError

PIP_NAMES = {"PIL": "pillow", "yaml": "pyyaml", "mcap_ros2": "mcap-ros2-support"}
"""Packages that pip knows under another name than Python."""
DESK = "rich matplotlib pillow scipy rosbags mcap pyarrow embreex trimesh shapely"
"""What the program `sbnet` needs beside the node."""


def missing(error: ModuleNotFoundError) -> UserError:
    """The error that names the package and the remedy; one of our own is no user's error, and is raised again."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "sbnet_perception"):
        raise error
    if package in ("rclpy", "ament_index_python", "builtin_interfaces") or package.endswith(("_msgs", "_interfaces")):
        apt = f"sudo apt install ros-DISTRIBUTION-{package.replace('_', '-')}"
        return UserError(f"the ROS package {package} is missing. Remedy: make setup; on a machine with ROS 2: {apt}")
    if package == "ray":
        return UserError("Ray is missing, which sbnet fleet needs. Remedy: pip install 'sbnet-perception[fleet]'")
    name = PIP_NAMES.get(package, package)
    if name in DESK.split():
        return UserError(
            f"the Python package {package} is missing: sbnet needs more than the node does. Remedy: make setup, or "
            f"pip install {DESK}, in the versions of requirements.txt"
        )
    return UserError(f"the Python package {package} is missing. Remedy: make setup, or pip install {name}")
