"""Which topics of a bag are played into the node: what types and names tell apart, never a guess."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sbnet_perception.bags.reader import Topic
from sbnet_perception.desk import topic_names
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


@dataclass(frozen=True)
class Played:
    """Topic of the bag -> (topic on the wire, type, latched).

    Attributes:
        points: the cloud topics in the bag: one, or those of several LiDARs that become one cloud.
        road_mask: the road mask topic in the bag, or None.
        wire: for every topic that is played, the name and type it is published under.
        carried: topics with boxes (labels) that are copied into the recording and not played.
        said: what was chosen and why, a line each for the cloud, the road mask and the transforms; one more where there
            is an external mask.
    """

    points: tuple[str, ...]
    road_mask: str | None
    wire: Mapping[str, tuple[str, str, bool]]
    carried: Mapping[str, str]
    said: tuple[str, ...] = ()

    @property
    def heard(self) -> list[str]:
        """The cloud topics on the wire: the node's parameter `points`."""
        return [self.wire[name][0] for name in self.points]

    @property
    def masks(self) -> frozenset[str]:
        """The road mask topic, and that of an external mask."""
        return frozenset(name for name, (_, kind, _) in self.wire.items() if kind == GRID)


def choose_topics(
    topics: Mapping[str, Topic], points: Sequence[str], road_mask: str | None, tf_namespace: str | None = None
) -> Played:
    """Finds the clouds, the road mask and the transforms (there may be none of these two) by type and name.

    Only what names tell apart is chosen: a LiDAR from other sensors and from what was made of its clouds, a road from
    other grids, one robot from another. Several LiDARs are the user's choice alone. One cloud is played as ``/points``,
    several under their own names.

    Args:
        points, road_mask: names that the user gave; without any, one cloud is chosen.
        tf_namespace: the namespace of ``tf`` and ``tf_static``; ``/`` is the root.

    Raises:
        UserError: no cloud, several candidates that names do not tell apart, or a named topic that is not there or of
            another type; the message lists the candidates and names the option.
    """
    filled = {name: topic.msgtype for name, topic in topics.items() if topic.count and name not in OUTPUTS}
    clouds, cloud_said = _choose_clouds(filled, points)
    kinds = (CLOUD, GRID, TRANSFORMS)
    pairs = topic_names.siblings((name, kind) for name, kind in filled.items() if kind in kinds)
    others = {name for name in filled if topic_names.of_another(name, clouds, pairs)}
    mask, mask_said = _choose_road(filled, road_mask, clouds, others)
    transforms, transforms_said = _choose_transforms(filled, tf_namespace, clouds, others)

    said: tuple[str, ...] = (cloud_said, mask_said, transforms_said)
    wire = {name: ("/points" if len(clouds) == 1 else name, CLOUD, False) for name in clouds}
    if mask is not None:
        wire[mask] = ("/road_mask", GRID, True)
    for name in transforms:
        leaf = name.rsplit("/", 1)[-1]
        wire[name] = (f"/{leaf}", TRANSFORMS, leaf == "tf_static")
    named = [name for name, kind in filled.items() if kind == GRID and name.endswith("/external_mask")]
    external = topic_names.nearest([name for name in named if name not in others and name != mask], clouds)
    if len(external) == 1:
        wire[external[0]] = ("/external_mask", GRID, False)
        said += (f"external mask {external[0]}: by its name",)
    elif external:
        said += (
            f"external mask none, so it counts as everywhere: {_names(external)} are as near to {_names(clouds)}; "
            "leave all but one out of the bag (ros2 bag convert) to have it played",
        )
    carried = {name: msgtype for name, msgtype in filled.items() if msgtype == DETECTIONS}
    return Played(clouds, mask, wire, carried, said)


def _choose_clouds(filled: Mapping[str, str], wanted: Sequence[str]) -> tuple[tuple[str, ...], str]:
    if wanted:
        names = tuple(_named(filled, CLOUD, name, "--points-topic") for name in wanted)
        if len(set(names)) < len(names):
            raise UserError(f"--points-topic {' '.join(wanted)}: name each topic once")
        return names, f"points {', '.join(names)}: as asked for{'; they become one' if len(names) > 1 else ''}"
    found = sorted(name for name, kind in filled.items() if kind == CLOUD)
    if not found:
        raise UserError(f"the bag has no {CLOUD} to play; its topics: {_listing(filled)}")
    if len(found) == 1:
        return (found[0],), f"points {found[0]}: the only {CLOUD}"
    ranks = {name: _rank(name) for name in found}
    best = max(rank for rank, _ in ranks.values())
    first, *more = [name for name in found if ranks[name][0] == best]
    if more:
        several = ", ".join(f"{name}{f' ({why})' if why else ''}" for name, (_, why) in ranks.items())
        remedy = "choose one with --points-topic, or name several: they become one cloud"
        raise UserError(f"several topics of the bag are {CLOUD}: {several}; {remedy}")
    left = ", ".join(f"{name} ({why or 'not named as a LiDAR'})" for name, (_, why) in ranks.items() if name != first)
    why = ranks[first][1] or "the only one of its kind"
    return (first,), f"points {first}: {why}; left out (--points-topic): {left}"


