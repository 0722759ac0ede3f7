"""What a recording's messages say about themselves: clouds, stamps, frames, transforms, road mask."""

from __future__ import annotations

import bisect
import collections
import itertools
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bags.transforms import TransformTable, stamp_ns
from sbnet_perception.desk.findings import Finding, State
from sbnet_perception.desk.topics import TRANSFORMS, Played
from sbnet_perception.errors import UserError
from sbnet_perception.messages.fields import describe
from sbnet_perception.messages.occupancy_grid import MaskError, road_from_occupancy_grid
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import CloudError, read_cloud

SLOW_HZ = 2.0
OFF_CLOCK_S = 1.0
"""A stamp this far from the time when its cloud came is another clock's."""
FRAGMENTED = 65_000
"""A larger message travels in pieces, which the kernel has to hold until all are there."""


@dataclass
class Clouds:
    """The clouds of a recording: of each its stamp, when it was received (both ns), its frame_id and its bytes."""

    stamps: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    frames: collections.Counter[str] = field(default_factory=collections.Counter)
    bytes: list[int] = field(default_factory=list)
    points: list[int] = field(default_factory=list)
    finite: float = 1.0
    layout: str = ""
    problem: str = ""


def inspect(
    reader: BagReader, played: Played, grid_frame: str, live: bool, merge_window_s: float
) -> Iterator[Finding]:
    """All findings about a recording.

    Args:
        grid_frame: that of the node; "" = the clouds' own.
        live: it was received just now: its times are this machine's.
        merge_window_s: that of the node.
    """
    clouds: dict[str, Clouds] = {topic: Clouds() for topic in played.points}
    table, mask = TransformTable(), None
    for message in reader.messages(list(played.wire)):
        if message.topic in clouds:
            take_cloud(clouds[message.topic], message.raw, message.stamp_ns)
        elif message.msgtype == TRANSFORMS:
            for item in deserialize(message.raw, message.msgtype).transforms:
                table.add(item)
        elif message.topic == played.road_mask:
            mask = message
    for topic, found in clouds.items():
        yield from cloud_findings(topic, found, live)
    yield from merge_findings(clouds, merge_window_s)
    frames = list(dict.fromkeys(frame for found in clouds.values() for frame in found.frames))
    if mask is not None:
        msg = deserialize(mask.raw, mask.msgtype)
        frames.append(msg.header.frame_id)
        yield mask_finding(played.road_mask or "", msg, (reader.end_ns - mask.stamp_ns) / 1e9)
    last = min((found.stamps[-1] for found in clouds.values() if found.stamps), default=0)
    yield from transform_findings(table, frames, grid_frame, last)
    yield from size_findings(max((size for found in clouds.values() for size in found.bytes), default=0))


def take_cloud(clouds: Clouds, raw: bytes, received_ns: int) -> None:
    """Takes note of one cloud."""
    clouds.received.append(received_ns)
    clouds.bytes.append(len(raw))
    try:
        cloud = read_cloud(raw)
        clouds.stamps.append(stamp_ns(cloud.header))
        clouds.frames[cloud.header.frame_id] += 1
        clouds.points.append(cloud.width * cloud.height)
        clouds.layout = clouds.layout or describe(cloud.fields).removeprefix("fields: ")
        # Every tenth is enough to tell whether the points can be read.
        if len(clouds.stamps) % 10 == 1:
            points = read_points(cloud, missing_intensity="zero", intensity_scale=1.0)
            clouds.finite = len(points.points) / max(1, len(points.points) + points.dropped_non_finite)
    except CloudError as error:
        clouds.problem = clouds.problem or str(error)


def cloud_findings(topic: str, clouds: Clouds, live: bool) -> Iterator[Finding]:
    """Rate, layout, stamps and frames of the clouds of a topic."""
    if not clouds.received:
        yield Finding("FAIL", topic, "no cloud came", "is the driver running, and does it publish here?")
        return
    yield _rate(topic, clouds)
    fields = f"fields of {topic}"
    if clouds.problem:
        yield Finding("FAIL", fields, clouds.problem, "mend the driver; the node rejects such clouds")
    elif "intensity" not in clouds.layout:
        remedy = "-p missing_intensity:=zero, or let the driver publish intensity; weights know vehicles by it too"
        yield Finding("FAIL", fields, f"no intensity among {clouds.layout}", remedy)
    else:
        yield Finding("OK", fields, clouds.layout)
    if clouds.finite < 0.05:
        remedy = "look at the LiDAR itself, and at filters between it and the node"
        found = f"{100 * (1 - clouds.finite):.0f} % of them are NaN or infinite"
        yield Finding("FAIL", f"points of {topic}", found, remedy)
    yield _frame_ids(f"frame_id of {topic}", clouds)
    yield from _stamps(f"stamps of {topic}", clouds, live)


def _rate(topic: str, clouds: Clouds) -> Finding:
    steps = [after - before for before, after in itertools.pairwise(sorted(clouds.stamps)) if after > before]
    if not steps:
        remedy = "two and more, of different stamps, are needed to judge; listen longer (--seconds)"
        return Finding("WARN", topic, f"{len(clouds.received)} clouds", remedy)
    usual = statistics.median(steps)
    lost = sum(round(step / usual) - 1 for step in steps)
    longest = max(steps) / 1e9
    size = f"{statistics.median(clouds.points):.0f} points, {statistics.median(clouds.bytes) / 2**20:.1f} MB each"
    found = f"{len(clouds.received)} clouds, {1e9 / usual:.1f} Hz, {size}"
    if lost > len(steps) * 0.1:
        remedy = "the network, or shared memory too small for them: use the shipped Fast DDS profile on both sides"
        return Finding("WARN", topic, f"{found}; {lost} missing between them, {longest:.1f} s at most", remedy)
    state: State = "WARN" if 1e9 / usual < SLOW_HZ else "OK"
    slow = "raise input_timeout above the time between two clouds" if state == "WARN" else ""
    return Finding(state, topic, found, slow)


