"""The masks that come as topics, nav_msgs/OccupancyGrid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MaskKind:
    """One of them.

    Attributes:
        source: what mask expressions call it.
        topic: where it comes, a relative name; the parameters of it have that in their names.
        name: what sentences call it.
        instead: what happens where there is none, the end of a sentence.
        changes: it is of the moment. Only what is sent while the node listens counts, whether the publisher latches or
            not, and nothing from before a jump of time.
        is_road: an empty one, or one without a part near the vehicle, is a mistake.
    """

    source: str
    topic: str
    name: str
    instead: str
    changes: bool = False
    is_road: bool = False


ROAD_MASK = MaskKind("road", "road_mask", "road mask", "the road counts as everywhere", is_road=True)
EXTERNAL_MASK = MaskKind("external", "external_mask", "external mask", "it counts as everywhere", changes=True)
MASKS = (ROAD_MASK, EXTERNAL_MASK)
