"""ROS parameters declared from the typed configuration, and the configuration read back from them.

A parameter's name is its field's path with dots (`mask.expression`), its default the field's, its description
the field's help. Run as a program it prints config/sbnet.yaml.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from sbnet_perception.detector.config import LIVE, DetectorConfig
from sbnet_perception.detector.mask_weights import prepared_mask_network
from sbnet_perception.detector.trained_masks import with_own_mask
from sbnet_perception.detector.weights import WeightsError
from sbnet_perception.node.ground import AUTO
from sbnet_perception.node.qos import PREFIX, override_problem

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
NOT_OURS = ("use_sim_time", "start_type_description_service", PREFIX, "diagnostic_updater.")
"""Parameters of rclpy and of diagnostic_updater begin with these."""


class ParameterError(ValueError):
    """A parameter that cannot be used; the message names it, its value and what is allowed."""


@dataclass(frozen=True)
class NodeConfig:
    """What the ROS node does around the detector.

    Raises:
        ValueError: a value is out of its range; the message names the field.
    """

    autostart: bool = field(
        default=True, metadata={"help": "Configure and activate on start, without a lifecycle manager."}
    )
    points: tuple[str, ...] = field(
        default=("points",),
        metadata={
            "help": "Topics of clouds, one for each LiDAR: several become one cloud. "
            "LiDARs that share a topic are answered one by one."
        },
    )
    merge_window: float = field(
        default=0.05,
        metadata={
            "help": "Seconds by which stamps of clouds may differ that become one; it waits twice that for the last.",
            "range": (0.001, 10.0),
        },
    )
    grid_frame: str = field(
        default="",
        metadata={"help": "Frame of the grid and of all outputs; empty means each cloud's own frame."},
    )
    ground_z: float | str = field(
        default=AUTO,
        metadata={
            "help": "Height of the ground in grid_frame, in metres (KITTI's velodyne: -1.73); auto: as clouds show it.",
            "range": (-100.0, 100.0),
            "auto": True,
        },
    )
    intensity_scale: float | str = field(
        default=AUTO,
        metadata={
            "help": "Intensity in the cloud that means full reflectance; auto: 1, 255 or 65535, as clouds show it.",
            "range": (1e-6, 1e9),
            "auto": True,
        },
    )
    missing_intensity: str = field(
        default="reject",
        metadata={"help": "What becomes of a cloud without intensity.", "choices": ("reject", "zero")},
    )
    road_mask_timeout: float = field(
        default=0.0,
        metadata={
            "help": "Seconds after which a road mask counts as missing; 0 means never.",
            "range": (0.0, 1e9),
        },
    )
    without_road_mask: str = field(
        default="continue",
        metadata={
            "help": "Road mask wanted but missing: the road is everywhere, or the cloud is refused.",
            "choices": ("continue", "refuse"),
        },
    )
    road_outside: str = field(
        default="road",
        metadata={
            "help": "What the grid's cells beyond the raster of the road mask are.",
            "choices": ("road", "no_road"),
        },
    )
    external_mask_timeout: float = field(
        default=1.0,
        metadata={
            "help": "Seconds after which an external mask counts as missing: what it saw moves; 0 means never.",
            "range": (0.0, 1e9),
        },
    )
    without_external_mask: str = field(
        default="continue",
        metadata={
            "help": "External mask wanted but missing: it is everywhere, or the cloud is refused.",
            "choices": ("continue", "refuse"),
        },
    )
    tf_timeout: float = field(
        default=0.2,
        metadata={
            "help": "Seconds a cloud waits for its transforms before it is dropped.",
            "range": (0.0, 10.0),
        },
    )
    queue_size: int = field(
        default=1,
        metadata={"help": "Clouds that wait for the detector; the oldest is dropped.", "range": (1, 100)},
    )
    input_timeout: float = field(
        default=1.0,
        metadata={
            "help": "Seconds without a cloud, or without one processed, after which /diagnostics reports an error and "
            "markers disappear.",
            "range": (0.1, 3600.0),
            "live": True,
        },
    )
    latency_warn_ms: float = field(
        default=200.0,
        metadata={
            "help": "Milliseconds from a cloud's arrival to its detections above which /diagnostics warns.",
            "range": (1.0, 1e6),
            "live": True,
        },
    )

    def __post_init__(self) -> None:
        for spec in specifications(type(self)).values():
            spec.check(getattr(self, spec.name))


@dataclass(frozen=True)
class Specification:
    """One parameter: a leaf field of a configuration dataclass.

    Attributes:
        auto: a number or the word "auto".
        per_class: a number, or a list of one for each class.
        live: may change while the node is configured.
    """

    name: str
    default: Any
    help: str
    range: tuple[float, float] | None
    choices: tuple[str, ...] | None
    auto: bool
    per_class: bool
    live: bool

    def check(self, value: Any) -> Any:
        """The value as the field's type.

        Raises:
            ParameterError: wrong type, or out of range.
        """
        kind: Any = float if self.auto else type(self.default)
        is_list = not isinstance(value, str) and hasattr(value, "__iter__")
        if self.auto and isinstance(value, str) and value == AUTO:
            return value
        if self.per_class and is_list and len(value):
            return tuple(self._check_one(one, kind) for one in value)
        if kind is not tuple:
            return self._check_one(value, kind)
        item = type(self.default[0])
        if not is_list:
            raise self._error(value, f"a list is needed, each item {WORDS[item]}")
        value = tuple(float(one) if item is float and type(one) is int else one for one in value)
        if not value or any(type(one) is not item for one in value):
            raise self._error(list(value), f"at least one item is needed, each {WORDS[item]}")
        return value

    def _check_one(self, value: Any, kind: Any) -> Any:
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            others = " or auto" if self.auto else " or a list of numbers" if self.per_class else ""
            raise self._error(value, f"{WORDS[kind]}{others} is needed")
        if kind is float and not math.isfinite(value):
            raise self._error(value, "a finite number is needed")
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            raise self._error(value, f"it must lie in [{self.range[0]:g}, {self.range[1]:g}]")
        if self.choices is not None and value not in self.choices:
            raise self._error(value, f"use one of {', '.join(self.choices)}")
        return value

    @property
    def description(self) -> str:
        """The help, the choices where there are some, and whether it may change."""
        choices = "" if self.choices is None else f" One of: {', '.join(self.choices)}."
        return f"{self.help}{choices}{' May change at run time.' if self.live else ''}"

    def descriptor(self) -> ParameterDescriptor:
        """Name, description and range for `ros2 param describe`."""
        # rclpy would refuse another type without the parameter's name, and a whole number where any number is meant.
        described = ParameterDescriptor(name=self.name, description=self.description, dynamic_typing=True)
        if self.range is not None:
            low, high = self.range
            if isinstance(self.default, int):
                described.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
            else:
                described.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
        return described

    def _error(self, value: Any, need: str) -> ParameterError:
        return ParameterError(f"parameter {self.name!r} is {value!r}: {need} ({self.help})")


def specifications(config: type, prefix: str = "") -> dict[str, Specification]:
    """All leaf fields of a configuration dataclass by name, in their order."""
    found: dict[str, Specification] = {}
    for item in dataclasses.fields(config):
        name = prefix + item.name
        if item.default is dataclasses.MISSING:
            if item.default_factory is dataclasses.MISSING:
                raise TypeError(f"{config.__name__}.{item.name} has no default")
            found |= specifications(item.default_factory, name + ".")  # type: ignore[arg-type]
        else:
            meta = item.metadata
            limits = meta.get("range"), meta.get("choices"), meta.get("auto", False), meta.get("per_class", False)
            live = meta.get("live", False) or name.split(".")[0] in LIVE
            found[name] = Specification(name, item.default, meta["help"], *limits, live)
    return found


def build(config: type, values: dict[str, Any], prefix: str = "") -> Any:
    """The configuration dataclass from values by full name.

    Raises:
        ParameterError: the dataclass refuses a value.
    """
    arguments = {}
    for item in dataclasses.fields(config):
        name = prefix + item.name
        nested = item.default is dataclasses.MISSING
        arguments[item.name] = build(item.default_factory, values, name + ".") if nested else values[name]  # type: ignore[arg-type]
    try:
        return config(**arguments)
    except ParameterError:
        raise
    except ValueError as error:
        # The message begins with the field's name.
        raise ParameterError(f"parameter {prefix}{error}") from error


SPECIFICATIONS = specifications(NodeConfig) | specifications(DetectorConfig)


class Parameters:
    """The parameters of a node, declared; what was given at start and cannot be used is told by `read`.

    Attributes:
        frozen: while True only live parameters may change.
        on_live: called with the configuration that is to hold from now on, and with the values that change in it.
    """

    def __init__(self, node: Node, on_live: Callable[[NodeConfig, DetectorConfig, dict[str, Any]], None]) -> None:
        self._node = node
        self._problems: dict[str, str] = {}
        self.frozen = False
        self.on_live = on_live
        # rclpy would raise at the first bad value, without a word about the others or about unknown names.
        given = node._parameter_overrides
        for name, spec in SPECIFICATIONS.items():
            value = spec.default
            if name in given:
                try:
                    value = spec.check(given[name].value)
                except ParameterError as error:
                    self._problems[name] = str(error)
            declared = list(value) if isinstance(value, tuple) else value
            node.declare_parameter(name, declared, spec.descriptor(), ignore_override=True)
        for name in given:
            if name.startswith(PREFIX) and (problem := override_problem(name, given[name].value)):
                self._problems[name] = problem
            if name not in SPECIFICATIONS and not name.startswith(NOT_OURS):
                self._problems[name] = f"parameter {name!r} is not known{_similar(name)}"
        node.add_on_set_parameters_callback(self._on_set)

    def read(self) -> tuple[NodeConfig, DetectorConfig]:
        """The configuration that the parameters give now.

        Raises:
            ParameterError: a value given at start was unusable or unknown, or values contradict each other.
            WeightsError: the mask is that of weights that are missing or damaged.
        """
        if self._problems:
            raise ParameterError("; ".join(self._problems.values()))
        config, detector = self._build({})
        return config, with_own_mask(detector)

    def _build(self, changes: dict[str, Any]) -> tuple[NodeConfig, DetectorConfig]:
        values = {
            name: spec.check(changes.get(name, self._node.get_parameter(name).value))
            for name, spec in SPECIFICATIONS.items()
        }
        detector = build(DetectorConfig, values)
        return build(NodeConfig, values), detector

    def _current(self, name: str) -> Any:
        return SPECIFICATIONS[name].check(self._node.get_parameter(name).value)

    def _on_set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """All of the values or none: rclpy sets them once this has said yes."""
        given = {item.name: item.value for item in parameters if item.name in SPECIFICATIONS}
        if not given:
            return SetParametersResult(successful=True)
        try:
            config, detector = self._build(given)
            if self.frozen:
                detector = with_own_mask(detector)
                # The worker, which loads them, could only fail.
                prepared_mask_network(detector)
            values = {name: SPECIFICATIONS[name].check(value) for name, value in given.items()}
        except (ParameterError, WeightsError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        # A file of all parameters may be loaded into a running node: what it does not change is no obstacle.
        changes = {name: value for name, value in values.items() if value != self._current(name)}
        fixed = sorted(name for name in changes if not SPECIFICATIONS[name].live)
        if self.frozen and fixed:
            reason = f"{', '.join(fixed)} cannot change while configured: deactivate and clean up first"
            return SetParametersResult(successful=False, reason=reason)
        for name in given:
            self._problems.pop(name, None)
        if self.frozen and changes:
            self.on_live(config, detector, changes)
        return SetParametersResult(successful=True)


def _similar(name: str) -> str:
    found = difflib.get_close_matches(name, SPECIFICATIONS, n=1, cutoff=0.4)
    return f" (did you mean {found[0]!r}?)" if found else "; config/sbnet.yaml lists all"


def yaml_text() -> str:
    """config/sbnet.yaml: every parameter with its help and default."""
    tree: dict[str, Any] = {}
    for name, spec in SPECIFICATIONS.items():
        *path, leaf = name.split(".")
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
        branch[leaf] = spec
    lines = ["# All parameters with their defaults, printed by: python -m sbnet_perception.node.parameters"]
    return "\n".join([*lines, "/**:", "  ros__parameters:", *_yaml_lines(tree, 4)]) + "\n"


def _yaml_lines(tree: dict[str, Any], indent: int) -> list[str]:
    lines = []
    for name, entry in tree.items():
        pad = " " * indent
        if isinstance(entry, dict):
            lines += [f"{pad}{name}:", *_yaml_lines(entry, indent + 2)]
        else:
            lines += [f"{pad}# {entry.description}", f"{pad}{name}: {_yaml_value(entry.default)}"]
    return lines


def _yaml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    print(yaml_text(), end="")
