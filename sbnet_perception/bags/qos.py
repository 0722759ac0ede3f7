"""The quality of service that a bag says its publishers offered, per topic."""

from __future__ import annotations

from typing import Literal

Profile = Literal["latched", "sensor", "reliable"]

_DURABILITY = {"latched": 1, "sensor": 2, "reliable": 2}
_RELIABILITY = {"latched": 1, "sensor": 2, "reliable": 1}
_DEPTH = {"latched": 1, "sensor": 5, "reliable": 10}


def profile_for(topic: str, msgtype: str) -> Profile:
    """The customary profile: maps and static transforms are latched, clouds are sensor data."""
    if topic.rsplit("/", 1)[-1] in ("tf_static", "road_mask"):
        return "latched"
    return "sensor" if msgtype == "sensor_msgs/msg/PointCloud2" else "reliable"


def describe_profile(profile: Profile) -> str:
    """The YAML that rosbag2 keeps with a topic; the numbers are rmw's and read by every distribution."""
    unlimited = "{sec: 9223372036, nsec: 854775807}"
    return "\n".join(
        [
            "- history: 1",
            f"  depth: {_DEPTH[profile]}",
            f"  reliability: {_RELIABILITY[profile]}",
            f"  durability: {_DURABILITY[profile]}",
            f"  deadline: {unlimited}",
            f"  lifespan: {unlimited}",
            "  liveliness: 1",
            f"  liveliness_lease_duration: {unlimited}",
            "  avoid_ros_namespace_conventions: false",
        ]
    )
