"""The detector node, with RViz if asked for.

    ros2 launch sbnet_perception sbnet.launch.py points:=/lidar_top grid_frame:=base_link rviz:=true
"""

from __future__ import annotations

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(__file__).resolve().parent.parent / "config"
# Humble and Jazzy know only the old name, Kilted warns of it (rmw_fastrtps #806).
OLD_PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
NEW_PROFILE_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
KNOWS_ONLY_OLD = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
PROFILE_VARIABLE = OLD_PROFILE_VARIABLE if KNOWS_ONLY_OLD else NEW_PROFILE_VARIABLE
TOPICS = {
    "points": "Clouds in (sensor_msgs/PointCloud2)",
    "road_mask": "Road in (nav_msgs/OccupancyGrid, transient local)",
    "detections": "Boxes out (vision_msgs/Detection3DArray)",
    "markers": "Boxes to look at out (visualization_msgs/MarkerArray)",
    "computation_mask": "Where it computed out (nav_msgs/OccupancyGrid)",
}
ARGUMENTS = {
    **{topic: (topic, text) for topic, text in TOPICS.items()},
    "params_file": (str(CONFIG / "sbnet.yaml"), "Parameters of the node (YAML)"),
    "weights": ("", "Weights file (safetensors); empty: as in params_file"),
    "grid_frame": ("", "Frame of the grid and of all outputs; empty: as in params_file"),
    "use_sim_time": ("false", "Take the time from /clock"),
    "namespace": ("", "Namespace of the node and its topics"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "respawn": ("false", "Start the node again, 2 seconds after it has ended for whatever reason"),
    "rviz": ("false", "Start RViz with config/sbnet.rviz"),
}


def start(context: LaunchContext) -> list[Node]:
    """The node and RViz; an empty `weights` or `grid_frame` leaves what params_file says."""
    given = [name for name in ("weights", "grid_frame") if LaunchConfiguration(name).perform(context)]
    overrides = {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in given}
    sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    namespace = LaunchConfiguration("namespace")
    node = Node(
        package="sbnet_perception",
        executable="sbnet_node",
        namespace=namespace,
        output="screen",
        parameters=[LaunchConfiguration("params_file"), overrides | sim_time],
        remappings=[(topic, LaunchConfiguration(topic)) for topic in TOPICS],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        respawn=LaunchConfiguration("respawn").perform(context).lower() in ("true", "1"),
        respawn_delay=2.0,
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=namespace,
        arguments=["-d", str(CONFIG / "sbnet.rviz")],
        parameters=[sim_time],
        remappings=[(f"/{topic}", LaunchConfiguration(topic)) for topic in TOPICS],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [node, rviz]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    declared = [DeclareLaunchArgument(n, default_value=v, description=t) for n, (v, t) in ARGUMENTS.items()]
    # The profile for clouds, unless the user has set one
    given = EnvironmentVariable(OLD_PROFILE_VARIABLE, default_value=str(CONFIG / "fastdds.xml"))
    profile = EnvironmentVariable(PROFILE_VARIABLE, default_value=[given])
    environment = SetEnvironmentVariable(PROFILE_VARIABLE, profile)
    return LaunchDescription([*declared, environment, OpaqueFunction(function=start)])
