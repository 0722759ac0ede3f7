"""`sbnet bench node`: what the ROS node costs around the detector, cloud to detections over DDS."""

from __future__ import annotations

import argparse
import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sbnet_perception.bags.messages import occupancy_grid, point_cloud2, tf_message, transform
from sbnet_perception.bags.reader import BagMessage
from sbnet_perception.bags.types import typestore
from sbnet_perception.bench.measure import Row, machine, write_rows
from sbnet_perception.bench.overhead import answers
from sbnet_perception.bev.grid import NAMED_RESOLUTIONS
from sbnet_perception.desk.outputs import check_writable
from sbnet_perception.desk.simulate import START_NS
from sbnet_perception.errors import UserError
from sbnet_perception.learning.simulator import Drive

WARM_UP = 10
SEED, SWEEPS, PERIOD_NS = 9_100_001, 10, 100_000_000
JITTER = 0.02
"""Metres by which a point is moved that stands in for one more: a sweep is filled up with its own points."""

# Field name, its type and its PointField code, in the order of the bytes.
_XYZ = (("x", "<f4", 7), ("y", "<f4", 7), ("z", "<f4", 7))
LAYOUTS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "xyzi": (*_XYZ, ("intensity", "<f4", 7)),
    "velodyne": (*_XYZ, ("intensity", "<f4", 7), ("ring", "<u2", 4), ("time", "<f4", 7)),
    "autoware": (
        *_XYZ,
        *(("intensity", "<u1", 2), ("return_type", "<u1", 2), ("channel", "<u2", 4)),
        *(("azimuth", "<f4", 7), ("elevation", "<f4", 7), ("distance", "<f4", 7), ("time_stamp", "<u4", 6)),
    ),
}
"""Plain points of 16 bytes; velodyne_driver's of 22, not aligned; Autoware's ten fields in 32."""


@dataclass(frozen=True)
class Sweeps:
    """A drive as what the robot publishes: the first two once, then pose and cloud after cloud."""

    mount: Any
    road: Any
    poses: list[npt.NDArray[np.float64]]
    clouds: list[bytearray]


def simulated(points: int, layout: str) -> Sweeps:
    """A short drive with a VLP-32C on the roof, each sweep thinned or filled up to ``points`` points."""
    drive = Drive(SEED, SWEEPS * PERIOD_NS / 1e9, sensor="vlp32c")
    lidar_from_base = np.linalg.inv(drive.base_from_lidar)
    rng = np.random.default_rng(SEED)
    poses, clouds = [], []
    for frame in drive.frames():
        chosen = np.resize(rng.permutation(len(frame.points)), points)
        values = frame.points[chosen]
        values[len(frame.points) :, :3] += rng.normal(0, JITTER, values[len(frame.points) :, :3].shape)
        values[:, :3] = values[:, :3] @ lidar_from_base[:3, :3].T + lidar_from_base[:3, 3]
        message = in_layout(values, layout)
        clouds.append(bytearray(typestore().serialize_cdr(message, message.__msgtype__)))
        poses.append(frame.map_from_base.matrix())
    mount = tf_message([transform("base_link", "lidar", drive.base_from_lidar, START_NS)])
    return Sweeps(mount, occupancy_grid(drive.road_map, "map", START_NS), poses, clouds)


def in_layout(points: npt.NDArray[np.float32], layout: str) -> Any:
    """sensor_msgs/PointCloud2 of points [P, 4] (intensity 0-255) with the other fields of a layout at 0."""
    message = point_cloud2(points, "lidar", START_NS, intensity_scale=1.0)
    make = type(message.fields[0])
    table = np.zeros(len(points), np.dtype([(name, kind) for name, kind, _ in LAYOUTS[layout]]))
    for column, name in enumerate(("x", "y", "z", "intensity")):
        table[name] = points[:, column]
    assert table.dtype.fields is not None
    offsets = {name: table.dtype.fields[name][1] for name in table.dtype.fields}
    codes = {name: code for name, _, code in LAYOUTS[layout]}
    message.fields = [make(name=name, offset=offsets[name], datatype=code, count=1) for name, code in codes.items()]
    message.point_step, message.row_step = table.itemsize, table.nbytes
    message.data = table.view(np.uint8)
    return message


