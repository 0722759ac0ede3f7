"""The detector node, with RViz if asked for.

    ros2 launch sbnet_perception sbnet.launch.py points:=/lidar_top grid_frame:=base_link rviz:=true
    ros2 launch sbnet_perception sbnet.launch.py points:="[/front/points, /rear/points]" grid_frame:=base_link

All that can be wrong is looked at before anything starts. What it declares ends with it: a launch file that includes
this one finds its own configurations as they were.
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, PopLaunchConfigurations, PushLaunchConfigurations
from launch.events.process import ProcessExited
from launch.substitutions import SubstitutionFailure
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import ExecutableInPackage
from launch_ros.utilities.namespace_utils import make_namespace_absolute, prefix_namespace

from sbnet_perception.node.launching import (
    NO,
    YES,
    ArgumentError,
    existing_file,
    fast_dds_profile,
    is_yes,
    log_levels,
    node_parameters,
    parameters_of,
)

CONFIG = Path(__file__).resolve().parent.parent / "config"
TOPICS = {
    "road_mask": "Road in (nav_msgs/OccupancyGrid, transient local)",
    "external_mask": "Where others want it computed in (nav_msgs/OccupancyGrid, reliable)",
    "detections": "Boxes out (vision_msgs/Detection3DArray)",
    "markers": "Boxes to look at out (visualization_msgs/MarkerArray)",
    "computation_mask": "Where it computed out (nav_msgs/OccupancyGrid)",
}
ARGUMENTS = {
    "points": ("", "Clouds in (sensor_msgs/PointCloud2): a topic, or [/front, /rear], which become one cloud"),
    **{topic: (topic, text) for topic, text in TOPICS.items()},
    "params_file": ("", "Parameters of the node (YAML); empty: the defaults, as in config/sbnet.yaml"),
    "weights": ("", "Weights file (safetensors)"),
    "grid_frame": ("", "Frame of the grid and of all outputs"),
    "ground_z": ("", "Height of the ground in grid_frame, in metres, or auto"),
    "intensity_scale": ("", "Intensity in the cloud that means full reflectance, or auto"),
    "missing_intensity": ("", "What becomes of a cloud without intensity"),
    "mask_expression": ("", "Where to compute (parameter mask.expression)"),
    "region": ("", "Where to detect: [x_min, x_max, y_min, y_max] in metres"),
    "dtype": ("", "Numbers that the network computes with"),
    "device": ("", "Where it computes: cpu, cuda, cuda:1 or auto"),
    "autostart": ("", "Configure and activate on start; false leaves it to a lifecycle manager"),
    "use_sim_time": ("", "Take the time from /clock"),
    "namespace": ("", "Namespace of the node and its topics"),
    "enclave": ("", "Enclave of the node under SROS 2 (config/sros2_policy.xml)"),
    "log_level": ("info", "Level of the node's log"),
    "respawn": ("false", "Start the node again after it has ended for whatever reason"),
    "respawn_delay": ("2.0", "Seconds before it is started again"),
    "required": ("false", "The end of the node, unless it is started again, ends the whole launch with exit code 1"),
    "rviz": ("false", "Start RViz with config/sbnet.rviz"),
    "rviz_frame": ("", "Fixed frame of RViz; empty: grid_frame, or base_link where that is not set"),
}
CHOICES = {
    "missing_intensity": ("", "reject", "zero"),
    "dtype": ("", "auto", "float32", "bfloat16", "float16", "int8"),
    "autostart": ("", *YES, *NO),
    "use_sim_time": ("", *YES, *NO),
    "log_level": ("debug", "info", "warn", "error", "fatal"),
    "respawn": (*YES, *NO),
    "required": (*YES, *NO),
    "rviz": (*YES, *NO),
}


def start(context: LaunchContext) -> list[Node]:
    """RViz and the node; whatever cannot be started is told before either is."""
    given = {name: context.launch_configurations[name] for name in ARGUMENTS}
    pushed = context.launch_configurations.get("ros_namespace")
    namespace = make_namespace_absolute(prefix_namespace(pushed, given["namespace"]))
    params_file = existing_file("params_file", given["params_file"]) if given["params_file"] else None
    parameters = node_parameters(given)
    texts = {
        name: ParameterValue(value, value_type=str) for name, value in parameters.items() if isinstance(value, str)
    }
    delay = respawn_delay(given["respawn_delay"])
    with_rviz = is_yes(given["rviz"])
    require(context, "sbnet_perception", "sbnet_node", "build the package and source install/setup.bash")
    if with_rviz:
        distribution = os.environ.get("ROS_DISTRO", "$ROS_DISTRO")
        require(context, "rviz2", "rviz2", f"sudo apt install ros-{distribution}-rviz2, or rviz:=false")

    profile = fast_dds_profile(context.environment, CONFIG)
    enclave = ["--enclave", given["enclave"]] if given["enclave"] else []
    node = Node(
        package="sbnet_perception",
        executable="sbnet_node",
        name="sbnet",  # with its full name, arguments win over a params_file that names the node
        namespace=namespace,
        output="screen",
        parameters=[*([str(params_file)] if params_file else []), *([{**parameters, **texts}] if parameters else [])],
        remappings=[(topic, given[topic]) for topic in TOPICS],
        ros_arguments=log_levels(namespace, given["log_level"]) + enclave,
        additional_env=profile,
        respawn=is_yes(given["respawn"]),
        respawn_delay=delay,
        on_exit=end_all if is_yes(given["required"]) and not is_yes(given["respawn"]) else None,
    )
    # RViz has no parameters of ours, and one display for clouds: it shows the first LiDAR.
    known = {**parameters_of(params_file, f"{namespace.rstrip('/')}/sbnet"), **parameters}
    frame = given["rviz_frame"] or str(known.get("grid_frame") or "base_link")
    shown = {"points": (known.get("points") or ["points"])[0], **{topic: given[topic] for topic in TOPICS}}
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=namespace,
        arguments=["-d", str(CONFIG / "sbnet.rviz"), "-f", frame],
        parameters=[{"use_sim_time": parameters["use_sim_time"]}] if "use_sim_time" in parameters else [],
        remappings=[(f"/{topic}", name) for topic, name in shown.items()],
        additional_env=profile,
    )
    return [rviz, node] if with_rviz else [node]


def end_all(event: ProcessExited, context: LaunchContext) -> OpaqueFunction | None:
    """Ends the whole launch with exit code 1: launch does so for what an action raises, and for nothing else."""

    def fail(context: LaunchContext) -> None:
        raise RuntimeError(f"the node has ended (exit code {event.returncode}): ending all; what it said stands above")

    return None if context.is_shutdown else OpaqueFunction(function=fail)


def require(context: LaunchContext, package: str, program: str, remedy: str) -> None:
    """Refuses to launch anything where a program is not installed."""
    try:
        ExecutableInPackage(package=package, executable=program).perform(context)
    except (SubstitutionFailure, LookupError):
        raise ArgumentError(f"{program} of the package {package} is not installed: {remedy}") from None


def respawn_delay(text: str) -> float:
    """Seconds of a launch argument."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ArgumentError(f"respawn_delay:={text}: give a number of seconds, 0 or more")
    return seconds


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    declared = [
        DeclareLaunchArgument(
            name, default_value=value, description=text, choices=list(CHOICES[name]) if name in CHOICES else None
        )
        for name, (value, text) in ARGUMENTS.items()
    ]
    scoped = [PushLaunchConfigurations(), *declared, OpaqueFunction(function=start), PopLaunchConfigurations()]
    return LaunchDescription(scoped)
