"""Some seconds of live topics as a recording, and what DDS says about them."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.signals import SignalHandlerOptions
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sbnet_perception.bags.storage import Topic
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.desk.findings import Finding
from sbnet_perception.desk.interruption import Interruption
from sbnet_perception.desk.topics import CLOUD, GRID, Played, choose_topics
from sbnet_perception.desk.types import message_class
from sbnet_perception.errors import UserError
from sbnet_perception.node.spinner import Spinner

DIAGNOSTICS = ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
OF_EVERY_NODE = ("/rosout", "/parameter_events")
DISCOVERY_S = 5.0
"""How long a cloud's topic is looked for."""
LARGEST_RECORDING = 2**30
NODE = "sbnet"

SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


@dataclass
class Heard:
    """What came of listening.

    Attributes:
        played: the topics that were chosen; None where there is no cloud to choose.
        counts: messages by topic.
        findings: what DDS says about publishers, their quality of service and the node that listens.
    """

    played: Played | None = None
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def listen(file: Path, seconds: float, points: str | None, road_mask: str | None, console: Console) -> Heard:
    """Records the cloud, the road mask, the transforms and /diagnostics of the domain that the environment names.

    Args:
        file: the MCAP file to write; it is there afterwards only where something was heard.
        points, road_mask: their topics; None finds them by type, as ``sbnet replay`` does in a bag.
    """
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("sbnet_doctor", context=context, start_parameter_services=False)
    spinner = Spinner(node)
    heard = Heard()
    try:
        topics = _discover(node, points, console)
        if all(topic.msgtype != CLOUD for topic in topics.values()):
            others = ", ".join(f"{name} ({topic.msgtype})" for name, topic in sorted(topics.items()))
            found = f"nobody publishes {CLOUD}; heard of: {others or 'nothing'}"
            heard.findings.append(Finding("FAIL", "topics", found, _NOT_HEARD))
            return heard
        try:
            heard.played = choose_topics(topics, points, road_mask)
        except UserError as error:
            heard.findings.append(Finding("FAIL", "topics", str(error), _NOT_HEARD))
            return heard
        with Interruption() as interruption, BagWriter(file, compression="none", overwrite=True) as writer:
            _record(spinner, node, writer, heard, seconds, console, interruption)
        heard.findings += spinner.call(lambda: list(_endpoints(node, heard)))
        return heard
    finally:
        spinner.stop()
        node.destroy_node()
        context.try_shutdown()


_NOT_HEARD = (
    "start the driver, or name its topic with --points; nodes hear each other only with the same ROS_DOMAIN_ID and "
    "RMW_IMPLEMENTATION, where ROS_AUTOMATIC_DISCOVERY_RANGE, ROS_LOCALHOST_ONLY and the firewall let them"
)


def _discover(node: Any, points: str | None, console: Console) -> dict[str, Topic]:
    """All topics with publishers, once one of them carries clouds and the others had a second more to appear."""
    deadline = time.monotonic() + DISCOVERY_S
    settled = None
    with console.status("looking for clouds"):
        while True:
            # Only what is published: the node's own subscription shows as a topic too.
            found = {
                name: types
                for name, types in node.get_topic_names_and_types()
                if node.count_publishers(name) and name not in OF_EVERY_NODE
            }
            there = any(CLOUD in types and points in (None, name) for name, types in found.items())
            settled = settled or (time.monotonic() + 1.0 if there else None)
            if time.monotonic() > (settled or deadline):
                return {name: Topic(types[0], 1, types[0] == GRID, "") for name, types in found.items()}
            time.sleep(0.05)


