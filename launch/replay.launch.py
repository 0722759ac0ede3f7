"""A bag through the node, with RViz: `ros2 launch sbnet_perception replay.launch.py bag:=drive.mcap`.

Takes every argument of sbnet.launch.py too. The end of the bag, of RViz or of the node is the end of all, with exit
code 1 where it was none in order. For an exact replay that waits for each result: `sbnet replay`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
    RegisterEventHandler,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource

from sbnet_perception.node.launching import NO, YES, ArgumentError, fast_dds_profile, is_yes

HERE = Path(__file__).resolve().parent
CONFIG = HERE.parent / "config"
ARGUMENTS = {
    "rate": ("1.0", "Speed, 1 is as recorded"),
    "loop": ("false", "Start again at the end"),
    "delay": ("3.0", "Seconds before the first message"),
    "rviz": ("true", "Start RViz with config/sbnet.rviz"),
    "required": ("true", "The end of the node, unless it is started again, is the end of all with exit code 1"),
    "use_sim_time": ("true", "Everything runs on the bag's time, which is published as /clock"),
}
SWITCHES = ("loop", "rviz", "required", "use_sim_time")
ENDS = {
    "player": ("the bag has ended", "the bag could not be played"),
    "rviz2": ("RViz was closed", "RViz has failed"),
}
"""What the end of each program means, with exit code 0 and with another one."""


def check(context: LaunchContext) -> None:
    """Refuses what could not be played before anything starts."""
    bag = context.launch_configurations["bag"]
    if not bag or not Path(bag).expanduser().exists():
        raise ArgumentError(f"bag:={bag}: there is no such file or folder")
    if shutil.which("ros2") is None:
        raise ArgumentError("there is no program ros2 to play the bag: source /opt/ros/$ROS_DISTRO/setup.bash")


def play(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """`ros2 bag play`, started after the node and RViz so that they see the first cloud; and the end of all."""
    given = context.launch_configurations
    command = ["ros2", "bag", "play", str(Path(given["bag"]).expanduser())]
    command += ["--rate", given["rate"], "--delay", given["delay"]]
    command += ["--clock", "100"] if is_yes(given["use_sim_time"]) else []
    command += ["--loop"] if is_yes(given["loop"]) else []
    player = ExecuteProcess(cmd=command, output="screen", additional_env=fast_dds_profile(context.environment, CONFIG))

    def ended(event: ProcessExited, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        program = "player" if event.action is player else getattr(event.action, "node_executable", None)
        if context.is_shutdown or program not in ENDS:
            return []
        in_order, failed = ENDS[program]
        if event.returncode == 0:
            return [LogInfo(msg=f"{in_order}: ending the replay"), Shutdown(reason=in_order)]
        return [OpaqueFunction(function=fail, args=[f"{failed} (exit code {event.returncode})"])]

    return [RegisterEventHandler(OnProcessExit(on_exit=ended)), player]


def fail(context: LaunchContext, what: str) -> None:
    """Ends all with exit code 1: launch does so for what an action raises, and for nothing else."""
    raise RuntimeError(f"{what}: ending the replay; what it said stands above")


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` runs."""
    declared = [DeclareLaunchArgument("bag", description="The bag: what `ros2 bag play` reads")]
    declared += [
        DeclareLaunchArgument(
            name, default_value=value, description=text, choices=[*YES, *NO] if name in SWITCHES else None
        )
        for name, (value, text) in ARGUMENTS.items()
    ]
    sbnet = IncludeLaunchDescription(PythonLaunchDescriptionSource(str(HERE / "sbnet.launch.py")))
    actions = [OpaqueFunction(function=check), sbnet, OpaqueFunction(function=play)]
    return LaunchDescription([PushLaunchConfigurations(), *declared, *actions, PopLaunchConfigurations()])
