"""The table of classes: what there is to know about each kind of object, in one entry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.checks import check_fields

SIMULATOR, ANY = "simulator", "any"
"""What `ObjectClass.labels` calls the simulator, and the sources that it does not name. It names data sets by the first
word of their files' names."""


@dataclass(frozen=True)
class ObjectClass:
    """One class.

    Attributes:
        name: what detections, parameters and weights call it.
        colour: of its boxes in pictures, #rrggbb.
        least_points: objects with fewer points are neither learned nor asked for.
        core: part of the footprint's length and width in which a pixel learns to say the class.
        score_threshold: detections below it are not reported; None means the configuration's, whose list of
            one for each class wins over it.
        nms_group: of two overlapping boxes of one group only the better stays; empty means that the class is its own.
        labels: source -> its labels that are this class, in upper or lower case; those of `ANY` hold for a source that
            is not named.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    name: str
    colour: str
    least_points: int = field(default=5, metadata={"range": (1, 10_000)})
    core: float = field(default=0.6, metadata={"range": (0.05, 1.0)})
    score_threshold: float | None = None
    nms_group: str = ""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.name:
            raise ValueError("name is empty; every class needs one")
        if not re.fullmatch("#[0-9a-fA-F]{6}", self.colour):
            raise ValueError(f"colour of {self.name} is {self.colour!r}; write it as #rrggbb")
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold of {self.name} is {self.score_threshold}; it must lie in [0, 1]")


VEHICLE = ObjectClass(
    "vehicle",
    "#ffb224",
    labels={
        SIMULATOR: (
            *("sedan", "hatchback", "city_car", "wagon", "suv", "minivan", "compact_van", "van", "pickup"),
            *("box_truck", "bus", "tractor", "trailer"),
        ),
        "av2": (
            *("REGULAR_VEHICLE", "LARGE_VEHICLE", "BUS", "BOX_TRUCK", "TRUCK", "TRUCK_CAB", "SCHOOL_BUS"),
            *("ARTICULATED_BUS", "VEHICULAR_TRAILER"),
        ),
        "kitti": ("Car", "Van", "Truck"),
        "nuscenes": ("car", "truck", "bus", "trailer", "construction_vehicle"),
        "pandaset": (
            *("Car", "Pickup_Truck", "Medium-sized_Truck", "Semi-truck", "Towed_Object", "Bus", "TYPE_VEHICLE"),
            "Other_Vehicle_-_Uncommon",
        ),
        "ddad": ("Car", "Truck", "Bus/RV/Caravan", "Towed_Object"),
        ANY: ("vehicle", "car", "van", "pickup", "truck", "bus", "trailer"),
    },
)
CLASSES = {entry.name: entry for entry in (VEHICLE,)}
"""Every class by its name. A new one is an entry here and what the simulator draws of it."""


def numbered(
    labels: Iterable[str], source: str, classes: Sequence[ObjectClass]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the labels [M] are of any of the classes, bool [M], and the positions in ``classes`` of those, int64.

    A label that several classes have counts as the first of them.
    """
    words = [entry.labels.get(source, entry.labels.get(ANY, ())) for entry in classes]
    position = {label.lower(): number for number in reversed(range(len(classes))) for label in words[number]}
    numbers = np.array([position.get(str(label).lower(), -1) for label in labels], np.int64)
    return numbers >= 0, numbers[numbers >= 0]