def _record(
    spinner: Spinner,
    node: Any,
    writer: BagWriter,
    heard: Heard,
    seconds: float,
    console: Console,
    interruption: Interruption,
) -> None:
    assert heard.played is not None
    written = 0

    def take(topic: str, raw: bytes) -> None:
        nonlocal written
        written += len(raw)
        if written < LARGEST_RECORDING:
            heard.counts[topic] = heard.counts.get(topic, 0) + 1
            writer.write(topic, raw, time.time_ns())

    wire = {topic: (msgtype, latched) for topic, (_, msgtype, latched) in heard.played.wire.items()}
    subscriptions = []
    for topic, (msgtype, latched) in {**wire, DIAGNOSTICS[0]: (DIAGNOSTICS[1], False)}.items():
        qos = _wanted(msgtype, latched)
        writer.add_topic(topic, msgtype)
        callback = functools.partial(take, topic)
        make = functools.partial(node.create_subscription, message_class(msgtype), topic, callback, qos, raw=True)
        subscriptions.append(spinner.call(make))
    columns = (TextColumn("listening"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.fields[heard]}"))
    begin = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("listening", total=seconds, heard="")
        while (passed := time.monotonic() - begin) < seconds:
            interruption.check()
            spinner.check()
            clouds = heard.counts.get(heard.played.points, 0)
            others = sum(heard.counts.values()) - clouds
            progress.update(task, completed=passed, heard=f"{clouds} clouds, {others} other messages")
            time.sleep(0.1)
    for subscription in subscriptions:
        spinner.call(functools.partial(node.destroy_subscription, subscription))


def _wanted(msgtype: str, latched: bool) -> QoSProfile:
    """As the node asks for it."""
    return SENSOR if msgtype == CLOUD else LATCHED if latched else RELIABLE


def _endpoints(node: Any, heard: Heard) -> Iterator[Finding]:
    """Publishers and their quality of service, and whether the node listens to them."""
    assert heard.played is not None
    for topic, (_, msgtype, latched) in heard.played.wire.items():
        wanted = _wanted(msgtype, latched)
        yield qos_finding(topic, node.get_publishers_info_by_topic(topic), wanted, heard.counts.get(topic, 0))
    listeners = {
        _full(info): topic
        for topic, types in node.get_topic_names_and_types()
        if CLOUD in types
        for info in node.get_subscriptions_info_by_topic(topic)
        if info.node_name == NODE
    }
    yield from listener_findings(listeners, heard.played.points)


def qos_finding(topic: str, publishers: list[Any], wanted: QoSProfile, count: int) -> Finding:
    """Whether the node can hear those who publish a topic (rclpy's TopicEndpointInfo each)."""
    what, names = f"QoS of {topic}", ", ".join(sorted(map(_full, publishers))) or "nobody any more"
    for publisher in publishers:
        compatible, reason = qos_check_compatible(publisher.qos_profile, wanted)
        if compatible == QoSCompatibility.ERROR:
            asked = f"{wanted.reliability.name} and {wanted.durability.name}".lower()
            remedy = f"let it publish as {asked}, or adapt the node's subscription (qos_overrides)"
            return Finding("FAIL", what, f"{_full(publisher)} cannot be heard by the node: {reason}", remedy)
    if not count and publishers:
        remedy = (
            "allow UDP and shared memory between the two (firewall, container --ipc=host), and give both the profile"
        )
        return Finding("FAIL", what, f"published by {names}, but nothing arrived", remedy)
    if len(publishers) > 1 and not topic.startswith("/tf"):
        return Finding("WARN", what, f"several publish it: {names}", "one is meant; stop or remap the others")
    return Finding("OK", what, f"published by {names}: the node can hear it")


def listener_findings(listeners: dict[str, str], points: str) -> Iterator[Finding]:
    """`listeners`: full name of each sbnet node -> the topic of clouds that it subscribes to."""
    if not listeners:
        remedy = f"ros2 launch sbnet_perception sbnet.launch.py points:={points}; an inactive one: ros2 lifecycle set"
        remedy += f" /{NODE} activate"
        yield Finding("WARN", "node", f"no node named {NODE} listens to any cloud", remedy)
    for name, topic in listeners.items():
        if topic == points:
            yield Finding("OK", "node", f"{name} listens to {topic}")
        else:
            yield Finding("FAIL", "node", f"{name} listens to {topic}, not to {points}", f"remap it: points:={points}")


def _full(info: Any) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"
