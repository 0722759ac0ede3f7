"""Dilation of a mask by a disc."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from sbnet_perception.extents import check_cells, check_steps
from sbnet_perception.operation import call, register


def dilate(mask: Tensor, metres: float, resolution: float) -> Tensor:
    """Grow a mask to every cell whose centre lies within ``metres`` of a True cell's centre.

    Args:
        mask: bool [H, W].
        metres: radius of the disc, >= 0.
        resolution: side of a cell in metres.

    Returns:
        bool [H, W], a new tensor.

    Raises:
        ValueError: metres is negative or not finite, or the mask is none.
    """
    check_metres(metres)
    radius = metres / resolution + 1e-6
    rows, cols = mask.shape
    half_widths = [
        min(math.floor(math.sqrt(radius**2 - dy**2)), cols - 1)
        for dy in range(min(math.floor(radius), rows - 1) + 1)
    ]
    return dilate_by_runs(mask, half_widths)


def check_metres(metres: float) -> None:
    """Raises ValueError unless a mask can grow by as much."""
    if not (math.isfinite(metres) and metres >= 0):
        raise ValueError(f"metres must be finite and not negative, got {metres}")


def dilate_by_runs(mask: Tensor, half_widths: Sequence[int]) -> Tensor:
    """Grow a mask by a stack of horizontal runs, widest in the middle.

    Args:
        mask: bool [H, W].
        half_widths: at least one number >= 0, none larger than the one before. A True cell (row, col) makes
            True the columns col - half_widths[i] .. col + half_widths[i] of the rows row - i and row + i.

    Returns:
        bool [H, W], a new tensor.

    Raises:
        ValueError: either is something else.
    """
    return call(_DILATE, mask, half_widths)


def plain_dilate(mask: Tensor, half_widths: Sequence[int]) -> Tensor:
    """What :func:`dilate_by_runs` computes, in PyTorch."""
    _check(mask, half_widths)
    rows, cols = mask.shape
    # Sums along the rows say which pixels have a True one within a run.
    sums = pad(mask.int(), (1, 0)).cumsum(1)
    column = torch.arange(cols, device=mask.device)
    result = torch.zeros((rows, cols), dtype=torch.bool, device=mask.device)
    for dy, half_width in enumerate(half_widths[: max(rows, 1)]):
        last, before = (column + half_width + 1).clamp(max=cols), (column - half_width).clamp(min=0)
        grown = sums.index_select(1, last) > sums.index_select(1, before)
        result[dy:] |= grown[: rows - dy]
        result[: rows - dy] |= grown[dy:]
    return result


def _check(mask: Tensor, half_widths: Sequence[int]) -> None:
    if mask.dim() != 2 or mask.dtype != torch.bool:
        raise ValueError(f"dilate: mask must be bool [H, W], got {mask.dtype} {list(mask.shape)}")
    falls = list(half_widths) == sorted(half_widths, reverse=True)
    if not half_widths or not falls or half_widths[-1] < 0 or half_widths[0] >= 2**31:
        limits = f"from 0 to {2**31 - 1} that never grow, at least one"
        raise ValueError(f"dilate: half_widths must be whole numbers {limits}")
    check_cells("dilate", "mask", *mask.shape)
    rows, words = mask.shape[0], -(-mask.shape[1] // 64)
    check_steps("dilate", "half_widths", rows, words, min(len(half_widths), max(rows, 1)))


def _fake_dilate(mask: Tensor, half_widths: Sequence[int]) -> Tensor:
    _check(mask, half_widths)
    return mask.new_empty(mask.shape)


_DILATE = register("dilate(Tensor mask, int[] half_widths) -> Tensor", plain_dilate, _fake_dilate)
