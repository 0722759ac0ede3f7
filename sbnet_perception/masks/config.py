"""Configuration of the computation mask."""

from __future__ import annotations

from dataclasses import dataclass, field

from sbnet_perception.checks import check_fields
from sbnet_perception.masks.expression import names_in, parse
from sbnet_perception.masks.sources import EVERYWHERE

EXPRESSIONS = {
    "road_and_occupancy": "dilate(road, 0.5) and dilate(occupancy, 0.5)",
    "road": "dilate(road, 0.5)",
    "occupancy": "dilate(occupancy, 0.5)",
    "predicted": "predicted",
    "occupancy_and_predicted": "dilate(occupancy, 0.5) and predicted",
    "road_and_predicted": "dilate(road, 0.5) and predicted",
}
"""What reports call a mask -> its expression; the first is the default."""


@dataclass(frozen=True)
class MaskConfig:
    """Which masks make up the computation mask, and how.

    Raises:
        ValueError: a field is out of range, or no expression; the message names it.
    """

    expression: str = field(
        default=EXPRESSIONS["road_and_occupancy"],
        metadata={
            "help": "Where to compute: road, occupancy, predicted (by a mask network), external (a topic), with "
            "and, or, dilate(mask, metres); or everywhere."
        },
    )
    min_height: float = field(
        default=0.35,
        metadata={
            "help": "Lowest height above ground, in metres, of a point that counts as occupancy.",
            "range": (0.0, 100.0),
        },
    )
    max_height: float = field(
        default=3.2,
        metadata={
            "help": "Highest height above ground, in metres, of a point that counts as occupancy.",
            "range": (0.0, 100.0),
        },
    )
    weights: str = field(
        default="",
        metadata={"help": "Weights file of the mask network that makes predicted; empty means the shipped one."},
    )

    def __post_init__(self) -> None:
        check_fields(self)
        parse(self.expression)
        if self.max_height <= self.min_height:
            raise ValueError(f"max_height is {self.max_height}; it must be above min_height, {self.min_height}")

    @property
    def names(self) -> frozenset[str]:
        """The sources that the expression names, save ``everywhere``; empty means everywhere."""
        return frozenset(names_in(parse(self.expression))) - {EVERYWHERE.name}
