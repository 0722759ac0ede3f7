"""What the network should say at each output pixel for a given set of boxes.

A pixel is positive when its centre lies in the core of a vehicle (its footprint scaled by 0.6), or is
the pixel of a vehicle's centre. Where the mask leaves out the whole core, as of a vehicle seen only from
behind, the computed pixels of the footprint are positive instead. The rim around them is ignored, as
are vehicles with too few points to be seen and those whose centre lies outside the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.network import OUTPUT_STRIDE

CORE, RIM = 0.6, 1.15
LEAST_POINTS = 5


@dataclass(frozen=True)
class Targets:
    """Per output pixel [h, w].

    Attributes:
        label: int8, 1 positive, 0 negative, -1 ignored.
        regression: float32 [8, h, w]: log length, log width, log height, dx, dy, z, cos yaw, sin yaw.
    """

    label: NDArray[np.int8]
    regression: NDArray[np.float32]


def make_targets(
    boxes: NDArray[np.float32], point_counts: NDArray[np.int64], grid: Grid, computed: NDArray[np.bool_] | None = None
) -> Targets:
    """Targets for ``boxes`` [M, 7] with ``point_counts`` [M] in the grid frame.

    ``computed`` bool [h, w] are the output pixels of active tiles; None means all.
    """
    height, width = (-(-side // OUTPUT_STRIDE) for side in grid.shape)
    step = grid.resolution * OUTPUT_STRIDE
    x = grid.x_min + (np.arange(width) + 0.5) * step
    y = grid.y_min + (np.arange(height) + 0.5) * step
    label = np.zeros((height, width), np.int8)
    regression = np.zeros((8, height, width), np.float32)
    # Nearer vehicles are drawn last and win.
    for index in np.argsort(-np.hypot(boxes[:, 0], boxes[:, 1])):
        cx, cy, cz, length, breadth, tall, yaw = boxes[index].astype(np.float64)
        dx, dy = x[None, :] - cx, y[:, None] - cy
        along = np.abs(dx * np.cos(yaw) + dy * np.sin(yaw)) / (length / 2)
        across = np.abs(dy * np.cos(yaw) - dx * np.sin(yaw)) / (breadth / 2)
        reach = np.maximum(along, across)
        label[(reach < RIM) & (label == 0)] = -1
        row, column = int((cy - grid.y_min) // step), int((cx - grid.x_min) // step)
        if point_counts[index] < LEAST_POINTS or not (0 <= row < height and 0 <= column < width):
            continue
        core = reach < CORE
        core[row, column] = True
        if computed is not None:
            core = core & computed if (core & computed).any() else (reach < 1) & computed
        label[core] = 1
        values = np.log([length, breadth, tall]), (-dx, -dy), (cz, np.cos(yaw), np.sin(yaw))
        flat = [*values[0], *values[1], *values[2]]
        for channel, value in enumerate(flat):
            regression[channel][core] = np.broadcast_to(value, core.shape)[core]
    return Targets(label, regression)
