"""What the metrics of nuScenes and Argoverse 2 share: a detection finds an object by the distance of their centres."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.learning.frames import in_grid

THRESHOLDS = (0.5, 1.0, 2.0, 4.0)
"""Metres between the centres of a detection and of the object that it finds."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Where precision is taken."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """What counts in one frame, of one class.

    Attributes:
        boxes: float64 [M, 7] of the detections, grid frame.
        scores: float64 [M].
        objects: float64 [K, 7], those that are asked for.
    """

    boxes: Floats
    scores: Floats
    objects: Floats

    def within(self, grid: Grid) -> Counted:
        """Only what has its centre in the grid: a detector is not asked for what it does not look at."""
        found = in_grid(self.boxes, grid)
        kept = replace(self, boxes=self.boxes[found], scores=self.scores[found])
        return replace(kept, objects=self.objects[in_grid(self.objects, grid)])


def precision_at_recalls(recall: Floats, precision: Floats) -> Floats:
    """The precision [101] at `RECALLS`, between the scores linearly; 0 beyond the highest recall."""
    return np.interp(RECALLS, recall, precision, right=0.0)
