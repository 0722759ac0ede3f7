"""The node as a process: lifecycle, parameters, what a configuration refuses, how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ros_process import (
    PATIENCE_S,
    SECOND,
    Robot,
    cloud,
    ends,
    ns_of,
    road_grid,
    scene,
    shown,
    tiny_weights,
    transform,
    values,
)

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import NetworkConfig
from sbnet_perception.detector.weights import KEY
from sbnet_perception.node.parameters import (
    SPECIFICATIONS,
    NodeConfig,
    ParameterError,
    build,
    specifications,
    yaml_text,
)
from sbnet_perception.resources import resource


@pytest.fixture
def robot(process: Robot) -> Robot:
    """The running node, in whatever state a test left it."""
    return process


@pytest.fixture
def unconfigured(robot: Robot, weights: Path) -> Iterator[Robot]:
    """The node taken down; back in service after the test."""
    assert robot.transition("deactivate")
    assert robot.transition("cleanup")
    del robot.lines[:]
    yield robot
    assert robot.set(weights=str(weights)).successful
    assert robot.transition("configure"), robot.log()
    assert robot.transition("activate"), robot.log()
    robot.detect()


# The main job -------------------------------------------------------------------------------------------


def test_a_cloud_gives_detections_markers_mask_and_figures_with_its_stamp_and_frame(robot: Robot) -> None:
    robot.send_road(road_grid(np.full((80, 141), 100)))

    def road_in_use() -> bool:
        robot.detect()
        return bool(robot.frames) and values(robot.frames[-1])["road mask"] == "in use"

    robot.wait(road_in_use, "the road in use")
    msg = cloud(scene(), robot.tick())
    answer = robot.detect(msg)
    assert answer.header == msg.header
    assert len(answer.detections) > 0
    assert shown(robot.markers, robot, msg).markers[0].header == msg.header
    assert len(shown(robot.markers, robot, msg).markers) == 1 + 3 * len(answer.detections)
    mask = shown(robot.masks, robot, msg)
    assert mask.header == msg.header
    assert 0 < np.mean(mask.data) < 50
    robot.wait(lambda: any(f"{robot.now_ns}"[:10] in values(f)["stamp"] for f in robot.frames), "figures")
    figures = values(robot.frames[-1])
    assert {"sparsity conv-1", "sparsity conv-5", "ms conv-1", "latency ms"} <= figures.keys()
    assert figures["road mask"] == "in use"
    status = robot.status()
    assert status.message == "detecting"
    assert values(status)["weights"] == "tiny.safetensors"


# Lifecycle ----------------------------------------------------------------------------------------------


def test_clouds_are_answered_in_the_active_state_only(robot: Robot) -> None:
    assert robot.state() == "active"
    assert robot.transition("deactivate")
    assert robot.state() == "inactive"
    ignored = cloud(scene(), robot.tick())
    robot.send(ignored)
    assert values(robot.status())["state"] == "inactive"
    assert robot.transition("activate")
    robot.detect()
    assert ns_of(ignored) not in robot.detections


def test_a_node_that_goes_up_and_down_again_and_again_while_everything_arrives_answers_in_the_end(robot: Robot) -> None:
    over = threading.Event()

    def publish() -> None:
        while not over.wait(0.003):
            robot.send(cloud(scene(200), robot.tick()))
            robot.send_tf(transform("map", "base_link", robot.now_ns))
            robot.send_road(road_grid(np.full((80, 141), 100)), heard=False)

    world = threading.Thread(target=publish)
    world.start()
    try:
        for label in ("deactivate", "cleanup", "configure", "activate") * 12:
            assert robot.transition(label), robot.log()
    finally:
        over.set()
        world.join()
    assert len(robot.detect().detections) > 0
    assert robot.state() == "active"
    assert not robot.printed("Traceback|FATAL|ERROR"), robot.log()


def test_parameters_change_only_where_they_may(robot: Robot) -> None:
    some = len(robot.detect().detections)
    assert robot.set(score_threshold=1.0).successful
    assert len(robot.detect().detections) == 0
    assert robot.set(score_threshold=0.0).successful
    assert len(robot.detect().detections) == some

    refused = robot.set(score_threshold=1.5)
    assert not refused.successful
    assert "score_threshold" in refused.reason
    refused = robot.set(grid="paper")
    assert not refused.successful
    assert "grid cannot change while configured" in refused.reason
    assert not robot.set(no_such_parameter=1).successful
    robot.detect()


def test_unusable_parameters_are_refused_by_name_before_configuration(unconfigured: Robot) -> None:
    for name, value in (
        ("without_road_mask", "perhaps"),
        ("mask__expression", "magic"),
        ("without_external_mask", "perhaps"),
        ("mask__max_height", 0.1),
        ("grid", "huge"),
        ("queue_size", 0),
        ("tf_timeout", -1.0),
        ("classes", ["vehicle", ""]),
        ("region", [0.0, 70.4, -20.0]),
        ("region", [0.0, 70.5, -20.0, 20.0]),
    ):
        refused = unconfigured.set(**{name: value})
        assert not refused.successful
        assert name.rsplit("__", maxsplit=1)[-1] in refused.reason, refused.reason


def test_a_region_all_around_the_vehicle_is_computed_detected_in_and_published(unconfigured: Robot) -> None:
    region = SPECIFICATIONS["region"]
    surround = yaml.safe_load(resource("config/surround.yaml").read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    unconfigured.new_road_publisher()  # the road of other tests lies in front
    assert unconfigured.set(**surround).successful
    assert unconfigured.transition("configure") and unconfigured.transition("activate"), unconfigured.log()
    behind = scene()
    behind[:, 0] *= -1
    msg = cloud(behind, unconfigured.tick())
    found = unconfigured.detect(msg)
    mask = shown(unconfigured.masks, unconfigured, msg)
    assert unconfigured.transition("deactivate") and unconfigured.transition("cleanup")
    assert unconfigured.set(region=list(region.default)).successful
    assert (mask.info.width, mask.info.height) == (176, 100)
    assert (mask.info.origin.position.x, mask.info.origin.position.y) == pytest.approx((-70.4, -40.0))
    assert found.detections and all(item.bbox.center.position.x < 0 for item in found.detections)


# 21: weights that cannot be used -------------------------------------------------------------------------


def missing(path: Path, good: Path) -> str:
    return "there is no file"


def corrupt(path: Path, good: Path) -> str:
    path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    return "not a readable safetensors file"


def pickled(path: Path, good: Path) -> str:
    import torch

    torch.save({"weights": torch.zeros(1)}, path)
    return "not a readable safetensors file"


def of_other_classes(path: Path, good: Path) -> str:
    tiny_weights(path, ("car", "truck"))
    return r"for classes \['car', 'truck'\], the configuration asks for \['vehicle'\]"


def of_another_shape(path: Path, good: Path) -> str:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(good, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata()[KEY]
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name] = tensors[name][1:].contiguous()
    save_file(tensors, path, metadata={KEY: about})
    return "does not fit the network: .* expected"


@pytest.mark.parametrize("spoil", [missing, corrupt, pickled, of_other_classes, of_another_shape])
def test_21_unusable_weights_fail_the_configuration_naming_both_sides(
    unconfigured: Robot, weights: Path, tmp_path: Path, spoil: Callable[[Path, Path], str]
) -> None:
    path = tmp_path / "spoilt.safetensors"
    expected = spoil(path, weights)
    assert unconfigured.set(weights=str(path)).successful
    assert not unconfigured.transition("configure")
    assert unconfigured.state() == "unconfigured"
    unconfigured.wait_printed(f"FATAL.*cannot configure: weights: .*{expected}")
    assert unconfigured.printed("spoilt.safetensors")


# Ends ---------------------------------------------------------------------------------------------------


def ended(parameters: dict[str, Any]) -> tuple[int, str]:
    """Exit code and output of a node that cannot start."""
    robot = Robot(parameters)
    try:
        ends(robot)
    finally:
        code = robot.close()
    return code, "\n".join(robot.lines)


def test_20_a_node_that_cannot_configure_itself_ends_with_one_fatal_line(weights: Path) -> None:
    wrong = {"score_threshold": 7.0, "mask.expresion": "road", "nms_iou": "low", "ground_z": "low"}
    of_topic = {"qos_overrides./points.subscription.reliability": "perhaps"}
    code, output = ended({"weights": weights, **wrong, **of_topic})
    assert code == 1
    (line,) = (line for line in output.splitlines() if "FATAL" in line)
    assert "'score_threshold' is 7.0: it must lie in [0, 1]" in line
    assert "'mask.expresion' is not known (did you mean 'mask.expression'?)" in line
    assert "'nms_iou' is 'low': a number is needed" in line
    assert "'ground_z' is 'low': a number or auto is needed" in line
    assert "points.subscription.reliability' is 'perhaps': use one of system_default, reliable, best_effort" in line
    assert "Traceback" not in output


def test_20_an_unusable_value_of_a_parameter_of_rclpy_ends_in_one_line() -> None:
    code, output = ended({"use_sim_time": 5})
    assert code == 1
    assert "sbnet: cannot start: " in output and "use_sim_time" in output
    assert "Traceback" not in output


def test_26_sigint_while_the_node_still_imports_ends_it_at_once() -> None:
    command = [sys.executable, "-m", "sbnet_perception.node.node"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        about = Path(f"/proc/{process.pid}")
        # From its first lines on the program catches SIGTERM, which Python itself leaves alone.
        caught = re.compile(r"^SigCgt:\s*(\w+)", re.MULTILINE)
        try:
            while not int(caught.search((about / "status").read_text())[1], 16) >> (signal.SIGTERM - 1) & 1:
                time.sleep(0.002)
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert (process.returncode, output) == (0, "")


def test_14_26_simulated_time_may_begin_anew_and_sigint_twice_ends_the_node_under_load(
    tmp_path: Path,
) -> None:
    weights = tiny_weights(tmp_path / "full.safetensors", shape=NetworkConfig())
    # Dense, and faster clouds than it can take: an inference is always under way.
    robot = Robot({"weights": weights, "use_sim_time": True, "grid_frame": "map", "mask.expression": "everywhere"})
    try:
        robot.wait_printed("active: waiting")
        # The second lap begins a minute before the first: /clock tells before any transform or cloud does.
        for begin in (robot.now_ns + 60 * SECOND, robot.now_ns):
            robot.now_ns = begin
            answered = len(robot.detections)

            def more_answers(before: int = answered) -> bool:
                robot.send_clock(robot.tick())
                robot.send_tf(transform("map", "base_link", robot.now_ns))
                robot.send(cloud(scene(), robot.now_ns))
                time.sleep(0.05)
                return len(robot.detections) > before

            robot.wait(more_answers, "an answer in this lap")
        assert sum("time jumped by -" in line for line in robot.lines) == 1, robot.log()

        for count in range(20):
            robot.send_tf(transform("map", "base_link", robot.tick()))
            robot.send(cloud(scene(50_000), robot.now_ns))
            if count in (10, 12):
                robot.interrupt()
            time.sleep(0.01)
        ends(robot)
    finally:
        code = robot.close()
    assert code == 0, robot.log()
    assert not robot.printed("Traceback|rror"), robot.log()


# The file of parameters ---------------------------------------------------------------------------------


def test_the_shipped_parameter_file_lists_every_parameter_with_the_dataclass_default() -> None:
    text = resource("config/sbnet.yaml").read_text(encoding="utf-8")
    assert text == yaml_text(), "python -m sbnet_perception.node.parameters > config/sbnet.yaml"
    given: dict[str, Any] = {}

    def walk(tree: dict[str, Any], prefix: str) -> None:
        for name, entry in tree.items():
            if isinstance(entry, dict):
                walk(entry, f"{prefix}{name}.")
            else:
                given[prefix + name] = tuple(entry) if isinstance(entry, list) else entry

    walk(yaml.safe_load(text)["/**"]["ros__parameters"], "")
    assert given.keys() == SPECIFICATIONS.keys()
    assert build(NodeConfig, given) == NodeConfig()
    assert build(DetectorConfig, given) == DetectorConfig()


def test_every_parameter_refuses_what_its_type_cannot_hold() -> None:
    for name, spec in SPECIFICATIONS.items():
        assert spec.check(spec.default) == spec.default
        assert spec.help.endswith("."), name
        for wrong in (None, object(), [], float("nan")):
            with pytest.raises(ParameterError, match=f"'{name}'"):
                spec.check(wrong)
        described = spec.descriptor()
        limited = described.floating_point_range or described.integer_range or spec.choices
        free = ("grid_frame", "weights", "device", "mask.expression", "mask.weights")
        assert limited or type(spec.default) in (bool, tuple) or name in free, name
    assert specifications(NodeConfig)["tf_timeout"].check(1) == 1.0
    assert [SPECIFICATIONS["ground_z"].check(value) for value in ("auto", -2, -1.73)] == ["auto", -2.0, -1.73]
    assert SPECIFICATIONS["region"].check([-70, 70, -40, 40]) == (-70.0, 70.0, -40.0, 40.0)
    with pytest.raises(ValueError, match="tf_timeout"):
        NodeConfig(tf_timeout=-1.0)
