"""The launch files and the configuration that ships with them.

Those tests that launch for real need `launch` and `launch_ros` (any of Humble's to Kilted's) on PYTHONPATH.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from sbnet_perception.desk.session import Session
from sbnet_perception.node.launching import PARAMETERS, PROFILE_VARIABLES, profile_variable
from sbnet_perception.node.parameters import SPECIFICATIONS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"
SBNET, REPLAY = ROOT / "launch" / "sbnet.launch.py", ROOT / "launch" / "replay.launch.py"
LAUNCH_FILES = [REPLAY, SBNET]
PROFILE_VARIABLE = profile_variable(os.environ)


def constants(path: Path, *names: str) -> dict[str, ast.expr]:
    """Entries of dictionaries at the top of a launch file, by their literal keys."""
    found: dict[str, ast.expr] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names:
            entries = zip(node.value.keys, node.value.values, strict=True)
            found |= {key.value: value for key, value in entries if isinstance(key, ast.Constant)}
    return found


def argument_names(path: Path) -> set[str]:
    """Keys of TOPICS and ARGUMENTS, and what is declared by a literal name."""
    names = set(constants(path, "TOPICS", "ARGUMENTS"))
    for found in ast.walk(ast.parse(path.read_text())):
        if isinstance(found, ast.Call) and ast.unparse(found.func) == "DeclareLaunchArgument":
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


def test_arguments_that_set_a_parameter_name_one_and_offer_its_choices():
    assert set(PARAMETERS) <= argument_names(SBNET)
    assert set(PARAMETERS.values()) - {"use_sim_time"} <= set(SPECIFICATIONS)
    choices = constants(SBNET, "CHOICES")
    for argument, parameter in PARAMETERS.items():
        spec = SPECIFICATIONS.get(parameter)
        if spec is not None and spec.choices is not None:
            assert ast.literal_eval(choices[argument]) == ("", *spec.choices)


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


def test_with_the_shipped_profiles_a_best_effort_cloud_of_4_mib_arrives():
    python = [sys.executable, "-c"]
    with Session() as session:
        sender = session.environment | {PROFILE_VARIABLE: str(CONFIG / "fastdds.xml")}
        receiver = session.environment | {PROFILE_VARIABLE: str(CONFIG / "fastdds_localhost.xml")}
        with subprocess.Popen([*python, HEAD + SEND], env=sender) as sending:
            try:
                received = subprocess.run(
                    [*python, HEAD + RECEIVE], env=receiver, capture_output=True, text=True, check=False
                )
            finally:
                sending.kill()
    assert received.stdout.split() == [str(4 << 20)] * 5, received.stderr


# --- what needs launch and launch_ros, which no registry carries ---


class Launched(NamedTuple):
    """What `ros2 launch` would have returned and said, and how the programs were started, one entry a start."""

    code: int
    log: str
    started: dict[str, list[str]]

    def command(self, program: str) -> str:
        """The arguments of a program's only start."""
        (start,) = self.started[program]
        return start.splitlines()[0]