def _rank(name: str) -> tuple[int, str]:
    """How likely a cloud is a LiDAR's own by its name, 3 to 0, and what the name says of it."""
    lidar, other = (topic_names.word_in(name, known) for known in (topic_names.LIDARS, topic_names.OTHER_SENSORS))
    if other and not lidar:
        return 0, f"named {other}"
    if derived := topic_names.word_in(name, topic_names.DERIVED):
        return 1, f"named {derived}"
    if lidar and not other:
        return 3, "named as a LiDAR"
    return 2, ""


def _choose_road(
    filled: Mapping[str, str], wanted: str | None, clouds: Collection[str], others: Collection[str]
) -> tuple[str | None, str]:
    if wanted is not None:
        name = _named(filled, GRID, wanted, "--road-mask-topic")
        return name, f"road mask {name}: as asked for; its cells of 50 to 100 are road, unknown ones too"
    found = sorted(name for name, kind in filled.items() if kind == GRID)
    roads = [name for name in found if topic_names.is_road(name) and name not in others]
    around = [topic_names.namespace(name) for name in roads]
    if any(space and topic_names.are_within(clouds, space) for space in around):
        roads = topic_names.nearest(roads, clouds)
    exact = [name for name in roads if name.endswith("/road_mask")]
    if len(roads) > 1 and len(exact) != 1:
        raise UserError(
            f"several topics of the bag may be the road: {_names(roads)}; choose one with --road-mask-topic"
        )
    if roads:
        road = exact[0] if exact else roads[0]
        return road, f"road mask {road}: named as a road{_left_out(found, [road])}"
    none = "road mask none, so the road counts as everywhere"
    if not found:
        return None, f"{none}: the bag has no {GRID}"
    foreign = [name for name in found if name in others]
    why = "is not named as a road"
    if len(foreign) == len(found):
        why = f"belongs to another namespace than {_names(clouds)}"
    return None, f"{none}: {_names(found)} {why}; --road-mask-topic takes one whose 100 means road (not wall)"


def _choose_transforms(
    filled: Mapping[str, str], space: str | None, clouds: Collection[str], others: Collection[str]
) -> tuple[list[str], str]:
    found = sorted(name for name, kind in filled.items() if kind == TRANSFORMS)
    chosen: list[str] = []
    for leaf in ("tf", "tf_static"):
        named = [name for name in found if name.endswith(f"/{leaf}")]
        if space is not None:
            chosen += [name for name in named if name == f"/{space.strip('/')}/{leaf}".replace("//", "/")]
            continue
        mine = topic_names.nearest([name for name in named if name not in others], clouds)
        if len(mine) > 1:
            raise UserError(
                f"the bag has {_names(mine)}, and {_names(clouds)} lies in the namespace of none; choose one with "
                f"--tf-namespace {topic_names.namespace(mine[0])}"
            )
        chosen += mine
    if space is not None and not chosen:
        raise UserError(f"--tf-namespace {space}: the bag has no tf or tf_static there; it has {_names(found)}")
    return chosen, f"transforms {_names(chosen)}{_left_out(found, chosen, '--tf-namespace')}"


def _named(filled: Mapping[str, str], msgtype: str, wanted: str, option: str) -> str:
    name = wanted if wanted.startswith("/") else f"/{wanted}"
    if filled.get(name) != msgtype:
        found = [other for other, kind in filled.items() if kind == msgtype]
        raise UserError(f"{option} {wanted}: the bag has no such {msgtype}; it has {_names(found)}")
    return name


def _left_out(found: Collection[str], chosen: Collection[str], option: str = "") -> str:
    left = [name for name in found if name not in chosen]
    return f"; left out{f' ({option})' if option else ''}: {_names(left)}" if left else ""


def _names(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _listing(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in sorted(types.items())) or "none"
