"""What the launch files decide, in plain Python: words to parameters, the Fast DDS profile, the frame of RViz.

Launch files run in the Python of `ros2 launch`, which need not have PyTorch: this imports neither it nor ROS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbnet_perception.environment import PROFILE_VARIABLES
from sbnet_perception.errors import UserError
from sbnet_perception.node.params_file import parameters_in

YES = ("true", "True", "1", "yes", "on")
NO = ("false", "False", "0", "no", "off")

PARAMETERS = {
    "points": "points",
    "weights": "weights",
    "grid_frame": "grid_frame",
    "ground_z": "ground_z",
    "intensity_scale": "intensity_scale",
    "missing_intensity": "missing_intensity",
    "mask_expression": "mask.expression",
    "region": "region",
    "dtype": "dtype",
    "device": "device",
    "autostart": "autostart",
    "use_sim_time": "use_sim_time",
}
"""Parameter of the node for each launch argument that sets one; an empty argument sets none."""
SWITCHES = ("autostart", "use_sim_time")
NUMBER_OR_AUTO = ("ground_z", "intensity_scale")


class ArgumentError(ValueError):
    """A launch argument that cannot be used: one sentence that names it and the remedy."""


def is_yes(text: str) -> bool:
    """Whether one of the words of `YES` or `NO`, which launch has checked, is a yes."""
    return text in YES


def node_parameters(arguments: Mapping[str, str]) -> dict[str, bool | float | str | list[float] | list[str]]:
    """Parameters of the node, by name, that launch arguments set; numbers where ROS wants numbers.

    Raises:
        ArgumentError: `region` is not a list of numbers, or `points` not one of topics.
    """
    given = {name: arguments[name] for name in PARAMETERS if arguments.get(name)}
    return {PARAMETERS[name]: _value(name, text) for name, text in given.items()}


def _value(name: str, text: str) -> bool | float | str | list[float] | list[str]:
    if name in SWITCHES:
        return is_yes(text)
    if name == "points":
        topics = [topic.strip(" '\"") for topic in text.strip("[] ").split(",")]
        if not all(topic and not set(topic) & set(" []") for topic in topics):
            example = "[/lidar_front/points, /lidar_rear/points]"
            raise ArgumentError(f"points:={text}: give a topic, or several as {example}")
        return topics
    if name == "weights":
        return str(Path(text).expanduser())
    if name == "region":
        try:
            return [float(number) for number in text.strip("[] ").split(",")]
        except ValueError:
            example = "[0.0, 70.4, -20.0, 20.0]"
            raise ArgumentError(f"region:={text}: give x_min, x_max, y_min, y_max in metres, as {example}") from None
    if name in NUMBER_OR_AUTO:
        try:
            return float(text)
        except ValueError:
            return text
    return text


def existing_file(name: str, text: str) -> Path:
    """The readable file that a launch argument names; `~` is the home folder.

    Raises:
        ArgumentError: there is none; ROS would only log a line and run on defaults.
    """
    path = Path(text).expanduser()
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ArgumentError(f"{name}:={text}: {error.strerror}; give the path of a file, or leave it out") from None


def profile_variable(environment: Mapping[str, str]) -> str:
    """The one of `PROFILE_VARIABLES` that the Fast DDS of this ROS distribution reads."""
    return PROFILE_VARIABLES[environment.get("ROS_DISTRO") in ("humble", "jazzy")]


def fast_dds_profile(environment: Mapping[str, str], config: Path) -> dict[str, str]:
    """What to add to a process's environment so that its Fast DDS carries whole clouds; nothing where the user chose.

    The transports of a profile stand beside those that rmw_fastrtps restricts to this machine
    (`rmw_fastrtps_shared_cpp/src/participant.cpp`), so a profile has to be restricted as well.

    Args:
        environment: of the process.
        config: folder of the shipped profiles.
    """
    name = profile_variable(environment)
    if environment.get(name) or environment.get("FASTDDS_BUILTIN_TRANSPORTS"):
        return {}
    users = next((value for other in PROFILE_VARIABLES if (value := environment.get(other))), "")
    here = environment.get("ROS_LOCALHOST_ONLY") == "1"
    here = here or environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE") in ("LOCALHOST", "OFF")
    return {name: users or str(config / ("fastdds_localhost.xml" if here else "fastdds.xml"))}


def log_levels(namespace: str, level: str) -> list[str]:
    """ROS arguments that set the level of the node's own logger, named after its namespace, and of no other."""
    logger = ".".join([*(part for part in namespace.split("/") if part), "sbnet"])
    return ["--log-level", f"{logger}:={level}"]


def parameters_of(params_file: Path | None, node: str) -> dict[str, Any]:
    """What a parameter file has for a node, by its full name; nothing where it cannot be used: the node says why."""
    try:
        return {} if params_file is None else parameters_in(params_file, node)
    except UserError:
        return {}
