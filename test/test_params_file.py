"""Which nodes a ROS parameter file speaks of: the same answers as rcl gives."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import rclpy
from rclpy.context import Context

from sbnet_perception.errors import UserError
from sbnet_perception.node import run
from sbnet_perception.node.params_file import applies, given_files, names_in, parameters_in, value_of
from sbnet_perception.yaml_events import LARGEST_BYTES

NAMES = ("/sbnet", "/r1/sbnet", "/r1/deep/sbnet")
KEYS = (
    "sbnet", "/sbnet", "/r1/sbnet", "r1: {sbnet", "/**", "'**'", "/*", "'*'", "/**/sbnet", "/*/sbnet", "'*': {sbnet",
    "/r1/**", "/r1/*", "/r1/**/sbnet", "/*/*/sbnet", "/**/*/sbnet", "other", "sbnet_perception", "sbne", "/r1/sbnet2",
)  # fmt: skip


def parameters_of(file: Path, fqn: str) -> dict[str, object]:
    """What rcl gives a node of this name."""
    context = Context()
    rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
    namespace, name = fqn.rsplit("/", 1)
    node = rclpy.create_node(name, namespace=namespace, context=context, start_parameter_services=False)
    try:
        return {key: value.value for key, value in node._parameter_overrides.items()}
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_names_and_wildcards_apply_exactly_where_rcl_applies_them(tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    # A parameter of its own under each key: one start of the node asks all of them.
    tables = [f"{key}: {{ros__parameters: {{p{n}: 1}}}}" + "}" * ("{" in key) for n, key in enumerate(KEYS)]
    file.write_text("\n".join(tables))
    alone = tmp_path / "alone.yaml"
    for fqn in NAMES:
        given = parameters_of(file, fqn)
        for number, table in enumerate(tables):
            alone.write_text(table)
            assert applies(alone, fqn) == (f"p{number}" in given), (fqn, table)


def test_the_value_is_the_one_that_the_node_gets(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    text = """
other: {ros__parameters: {grid_frame: wrong, list: [1, {a: 2}], after: 1}}
sbnet:
  ros__parameters:
    grid_frame: base_link
    region: [0.0, 70.4]
    mask: {expression: road, deep: {er: 1}}
/**: {ros__parameters: {grid_frame: lidar, mask.expression: occupancy}}
r1: {sbnet: {ros__parameters: {}}}
"""
    file.write_text(text)
    assert names_in(file) == ("/other", "/sbnet", "/**", "/r1/sbnet")
    file.write_text(text.replace(", {a: 2}", ""))  # rcl knows no table within a list
    for fqn in NAMES[:2]:
        given = parameters_of(file, fqn)
        for parameter in ("grid_frame", "mask.expression", "after"):
            assert value_of(file, fqn, parameter) == given.get(parameter), (fqn, parameter)
        assert parameters_in(file, fqn) == given
    assert value_of(file, "/sbnet", "mask.deep.er") == "1"
    assert value_of(file, "/r1/sbnet", "mask.deep.er") is None


def test_hostile_and_damaged_files_are_refused_at_once_in_one_line(tmp_path: Path) -> None:
    doubled = (f"{b}: &{b} [*{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghijklmnopqrstuvwxyz"))
    laughs = "a: &a [x, x]\n" + "".join(doubled)
    cases = {
        "laughs": (laughs.encode(), r"line 2 has the alias \*a; write its value there"),
        "deep": (b"sbnet: {ros__parameters: {a: " + b"[" * 100_000, "nested more than 32 levels"),
        "large": (b"#" * (LARGEST_BYTES + 1), "larger than 1024 KiB"),
        "binary": (b"\xff\xfe\x00", "is no ROS parameter file"),
        "broken": (b"sbnet: {ros__parameters: [", "is no ROS parameter file"),
    }
    for name, (content, reason) in cases.items():
        file = tmp_path / name
        file.write_bytes(content)
        with pytest.raises(UserError, match=reason) as refused:
            names_in(file)
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        names_in(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        names_in(tmp_path)


def test_a_file_without_parameters_of_any_node_has_no_names(tmp_path: Path) -> None:
    for text in ("", "score_threshold: 0.9\n", "sbnet: {score_threshold: 0.9}\n", "- a\n", "a\n"):
        file = tmp_path / "plain.yaml"
        file.write_text(text)
        assert names_in(file) == ()
        assert not applies(file, "/sbnet")


def test_the_files_of_a_command_line_are_those_after_params_file_within_ros_args() -> None:
    line = "--params-file no --ros-args -r a:=b --params-file one.yaml -- --params-file no --ros-args --params-file two"
    assert given_files([*line.split(), "--params-file"]) == ["one.yaml", "two"]
    assert given_files([]) == []


def test_the_node_warns_of_a_file_that_has_nothing_for_it_and_says_what_the_file_has(tmp_path: Path) -> None:
    said: list[str] = []
    logger = SimpleNamespace(warning=said.append)
    node = SimpleNamespace(get_fully_qualified_name=lambda: "/robot/sbnet", get_logger=lambda: logger)
    for key in ("/**", "other"):
        file = tmp_path / "file.yaml"
        file.write_text(f"{key}:\n  ros__parameters: {{grid_frame: map}}\n")
        run._warn_if_passed_over(node, str(file))  # type: ignore[arg-type]
    (line,) = said
    assert "file.yaml has nothing for /robot/sbnet" in line and "it has /other;" in line
