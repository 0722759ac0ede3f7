"""Polygons to cells, exactly: which cells an outline passes through, which cell centres it encloses.

Outlines are float64 [K, 2] (x, y) in units of cells; cell (row, col) covers [col, col + 1) x [row, row + 1).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def rasterise(
    outline: NDArray[np.float64], shape: tuple[int, int]
) -> tuple[tuple[slice, slice], NDArray[np.bool_], NDArray[np.bool_]]:
    """Rasterise one polygon on the part of a raster that holds its bounding box.

    Args:
        outline: vertices in units of cells, open or closed, any direction; may leave the raster.
        shape: rows and columns of the raster.

    Returns:
        window: the part of the raster; inside: bool, cells whose centre is inside;
        crossed: bool, cells that an edge passes through. The cells that the polygon touches
        are ``inside | crossed``, those that lie wholly within it ``inside & ~crossed``.
    """
    h, w = shape
    left, top = np.floor(outline.min(axis=0)).astype(np.int64).clip(0, (w, h)).tolist()
    right, bottom = (np.floor(outline.max(axis=0)).astype(np.int64) + 1).clip(0, (w, h)).tolist()
    start = outline - (left, top)
    end = np.roll(start, -1, axis=0)
    size = (bottom - top, right - left)
    return (slice(top, bottom), slice(left, right)), _inside(start, end, size), _crossed(start, end, size)


def _inside(
    start: NDArray[np.float64], end: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """bool [h, w]: cells whose centre the edges wind around (non-zero rule)."""
    h, w = shape
    turns = np.zeros((h, w + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(start.tolist(), end.tolist(), strict=True):
        # Rows whose centre line the edge crosses, half open so that a shared vertex counts once.
        first = max(math.ceil(min(y0, y1) - 0.5), 0)
        last = min(math.ceil(max(y0, y1) - 0.5), h)
        rows = np.arange(first, last)
        if rows.size == 0:
            continue
        x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        # Centres from the crossing on are one turn further round.
        cols = np.ceil(x - 0.5).clip(0, w).astype(np.int64)
        turns[rows, cols] += 1 if y1 > y0 else -1
    return np.cumsum(turns[:, :w], axis=1) != 0


def _crossed(
    start: NDArray[np.float64], end: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """bool [h, w]: cells that an edge passes through."""
    h, w = shape
    crossed = np.zeros((h, w), dtype=np.bool_)
    for head, tail in zip(start, end, strict=True):
        # Between two successive crossings of cell borders the edge stays within one cell.
        cuts = [np.array((0.0, 1.0))]
        for a, b, size in zip(head.tolist(), tail.tolist(), (w, h), strict=True):
            if a != b:
                lines = np.arange(max(math.ceil(min(a, b)), 0), min(math.floor(max(a, b)), size) + 1)
                cuts.append((lines - a) / (b - a))
        t = np.sort(np.concatenate(cuts).clip(0.0, 1.0))
        middle = head + ((t[1:] + t[:-1]) / 2)[:, None] * (tail - head)
        cells = np.floor(np.concatenate((middle, (head, tail)))).astype(np.int64)
        col, row = cells[((cells >= 0) & (cells < (w, h))).all(axis=1)].T
        crossed[row, col] = True
    return crossed
