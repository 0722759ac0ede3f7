"""Which topics of a bag are played into the node, found by type, and in which frame it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sbnet_perception.bags.reader import BagReader, Topic
from sbnet_perception.bags.types import typestore
from sbnet_perception.errors import UserError

CLOUD = "sensor_msgs/msg/PointCloud2"
GRID = "nav_msgs/msg/OccupancyGrid"
TRANSFORMS = "tf2_msgs/msg/TFMessage"
DETECTIONS = "vision_msgs/msg/Detection3DArray"

OUTPUTS = {
    "/detections": DETECTIONS,
    "/markers": "visualization_msgs/msg/MarkerArray",
    "/computation_mask": GRID,
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}
"""What the node publishes: recorded live, and never played from a bag."""

TRANSFORM_SEARCH_NS = 5 * 10**9


@dataclass(frozen=True)
class Played:
    """Topic of the bag -> (topic on the wire, type, latched).

    Attributes:
        points: the cloud topic in the bag.
        road_mask: the road mask topic in the bag, or None.
        wire: for every topic that is played, the name and type it is published under.
        carried: topics with boxes (labels) that are copied into the recording and not played.
    """

    points: str
    road_mask: str | None
    wire: Mapping[str, tuple[str, str, bool]]
    carried: Mapping[str, str]


def choose_topics(topics: Mapping[str, Topic], points: str | None, road_mask: str | None) -> Played:
    """Finds the cloud, the road mask (there may be none) and the transforms.

    Raises:
        UserError: no cloud, several candidates without a telling name, or a named topic that is not
            there or of another type; the message lists the candidates.
    """
    filled = {name: topic.msgtype for name, topic in topics.items() if topic.count and name not in OUTPUTS}
    cloud = _choose(filled, CLOUD, points, ("points", "lidar", "velodyne", "cloud"), "--points-topic")
    if cloud is None:
        raise UserError(f"the bag has no {CLOUD} to play; its topics: {_listing(filled)}")
    mask = _choose(filled, GRID, road_mask, ("road_mask", "road"), "--road-mask-topic")

    wire = {cloud: ("/points", CLOUD, False)}
    if mask is not None:
        wire[mask] = ("/road_mask", GRID, True)
    for name, msgtype in filled.items():
        if msgtype == TRANSFORMS and name.rsplit("/", 1)[-1] in ("tf", "tf_static"):
            target = "/" + name.rsplit("/", 1)[-1]
            wire[name] = (target, TRANSFORMS, target == "/tf_static")
    carried = {name: msgtype for name, msgtype in filled.items() if msgtype == DETECTIONS}
    return Played(cloud, mask, wire, carried)


def choose_grid_frame(bag: BagReader, played: Played) -> tuple[str, str]:
    """The node's grid_frame ("" = the cloud's own) and the reason, one sentence.

    base_link where the bag's transforms know it (all of /tf_static, the first seconds of /tf).
    """
    sources = [name for name, (_, msgtype, _) in played.wire.items() if msgtype == TRANSFORMS]
    if sources:
        for message in bag.messages(sources):
            static = played.wire[message.topic][2]
            if not static and message.stamp_ns > bag.start_ns + TRANSFORM_SEARCH_NS:
                break
            for item in typestore().deserialize_cdr(message.raw, TRANSFORMS).transforms:  # type: ignore[attr-defined]
                if "base_link" in (item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/")):
                    return "base_link", "the bag's transforms have base_link"
    return "", "the bag's transforms have no base_link" if sources else "the bag has no transforms"


def _choose(
    filled: Mapping[str, str], msgtype: str, wanted: str | None, words: tuple[str, ...], option: str
) -> str | None:
    found = [name for name, kind in filled.items() if kind == msgtype]
    if wanted is not None:
        name = wanted if wanted.startswith("/") else f"/{wanted}"
        if name not in found:
            raise UserError(f"{option} {wanted}: the bag has no such {msgtype}; it has {_listing(found)}")
        return name
    # The most telling word decides, and only where it points at one topic.
    for candidates in (found, *([name for name in found if word in name.lower()] for word in words)):
        if len(candidates) == 1:
            return candidates[0]
    if not found:
        return None
    raise UserError(f"several topics of the bag are {msgtype}: {_listing(found)}; choose one with {option}")


def _listing(names: Mapping[str, str] | list[str]) -> str:
    if isinstance(names, Mapping):
        return ", ".join(f"{name} ({kind})" for name, kind in sorted(names.items())) or "none"
    return ", ".join(sorted(names)) or "none"
