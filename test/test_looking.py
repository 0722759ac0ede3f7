"""What RViz and Foxglove show, as far as their files tell it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CONFIG = Path(__file__).resolve().parent.parent / "config"
SHOWN = {"/points", "/markers", "/computation_mask", "/road_mask"}


def displays() -> dict[str, dict[str, Any]]:
    """RViz's displays by their topic."""
    manager = yaml.safe_load((CONFIG / "sbnet.rviz").read_text())["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "base_link"
    return {display["Topic"]["Value"]: display for display in manager["Displays"] if "Topic" in display}


def test_rviz_shows_cloud_boxes_mask_and_road_with_the_quality_of_service_of_the_node():
    shown = displays()
    assert set(shown) == SHOWN
    assert all(display["Enabled"] for display in shown.values())
    assert shown["/points"]["Topic"]["Reliability Policy"] == "Best Effort"
    assert shown["/road_mask"]["Topic"]["Durability Policy"] == "Transient Local"
    assert all(shown[topic]["Topic"]["Durability Policy"] == "Volatile" for topic in SHOWN - {"/road_mask"})


def test_rviz_draws_intensities_of_any_scale_and_the_road_bright():
    assert displays()["/points"]["Autocompute Intensity Bounds"] is True
    # In this palette a value is its own shade of grey; unknown, -1, is 255.
    assert displays()["/road_mask"]["Color Scheme"] == "raw"


def panels(layout: Any) -> Iterator[str]:
    """Names of the panels in a Foxglove layout."""
    if isinstance(layout, str):
        yield layout
    else:
        yield from panels(layout["first"])
        yield from panels(layout["second"])


def brightness(colour: str) -> float:
    """Of #rrggbbaa on black."""
    return sum(bytes.fromhex(colour[1:7])) * int(colour[7:9], 16)


def test_the_foxglove_layout_places_its_panels_and_shows_the_topics_of_the_node_with_the_road_bright():
    layout = json.loads((CONFIG / "foxglove.json").read_text())
    configured = layout["configById"]
    assert sorted(panels(layout["layout"])) == sorted(configured)
    topics = configured["3D!sbnet"]["topics"]
    assert set(topics) == SHOWN and all(topic["visible"] for topic in topics.values())
    road = topics["/road_mask"]
    assert brightness(road["minColor"]) < brightness(road["maxColor"]) <= brightness(road["unknownColor"])
    assert configured["DiagnosticSummary!sbnet"]["topicToRender"] == "/diagnostics"
    assert configured["RawMessages!sbnet"]["topicPath"] == "/sbnet/debug/frame"
