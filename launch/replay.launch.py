"""A bag through the node, with RViz: `ros2 launch sbnet_perception replay.launch.py bag:=drive.mcap`.

Takes every argument of sbnet.launch.py too. For an exact replay that waits for each result: `sbnet replay`.
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

HERE = Path(__file__).resolve().parent
ARGUMENTS = {
    "rate": ("1.0", "Speed, 1 is as recorded"),
    "loop": ("false", "Start again at the end"),
    "delay": ("3.0", "Seconds before the first message"),
    "rviz": ("true", "Start RViz with config/sbnet.rviz"),
}


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
    declared = [DeclareLaunchArgument("bag", description="The bag: what `ros2 bag play` reads")]
    declared += [DeclareLaunchArgument(n, default_value=v, description=t) for n, (v, t) in ARGUMENTS.items()]
    include = IncludeLaunchDescription(sbnet, launch_arguments={"use_sim_time": "true"}.items())
    return LaunchDescription([*declared, include, OpaqueFunction(function=play)])
