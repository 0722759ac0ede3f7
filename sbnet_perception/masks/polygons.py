"""Polygons to cells, exactly: which cells an outline touches, which cell centres it encloses.

Outlines are float64 [K, 2] (x, y) in units of cells; cell (row, col) covers [col, col + 1) x [row, row + 1).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def cells_inside(outline: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """bool [h, w]: cells whose centre the outline winds around (any direction, non-zero rule)."""
    h, w = shape
    start, end = outline, np.roll(outline, -1, axis=0)
    turns = np.zeros((h, w + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(start.tolist(), end.tolist(), strict=True):
        # Rows whose centre line the edge crosses, half open so that a shared vertex counts once.
        first, last = (math.ceil(min(max(y, -1.0), h + 1.0) - 0.5) for y in (min(y0, y1), max(y0, y1)))
        rows = np.arange(max(first, 0), min(last, h))
        if rows.size == 0:
            continue
        x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        # Centres from the crossing on are one turn further round.
        cols = np.ceil(np.clip(x, -1.0, w + 1.0) - 0.5).astype(np.intp).clip(0, w)
        turns[rows, cols] += 1 if y1 > y0 else -1
    return np.cumsum(turns[:, :w], axis=1) != 0


def cells_on_outline(outline: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """bool [h, w]: cells that an edge of the outline passes through."""
    h, w = shape
    touched = np.zeros((h, w), dtype=np.bool_)
    for start, end in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        # Between two successive crossings of cell borders the edge stays within one cell.
        cuts = [np.array((0.0, 1.0))]
        for a, b in zip(start.tolist(), end.tolist(), strict=True):
            if a != b:
                lines = np.arange(math.ceil(min(a, b)), math.floor(max(a, b)) + 1)
                cuts.append((lines - a) / (b - a))
        t = np.sort(np.concatenate(cuts).clip(0.0, 1.0))
        middle = start + ((t[1:] + t[:-1]) / 2)[:, None] * (end - start)
        cells = np.floor(np.concatenate((middle, (start, end)))).astype(np.intp)
        col, row = cells[((cells >= 0) & (cells < (w, h))).all(axis=1)].T
        touched[row, col] = True
    return touched
