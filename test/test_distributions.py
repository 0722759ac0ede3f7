"""What the package takes from ROS exists in every distribution that it is made for."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = frozenset({"humble", "jazzy", "kilted"})
NEWER = frozenset({"jazzy", "kilted"})

# Read off rclpy's branches humble (3.3.15) and jazzy (7.1.3) at github.com/ros2/rclpy, and off the wheel 9.1.2 of
# Kilted. EVERYWHERE is what all three have.
EVERYWHERE = {
    "rclpy": "Context create_node get_rmw_implementation_identifier init ok shutdown spin spin_once try_shutdown",
    "rclpy.clock": "Clock ClockType JumpThreshold ROSClock TimeJump",
    "rclpy.context": "Context",
    "rclpy.duration": "Duration",
    "rclpy.exceptions": "InvalidHandle NameValidationException ParameterException",
    "rclpy.executors": "ExternalShutdownException MultiThreadedExecutor SingleThreadedExecutor",
    "rclpy.lifecycle": "LifecycleNode LifecyclePublisher LifecycleState TransitionCallbackReturn",
    "rclpy.logging": "LoggingSeverity get_logger set_logger_level",
    "rclpy.node": "Node",
    "rclpy.parameter": "Parameter parameter_value_to_python",
    "rclpy.qos": "DurabilityPolicy HistoryPolicy LivelinessPolicy QoSCompatibility QoSPolicyKind QoSPresetProfiles"
    " QoSProfile ReliabilityPolicy qos_check_compatible qos_profile_sensor_data",
    "rclpy.qos_overriding_options": "QoSOverridingOptions QosCallbackResult",
    "rclpy.serialization": "deserialize_message serialize_message",
    "rclpy.signals": "SignalHandlerOptions",
    "rclpy.subscription": "Subscription",
    "rclpy.task": "Future",
    "rclpy.time": "Time",
    "rclpy.topic_endpoint_info": "TopicEndpointInfo TopicEndpointTypeEnum",
}
SOMEWHERE = {
    ("rclpy.clock_type", "ClockType"): NEWER,
    ("rclpy.event_handler", "PublisherEventCallbacks"): NEWER,
    ("rclpy.event_handler", "SubscriptionEventCallbacks"): NEWER,
    ("rclpy.qos_event", "PublisherEventCallbacks"): frozenset({"humble"}),
    ("rclpy.qos_event", "SubscriptionEventCallbacks"): frozenset({"humble"}),
}
HAVE = {(module, name): DISTRIBUTIONS for module, names in EVERYWHERE.items() for name in names.split()} | SOMEWHERE


def taken(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of each import from rclpy, and of each attribute of the module rclpy itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rclpy":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rclpy":
            yield "rclpy", node.attr
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("rclpy."))


def lacking(source: str) -> dict[tuple[str, str], frozenset[str]]:
    """What a module takes -> the distributions that do not have it.

    Of the branches of ``try: ... except ImportError: ...`` one that has all its names is enough.
    """
    tree, found, chosen = ast.parse(source), {}, set()
    for attempt in (node for node in ast.walk(tree) if isinstance(node, ast.Try)):
        branches = [list(taken(ast.Module(body, []))) for body in (attempt.body, *(h.body for h in attempt.handlers))]
        if len(branches) > 1 and all(branches):
            able = [frozenset.intersection(*(HAVE.get(item, frozenset()) for item in names)) for names in branches]
            chosen |= {item for names in branches for item in names}
            if left := DISTRIBUTIONS - frozenset.union(*able):
                found[branches[0][0]] = left
    for item in taken(tree):
        if item not in chosen and (left := DISTRIBUTIONS - HAVE.get(item, frozenset())):
            found[item] = left
    return found


@pytest.mark.parametrize("folder", ["sbnet_perception", "launch"])
def test_every_name_that_is_taken_from_rclpy_exists_in_humble_jazzy_and_kilted(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    found = {f"{file.relative_to(ROOT)}: {'.'.join(item)}": sorted(left)
             for file in files for item, left in lacking(file.read_text(encoding="utf-8")).items()}  # fmt: skip
    assert files
    assert not found, "absent there (or not in this test's lists: look it up in the branches of ros2/rclpy)"


def test_what_one_distribution_lacks_is_found_and_an_alternative_counts() -> None:
    assert lacking("from rclpy.clock_type import ClockType") == {("rclpy.clock_type", "ClockType"): {"humble"}}
    assert lacking("import rclpy\nrclpy.no_such_thing()") == {("rclpy", "no_such_thing"): DISTRIBUTIONS}
    new, old = (f"from rclpy.{module} import SubscriptionEventCallbacks" for module in ("event_handler", "qos_event"))
    assert not lacking(f"try:\n    {new}\nexcept ImportError:\n    {old}")
    assert lacking(f"try:\n    {new}\nexcept ImportError:\n    from rclpy.event_handler import PublisherEventCallbacks")


def test_the_list_of_what_all_have_agrees_with_the_rclpy_that_is_installed_here() -> None:
    pytest.importorskip("rclpy")
    for module, names in EVERYWHERE.items():
        assert [name for name in names.split() if not hasattr(importlib.import_module(module), name)] == [], module
