"""The bird's-eye-view grid: where its cells lie and which cell holds a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# The region both named grids cover: x_min, x_max, y_min, y_max in metres.
_ROI = (0.0, 70.4, -20.0, 20.0)
NAMED_RESOLUTIONS = {"compact": 0.2, "paper": 0.05}


@dataclass(frozen=True)
class Grid:
    """Regular raster over the ground plane, x forward along the columns, y left along the rows.

    Row 0 starts at ``y_min``, column 0 at ``x_min``. Metres; cells are squares of side ``resolution``.
    The range is half open: a point exactly on an upper edge is outside.

    Raises:
        ValueError: a bound is not finite, a range is empty or not a whole number of cells.
    """

    x_min: float
    x_max: float
    y_min: float
    y_max: float
    resolution: float

    def __post_init__(self) -> None:
        for name in ("x_min", "x_max", "y_min", "y_max", "resolution"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"grid {name} must be finite, got {getattr(self, name)}")
        if self.resolution <= 0:
            raise ValueError(f"grid resolution must be positive, got {self.resolution}")
        for axis, low, high in (("x", self.x_min, self.x_max), ("y", self.y_min, self.y_max)):
            cells = (high - low) / self.resolution
            if round(cells) < 1 or abs(cells - round(cells)) > 1e-3:
                raise ValueError(
                    f"grid {axis} range [{low}, {high}) m must hold a whole number of cells of "
                    f"{self.resolution} m, got {cells:g}"
                )

    @classmethod
    def named(cls, name: str) -> Grid:
        """The grid ``"compact"`` (0.2 m, 200 x 352) or ``"paper"`` (0.05 m, 800 x 1408).

        Raises:
            ValueError: there is no grid of that name; the message lists them.
        """
        if name not in NAMED_RESOLUTIONS:
            raise ValueError(f"grid must be one of {sorted(NAMED_RESOLUTIONS)}, got {name!r}")
        return cls(*_ROI, resolution=NAMED_RESOLUTIONS[name])

    @property
    def height(self) -> int:
        """Number of rows."""
        return round((self.y_max - self.y_min) / self.resolution)

    @property
    def width(self) -> int:
        """Number of columns."""
        return round((self.x_max - self.x_min) / self.resolution)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """x_min, x_max, y_min, y_max in metres."""
        return self.x_min, self.x_max, self.y_min, self.y_max

    @property
    def x_centres(self) -> NDArray[np.float64]:
        """float64 [W]: x of each column's centre."""
        return self.x_min + (np.arange(self.width, dtype=np.float64) + 0.5) * self.resolution

    @property
    def y_centres(self) -> NDArray[np.float64]:
        """float64 [H]: y of each row's centre."""
        return self.y_min + (np.arange(self.height, dtype=np.float64) + 0.5) * self.resolution

    @property
    def corners(self) -> NDArray[np.float64]:
        """float64 [4, 2]: xy of the range's corners, counter-clockwise from (x_min, y_min)."""
        x0, x1, y0, y1 = self.x_min, self.x_max, self.y_min, self.y_max
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])

    def cells(
        self, points: NDArray[np.floating]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
        """The cells that hold the points of the range.

        Args:
            points: float [P, >= 2], columns x, y in the grid frame. NaN and infinity are outside.

        Returns:
            row int32 [K], col int32 [K], inside bool [P]: row and col of the K points of
            ``points[inside]``, in their order, always valid indices of the raster.
        """
        x, y = points[:, 0], points[:, 1]
        inside = is_within(x, y, self.bounds)
        kept = np.flatnonzero(inside)
        row = _index(y[kept], self.y_min, self.resolution, self.height)
        col = _index(x[kept], self.x_min, self.resolution, self.width)
        return row, col, inside


def is_within(x: Any, y: Any, bounds: Sequence[float]) -> Any:
    """Which of the coordinates, two arrays or two tensors, lie in the half-open range x_min, x_max, y_min, y_max."""
    x_min, x_max, y_min, y_max = bounds
    return (x >= x_min) & (x < x_max) & (y >= y_min) & (y < y_max)


def cell_along(values: Tensor, low: float, resolution: float, count: int) -> Tensor:
    """int64: cell of each coordinate along an axis of ``count`` cells from ``low`` on; beyond it, the outermost one.

    In the float32 arithmetic of the compiled operations.
    """
    return ((values - low) * (1.0 / resolution)).clamp(0, count - 1).long().clamp(0, count - 1)


def _index(values: NDArray[np.floating], low: float, resolution: float, count: int) -> NDArray[np.int32]:
    """Cell of each value of [low, high); rounding next to the upper edge stays in the last cell."""
    index = ((values - low) * (1.0 / resolution)).astype(np.int32)
    return np.clip(index, 0, count - 1, out=index)
