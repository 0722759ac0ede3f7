"""The computation mask: the one raster that says where the detector computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.dilate import dilate
from sbnet_perception.masks.expression import And, Dilate, Expression, Name, parse
from sbnet_perception.masks.occupancy import occupancy_mask
from sbnet_perception.masks.view import RoadView


@dataclass(frozen=True, eq=False)
class ComputationMask:
    """Where to compute.

    Attributes:
        mask: bool [H, W], or None to compute everywhere; not to be written to.
        used: names of the masks that it is made of.
        missing_road: the configuration asks for a road and there was none.
    """

    mask: NDArray[np.bool_] | None
    used: tuple[str, ...]
    missing_road: bool


def computation_mask(
    points: NDArray[np.float32],
    grid: Grid,
    road: NDArray[np.bool_] | RoadView | None,
    config: MaskConfig,
    predicted: NDArray[np.bool_] | None = None,
) -> ComputationMask:
    """Combine the masks that the configuration names.

    A road that is asked for and missing counts as everywhere: ``and`` falls back to the other masks, and
    without another one the detector computes densely.

    Args:
        points: float32 [P, >= 3], columns x, y, z in metres in the grid frame.
        grid: raster of the mask.
        road: not dilated, bool [H, W] from :func:`~sbnet_perception.masks.road.road_mask`; or a view of the map,
            which is grown once per map instead of once per frame; or None.
        config: which masks to use.
        predicted: bool [H, W], True where something else expects vehicles.

    Raises:
        ValueError: a raster is not bool of the grid's shape, or predicted is asked for and missing.
    """
    _check_raster("predicted", predicted, grid)
    if not isinstance(road, RoadView):
        _check_raster("road", road, grid)
    if predicted is None and "predicted" in config.names:
        raise ValueError(f"predicted is missing; the mask is {config.expression!r}")
    mask, used = _Frame(points, grid, road, config, predicted).evaluate(parse(config.expression))
    return ComputationMask(mask, tuple(dict.fromkeys(used)), "road" in config.names and road is None)


def _check_raster(name: str, raster: NDArray[np.bool_] | None, grid: Grid) -> None:
    if raster is not None and (raster.shape != grid.shape or raster.dtype != np.bool_):
        raise ValueError(f"{name} must be bool {list(grid.shape)}, got {raster.dtype} {list(raster.shape)}")


# A mask, None for everywhere, and the names of those it is made of.
_Value = tuple[NDArray[np.bool_] | None, tuple[str, ...]]
_EVERYWHERE: _Value = (None, ())


@dataclass(frozen=True, eq=False)
class _Frame:
    """What the names of an expression stand for."""

    points: NDArray[np.float32]
    grid: Grid
    road: NDArray[np.bool_] | RoadView | None
    config: MaskConfig
    predicted: NDArray[np.bool_] | None

    def evaluate(self, expression: Expression) -> _Value:
        if isinstance(expression, Name):
            return self._named(expression.name)
        if isinstance(expression, Dilate):
            return self._dilated(expression)
        left, right = self.evaluate(expression.left), self.evaluate(expression.right)
        return _both(left, right) if isinstance(expression, And) else _either(left, right)

    def _named(self, name: str) -> _Value:
        if name == "everywhere" or (name == "road" and self.road is None):
            return _EVERYWHERE
        if name == "road":
            return self.road.mask(self.grid) if isinstance(self.road, RoadView) else self.road, ("road",)
        if name == "predicted":
            return self.predicted, ("predicted",)
        config = self.config
        return occupancy_mask(self.points, self.grid, config.min_height, config.max_height), ("occupancy",)

    def _dilated(self, expression: Dilate) -> _Value:
        if isinstance(self.road, RoadView) and expression.mask == Name("road"):
            return self.road.mask(self.grid, expression.metres), ("road",)
        mask, used = self.evaluate(expression.mask)
        return None if mask is None else dilate(mask, expression.metres, self.grid.resolution), used


def _both(left: _Value, right: _Value) -> _Value:
    if left[0] is None or right[0] is None:
        return right if left[0] is None else left
    return left[0] & right[0], left[1] + right[1]


def _either(left: _Value, right: _Value) -> _Value:
    if left[0] is None or right[0] is None:
        return _EVERYWHERE
    return left[0] | right[0], left[1] + right[1]
