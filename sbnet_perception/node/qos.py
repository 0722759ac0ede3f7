"""Quality of service of the node's topics, which the parameters qos_overrides.TOPIC... may change at its start."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

PREFIX = "qos_overrides."
OVERRIDABLE = QoSOverridingOptions(
    [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY]
)
"""What a topic of the node is created with."""
_KINDS = {"history": HistoryPolicy, "reliability": ReliabilityPolicy, "durability": DurabilityPolicy}
_WORDS = {
    policy: [word.lower() for word in kind.__members__ if word != "UNKNOWN"] for policy, kind in _KINDS.items()
}


# Functions, since rclpy writes what the overrides say into the profile that it is given.
def of_sensors() -> QoSProfile:
    """As ROS's own profile: best effort. With a depth of 1 two LiDARs on one topic would push each other out."""
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


def latest() -> QoSProfile:
    """Of outputs, and of masks of the moment: the newest message, reliable; a publisher may latch or not."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """The newest message, reliable, also for those who come after it was sent."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def override_problem(name: str, value: Any) -> str:
    """What is wrong with the value of an override, which rclpy would tell by an exception; empty if nothing."""
    policy = name.rsplit(".", maxsplit=1)[-1]
    if policy == "depth" and (type(value) is not int or not 0 <= value < 2**31):
        return f"parameter {name!r} is {value!r}: a whole number of messages, at least 0, is needed"
    if policy in _WORDS and (not isinstance(value, str) or value.lower() not in _WORDS[policy]):
        return f"parameter {name!r} is {value!r}: use one of {', '.join(_WORDS[policy])}"
    return ""


def unused_overrides(node: Node) -> Iterator[str]:
    """A sentence for each override that holds for no topic of the node, once these exist."""
    known = [PREFIX + name for name in node.get_parameters_by_prefix(PREFIX[:-1])]
    for name in node._parameter_overrides:
        if name.startswith(PREFIX) and name not in known:
            (nearest,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            yield f"parameter {name!r} changes no topic of this node; the nearest of its own is {nearest!r}"
