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
    rows, cols = mask.shape
    half_widths = [
        min(math.floor(math.sqrt(radius**2 - dy**2)), cols - 1)
        for dy in range(min(math.floor(radius), rows - 1) + 1)
    ]
    grown, reach = mask.copy(), 0
    result = np.zeros_like(mask)
    for dy, half_width in reversed(list(enumerate(half_widths))):
        for step in range(reach + 1, half_width + 1):
            grown[:, step:] |= mask[:, :-step]
            grown[:, :-step] |= mask[:, step:]
        reach = half_width
        result[dy:] |= grown[: rows - dy]
        if dy:
            result[:-dy] |= grown[dy:]
    return result
