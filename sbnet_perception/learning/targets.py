"""What the network should say at each output pixel for a given set of boxes.

A pixel says the class of an object when its centre lies in the object's core (its footprint scaled by the class's
`core`), or is the pixel of the object's centre. Where the mask leaves out the whole core, as of a vehicle seen only
from behind, the computed pixels of the footprint do instead. The rim around them is ignored, as are objects with too
few points to be seen and those whose centre lies outside the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.detector.network import OUTPUT_STRIDE

RIM = 1.15
IGNORED, NOTHING = -1, 0
MARGIN = 0.5
"""Metres by which boxes are grown to be the labels of a mask."""


@dataclass(frozen=True)
class Targets:
    """Per output pixel [h, w].

    Attributes:
        label: int8, -1 ignored, 0 nothing, k + 1 the class at position k.
        regression: float32 [8, h, w]: log length, log width, log height, dx, dy, z, cos yaw, sin yaw.
    """

    label: NDArray[np.int8]
    regression: NDArray[np.float32]


def make_targets(
    boxes: NDArray[np.float32],
    point_counts: NDArray[np.int64],
    classes: NDArray[np.int64],
    objects: Sequence[ObjectClass],
    grid: Grid,
    computed: NDArray[np.bool_] | None = None,
) -> Targets:
    """Targets for boxes in the grid frame.

    Args:
        boxes: float32 [M, 7].
        point_counts: int64 [M].
        classes: int64 [M], positions in ``objects``.
        objects: the classes.
        grid: what the network sees.
        computed: bool [h, w], the output pixels of active tiles; None means all.
    """
    x, y, step = _centres(grid, OUTPUT_STRIDE)
    height, width = len(y), len(x)
    label = np.zeros((height, width), np.int8)
    regression = np.zeros((8, height, width), np.float32)
    # Nearer objects are drawn last and win.
    for index in np.argsort(-np.hypot(boxes[:, 0], boxes[:, 1])):
        cx, cy, cz, length, breadth, tall, yaw = boxes[index].astype(np.float64)
        dx, dy = x[None, :] - cx, y[:, None] - cy
        along = np.abs(dx * np.cos(yaw) + dy * np.sin(yaw)) / (length / 2)
        across = np.abs(dy * np.cos(yaw) - dx * np.sin(yaw)) / (breadth / 2)
        reach = np.maximum(along, across)
        label[(reach < RIM) & (label == NOTHING)] = IGNORED
        row, column = int((cy - grid.y_min) // step), int((cx - grid.x_min) // step)
        entry = objects[classes[index]]
        if point_counts[index] < entry.least_points or not (0 <= row < height and 0 <= column < width):
            continue
        core = reach < entry.core
        core[row, column] = True
        if computed is not None:
            core = core & computed if (core & computed).any() else (reach < 1) & computed
        label[core] = classes[index] + 1
        values = np.log([length, breadth, tall]), (-dx, -dy), (cz, np.cos(yaw), np.sin(yaw))
        flat = [*values[0], *values[1], *values[2]]
        for channel, value in enumerate(flat):
            regression[channel][core] = np.broadcast_to(value, core.shape)[core]
    return Targets(label, regression)


def vehicles_near(
    boxes: NDArray[np.float32],
    point_counts: NDArray[np.int64],
    classes: NDArray[np.int64],
    objects: Sequence[ObjectClass],
    grid: Grid,
    stride: int,
) -> NDArray[np.int8]:
    """Where a computation mask has to be True: on cells that an object's box, grown by `MARGIN`, may touch.

    Args:
        boxes: float32 [M, 7] in the grid frame.
        point_counts: int64 [M].
        classes: int64 [M], positions in ``objects``.
        objects: the classes.
        grid: what the detector sees.
        stride: cells of the grid that one of the result spans.

    Returns:
        int8 [ceil(H / stride), ceil(W / stride)]: 1 there, 0 elsewhere, -1 where only objects are that have too few
        points to be seen.
    """
    x, y, step = _centres(grid, stride)
    near = np.zeros((len(y), len(x)), np.int8)
    for box, points, number in zip(boxes.astype(np.float64), point_counts, classes, strict=True):
        cx, cy, _, length, breadth, _, yaw = box
        dx, dy = x[None, :] - cx, y[:, None] - cy
        along, across = np.abs(dx * np.cos(yaw) + dy * np.sin(yaw)), np.abs(dy * np.cos(yaw) - dx * np.sin(yaw))
        # A cell touches it at most half its width times the sides of the turned square away.
        reach = MARGIN + step / 2 * (abs(np.cos(yaw)) + abs(np.sin(yaw)))
        touched = (along < length / 2 + reach) & (across < breadth / 2 + reach)
        seen = points >= objects[number].least_points
        near[touched & (near < 1)] = 1 if seen else IGNORED
    return near


def _centres(grid: Grid, stride: int) -> tuple[NDArray[np.floating], NDArray[np.floating], float]:
    """x of the columns and y of the rows of cells that span ``stride`` of the grid's, and their side, in metres."""
    step = grid.resolution * stride
    height, width = (-(-side // stride) for side in grid.shape)
    return grid.x_min + (np.arange(width) + 0.5) * step, grid.y_min + (np.arange(height) + 0.5) * step, step
