"""The node that runs: which one is meant, what it listens to and how, and its parameters."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile

from sbnet_perception.desk.topics import CLOUD, GRID
from sbnet_perception.errors import UserError
from sbnet_perception.node.parameters import SPECIFICATIONS
from sbnet_perception.node.spinner import Spinner

NAME = "sbnet"
ANSWER_S = 5.0
"""How long a service of the node is waited for, and its answer."""
NOT_JUDGED = ("autostart", "points")
"""Parameters that the doctor's own node has for itself: it must start, and hears what is played to it."""


@dataclass(frozen=True)
class Running:
    """A node of a robot.

    Attributes:
        name: its full name, ``/left/sbnet``.
        clouds, grids: the topics of each type that it listens to, and the quality of service it asks for.
        parameters: all that it has, by name; None where it did not answer.
    """

    name: str
    clouds: Mapping[str, QoSProfile] = field(default_factory=dict)
    grids: Mapping[str, QoSProfile] = field(default_factory=dict)
    parameters: Mapping[str, Any] | None = None

    @property
    def road_mask(self) -> str | None:
        """The topic of its road mask: of two grids the one by that name, or else the one that it wants latched."""
        named = [topic for topic in self.grids if topic.endswith("/road_mask")]
        latched = [topic for topic, qos in self.grids.items() if qos.durability == DurabilityPolicy.TRANSIENT_LOCAL]
        found = named or latched
        return found[0] if len(found) == 1 else None

    @property
    def own(self) -> dict[str, Any]:
        """Of the parameters of `SPECIFICATIONS` those whose value is not the default."""
        known = {name: value for name, value in (self.parameters or {}).items() if name in SPECIFICATIONS}
        return {name: value for name, value in known.items() if value != _listed(SPECIFICATIONS[name].default)}

    def texts(self, besides: Iterable[str] = ()) -> dict[str, object]:
        """What to give another node after ``-p`` so that it judges alike.

        Args:
            besides: names that are given otherwise.
        """
        # An empty grid_frame is an answer too: without one the frame would be chosen anew.
        frame = {"grid_frame": (self.parameters or {}).get("grid_frame", "")} if self.parameters else {}
        left_out = {*NOT_JUDGED, *besides}
        return {name: json.dumps(value) for name, value in {**frame, **self.own}.items() if name not in left_out}


def find(node: Any, spinner: Spinner, wanted: str | None) -> Running | None:
    """The node that is meant, with all that it tells; None where none runs.

    Args:
        node: the one that asks, whose callbacks the spinner executes.
        wanted: its full name, or its namespace; None = the only one named `NAME`.

    Raises:
        UserError: there are several, or none by the name that is wanted; the message lists the candidates.
    """
    every = sorted({full_name(name, space) for name, space in node.get_node_names_and_namespaces()})
    name = choose(every, wanted)
    if name is None:
        return None
    heard: dict[str, dict[str, QoSProfile]] = {CLOUD: {}, GRID: {}}
    for topic, types in node.get_topic_names_and_types():
        for kind in heard.keys() & set(types):
            for end in node.get_subscriptions_info_by_topic(topic):
                if full_name(end.node_name, end.node_namespace) == name:
                    heard[kind][topic] = end.qos_profile
    return Running(name, heard[CLOUD], heard[GRID], _parameters(node, spinner, name))


def choose(every: Iterable[str], wanted: str | None) -> str | None:
    """The full name of the node that is meant, of those of all nodes; see `find`."""
    ours = [name for name in every if name.rsplit("/", 1)[-1] == NAME]
    if wanted is None:
        if len(ours) > 1:
            raise UserError(f"several nodes are named {NAME}: {', '.join(ours)}; choose one with --node")
        return ours[0] if ours else None
    asked = f"/{wanted.strip('/')}"
    found = [name for name in every if name in (asked, f"{asked}/{NAME}".replace("//", "/"))]
    if not found:
        there = f"those named {NAME} are {', '.join(ours)}" if ours else f"none is named {NAME}"
        raise UserError(f"--node {wanted}: no such node is heard of; {there}")
    return found[0]


def full_name(name: str, namespace: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"


def _parameters(node: Any, spinner: Spinner, name: str) -> dict[str, Any] | None:
    """All parameters of a node through its services; None where it does not answer."""
    listed = _call(node, spinner, ListParameters, f"{name}/list_parameters", ListParameters.Request())
    if listed is None:
        return None
    names = list(listed.result.names)
    told = _call(node, spinner, GetParameters, f"{name}/get_parameters", GetParameters.Request(names=names))
    if told is None:
        return None
    messages = [ParameterMessage(name=name, value=value) for name, value in zip(names, told.values, strict=True)]
    return {message.name: _listed(Parameter.from_parameter_msg(message).value) for message in messages}


def _call(node: Any, spinner: Spinner, kind: Any, service: str, request: Any) -> Any | None:
    client = spinner.call(functools.partial(node.create_client, kind, service))
    try:
        if not client.wait_for_service(ANSWER_S):
            return None
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        return future.result() if done.wait(ANSWER_S) else None
    finally:
        spinner.call(functools.partial(node.destroy_client, client))


def _listed(value: Any) -> Any:
    """A list of what is a tuple or an array."""
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value