def _frame_ids(what: str, clouds: Clouds) -> Finding:
    names = ", ".join(repr(name) for name in clouds.frames) or "none"
    if "" in clouds.frames:
        return Finding("FAIL", what, "empty", "set frame_id in the driver; the node rejects such clouds")
    if len(clouds.frames) > 1:
        remedy = "several LiDARs on one topic: give each its own, name them all (points), and give the node grid_frame"
        return Finding("WARN", what, names, remedy)
    return Finding("OK", what, names)


def _stamps(what: str, clouds: Clouds, live: bool) -> Iterator[Finding]:
    if any(stamp <= 0 for stamp in clouds.stamps):
        yield Finding("FAIL", what, "0", "set the stamp in the driver; the node rejects such clouds")
        return
    back = sum(after < before for before, after in itertools.pairwise(clouds.stamps))
    same = len(clouds.stamps) - len(set(clouds.stamps))
    if back or same:
        found = f"{back} clouds out of order, {same} with a stamp that came before"
        yield Finding("WARN", what, found, "do two drivers publish here? Each cloud needs its own, later stamp")
    off = statistics.median(r - s for r, s in zip(clouds.received, clouds.stamps, strict=False)) / 1e9
    if live and abs(off) > OFF_CLOCK_S:
        remedy = "set both clocks by the same source (PTP, NTP); where a bag is played: use_sim_time:=true, and --clock"
        yield Finding("WARN", what, f"{off:.1f} s behind this machine's clock", remedy)
    elif not back and not same:
        yield Finding("OK", what, f"in order, received {off * 1e3:.0f} ms after their stamp" if live else "in order")


def merge_findings(clouds: Mapping[str, Clouds], window_s: float) -> Iterator[Finding]:
    """Whether the stamps of several LiDARs lie close enough for their clouds to become one."""
    (first, ahead), *others = clouds.items()
    for topic, behind in others:
        if not (ahead.stamps and behind.stamps):
            continue
        what, stamps = f"merging {topic}", sorted(behind.stamps)
        nearest = [_distance_ns(stamps, stamp) / 1e9 for stamp in ahead.stamps]
        usual = statistics.median(nearest)
        alone = sum(distance > window_s for distance in nearest) / len(nearest)
        found = f"its stamps lie {usual:.3f} s (median) from those of {first}; merge_window is {window_s:g} s"
        if alone > 0.1:
            remedy = "raise merge_window, up to half the time between two clouds, or let the LiDARs scan in step (PTP)"
            yield Finding("WARN", what, f"{found}: {100 * alone:.0f} % of the clouds stay alone", remedy)
        else:
            yield Finding("OK", what, found)


def _distance_ns(stamps: list[int], stamp: int) -> int:
    """From a stamp to the nearest of ascending ones."""
    index = bisect.bisect(stamps, stamp)
    return min(abs(stamp - other) for other in stamps[max(0, index - 1) : index + 1])


def transform_findings(table: TransformTable, frames: list[str], grid_frame: str, at_ns: int) -> Iterator[Finding]:
    """Whether TF leads from the clouds and the map to the grid's frame."""
    target = grid_frame or (frames[0] if frames else "")
    for frame in dict.fromkeys(frames):
        if frame.lstrip("/") == target.lstrip("/"):
            yield Finding("OK", f"TF of {frame}", "is the grid's frame")
            continue
        try:
            table.lookup(target, frame, at_ns)
        except UserError as error:
            remedy = "publish it (a URDF, or static_transform_publisher), or set grid_frame to a frame that TF leads to"
            yield Finding("FAIL", f"TF of {frame}", f"{error}, the grid's frame", remedy)
        else:
            yield Finding("OK", f"TF of {frame}", f"leads to the grid's frame {target}")


def mask_finding(topic: str, msg: Any, age_s: float) -> Finding:
    """A nav_msgs/OccupancyGrid as a road mask."""
    try:
        road = road_from_occupancy_grid(msg)
    except MaskError as error:
        return Finding("FAIL", topic, f"no road mask: {error}", "mend the map; the node keeps the last good one")
    share = float(road.cells.float().mean())
    size = f"{msg.info.width} x {msg.info.height} cells of {msg.info.resolution:g} m"
    found = f"{size}, {100 * share:.0f} % road, {age_s:.1f} s old"
    if not share:
        return Finding("WARN", topic, f"{found}: nothing is road", "road is 100 in a road mask, in Nav2's maps a wall")
    return Finding("OK", topic, found)


def size_findings(largest: int, proc: Path = Path("/proc/sys/net")) -> Iterator[Finding]:
    """Whether the kernel takes messages of so many bytes from another machine."""
    if largest <= FRAGMENTED:
        return
    try:
        room = int((proc / "core/rmem_max").read_text())
        pieces = int((proc / "ipv4/ipfrag_high_thresh").read_text())
    except (OSError, ValueError):
        return
    found = f"clouds of {largest / 2**20:.1f} MB; net.core.rmem_max {room}, net.ipv4.ipfrag_high_thresh {pieces} bytes"
    if min(room, pieces) < largest:
        remedy = "only where they come over a network: sysctl -w net.core.rmem_max=67108864 "
        remedy += "net.ipv4.ipfrag_high_thresh=134217728 net.ipv4.ipfrag_time=3"
        yield Finding("WARN", "kernel buffers", found, remedy)
    else:
        yield Finding("OK", "kernel buffers", found)
