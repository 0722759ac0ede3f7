"""Configuration of the computation mask."""

from __future__ import annotations

from dataclasses import dataclass, field

from sbnet_perception.checks import check_fields
from sbnet_perception.masks.expression import Expression, names_in, parse
from sbnet_perception.masks.sources import EVERYWHERE

EXPRESSIONS = {
    "road_and_shadow": "dilate(road, 0.5) and dilate(shadow(occupancy, 3), 0.5)",
    "shadow": "dilate(shadow(occupancy, 3), 0.5)",
    "road_and_occupancy": "dilate(road, 0.5) and dilate(occupancy, 0.5)",
    "road": "dilate(road, 0.5)",
    "occupancy": "dilate(occupancy, 0.5)",
    "predicted": "predicted",
    "occupancy_and_predicted": "dilate(occupancy, 0.5) and predicted",
    "road_and_predicted": "dilate(road, 0.5) and predicted",
}
"""What reports call a mask -> its expression; new weights are trained under the first."""
AUTO = "auto"
"""Instead of an expression: the mask that the weights were trained under."""


@dataclass(frozen=True)
class MaskConfig:
    """Which masks make up the computation mask, and how.

    Raises:
        ValueError: a field is out of range, or no expression; the message names it.
    """

    expression: str = field(
        default=AUTO,
        metadata={
            "help": "Where to compute: road, occupancy, predicted (by a mask network), external (a topic), with "
            "and, or, dilate(mask, metres), shadow(mask, metres); or everywhere; or auto: as the weights were trained."
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
        parse(self.settled)
        if self.max_height <= self.min_height:
            raise ValueError(f"max_height is {self.max_height}; it must be above min_height, {self.min_height}")

    @property
    def settled(self) -> str:
        """The expression; instead of `AUTO` the first of `EXPRESSIONS`, for weights that do not say what is theirs."""
        return next(iter(EXPRESSIONS.values())) if self.expression == AUTO else self.expression

    @property
    def parsed(self) -> Expression:
        """What the expression says."""
        return parse(self.settled)

    @property
    def names(self) -> frozenset[str]:
        """The sources that the expression names, save ``everywhere``; empty means everywhere."""
        return frozenset(names_in(self.parsed)) - {EVERYWHERE.name}
