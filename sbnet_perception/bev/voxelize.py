"""Point cloud to the network's bird's-eye-view input (section 4.2, "Our BEV representation"), as voxels.

Height bins follow the paper: 30 of 0.2 m over [-2, 4) m and one for all that is below, one for all
that is above. The intensity channel is the mean over the whole column.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid, cell_along, is_within
from sbnet_perception.blocks import Pixels, Voxels
from sbnet_perception.blocks.pixels import fake_index
from sbnet_perception.extents import MOST_CELLS, check_positions, check_raster, check_side
from sbnet_perception.operation import call, dynamic_size, register

BINS = 30
Z_MIN = -2.0
BIN_HEIGHT = 0.2
BELOW, ABOVE, INTENSITY = BINS, BINS + 1, BINS + 2
CHANNELS = BINS + 3


def voxels(points: Tensor, grid: Grid, capacity: int | None = None) -> Voxels:
    """Rasterise one cloud.

    Args:
        points: float32 [P, 4], columns x, y, z (metres, grid frame, z = 0 is the ground) and
            intensity (0-1). Points out of range or with a non-finite value are ignored.
        capacity: rows of the voxels' buffers, whatever the points, so that nothing waits for their number; as many
            voxels as fit are kept. The kernels of a GPU know it, no others.

    Returns:
        The occupied cells of a map of `CHANNELS` channels: 0-29 occupancy (0 or 1) of the height bins upwards from
        -2 m, BELOW, ABOVE, and INTENSITY. Depends on the set of points alone, up to the rounding of the mean.

    Raises:
        ValueError: points are of another shape or dtype.
    """
    bins = (Z_MIN, BIN_HEIGHT, BINS)
    raster = grid.bounds, grid.resolution, grid.shape
    flat, bits, mean, count, *index = call(_VOXELIZE, points, *raster, *bins, capacity)
    return Voxels(Pixels(flat, (1, *grid.shape), tuple(index)), bits, mean, CHANNELS, count)


def plain_voxels(
    points: Tensor, bounds: Sequence[float], resolution: float, size: Sequence[int], z_min: float, bin_height: float,
    bins: int, capacity: int | None = None,
) -> list[Tensor]:  # fmt: skip
    """The operation of `voxels` in PyTorch.

    Returns:
        flat int64 [K], the places in the raster of the K occupied cells; bits int64 [K] and mean intensity float32 [K];
        int64, the number of points in them; and the index of their `Pixels`.
    """
    _check(points, bounds, resolution, size, z_min, bin_height, bins, capacity)
    if capacity is not None:
        raise ValueError("voxelize: capacity is for the kernels of a GPU")
    # Cell, channel and intensity of each point that counts.
    counts = is_within(points[:, 0], points[:, 1], bounds) & points[:, 2:].isfinite().all(1)
    x, y, z, intensity = points[counts].unbind(1)
    row = cell_along(y, bounds[2], resolution, size[0])
    column = cell_along(x, bounds[0], resolution, size[1])
    above_low = z.clamp(z_min - bin_height / 2, z_min + (bins + 0.5) * bin_height) - z_min
    channel = (above_low * (1 / bin_height)).floor().long()
    channel = torch.where(channel < 0, bins, channel + (channel >= bins))
    # The channels of each cell that holds a point, and the mean.
    flat, cell, points_in = torch.unique(row * size[1] + column, return_inverse=True, return_counts=True)
    occupied = torch.zeros((len(flat), bins + 2), dtype=torch.bool, device=points.device)
    occupied[cell, channel] = True
    bits = (occupied.long() << torch.arange(bins + 2, device=points.device)).sum(1)
    total = torch.zeros(len(flat), dtype=torch.float64, device=points.device).index_add_(0, cell, intensity.double())
    index = Pixels.from_flat(flat, (1, size[0], size[1])).index
    return [flat, bits, (total / points_in).float(), counts.sum(), *index]


def _check(
    points: Tensor, bounds: Sequence[float], resolution: float, size: Sequence[int], z_min: float, bin_height: float,
    bins: int, capacity: int | None,
) -> None:  # fmt: skip
    if points.dim() != 2 or points.shape[1] != 4 or points.dtype != torch.float32:
        raise ValueError(f"voxelize: points must be float32 [P, 4], got {points.dtype} {list(points.shape)}")
    check_raster("voxelize", bounds, resolution, size)
    check_side("voxelize", "bin_height", bin_height)
    check_positions("voxelize", "z_min", [z_min])
    if not 1 <= bins <= 61:
        raise ValueError(f"voxelize: bins must be 1 to 61, got {bins}")
    if capacity is not None and not 1 <= capacity <= MOST_CELLS:
        raise ValueError(f"voxelize: capacity must be positive, got {capacity}")


def _fake_voxels(
    points: Tensor, bounds: Sequence[float], resolution: float, size: Sequence[int], z_min: float, bin_height: float,
    bins: int, capacity: int | None = None,
) -> list[Tensor]:  # fmt: skip
    _check(points, bounds, resolution, size, z_min, bin_height, bins, capacity)
    rows = dynamic_size() if capacity is None else capacity
    flat = points.new_empty(rows, dtype=torch.int64)
    count = points.new_empty((), dtype=torch.int64)
    # Nobody looks at the windows of voxels.
    index = fake_index(flat, (1, *size), 0, windows=False)
    return [flat, torch.empty_like(flat), points.new_empty(rows), count, *index]


_VOXELIZE = register(
    "voxelize(Tensor points, float[4] range, float resolution, int[2] size, float z_min, float bin_height, int bins, "
    "int? capacity=None) -> Tensor[]",
    plain_voxels,
    _fake_voxels,
)
