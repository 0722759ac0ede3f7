"""What the launch files decide, without launch."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sbnet_perception.node.launching import (
    ArgumentError,
    existing_file,
    fast_dds_profile,
    log_levels,
    node_parameters,
    parameters_of,
)

CONFIG = Path(__file__).resolve().parent.parent / "config"
NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
SHIPPED, LOCALHOST = str(CONFIG / "fastdds.xml"), str(CONFIG / "fastdds_localhost.xml")


def test_arguments_become_parameters_of_their_type_and_empty_ones_none():
    given = {
        "weights": "/w",
        "dtype": "",
        "grid_frame": "3",
        "ground_z": "-2",
        "intensity_scale": "auto",
        "autostart": "no",
    }
    given |= {"region": "0, 35,-20 , 20", "use_sim_time": "True", "mask_expression": "everywhere", "points": "/p"}
    assert node_parameters(given) == {
        "weights": "/w",
        "grid_frame": "3",
        "ground_z": -2.0,
        "intensity_scale": "auto",
        "autostart": False,
        "region": [0.0, 35.0, -20.0, 20.0],
        "use_sim_time": True,
        "mask.expression": "everywhere",
        "points": ["/p"],
    }
    assert all(type(number) is float for number in node_parameters(given)["region"])


@pytest.mark.parametrize("region", ["front", "[0, 1, 2, x]", "[[0, 1], [2, 3]]", "0 1 2 3"])
def test_a_region_that_is_no_list_of_numbers_is_refused_with_an_example(region):
    with pytest.raises(ArgumentError, match=rf"region:={re.escape(region)}: give .*\[0\.0, 70\.4, -20\.0, 20\.0\]"):
        node_parameters({"region": region})


def test_a_parameter_file_that_cannot_be_read_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "p.yaml").touch()
    assert existing_file("params_file", "~/p.yaml") == tmp_path / "p.yaml"
    for name in ("~/none.yaml", str(tmp_path)):
        with pytest.raises(ArgumentError, match=f"params_file:={re.escape(name)}: .*give the path of a file"):
            existing_file("params_file", name)


@pytest.mark.parametrize(
    ("environment", "added"),
    [
        ({}, {NEW: SHIPPED}),
        ({"ROS_DISTRO": "humble"}, {OLD: SHIPPED}),
        ({"ROS_DISTRO": "humble", "ROS_LOCALHOST_ONLY": "1"}, {OLD: LOCALHOST}),
        ({"ROS_DISTRO": "jazzy", "ROS_LOCALHOST_ONLY": "0"}, {OLD: SHIPPED}),
        ({"ROS_DISTRO": "kilted", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, {NEW: LOCALHOST}),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, {NEW: SHIPPED}),
        ({NEW: "mine.xml", "ROS_LOCALHOST_ONLY": "1"}, {}),
        ({"ROS_DISTRO": "humble", OLD: "mine.xml"}, {}),
        ({OLD: "mine.xml"}, {NEW: "mine.xml"}),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, {}),
    ],
)
def test_the_fast_dds_profile_follows_the_distribution_the_isolation_and_the_user(environment, added):
    assert fast_dds_profile(environment, CONFIG) == added


def transports(profile: str) -> dict[str, dict[str, str]]:
    """Settings of each transport in a profile, by its type."""
    plain = re.sub(r' xmlns="[^"]+"', "", Path(profile).read_text())
    found = ElementTree.fromstring(plain).iter("transport_descriptor")
    return {
        str(entry.findtext("type")): {item.tag: "".join(item.itertext()).strip() for item in entry} for entry in found
    }


def test_the_profile_for_localhost_differs_in_its_only_address():
    everywhere, here = transports(SHIPPED), transports(LOCALHOST)
    assert here["UDPv4"].pop("interfaceWhiteList") == "127.0.0.1"
    assert here == everywhere and set(here) == {"SHM", "UDPv4"}


@pytest.mark.parametrize(
    ("namespace", "logger"), [("/", "sbnet"), ("", "sbnet"), ("/car", "car.sbnet"), ("/fleet/car", "fleet.car.sbnet")]
)
def test_the_log_level_is_set_for_the_nodes_own_logger_alone(namespace, logger):
    assert log_levels(namespace, "debug") == ["--log-level", f"{logger}:=debug"]


@pytest.mark.parametrize(
    "text", ["[/front/points, rear/points]", "/front/points,rear/points", "['/front/points', \"rear/points\"]"]
)
def test_several_lidars_are_a_list_of_topics(text):
    assert node_parameters({"points": text}) == {"points": ["/front/points", "rear/points"]}


@pytest.mark.parametrize("text", ["/front /rear", "[/front, ]", "[[/front], /rear]", "[]"])
def test_topics_that_are_no_list_are_refused_with_an_example(text):
    with pytest.raises(ArgumentError, match=rf"points:={re.escape(text)}: give .*\[/lidar_front/points, /lidar_rear"):
        node_parameters({"points": text})


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("/**: {ros__parameters: {grid_frame: velodyne}}", "velodyne"),
        ("/**: {ros__parameters: {grid_frame: a}}\n/car/sbnet: {ros__parameters: {grid_frame: b}}", "b"),
        ("/**: {ros__parameters: {grid_frame: a}}\n/other/sbnet: {ros__parameters: {grid_frame: b}}", "a"),
        ("/**: {ros__parameters: {dtype: auto}}", None),
        ("- a list", None),
        ("not: [yaml", None),
        ("/**: {ros__parameters: null}", None),
        ("", None),
        ("/**: {ros__parameters: {a: &a [1], grid_frame: *a}}", None),
    ],
)
def test_the_frame_of_the_grid_is_found_in_the_parameter_file(tmp_path, text, frame):
    (tmp_path / "p.yaml").write_text(text)
    assert parameters_of(tmp_path / "p.yaml", "/car/sbnet").get("grid_frame") == frame
    assert parameters_of(None, "/car/sbnet") == {}
