"""In which frame the node works on a bag: base_link where the transforms lead there from the cloud."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.desk.topics import TRANSFORMS, Played
from sbnet_perception.errors import UserError
from sbnet_perception.messages.cdr import CdrReader

BASE = "base_link"
SEARCH_NS = 5 * 10**9
"""How much of /tf is looked at; /tf_static wholly."""


def choose_grid_frame(bag: BagReader, played: Played) -> tuple[str, str]:
    """The node's grid_frame ("" = the cloud's own) and the reason, one sentence.

    A prefix of the cloud's frame is one of base_link too: ``robot1/lidar`` leads to ``robot1/base_link``. Clouds of
    several frames need one that all of them lead to: base_link, else that of the first.

    Raises:
        UserError: there are several, which the transforms do not connect.
    """
    frames = list(dict.fromkeys(_frame_of_first(bag, topic) for topic in played.points))
    cloud = frames[0]
    base = f"{cloud.rpartition('/')[0]}/{BASE}".lstrip("/")
    if frames == [base]:
        return "", f"{cloud!r}"
    sources = [name for name, (_, kind, _) in played.wire.items() if kind == TRANSFORMS]
    links = dict.fromkeys(link for name in sources for link in _links(bag, name, played.wire[name][2]))
    reached = _reached(cloud, list(links))
    if len(frames) > 1 and not reached.issuperset(frames):
        apart = ", ".join(repr(frame) for frame in frames if frame not in reached)
        remedy = "record the transforms (/tf_static), or play a topic less"
        raise UserError(f"several LiDARs need transforms, which do not lead from {cloud!r} to {apart}: {remedy}")
    if base in reached:
        return base, f"the transforms lead there from the cloud's frame {' and '.join(map(repr, frames))}"
    if len(frames) > 1:
        return cloud, f"that of the first LiDAR, since the transforms do not lead to {base}"
    hint = "ground_z is then the height of the ground in it, z up"
    if not links:
        return "", f"{cloud!r}, since the bag has no transforms; {hint}"
    some = ", ".join(f"{parent} -> {child}" for parent, child in list(links)[:4])
    return "", f"{cloud!r}, since the transforms do not lead from it to {base} (they have {some}); {hint}"


def _frame_of_first(bag: BagReader, topic: str) -> str:
    """frame_id of the first cloud whose header can be read."""
    for message in bag.messages([topic]):
        try:
            return CdrReader(message.raw).header().frame_id.lstrip("/")
        except (ValueError, struct.error):
            continue
    return ""


def _links(bag: BagReader, topic: str, static: bool) -> Iterator[tuple[str, str]]:
    """(parent, child) of a topic's transforms; a message that cannot be decoded has none."""
    end = None
    for message in bag.messages([topic]):
        end = message.stamp_ns + SEARCH_NS if end is None else end
        if not static and message.stamp_ns > end:
            return
        try:
            items = deserialize(message.raw, TRANSFORMS).transforms
        except UserError:
            continue
        for item in items:
            yield item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/")


def _reached(frame: str, links: list[tuple[str, str]]) -> set[str]:
    """The frames that are connected with one, itself included."""
    reached, ends = {frame}, [frame]
    neighbours: dict[str, set[str]] = {}
    for parent, child in links:
        neighbours.setdefault(parent, set()).add(child)
        neighbours.setdefault(child, set()).add(parent)
    while ends:
        new = neighbours.get(ends.pop(), set()) - reached
        reached |= new
        ends += new
    return reached
