"""Dilation of a mask by a disc."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def dilate(mask: NDArray[np.bool_], metres: float, resolution: float) -> NDArray[np.bool_]:
    """Grow a mask to every cell whose centre lies within ``metres`` of a True cell's centre.

    Args:
        mask: bool [H, W].
        metres: radius of the disc, >= 0.
        resolution: side of a cell in metres.

    Returns:
        bool [H, W], a new array.

    Raises:
        ValueError: metres is negative or not finite.
    """
    if not (math.isfinite(metres) and metres >= 0):
        raise ValueError(f"metres must be finite and not negative, got {metres}")
    radius = metres / resolution + 1e-6
    # The disc is a stack of horizontal runs, widest in the middle: grow the rows step by step from
    # the narrowest run to the widest, and lay each run over the rows it belongs to.
    half_widths = [math.floor(math.sqrt(radius**2 - dy**2)) for dy in range(math.floor(radius) + 1)]
    grown, reach = mask.copy(), 0
    result = np.zeros_like(mask)
    for dy in range(len(half_widths) - 1, -1, -1):
        for reach in range(reach + 1, half_widths[dy] + 1):
            grown[:, reach:] |= mask[:, :-reach]
            grown[:, :-reach] |= mask[:, reach:]
        result[dy:] |= grown[: len(mask) - dy]
        if dy:
            result[:-dy] |= grown[dy:]
    return result
