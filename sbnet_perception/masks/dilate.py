"""Dilation of a mask by a disc."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.tensors import as_tensor
from sbnet_perception.blocks.operation import UNAVAILABLE


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
    rows, cols = mask.shape
    half_widths = [
        min(math.floor(math.sqrt(radius**2 - dy**2)), cols - 1)
        for dy in range(min(math.floor(radius), rows - 1) + 1)
    ]
    return dilate_by_runs(mask, half_widths)


def dilate_by_runs(mask: NDArray[np.bool_], half_widths: Sequence[int]) -> NDArray[np.bool_]:
    """Grow a mask by a stack of horizontal runs, widest in the middle.

    Args:
        mask: bool [H, W].
        half_widths: at least one number >= 0, none larger than the one before. A True cell (row, col) makes
            True the columns col - half_widths[i] .. col + half_widths[i] of the rows row - i and row + i.

    Returns:
        bool [H, W], a new array.
    """
    if UNAVAILABLE:
        return dilate_in_numpy(mask, half_widths)
    grown: NDArray[np.bool_] = torch.ops.sbnet.dilate(as_tensor(mask), half_widths).numpy()
    return grown


def dilate_in_numpy(mask: NDArray[np.bool_], half_widths: Sequence[int]) -> NDArray[np.bool_]:
    """What :func:`dilate_by_runs` computes where the compiled operations are not built."""
    rows, cols = mask.shape
    grown, reach = mask.copy(), 0
    result = np.zeros_like(mask)
    # Grow the rows step by step from the narrowest run to the widest, and lay each run over the rows it belongs to.
    for dy, half_width in reversed(list(enumerate(half_widths[:rows]))):
        for step in range(reach + 1, min(half_width, cols - 1) + 1):
            grown[:, step:] |= mask[:, :-step]
            grown[:, :-step] |= mask[:, step:]
        reach = half_width
        result[dy:] |= grown[: rows - dy]
        if dy:
            result[:-dy] |= grown[dy:]
    return result
