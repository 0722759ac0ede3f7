"""What a user has given of the node's parameters: ``-p NAME:=VALUE``, then the file, then the default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sbnet_perception.desk.session import NODE
from sbnet_perception.errors import UserError
from sbnet_perception.node.parameters import SPECIFICATIONS, ParameterError
from sbnet_perception.node.params_file import parameters_in


def given(name: str, parameters: Mapping[str, object], file: Path | None) -> tuple[Any, str]:
    """The value that the node ``/sbnet`` will have of a parameter, and where it stands; "" = the default.

    Args:
        parameters: texts of values by name, as after ``-p``; they win over the file.
        file: a ROS parameter file.

    Raises:
        UserError: the value is none for this parameter, or the file cannot be read.
    """
    spec = SPECIFICATIONS[name]
    try:
        if name in parameters:
            return spec.check(typed(str(parameters[name]))), f"-p {name}"
        if file is not None and name in (of_file := parameters_in(file, NODE)):
            return spec.check(of_file[name]), str(file)
    except ParameterError as error:
        raise UserError(str(error)) from error
    return spec.default, ""


def typed(text: str) -> Any:
    """What YAML makes of a value on the command line; the text itself where that is nothing."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if value is None else value
