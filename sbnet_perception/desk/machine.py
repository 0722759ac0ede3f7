"""What this machine has for the detector and for ROS, one finding after the other."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from sbnet_perception import environment, sourced_ros
from sbnet_perception.desk.findings import Finding
from sbnet_perception.desk.session import Session
from sbnet_perception.environment import PROFILE_VARIABLES
from sbnet_perception.errors import UserError
from sbnet_perception.node.launching import profile_variable
from sbnet_perception.resources import resource

MESSAGE_PACKAGES = (
    "sensor_msgs",
    "nav_msgs",
    "visualization_msgs",
    "diagnostic_msgs",
    "lifecycle_msgs",
    "rosgraph_msgs",
    "vision_msgs",
    "tf2_msgs",
)
ENOUGH_SHARED_MEMORY = 4 * 2**20
"""A 64-beam cloud of 130 000 points has 2 MB; it must fit whole, and the next one beside it."""


def examine(with_dds: bool = True) -> Iterator[Finding]:
    """All findings, one by one; a check that itself breaks is a finding too.

    What is wrong with the environment is told as it is, and mended while the other checks run: ROS would end the
    process otherwise.
    """
    before = dict(os.environ)
    found = environment.problems(before)
    yield from (Finding("FAIL" if p.ends else p.state, p.variable, p.found, p.remedy) for p in found)
    try:
        for problem in found:
            environment.apply(os.environ, {**problem.mended, **problem.at_desk})
        left = [problem.variable for problem in environment.problems(os.environ) if problem.ends]
        yield from _checked(with_dds, left)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _checked(with_dds: bool, hindrances: list[str]) -> Iterator[Finding]:
    """The findings beside the environment's own; `hindrances` are variables with which ROS would not start."""
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _torch, ops, gpus, _weights, _ros, _messages]
    checks += [] if hindrances else [middleware]
    checks += [_shared_memory, _reach, _optional]
    checks += [_round_trips] if with_dds and not hindrances else []
    for check in checks:
        yield from guarded(check)
    if hindrances:
        yield Finding("WARN", "DDS", f"not tried, because of {', '.join(hindrances)}", "mend that first")


def guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check, of which one is that it broke."""
    try:
        yield from check()
    except UserError as error:
        yield Finding("FAIL", check.__name__.strip("_").replace("_", " "), str(error))
    except Exception as error:
        name = check.__name__.strip("_").replace("_", " ")
        yield Finding("FAIL", name, f"{type(error).__name__}: {error}", "report this, with what it says")


def _python() -> Iterator[Finding]:
    good = sys.version_info >= (3, 10)
    yield Finding(
        "OK" if good else "FAIL",
        "Python",
        platform.python_version(),
        "" if good else "use Python 3.10 or newer",
    )


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("OK", "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    isa = torch.backends.cpu.get_cpu_capability()
    if isa == "DEFAULT":
        yield Finding("WARN", "CPU", "neither AVX2 nor AVX-512", "expect a slow network; use a newer processor")
    else:
        yield Finding("OK", "CPU", f"{isa}, {os.cpu_count()} cores")


def ops() -> Iterator[Finding]:
    from sbnet_perception import operation as ops

    if ops.UNAVAILABLE:
        remedy = "make setup, or colcon build"
        yield Finding("WARN", "compiled ops", f"plain PyTorch is used: {ops.UNAVAILABLE}", remedy)
    else:
        yield Finding("OK", "compiled ops", str(ops.LIBRARY))


def gpus() -> Iterator[Finding]:
    """Each GPU that PyTorch sees, and whether the compiled kernels run on it."""
    import torch

    from sbnet_perception.detector.device import NO_KERNELS, problem_of
    from sbnet_perception.operation import CUDA_KERNELS

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        yield Finding("OK", "GPU", "none" if torch.version.cuda else "not used: this PyTorch is built without CUDA")
    for index in range(count):
        problem = problem_of(index) or (None if CUDA_KERNELS else NO_KERNELS)
        if problem:
            yield Finding("WARN", f"GPU {index}", *problem)
        else:
            yield Finding("OK", f"GPU {index}", f"{torch.cuda.get_device_name(index)}, the compiled ops run on it")


def _weights() -> Iterator[Finding]:
    from sbnet_perception.detector.config import DetectorConfig
    from sbnet_perception.detector.weights import load_network, read_metadata, share_of_zeros, weights_path

    config = DetectorConfig()
    try:
        zeros = share_of_zeros(load_network(config))
    except UserError as error:
        yield Finding("FAIL", "weights", str(error), "get the file from the repository, or train: sbnet train")
        return
    path = weights_path(config)
    sparse = f"{zeros:.0%} zeros, " if zeros >= 0.005 else ""
    scales = "with scales for dtype int8" if "int8" in read_metadata(path) else "for dtype int8: sbnet quantize"
    yield Finding("OK", "weights", f"{path} ({sparse}{scales})")


def _ros() -> Iterator[Finding]:
    sourced_ros.check()
    try:
        wheel = f"wheels, Kilted, rclpy {importlib.metadata.version('ros-kilted-rclpy')}"
    except importlib.metadata.PackageNotFoundError:
        wheel = "unknown source"
    distribution = os.environ.get("ROS_DISTRO")
    importlib.import_module("rclpy")
    yield Finding("OK", "ROS 2", f"distribution {distribution}" if distribution else wheel)


def _messages() -> Iterator[Finding]:
    for package in MESSAGE_PACKAGES:
        try:
            importlib.import_module(f"{package}.msg")
        except ImportError as error:
            remedy = "make setup" if package in ("vision_msgs", "tf2_msgs") else "pip install -r requirements.txt"
            yield Finding(
                "FAIL",
                package,
                str(error),
                f"{remedy}, or apt install ros-DISTRIBUTION-{package.replace('_', '-')}",
            )
    missing = [package for package in MESSAGE_PACKAGES if importlib.util.find_spec(package) is None]
    if not missing:
        yield Finding("OK", "message packages", ", ".join(MESSAGE_PACKAGES))


def middleware() -> Iterator[Finding]:
    import rclpy

    used = rclpy.get_rmw_implementation_identifier()
    if used == "rmw_fastrtps_cpp":
        yield Finding("OK", "middleware", used)
        yield _profile()
    else:
        yield Finding(
            "WARN",
            "middleware",
            used,
            "tested with rmw_fastrtps_cpp only: export RMW_IMPLEMENTATION=rmw_fastrtps_cpp",
        )


def _profile() -> Finding:
    """The Fast DDS profile in use leaves room for whole clouds in shared memory."""
    what = "Fast DDS profile"
    shipped = resource("config/fastdds.xml")
    remedy = f"export {profile_variable(os.environ)}={shipped} for every process, the driver too"
    named = next((value for name in PROFILE_VARIABLES if (value := os.environ.get(name))), None)
    if named is None:
        return Finding(
            "WARN",
            what,
            "none: clouds above 512 KB may be lost silently (demo, replay and launch set it)",
            remedy,
        )
    size = _segment_size(Path(named))
    if size is None:
        return Finding("WARN", what, f"{named} sets no shared memory segment_size", remedy)
    if size < ENOUGH_SHARED_MEMORY:
        return Finding("WARN", what, f"{named}: segment_size {size} bytes is small for clouds", remedy)
    return Finding("OK", what, f"{named}, segment {size / 2**20:.0f} MB")


def _segment_size(profile: Path) -> int | None:
    """The smallest segment_size in a profile, in bytes."""
    sizes = [int(e.text or 0) for e in ElementTree.parse(profile).iter() if e.tag.rsplit("}", 1)[-1] == "segment_size"]
    return min(sizes, default=None)


def _shared_memory() -> Iterator[Finding]:
    folder = Path("/dev/shm")
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        remedy = "mount a tmpfs there (in a container: --shm-size=256m or --ipc=host)"
        yield Finding("FAIL", str(folder), f"cannot be used ({error.strerror}): large clouds are lost", remedy)
        return
    stale = stale_segments(folder)
    size = f"{sum(file.stat().st_size for file in stale) / 2**20:.0f} MB"
    left = f", {size} of it left by {len(stale)} processes that were killed" if stale else ""
    remedy = "fastdds shm clean, or rm /dev/shm/fast* while no node runs" if stale else ""
    if free < 64 * 2**20:
        remedy = " and ".join(filter(None, (remedy, "in a container run with --shm-size=256m")))
        yield Finding("FAIL", str(folder), f"only {free / 2**20:.0f} MB free{left}: large clouds are lost", remedy)
    else:
        yield Finding("OK", str(folder), f"{free / 2**20:.0f} MB free{left}")


def stale_segments(folder: Path) -> list[Path]:
    """Shared memory of Fast DDS whose process has ended: nobody holds the lock beside it."""
    stale = []
    for lock in folder.glob("fast*_el"):
        segment = lock.with_name(lock.name.removesuffix("_el"))
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            stale += [segment] if segment.is_file() else []
    return stale


def _reach() -> Iterator[Finding]:
    """Which nodes are found; values that cannot be used are findings of the environment."""
    domain = os.environ.get("ROS_DOMAIN_ID", "")
    yield Finding("OK", "ROS_DOMAIN_ID", domain or "not set: 0 (demo and replay take a free one)")
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    yield Finding("OK", "discovery range", reach or "not set: SUBNET (demo and replay use LOCALHOST)")


def _optional() -> Iterator[Finding]:
    for package, instead in (
        ("tf2_ros", "own listener on /tf"),
        ("sensor_msgs_py", "own decoding of PointCloud2"),
    ):
        there = importlib.util.find_spec(package) is not None
        yield Finding("OK", package, "installed" if there else f"not installed: {instead}")


def _round_trips() -> Iterator[Finding]:
    """A 2 MB cloud goes through with the shipped profile, and with what the user's environment has."""
    users = {name: value for name in PROFILE_VARIABLES if (value := os.environ.get(name))}
    shipped = {profile_variable(os.environ): str(resource("config/fastdds.xml"))}
    with Session() as session:
        bare = {name: value for name, value in session.environment.items() if name not in PROFILE_VARIABLES}
        remedy = "allow UDP and shared memory between processes of this machine (firewall, container --ipc=host)"
        yield _round_trip("DDS, 2 MB clouds", bare | shipped, "FAIL", remedy)
        if not set(users.values()) & set(shipped.values()):
            what = "  with your profile" if users else "  without a profile"
            yield _round_trip(what, bare | users, "WARN", "use the shipped Fast DDS profile, see above")


def _round_trip(what: str, environment: dict[str, str], bad: Literal["WARN", "FAIL"], remedy: str) -> Finding:
    command = [sys.executable, "-m", "sbnet_perception.desk.roundtrip"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return Finding(bad, what, "no end within 30 s", remedy)
    if done.returncode:
        return Finding(bad, what, (done.stderr.strip().splitlines() or ["no output"])[-1], remedy)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if not result["found"]:
        return Finding(bad, what, "two processes did not find each other within 8 s", remedy)
    found = f"{result['answered']:.0f} of {result['sent']:.0f} came back, median {result['p50_ms']:.0f} ms"
    return Finding("OK", what, found) if result["answered"] == result["sent"] else Finding(bad, what, found, remedy)