def played(sweeps: Sweeps, count: int) -> Iterator[BagMessage]:
    """The messages of ``count`` clouds, the sweeps over and over with a pose and a stamp of their own."""
    yield _message("/tf_static", sweeps.mount, START_NS)
    yield _message("/road_mask", sweeps.road, START_NS)
    rounds = itertools.cycle(zip(sweeps.poses, sweeps.clouds, strict=True))
    for number, (pose, cloud) in enumerate(itertools.islice(rounds, count)):
        stamp = START_NS + number * PERIOD_NS
        yield _message("/tf", tf_message([transform("map", "base_link", pose, stamp)]), stamp)
        # The stamp is the first of a message, right behind the four bytes of its encoding.
        struct.pack_into("<iI", cloud, 4, *divmod(stamp, 10**9))
        yield BagMessage("/points", "sensor_msgs/msg/PointCloud2", stamp, bytes(cloud))


def _message(topic: str, message: Any, stamp_ns: int) -> BagMessage:
    raw = bytes(typestore().serialize_cdr(message, message.__msgtype__))
    return BagMessage(topic, message.__msgtype__, stamp_ns, raw)


def measure(
    layout: str, points: int, count: int, parameters: Mapping[str, object], console: Console
) -> list[Row]:
    """Percentiles over ``count`` clouds of one layout: latency, overhead, pipeline, and each step that the node tells.

    The overhead is everything but the pipeline; `cloud` (decoding, moving) and `road` (placing the map) are in it.
    """
    running = answers(played(simulated(points, layout), WARM_UP + count), {"grid_frame": "base_link", **parameters})
    every = list(track(running, layout, total=WARM_UP + count, console=console, transient=True))[WARM_UP:]
    came = [answer for answer in every if answer is not None]
    if not came:
        raise UserError(f"none of {count} clouds of layout {layout} had an answer; `sbnet doctor` looks for the cause")
    times = {
        "latency": [answer.latency_ms for answer in came],
        "overhead": [answer.overhead_ms for answer in came],
        "pipeline": [answer.pipeline_ms for answer in came],
        **{step: [answer.steps_ms[step] for answer in came] for step in came[-1].steps_ms},
    }
    return [_row(what, layout, points, ms, count - len(came)) for what, ms in times.items()]


def _row(what: str, layout: str, points: int, ms: Sequence[float], dropped: int) -> Row:
    p50, p95, p99 = np.percentile(ms, (50, 95, 99)).tolist()
    figures = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99}
    return {"what": what, "points": points, "layout": layout, **figures, "messages": len(ms), "dropped": dropped}


def run(arguments: argparse.Namespace) -> int:
    """Measures each layout with a node of its own; 1 when a cloud had no answer."""
    for name in ("points", "messages"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} is {getattr(arguments, name)}; it must be at least 1")
    if arguments.grid not in NAMED_RESOLUTIONS:
        raise UserError(f"--grid is {arguments.grid!r}; use one of {', '.join(NAMED_RESOLUTIONS)}")
    if arguments.layout and arguments.layout not in LAYOUTS:
        raise UserError(f"--layout is {arguments.layout!r}; use one of {', '.join(LAYOUTS)}")
    check_writable("--json", arguments.json)
    console = Console()
    parameters = {"grid": arguments.grid, "threads": arguments.threads, "device": "cpu"}
    rows: list[Row] = []
    for layout in [arguments.layout] if arguments.layout else LAYOUTS:
        rows += measure(layout, arguments.points, arguments.messages, parameters, console)
    console.print(_table(rows))
    console.print(f"{machine()['cpu']}, {arguments.grid} grid, every topic of the node is read")
    if arguments.json:
        write_rows(arguments.json, rows)
    return 1 if any(row["dropped"] for row in rows) else 0


def _table(rows: Sequence[Row]) -> Table:
    table = Table("layout", "what", title=f"{rows[0]['points']} points", title_justify="left")
    for heading in ("p50 ms", "p95 ms", "p99 ms", "clouds", "dropped"):
        table.add_column(heading, justify="right")
    for row in rows:
        times = [f"{row[name]:.2f}" for name in ("p50_ms", "p95_ms", "p99_ms")]
        table.add_row(str(row["layout"]), str(row["what"]), *times, str(row["messages"]), str(row["dropped"]))
    return table
