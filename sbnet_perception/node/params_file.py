"""Which nodes a ROS parameter file speaks of, by the rules of rcl.

rcl hands a node what stands under its name and under wildcards that match it, and passes over the rest without a word.
Source: tried with rclpy 9.1 (Kilted), case by case in ``test/test_params_file.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from sbnet_perception.errors import UserError
from sbnet_perception.yaml_events import YamlError, events

PARAMETERS = "ros__parameters"
_WILDCARDS = {"**": r"(/\w+)*", "*": r"/\w+"}


def names_in(path: str | Path) -> tuple[str, ...]:
    """The names of nodes, with their namespaces and wildcards, that a parameter file has something for.

    Returns:
        Absolute names in the order of the file, each once: ``("/sbnet", "/**", "/robot1/sbnet")``.

    Raises:
        UserError: the file cannot be read, is too large, is no YAML, or has an alias, which rcl refuses too.
    """
    return tuple(dict.fromkeys(name for name, _, _ in _scalars(Path(path))))


def applies(path: str | Path, node_fqn: str) -> bool:
    """Whether a parameter file has something for a node.

    Args:
        node_fqn: the node's fully qualified name: ``/sbnet``, ``/robot1/sbnet``.

    Raises:
        UserError: as for `names_in`.
    """
    return any(_matches(name, node_fqn) for name in names_in(path))


def value_of(path: str | Path, node_fqn: str, parameter: str) -> str | None:
    """The text of a parameter's value as the node gets it: of all places that apply the last; None without one.

    Raises:
        UserError: as for `names_in`.
    """
    found = [text for name, key, text in _scalars(Path(path)) if key == parameter and _matches(name, node_fqn)]
    return found[-1] if found else None


def parameters_in(path: str | Path, node_fqn: str) -> dict[str, Any]:
    """All that a parameter file has for a node, by the parameters' names; of all places that apply the last wins.

    Raises:
        UserError: as for `names_in`.
    """
    # Once its events have been read it is known to be no larger than it looks.
    names_in(path)
    found: dict[str, Any] = {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"parameter file {path} is no ROS parameter file: {' '.join(str(error).split())}") from error
    for name, parameters in _tables(content, []):
        if _matches(name, node_fqn):
            found.update(_flat(parameters))
    return found


def given_files(arguments: Sequence[str]) -> list[str]:
    """The files that ROS reads parameters from, by a program's arguments: ``--ros-args --params-file FILE``."""
    found, ros = [], False
    words = iter(arguments)
    for word in words:
        if word in ("--ros-args", "--"):
            ros = word == "--ros-args"
        elif ros and word == "--params-file":
            found += [file for file in [next(words, None)] if file is not None]
    return found


def _matches(name: str, node_fqn: str) -> bool:
    parts = re.sub(r"(/\*\*)+", "/**", name).split("/")[1:]
    pattern = "".join(_WILDCARDS.get(part, "/" + re.escape(part)) for part in parts)
    return re.fullmatch(pattern, node_fqn) is not None


def _tables(content: Any, above: list[str | None]) -> Iterator[tuple[str, Any]]:
    """(node, its table of parameters) of each place of a file."""
    for key, value in content.items() if isinstance(content, dict) else ():
        keys = [*above, str(key)]
        if key == PARAMETERS:
            yield _node(keys), value
        else:
            yield from _tables(value, keys)


def _flat(parameters: Any) -> Iterator[tuple[str, Any]]:
    for key, value in parameters.items() if isinstance(parameters, dict) else ():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", deeper) for name, deeper in _flat(value))
        else:
            yield str(key), value


def _scalars(path: Path) -> Iterator[tuple[str, str, str]]:
    """(node, parameter, text) of each value; an empty table of parameters counts as one value without a name."""
    try:
        yield from _walk(path)
    except OSError as error:
        raise UserError(f"parameter file {path} cannot be read: {error.strerror or error}") from error
    except YamlError as error:
        raise UserError(f"parameter file {path} is no ROS parameter file: {error}") from error


def _walk(path: Path) -> Iterator[tuple[str, str, str]]:
    keys: list[str | None] = []
    sequences = 0
    for event in events(path):
        if isinstance(event, yaml.SequenceStartEvent):
            sequences += 1
        elif isinstance(event, yaml.SequenceEndEvent):
            sequences -= 1
            keys = [*keys[:-1], None] if keys and not sequences else keys
        elif sequences:
            continue
        elif isinstance(event, yaml.MappingStartEvent):
            if keys and keys[-1] == PARAMETERS:
                yield _node(keys), "", ""
            keys.append(None)
        elif isinstance(event, yaml.MappingEndEvent):
            keys = [*keys[:-2], None] if len(keys) > 1 else []
        elif isinstance(event, yaml.ScalarEvent) and keys:
            if keys[-1] is None:
                keys[-1] = event.value
                continue
            if PARAMETERS in keys[:-1]:
                yield _node(keys), _parameter(keys), event.value
            keys[-1] = None


def _node(keys: list[str | None]) -> str:
    above = keys[: keys.index(PARAMETERS)]
    return "/" + "/".join(str(key).strip("/") for key in above)


def _parameter(keys: list[str | None]) -> str:
    return ".".join(str(key) for key in keys[keys.index(PARAMETERS) + 1 :])
