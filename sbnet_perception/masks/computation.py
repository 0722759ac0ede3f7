"""The computation mask: the one raster that says where the detector computes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.checks import check_fields
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.occupancy import occupancy_mask

_MASKS_OF_SOURCE: dict[str, tuple[str, ...]] = {
    "road_and_occupancy": ("road", "occupancy"),
    "road": ("road",),
    "occupancy": ("occupancy",),
    "none": (),
}


@dataclass(frozen=True)
class MaskConfig:
    """Which masks make up the computation mask, and their extents.

    Raises:
        ValueError: a field is out of range; the message names it.
    """

    source: str = field(
        default="road_and_occupancy",
        metadata={"help": "Where to compute; none means everywhere.", "choices": tuple(_MASKS_OF_SOURCE)},
    )
    road_dilation: float = field(
        default=0.5,
        metadata={
            "help": "Metres by which the road grows, for vehicles that overhang its edge.",
            "range": (0.0, 100.0),
        },
    )
    occupancy_dilation: float = field(
        default=0.5,
        metadata={"help": "Metres by which the cells of points above the ground grow.", "range": (0.0, 100.0)},
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

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_height <= self.min_height:
            raise ValueError(f"max_height is {self.max_height}; it must be above min_height, {self.min_height}")


@dataclass(frozen=True, eq=False)
class ComputationMask:
    """Where to compute.

    Attributes:
        mask: bool [H, W], or None to compute everywhere.
        used: names of the masks that it is the intersection of.
        missing_road: the configuration asks for a road and there was none.
    """

    mask: NDArray[np.bool_] | None
    used: tuple[str, ...]
    missing_road: bool


def computation_mask(
    points: NDArray[np.float32], grid: Grid, road: NDArray[np.bool_] | None, config: MaskConfig
) -> ComputationMask:
    """Intersect the masks that the configuration names.

    A road that is asked for and missing counts as everywhere: the other masks still apply, and
    without another one the detector computes densely.

    Args:
        points: float32 [P, >= 3], columns x, y, z in metres in the grid frame.
        grid: raster of the mask.
        road: bool [H, W] from :func:`~sbnet_perception.masks.road.road_mask`, not dilated, or None.
        config: which masks to use.

    Raises:
        ValueError: road is not a bool raster of the grid's shape.
    """
    if road is not None and (road.shape != grid.shape or road.dtype != np.bool_):
        raise ValueError(f"road must be bool {list(grid.shape)}, got {road.dtype} {list(road.shape)}")
    wanted = _MASKS_OF_SOURCE[config.source]
    masks: dict[str, NDArray[np.bool_]] = {}
    if "road" in wanted and road is not None:
        masks["road"] = dilate(road, config.road_dilation, grid.resolution)
    if "occupancy" in wanted:
        occupied = occupancy_mask(points, grid, config.min_height, config.max_height)
        masks["occupancy"] = dilate(occupied, config.occupancy_dilation, grid.resolution)
    return ComputationMask(
        mask=np.logical_and.reduce(list(masks.values())) if masks else None,
        used=tuple(masks),
        missing_road="road" in wanted and road is None,
    )