class Place:
    """An installation whose programs are scripts that write down how they were started, and then do as told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package, program in (("sbnet_perception", "sbnet_node"), ("rviz2", "rviz2")):
            self.add(f"lib/{package}/{program}", package)
        self.add("bin/ros2")

    def add(self, program: str, package: str = "") -> None:
        (self.folder / program).parent.mkdir(parents=True, exist_ok=True)
        if package:
            index = self.folder / "share/ament_index/resource_index/packages"
            index.mkdir(parents=True, exist_ok=True)
            (index / package).touch()
        self.does(program, "exit 0")

    def does(self, program: str, then: str) -> None:
        """`then` is bash; it runs when the start has been written down."""
        note = 'echo "$@"; env; for word in "$@"; do [ -f "$word" ] && cat "$word"; done'
        path = self.folder / program
        note = f"({note}) > {self.folder}/{path.name}.$$.txt 2>&1"
        path.write_text(f"#!/bin/bash\ntrap 'exit 0' INT TERM\n{note}\n{then}\n")
        path.chmod(0o755)


NODE, RVIZ, ROS2 = "lib/sbnet_perception/sbnet_node", "lib/rviz2/rviz2", "bin/ros2"
RUNS = "while :; do sleep 0.1; done"


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("launch", "launch_ros"):
        pytest.importorskip(name, reason=f"{name} comes with a ROS installation only")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    for name in (
        *PROFILE_VARIABLES,
        "ROS_LOCALHOST_ONLY",
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        "FASTDDS_BUILTIN_TRANSPORTS",
    ):
        monkeypatch.delenv(name, raising=False)
    return Place(tmp_path)


@pytest.fixture
def launched(place, caplog) -> Iterator[Callable[..., Launched]]:
    """Launches a file as `ros2 launch` does, or actions of a parent."""
    import launch.logging

    loggers = [launch.logging.get_logger(name) for name in ("launch", "launch.user")]
    for logger in loggers:
        logger.addHandler(caplog.handler)

    def run(what: Path | list, **arguments: str) -> Launched:
        from launch import LaunchDescription, LaunchService

        for note in place.folder.glob("*.txt"):
            note.unlink()
        caplog.clear()
        service = LaunchService(argv=[])
        actions = what if isinstance(what, list) else [include(what, **arguments)]
        service.include_launch_description(LaunchDescription(actions))
        code = service.run()
        started: dict[str, list[str]] = {}
        for path in sorted(place.folder.glob("*.txt")):
            started.setdefault(path.name.partition(".")[0], []).append(path.read_text())
        return Launched(code, caplog.text, started)

    yield run
    for logger in loggers:
        logger.removeHandler(caplog.handler)


def include(path: Path, **arguments: str):
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    return IncludeLaunchDescription(PythonLaunchDescriptionSource(str(path)), launch_arguments=arguments.items())


def parameters_of(note: str, node: str) -> dict:
    """What the parameter file that launch_ros wrote for a node says."""
    text = note[note.index(f"{node}:\n") :].replace("!!python/tuple", "")  # launch_ros writes so, rcl reads past it
    return yaml.safe_load(text)[node]["ros__parameters"]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_declares_every_argument_with_a_description(place, path):
    spec = importlib.util.spec_from_file_location("launch_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared = {argument.name: argument for argument in module.generate_launch_description().get_launch_arguments()}
    assert argument_names(path) | argument_names(SBNET) <= set(declared)
    assert all(argument.description for argument in declared.values())


def test_arguments_reach_the_node_as_topics_parameters_and_the_level_of_its_own_log(launched):
    arguments = {"points": "/lidar_top", "namespace": "car", "log_level": "debug", "mask_expression": "everywhere"}
    arguments |= {"region": "[0, 35.2, -20, 20]", "ground_z": "-2", "intensity_scale": "auto", "autostart": "no"}
    start = launched(SBNET, **arguments, dtype="bfloat16", use_sim_time="True", enclave="/car")
    command, (note,) = start.command("sbnet_node"), start.started["sbnet_node"]
    assert "-r points:=" not in command and "-r road_mask:=road_mask" in command
    assert "-r __ns:=/car" in command and "--log-level car.sbnet:=debug --enclave /car " in command
    given = parameters_of(note, "/car/sbnet")
    expected = {"mask.expression": "everywhere", "region": [0.0, 35.2, -20.0, 20.0], "ground_z": -2.0}
    expected |= {"intensity_scale": "auto", "autostart": False, "dtype": "bfloat16", "use_sim_time": True}
    assert given == expected | {"points": ["/lidar_top"]}
    assert all(type(number) is float for number in given["region"])


def test_without_arguments_the_node_has_its_own_defaults_and_no_parameters(launched):
    start = launched(SBNET)
    assert start.code == 0
    assert "--params-file" not in start.command("sbnet_node")
    assert "--log-level sbnet:=info" in start.command("sbnet_node")


@pytest.mark.parametrize(
    ("path", "arguments", "said"),
    [
        (SBNET, {"rviz": "maybe"}, "rviz"),
        (SBNET, {"autostart": "later"}, "autostart"),
        (SBNET, {"missing_intensity": "guess"}, "missing_intensity"),
        (SBNET, {"respawn": "true", "respawn_delay": "soon"}, "respawn_delay:=soon"),
        (SBNET, {"region": "front"}, "region:=front"),
        (SBNET, {"points": "/front /rear"}, "points:=/front /rear"),
        (SBNET, {"params_file": "/none/p.yaml"}, "params_file:=/none/p.yaml: No such file"),
        (SBNET, {"params_file": "/"}, "params_file:=/: Is a directory"),
        (SBNET, {"namespace": "a car"}, "a car"),
        (REPLAY, {"bag": "/none/drive.mcap"}, "bag:=/none/drive.mcap: there is no such file"),
        (REPLAY, {"bag": "/", "loop": "perhaps"}, "loop"),
        (REPLAY, {"bag": "/", "params_file": "/none/p.yaml"}, "params_file:=/none/p.yaml"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_launched_is_said_before_anything_starts(launched, path, arguments, said):
    result = launched(path, **({"rviz": "true"} | arguments))
    assert result.code == 1
    assert result.started == {}
    assert said in result.log


@pytest.mark.parametrize(("program", "remedy"), [(RVIZ, "rviz:=false"), (NODE, "build the package")])
def test_a_program_that_is_not_installed_is_named_before_the_other_one_starts(place, launched, program, remedy):
    (place.folder / program).unlink()
    for path in LAUNCH_FILES:
        result = launched(path, rviz="true", bag=str(place.folder))
        assert (result.code, result.started) == (1, {})
        assert remedy in result.log


def test_a_node_that_ends_with_code_1_is_started_again_after_the_delay(place, launched):
    # At its second start it presses Ctrl-C.
    place.does(NODE, f"[ -e {place.folder}/once ] && kill -INT $PPID; touch {place.folder}/once; exit 1")
    result = launched(SBNET, respawn="yes", respawn_delay="0.1")
    assert len(result.started["sbnet_node"]) == 2


@pytest.mark.parametrize(("required", "code"), [("true", 1), ("false", 0)])
def test_a_required_node_ends_the_whole_launch_with_an_exit_code(place, launched, required, code):
    place.does(NODE, "exit 1")
    place.does(RVIZ, RUNS if required == "true" else "exit 0")
    result = launched(SBNET, required=required, rviz="true")
    assert result.code == code
    assert ("the node has ended (exit code 1)" in result.log) == (required == "true")


# --- beside others ---


def test_what_a_parent_sets_reaches_the_node_and_an_argument_wins_over_it(launched):
    from launch.actions import GroupAction
    from launch_ros.actions import PushRosNamespace, SetParameter

    parent = [SetParameter("use_sim_time", True), SetParameter("ground_z", 0.3), PushRosNamespace("fleet")]
    result = launched([GroupAction([*parent, include(SBNET, namespace="car", ground_z="0.5", rviz="true")])])
    for program in ("sbnet_node", "rviz2"):
        command = result.command(program)
        assert "-p use_sim_time:=True" in command
        assert "-r __ns:=/fleet/car" in command
    command, (note,) = result.command("sbnet_node"), result.started["sbnet_node"]
    assert command.index("ground_z:=0.3") < command.index("--params-file")
    assert parameters_of(note, "/fleet/car/sbnet") == {"ground_z": 0.5}
    assert "--log-level fleet.car.sbnet:=info" in command


def test_two_nodes_stand_side_by_side_and_leave_the_parents_launch_as_it_was(launched):
    from launch.actions import DeclareLaunchArgument, ExecuteProcess, GroupAction
    from launch.substitutions import LaunchConfiguration

    cars = [GroupAction([include(SBNET, namespace=name, points=f"/{name}/lidar")]) for name in ("a", "b")]
    # A sibling's own argument has its own default, and its processes none of our environment.
    sibling = [DeclareLaunchArgument("rviz_frame", default_value="odom")]
    sibling += [ExecuteProcess(cmd=["ros2", LaunchConfiguration("rviz_frame")])]
    result = launched([include(SBNET), *cars, *sibling])
    notes = result.started["sbnet_node"]
    for name in ("a", "b"):
        (note,) = (note for note in notes if f"-r __ns:=/{name} " in note.splitlines()[0])
        assert parameters_of(note, f"/{name}/sbnet") == {"points": [f"/{name}/lidar"]}
    assert result.command("ros2") == "odom" and len(notes) == 3
    assert not any(f"{name}=" in result.started["ros2"][0] for name in PROFILE_VARIABLES)
    assert all(f"{PROFILE_VARIABLE}={CONFIG / 'fastdds.xml'}" in note for note in result.started["sbnet_node"])


def test_several_lidars_are_launched_by_a_list_and_rviz_shows_the_first(place, launched):
    params = {"params_file": str(place.folder / "p.yaml"), "rviz": "on"}
    Path(params["params_file"]).write_text("/**: {ros__parameters: {points: [/of_file, /other]}}")
    result = launched(SBNET, **params, points="[/front, /rear]")
    assert parameters_of(result.started["sbnet_node"][0], "/sbnet") == {"points": ["/front", "/rear"]}
    assert "-r /points:=/front" in result.command("rviz2")
    assert "-r /points:=/of_file" in launched(SBNET, **params).command("rviz2")


def test_rviz_has_the_frame_of_the_grid_unless_another_is_given(place, launched):
    (place.folder / "p.yaml").write_text("/**: {ros__parameters: {grid_frame: velodyne}}")
    params = {"params_file": str(place.folder / "p.yaml"), "rviz": "on"}
    for arguments, frame in (
        ({}, "base_link"),
        (params, "velodyne"),
        (params | {"grid_frame": "base"}, "base"),
        (params | {"rviz_frame": "map"}, "map"),
    ):
        command = launched(SBNET, **({"rviz": "true"} | arguments)).command("rviz2")
        assert f"-d {CONFIG / 'sbnet.rviz'} -f {frame} " in command


# --- replay ---


def test_replay_plays_the_bag_with_a_clock_into_a_node_on_its_time(place, launched):
    place.does(NODE, RUNS)
    result = launched(REPLAY, bag=str(place.folder), rate="0.5", rviz="false")
    assert result.code == 0 and "the bag has ended" in result.log
    assert result.command("ros2").startswith(f"bag play {place.folder} --rate 0.5 --delay 3.0 --clock")
    assert "use_sim_time: true" in result.started["sbnet_node"][0]
    assert f"{PROFILE_VARIABLE}={CONFIG / 'fastdds.xml'}" in result.started["ros2"][0]


def test_replay_loops_when_told_yes_and_has_the_systems_time_when_told_false(place, launched):
    place.does(NODE, RUNS)
    result = launched(REPLAY, bag=str(place.folder), loop="yes", use_sim_time="false", rviz="false")
    assert "--loop" in result.command("ros2") and "--clock" not in result.command("ros2")
    assert "use_sim_time: false" in result.started["sbnet_node"][0]


@pytest.mark.parametrize(
    ("program", "does", "code", "said"),
    [
        (ROS2, "exit 1", 1, "the bag could not be played"),
        (NODE, "exit 1", 1, "the node has ended"),
        (NODE, "kill -SEGV $$", 1, "the node has ended"),
        (RVIZ, "exit 0", 0, "RViz was closed"),
        (RVIZ, "exit 134", 1, "RViz has failed"),
    ],
    ids=["bag", "node", "node killed", "RViz closed", "RViz failed"],
)
def test_the_end_of_one_is_the_end_of_a_replay_with_an_exit_code(place, launched, program, does, code, said):
    all_run = f"while [ $(ls {place.folder}/*.txt | wc -l) -lt 3 ]; do sleep 0.1; done"
    for other in (NODE, RVIZ, ROS2):
        place.does(other, f"{all_run}; {does}" if other == program else RUNS)
    result = launched(REPLAY, bag=str(place.folder), rviz="true")
    assert (result.code, len(result.started)) == (code, 3)
    assert said in result.log
