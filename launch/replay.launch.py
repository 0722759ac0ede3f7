"""A bag through the node, with RViz: `ros2 launch sbnet_perception replay.launch.py bag:=drive.mcap points:=/lidar_top`.

Takes every argument of sbnet.launch.py too. For an exact replay that waits for each result: `sbnet replay`.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

HERE = Path(__file__).resolve().parent


def play(context: LaunchContext) -> list[ExecuteProcess]:
    """`ros2 bag play`, started after the node and RViz so that they see the first cloud."""
    command = ["ros2", "bag", "play", LaunchConfiguration("bag"), "--clock", "100"]
    command += ["--rate", LaunchConfiguration("rate"), "--delay", LaunchConfiguration("delay")]
    if LaunchConfiguration("loop").perform(context).lower() in ("true", "1"):
        command.append("--loop")
    return [ExecuteProcess(cmd=command, output="screen")]


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    sbnet = PythonLaunchDescriptionSource(str(HERE / "sbnet.launch.py"))
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="The bag (a folder or a file that `ros2 bag play` reads)"),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed, 1 is as recorded"),
            DeclareLaunchArgument("loop", default_value="false", description="Start again at the end"),
            DeclareLaunchArgument("delay", default_value="3.0", description="Seconds before the first message"),
            DeclareLaunchArgument("rviz", default_value="true", description="Start RViz with config/sbnet.rviz"),
            IncludeLaunchDescription(sbnet, launch_arguments={"use_sim_time": "true"}.items()),
            OpaqueFunction(function=play),
        ]
    )
