"""The launch files and the configuration that ships with them."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sbnet_perception.desk.session import Session

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
OLD_PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
NEW_PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
KNOWS_ONLY_OLD = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
PROFILE_VARIABLE = OLD_PROFILE_VARIABLE if KNOWS_ONLY_OLD else NEW_PROFILE_VARIABLE


def argument_names(path: Path) -> set[str]:
    """Keys of TOPICS and ARGUMENTS, and what is declared by a literal name."""
    names: set[str] = set()
    for found in ast.walk(ast.parse(path.read_text())):
        if isinstance(found, ast.Assign) and ast.unparse(found.targets[0]) in ("TOPICS", "ARGUMENTS"):
            names |= {key.value for key in found.value.keys if isinstance(key, ast.Constant)}
        elif isinstance(found, ast.Call) and ast.unparse(found.func) == "DeclareLaunchArgument":
            names |= {first.value for first in found.args[:1] if isinstance(first, ast.Constant)}
    return names


# --- what holds on every machine ---


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_compiles_and_evaluates_no_text(path):
    tree = ast.parse(path.read_text())
    compile(tree, str(path), "exec")
    names = {found.id for found in ast.walk(tree) if isinstance(found, ast.Name)}
    assert not names & {"eval", "exec", "compile", "PythonExpression", "__import__"}


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_launch_argument_is_documented(path):
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "vehicle.md").read_text(), re.MULTILINE))
    assert argument_names(path)
    assert argument_names(path) - documented == set()


def test_rviz_shows_the_topics_of_the_launch_file_in_the_vehicle_frame():
    manager = yaml.safe_load((ROOT / "config" / "sbnet.rviz").read_text())["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "base_link"
    shown = {display["Topic"]["Value"] for display in manager["Displays"] if "Topic" in display}
    assert shown == {"/points", "/markers", "/computation_mask", "/road_mask"}
    topics = argument_names(ROOT / "launch" / "sbnet.launch.py")
    assert {name.removeprefix("/") for name in shown} < topics


HEAD = """
import array, time, rclpy
from rclpy.qos import qos_profile_sensor_data as qos
from sensor_msgs.msg import PointCloud2
rclpy.init()
node = rclpy.create_node("test")
"""
SEND = """
publisher = node.create_publisher(PointCloud2, "points", qos)
cloud = PointCloud2(data=array.array("B", bytes(4 << 20)))
while True:
    publisher.publish(cloud)
    time.sleep(0.1)
"""
RECEIVE = """
sizes = []
subscription = node.create_subscription(PointCloud2, "points", lambda m: sizes.append(len(m.data)), qos)
end = time.monotonic() + 60
while len(sizes) < 5 and time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
print(*sizes)
"""


def test_with_the_shipped_profile_a_best_effort_cloud_of_4_mib_arrives():
    python = [sys.executable, "-c"]
    profile = {PROFILE_VARIABLE: str(ROOT / "config" / "fastdds.xml")}
    with Session() as session:
        environment = session.environment | profile
        with subprocess.Popen([*python, HEAD + SEND], env=environment) as sending:
            try:
                received = subprocess.run(
                    [*python, HEAD + RECEIVE], env=environment, capture_output=True, text=True, check=False
                )
            finally:
                sending.kill()
    assert received.stdout.split() == [str(4 << 20)] * 5, received.stderr


# --- what needs launch and launch_ros, which no registry carries ---


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Launches a file for real; the programs are scripts that write down how they were started."""
    for name in ("launch", "launch_ros"):
        pytest.importorskip(name, reason=f"{name} comes with a ROS installation only")
    for place in ("share/ament_index/resource_index/packages", "lib/sbnet_perception", "bin"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/sbnet_perception").touch()
    for program in ("lib/sbnet_perception/sbnet_node", "bin/ros2"):
        note = tmp_path / f"{Path(program).name}.txt"
        script = 'echo "$@"; env; for word in "$@"; do [ -f "$word" ] && cat "$word"; done'
        (tmp_path / program).write_text(f"#!/bin/bash\n({script}) > {note}\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))

    def launch_file(name: str, **arguments: str) -> dict[str, str]:
        from launch import LaunchDescription, LaunchService
        from launch.actions import IncludeLaunchDescription
        from launch.launch_description_sources import PythonLaunchDescriptionSource

        service = LaunchService(argv=[])
        source = PythonLaunchDescriptionSource(str(ROOT / "launch" / name))
        include = IncludeLaunchDescription(source, launch_arguments=arguments.items())
        service.include_launch_description(LaunchDescription([include]))
        assert service.run() == 0
        return {path.stem: path.read_text() for path in tmp_path.glob("*.txt")}

    return launch_file


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_declares_every_argument_with_a_description(launched, path):
    spec = importlib.util.spec_from_file_location("launch_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    declared = {argument.name: argument for argument in description.get_launch_arguments()}
    assert argument_names(path) <= set(declared)
    assert all(argument.description for argument in declared.values())


def test_launch_starts_the_node_with_its_topics_parameters_and_namespace(launched):
    arguments = {"points": "/lidar_top", "namespace": "car", "log_level": "warn", "weights": "w.safetensors"}
    started = launched("sbnet.launch.py", **arguments)["sbnet_node"]
    command = started.splitlines()[0]
    assert "-r points:=/lidar_top" in command
    assert "-r road_mask:=road_mask" in command
    assert "-r __ns:=/car" in command
    assert "--log-level warn" in command
    assert f"--params-file {ROOT / 'config' / 'sbnet.yaml'}" in command
    assert "weights: w.safetensors" in started
    assert "use_sim_time: false" in started


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, str(ROOT / "config" / "fastdds.xml")),
        ({PROFILE_VARIABLE: "mine.xml"}, "mine.xml"),
        ({OLD_PROFILE_VARIABLE: "old.xml"}, "old.xml"),
    ],
    ids=["none set", "the user's", "the user's under the old name"],
)
def test_launch_sets_the_fast_dds_profile_unless_the_user_has(launched, monkeypatch, given, expected):
    for name in (PROFILE_VARIABLE, OLD_PROFILE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = launched("sbnet.launch.py")["sbnet_node"].splitlines()
    assert f"{PROFILE_VARIABLE}={expected}" in environment


@pytest.mark.parametrize("loop", ["true", "false"])
def test_replay_plays_the_bag_with_a_clock_into_a_node_on_its_time(launched, loop):
    started = launched("replay.launch.py", bag="drive.mcap", rate="0.5", loop=loop, rviz="false")
    command = started["ros2"].splitlines()[0]
    assert command.startswith("bag play drive.mcap --clock")
    assert "--rate 0.5" in command
    assert ("--loop" in command) == (loop == "true")
    assert "use_sim_time: true" in started["sbnet_node"]
