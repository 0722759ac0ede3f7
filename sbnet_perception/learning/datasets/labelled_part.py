"""Where the objects of a recording are labelled, as a record in a bag: the view and the area of its frames."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import shapely

from sbnet_perception.bags.writer import read_metadata
from sbnet_perception.errors import UserError

RECORD = "sbnet_perception labelled part"
"""Name of the metadata record in an MCAP file."""


@dataclass(frozen=True)
class LabelledPart:
    """What of a recording is labelled.

    Attributes:
        half_view: objects are labelled where |atan2(y, x)| in the grid frame is below this, radians.
        area: where on the map they are, metres in the frame ``map``; None for everywhere.
    """

    half_view: float = math.pi
    area: shapely.Geometry | None = None

    def record(self) -> dict[str, str]:
        """The values of the metadata record."""
        area = "" if self.area is None else shapely.to_wkt(self.area, rounding_precision=3)
        return {"half_view": repr(self.half_view), "area": area}


def common(parts: Iterable[LabelledPart]) -> LabelledPart:
    """What is labelled in every frame: the narrowest view, and the area that all share."""
    parts = list(parts)
    areas = {id(part.area): part.area for part in parts if part.area is not None}
    return LabelledPart(
        min((part.half_view for part in parts), default=math.pi),
        shapely.intersection_all(list(areas.values())) if areas else None,
    )


def labelled_part(bag: Path) -> LabelledPart:
    """That of a file; all of it where the file does not say.

    Raises:
        UserError: the record cannot be read.
    """
    values = read_metadata(bag, RECORD)
    if not values:
        return LabelledPart()
    try:
        return LabelledPart(float(values["half_view"]), shapely.from_wkt(values["area"]) if values["area"] else None)
    except (KeyError, ValueError, shapely.errors.ShapelyError) as error:
        raise UserError(f"{bag}: its record '{RECORD}' cannot be read: {error}; convert the data set anew") from error
