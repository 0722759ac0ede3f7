"""A small labelled frame to learn from."""

from __future__ import annotations

import numpy as np
import torch

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.masks.road import RoadMap, RoadView

GRID = Grid(0.0, 12.8, -6.4, 6.4, 0.2)


def frame(grid: Grid = GRID) -> LabelledFrame:
    """A car on the road, which is y < 0, and one beside it."""
    rng = np.random.default_rng(0)
    low, high = (grid.x_min, grid.y_min, 0, 0), (grid.x_max, grid.y_max, 2, 1)
    points = rng.uniform(low, high, (2000, 4)).astype(np.float32)
    boxes = np.float32([[4, -3, 0.8, 4, 1.8, 1.6, 0.2], [8, 4, 0.8, 4, 1.8, 1.6, 0.0]])
    cells = torch.zeros(grid.shape, dtype=torch.bool)
    cells[: grid.height // 2] = True
    road = RoadView(RoadMap(cells, grid.resolution, SE2(grid.x_min, grid.y_min)), SE2())
    return LabelledFrame("made", points, road, boxes, np.array([100, 100]), np.array([0, 0]))
