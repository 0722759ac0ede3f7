"""What the running node has is what docs/interface.md says and config/sros2_policy.xml allows."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from ros_process import Robot, road_grid, values

from sbnet_perception.node.parameter_table import with_table

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "interface.md").read_text()
KINDS = {"publish": "topics", "subscribe": "topics", "reply": "services"}


def full(name: str) -> str:
    """A name of the policy or the page, as the node `/sbnet` resolves it."""
    return name if name.startswith("/") else f"/sbnet{name[1:]}" if name.startswith("~") else f"/{name}"


def allowed(permission: str) -> list[str]:
    tree = ElementTree.parse(ROOT / "config" / "sros2_policy.xml")
    parts = [part for part in tree.iter(KINDS[permission]) if part.get(permission) == "ALLOW"]
    return [full(str(entry.text)) for part in parts for entry in part]


def documented() -> list[str]:
    """What stands in backquotes; words in capitals stand for any."""
    quoted = re.findall(r"`([^`\n]+)`", PAGE + (ROOT / "docs" / "vehicle.md").read_text())
    return [name for name in quoted if not name.isupper()]


def test_the_nodes_topics_and_services_are_documented_and_allowed_by_the_security_policy(process: Robot) -> None:
    process.wait(lambda: process.state() == "active", "the active node")
    graph = process.node
    has = {
        "publish": graph.get_publisher_names_and_types_by_node("sbnet", "/"),
        "subscribe": graph.get_subscriber_names_and_types_by_node("sbnet", "/"),
        "reply": graph.get_service_names_and_types_by_node("sbnet", "/"),
    }
    names = {permission: {name for name, _ in found} for permission, found in has.items()}
    assert {"/detections", "/diagnostics"} <= names["publish"] and "/points" in names["subscribe"]
    for permission, found in names.items():
        refused = {name for name in found if not any(fnmatch.fnmatch(name, rule) for rule in allowed(permission))}
        assert refused == set(), f"{permission}: missing in config/sros2_policy.xml"
    assert set.union(*names.values()) - {full(name) for name in documented()} == set()


def test_every_value_of_the_diagnostics_is_documented(process: Robot) -> None:
    process.send_road(road_grid(np.full((80, 141), 100)))
    process.detect()
    process.wait(lambda: "latency ms" in values(process.status()), "figures of a frame")
    rules = [re.compile(re.sub(r"\b[A-Z]{3,}\b", ".+", re.escape(name))) for name in documented()]
    shown = values(process.status()).keys() | values(process.frames[-1]).keys()
    assert {name for name in shown if not any(rule.fullmatch(name) for rule in rules)} == set()


def test_the_table_of_parameters_is_that_of_the_configuration() -> None:
    assert with_table(PAGE) == PAGE, "python -m sbnet_perception.node.parameter_table docs/interface.md writes it anew"
