"""What masks are made of, and what makes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid

if TYPE_CHECKING:
    from sbnet_perception.masks.config import MaskConfig
    from sbnet_perception.masks.road import RoadView

GIVEN = ("road", "external")
"""The masks that come with a frame, or not."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One cloud and what else is known of its surroundings.

    Attributes:
        points: float32 [P, >= 3], columns x, y, z in metres in the grid frame, on any device.
        grid: raster of the masks.
        config: the limits of the sources.
        road: a view of the map; or, not dilated, bool [H, W]; or None where no road is known.
        external: the same of a mask that somebody else has made.
        predicted: bool [H, W], where the mask network expects vehicles, or None.

    Raises:
        ValueError: a raster is not bool of the grid's shape.
    """

    points: Tensor
    grid: Grid
    config: MaskConfig
    road: Tensor | RoadView | None = None
    external: Tensor | RoadView | None = None
    predicted: Tensor | None = None

    def __post_init__(self) -> None:
        for name in (*GIVEN, "predicted"):
            raster = getattr(self, name)
            if isinstance(raster, Tensor) and (raster.shape != self.grid.shape or raster.dtype != torch.bool):
                found = f"{raster.dtype} {list(raster.shape)}"
                raise ValueError(f"{name} must be bool {list(self.grid.shape)}, got {found}")


@dataclass(frozen=True)
class Source:
    """What an expression calls by its name.

    Attributes:
        name: a word of letters.
        mask: makes of a frame and of metres >= 0 the mask, grown by as much: bool [H, W] on the device of the points,
            not to be written to; or None for everywhere.
    """

    name: str
    mask: Callable[[Frame, float], Tensor | None]
