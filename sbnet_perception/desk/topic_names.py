"""What the name of a topic tells: which sensor, whether a road, which of several robots."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

LIDARS = (
    "lidar", "velodyne", "ouster", "hesai", "pandar", "livox", "robosense", "rslidar", "innoviz", "luminar", "aeva",
)  # fmt: skip
OTHER_SENSORS = (
    "radar", "camera", "stereo", "depth", "rgbd", "realsense", "kinect", "sonar", "ultrasonic", "tof", "zed", "oak",
    "disparity",
)  # fmt: skip
DERIVED = (
    "filtered", "ground", "nonground", "obstacle", "cluster", "segment", "voxel", "downsampled", "cropped", "crop",
    "registered", "aligned", "accumulated", "aggregated", "map", "submap", "feature", "edge", "corner", "surf", "plane",
    "outlier", "inlier", "concatenated", "merged", "fused", "debug", "deskewed", "undistorted",
)  # fmt: skip
ROADS = ("road", "roadmask", "roadmap", "drivable", "driveable", "drivablearea", "driveablearea", "lane", "street")
NO_ROADS = ("non", "not", "no", "off", "offroad", "outside", "costmap", "cost", "obstacle", "occupied", "undrivable")


def words(name: str) -> list[str]:
    """The words of a name, lower case and singular: ``/lidarTop/points_2`` is lidar, top, point."""
    split = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return [word.lower().removesuffix("s") if len(word) > 3 else word.lower() for word in split]


def word_in(name: str, known: Collection[str]) -> str:
    """The first word of a name that is one of `known`; makers' names count inside a word too. Empty without one."""
    for word in words(name):
        if word in known or f"{word}s" in known:
            return word
        inside = [item for item in known if item in (*LIDARS, "radar", "camera") and item in word]
        if inside:
            return inside[0]
    return ""


def is_road(name: str) -> bool:
    """A road mask by its name: `ROADS` and none of `NO_ROADS`."""
    return bool(word_in(name, ROADS)) and not word_in(name, NO_ROADS)


def namespace(name: str) -> str:
    """``/robot1/lidar`` of ``/robot1/lidar/points``; empty for a topic at the root."""
    return name.rsplit("/", 1)[0]


def are_within(names: Collection[str], space: str) -> bool:
    """Topics lie in a namespace, or deeper, all of them."""
    return all(name.startswith(f"{space}/") for name in names)


def siblings(names: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Pairs of namespaces that hold the same under different names: ``/robot1`` and ``/robot2``, both ways.

    Two topics of one type that differ in one namespace alone make such a pair, and so do namespaces that differ in a
    number alone.

    Args:
        names: (topic, type) of a recording.
    """
    found: set[tuple[str, str]] = set()
    topics = [(name.split("/")[1:], kind) for name, kind in names]
    for one, kind in topics:
        for two, other in topics:
            for level, (a, b) in enumerate(zip(one[:-1], two[:-1], strict=False)):
                if a == b:
                    continue
                same = kind == other and one[level + 1 :] == two[level + 1 :]
                if same or re.sub(r"\d+", "", a) == re.sub(r"\d+", "", b):
                    found.add(("/" + "/".join(one[: level + 1]), "/" + "/".join(two[: level + 1])))
                break
    return found


def of_another(name: str, mine: Collection[str], pairs: set[tuple[str, str]]) -> bool:
    """A topic belongs to a sibling of a namespace that all of `mine` lie in."""
    return any(are_within(mine, one) and are_within([name], two) for one, two in pairs)


def nearest(names: Collection[str], mine: Collection[str]) -> list[str]:
    """Those that lie in the deepest namespace that all of `mine` lie in too; all where none does."""
    around = [name for name in names if are_within(mine, namespace(name))]
    depth = max((len(namespace(name)) for name in around), default=0)
    return [name for name in around if len(namespace(name)) == depth] or list(names)
