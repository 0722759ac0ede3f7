"""Point cloud to the network's bird's-eye-view input (section 4.2, "Our BEV representation"), dense or as voxels.

Height bins follow the paper: 30 of 0.2 m over [-2, 4) m and one for all that is below, one for all
that is above. The intensity channel is the mean over the whole column.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.tensors import as_tensor
from sbnet_perception.blocks import Pixels, Voxels
from sbnet_perception.blocks.operation import UNAVAILABLE

BINS = 30
Z_MIN = -2.0
BIN_HEIGHT = 0.2
BELOW, ABOVE, INTENSITY = BINS, BINS + 1, BINS + 2
CHANNELS = BINS + 3

# Heights that stand for all that is below and all that is above: the middles of bins -1 and BINS.
_LOWEST, _HIGHEST = Z_MIN - BIN_HEIGHT / 2, Z_MIN + (BINS + 0.5) * BIN_HEIGHT
# Channel of each bin number, shifted by one: below, the 30 bins, above.
_CHANNEL_OF_BIN = np.array([BELOW, *range(BINS), ABOVE], dtype=np.int64)


def voxelize(points: NDArray[np.float32], grid: Grid) -> torch.Tensor:
    """Rasterise one cloud.

    Args:
        points: float32 [P, 4], columns x, y, z (metres, grid frame, z = 0 is the ground) and
            intensity (0-1). Points out of range or with a non-finite value are ignored.

    Returns:
        float32 [1, CHANNELS, H, W], channels_last: channels 0-29 occupancy (0 or 1) of the height
        bins upwards from -2 m, BELOW, ABOVE, and INTENSITY (0 where the column is empty).
        Depends on the set of points alone, up to the rounding of the mean.
    """
    return Voxelizer(grid)(points)


def voxels(points: NDArray[np.float32], grid: Grid) -> Voxels:
    """The map of `voxelize` as the list of its occupied cells; ``.dense()`` is equal to it, but for rounding.

    Its memory grows with the points alone.
    """
    if not UNAVAILABLE and points.dtype == np.float32:
        bounds = (grid.x_min, grid.x_max, grid.y_min, grid.y_max)
        cloud = as_tensor(np.ascontiguousarray(points))
        start, runs, bits, mean, count = torch.ops.sbnet.voxelize(
            cloud, bounds, grid.resolution, grid.shape, Z_MIN, BIN_HEIGHT, BINS
        )
        return Voxels(Pixels(start, runs, (1, *grid.shape)), bits, mean, CHANNELS, count)
    return reference_voxels(points, grid)


def reference_voxels(points: NDArray[np.float32], grid: Grid) -> Voxels:
    """`voxels` in NumPy."""
    cell, channel, intensity = _binned(points, grid)
    cells, where, count = np.unique(cell, return_inverse=True, return_counts=True)
    bits = np.zeros(len(cells), np.int64)
    np.bitwise_or.at(bits, where, np.int64(1) << channel)
    mean = np.bincount(where, weights=intensity, minlength=len(cells)) / count
    pixels = Pixels.from_flat(torch.from_numpy(cells), (1, *grid.shape))
    return Voxels(pixels, torch.from_numpy(bits), torch.from_numpy(mean.astype(np.float32)), CHANNELS, len(cell))


def _binned(
    points: NDArray[np.float32], grid: Grid
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Cell, channel and intensity of each point that counts."""
    row, col, inside = grid.cells(points)
    kept = np.flatnonzero(inside)
    z, intensity = points[kept, 2], points[kept, 3]
    finite = np.isfinite(z) & np.isfinite(intensity)
    if not finite.all():
        row, col, z, intensity = row[finite], col[finite], z[finite], intensity[finite]
    above_low = np.clip(z, _LOWEST, _HIGHEST) - Z_MIN
    height_bin = np.floor(above_low * (1.0 / BIN_HEIGHT)).astype(np.int64)
    return row.astype(np.int64) * grid.width + col, _CHANNEL_OF_BIN[height_bin + 1], intensity


class Voxelizer:
    """:func:`voxelize` into one buffer that is kept and cleared only where it was written.

    The tensor is the voxelizer's: it is valid until the next call, which overwrites it, and must not
    be written to. Clone it to keep it. Not for use by several threads at once.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._image = torch.zeros((1, *grid.shape, CHANNELS))
        self._flat = self._image.view(-1).numpy()
        self._written: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __call__(self, points: NDArray[np.float32]) -> torch.Tensor:
        self._flat[self._written] = 0.0
        cell, channel, intensity = _binned(points, self.grid)
        occupied = cell * CHANNELS + channel
        self._flat[occupied] = 1.0
        # Mean intensity of the columns that hold a point.
        count = np.bincount(cell)
        column = np.flatnonzero(count)
        mean = np.bincount(cell, weights=intensity)[column] / count[column]
        column *= CHANNELS
        column += INTENSITY
        self._flat[column] = mean
        self._written = np.concatenate((occupied, column))
        return self._image.permute(0, 3, 1, 2)
