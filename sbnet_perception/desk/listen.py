"""Some seconds of live topics as a recording, and what DDS says about them."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
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
from sbnet_perception.desk.running import NAME, Running, find, full_name
from sbnet_perception.desk.topics import CLOUD, GRID, Played, choose_topics
from sbnet_perception.desk.types import message_class
from sbnet_perception.errors import UserError
from sbnet_perception.node.spinner import Spinner

DIAGNOSTICS = ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray")
OF_EVERY_NODE = ("/rosout", "/parameter_events")
DISCOVERY_S = 5.0
"""How long a cloud's topic is looked for."""
LARGEST_RECORDING = 2**30

SENSOR = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


@dataclass
class Heard:
    """What came of listening.

    Attributes:
        played: the topics that were chosen; None where there is no cloud to choose.
        running: the node that listens, where one does.
        counts: messages by topic.
        findings: what DDS says about publishers, their quality of service and the node that listens.
    """

    played: Played | None = None
    running: Running | None = None
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def listen(
    file: Path, seconds: float, points: Sequence[str], road_mask: str | None, name: str | None, console: Console
) -> Heard:
    """Records the cloud, the road mask, the transforms and /diagnostics of the domain that the environment names.

    Args:
        file: the MCAP file to write; it is there afterwards only where something was heard.
        points, road_mask: their topics; without any they are those that the running node listens to, as far as somebody
            publishes them, else found by type, as ``sbnet replay`` does in a bag.
        name: the node that is meant, see `running.find`.
    """
    context = Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("sbnet_doctor", context=context, start_parameter_services=False)
    spinner = Spinner(node)
    heard = Heard()
    try:
        topics = _discover(node, points, console)
        try:
            heard.running = find(node, spinner, name)
        except UserError as error:
            heard.findings.append(Finding("FAIL", "node", str(error)))
            return heard
        points, road_mask = _as_the_node(heard.running, topics, points, road_mask)
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


def _as_the_node(
    running: Running | None, topics: Mapping[str, Topic], points: Sequence[str], road_mask: str | None
) -> tuple[Sequence[str], str | None]:
    """The topics asked for, else those of the running node; of these only what is published."""
    if running is not None:
        points = points or [topic for topic in running.clouds if topic in topics]
        mask = running.road_mask
        road_mask = road_mask or (mask if mask in topics else None)
    return points, road_mask


def _discover(node: Any, points: Sequence[str], console: Console) -> dict[str, Topic]:
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
            clouds = {name for name, types in found.items() if CLOUD in types}
            there = clouds.issuperset(points) if points else bool(clouds)
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
        qos = _wanted(heard.running, topic, msgtype, latched)
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
            clouds = sum(heard.counts.get(topic, 0) for topic in heard.played.points)
            others = sum(heard.counts.values()) - clouds
            progress.update(task, completed=passed, heard=f"{clouds} clouds, {others} other messages")
            time.sleep(0.1)
    for subscription in subscriptions:
        spinner.call(functools.partial(node.destroy_subscription, subscription))


def _wanted(running: Running | None, topic: str, msgtype: str, latched: bool) -> QoSProfile:
    """As the running node asks for it; where it does not, as it does by default."""
    usual = SENSOR if msgtype == CLOUD else LATCHED if latched else RELIABLE
    asked = None if running is None else {**running.clouds, **running.grids}.get(topic)
    if asked is None:
        return usual
    return QoSProfile(depth=usual.depth, reliability=asked.reliability, durability=asked.durability)


def _endpoints(node: Any, heard: Heard) -> Iterator[Finding]:
    """Publishers and their quality of service, and whether the node listens to them."""
    assert heard.played is not None
    for topic, (_, msgtype, latched) in heard.played.wire.items():
        wanted = _wanted(heard.running, topic, msgtype, latched)
        yield qos_finding(topic, node.get_publishers_info_by_topic(topic), wanted, heard.counts.get(topic, 0))
    yield from listener_findings(heard.running, heard.played)


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


def listener_findings(running: Running | None, played: Played) -> Iterator[Finding]:
    """Whether the running node listens to what is published, and what it listens to in vain."""
    wanted = f"[{', '.join(played.points)}]" if len(played.points) > 1 else played.points[0]
    if running is None:
        remedy = f"ros2 launch sbnet_perception sbnet.launch.py points:={wanted}"
        yield Finding("WARN", "node", f"no node named {NAME} runs here, or it is not heard", remedy)
        return
    if not running.clouds:
        remedy = f"configure and activate it: ros2 lifecycle set {running.name} configure, then activate"
        yield Finding("WARN", "node", f"{running.name} listens to no cloud yet", remedy)
        return
    topics = ", ".join(sorted(running.clouds))
    missed = [topic for topic in played.points if topic not in running.clouds]
    vain = sorted(running.clouds.keys() - set(played.points))
    if missed:
        found = f"{running.name} listens to {topics}, not to {', '.join(missed)}"
        yield Finding("FAIL", "node", found, f"give it the topics: points:={wanted}")
    elif vain:
        found = f"{running.name} also listens to {', '.join(vain)}, which is not among the clouds looked at"
        remedy = "is that LiDAR's driver running? Otherwise take the topic out of the node's points"
        yield Finding("FAIL", "node", found, remedy)
    else:
        yield Finding("OK", "node", f"{running.name} listens to {topics}")
    mask = running.road_mask
    if mask is not None and played.road_mask not in (None, mask):
        found = f"{running.name} takes the road from {mask}, not from {played.road_mask}"
        yield Finding("WARN", "node", found, f"remap it: road_mask:={played.road_mask}")


def _full(info: Any) -> str:
    return full_name(info.node_name, info.node_namespace)
