"""The road masks of a recording: which one counted when, and where it lay under the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sbnet_perception.bags.transforms import TransformTable
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.errors import UserError
from sbnet_perception.masks.road import RoadMap, RoadView
from sbnet_perception.messages.occupancy_grid import MaskError, road_from_occupancy_grid


class RecordedRoads:
    """Road masks in the order in which they were received; a malformed one is left out, as by the node.

    What lies beyond a raster is no road here: a picture shows what is known.
    """

    def __init__(self) -> None:
        self._received: list[tuple[int, str, RoadMap]] = []

    def add(self, message: Any, received_ns: int) -> None:
        """Takes a nav_msgs/OccupancyGrid."""
        try:
            road = road_from_occupancy_grid(message, outside=False)
        except MaskError:
            return
        self._received.append((received_ns, message.header.frame_id, road))

    def on(
        self, grid: Grid, frame_id: str, stamp: int, answered_ns: int, transforms: TransformTable
    ) -> npt.NDArray[np.bool_] | None:
        """The road under a grid.

        Args:
            grid: of the frame.
            frame_id: in which the grid lies.
            stamp: of the cloud, at which it lies there, in ns.
            answered_ns: receive time of the cloud's detections: the last mask received before them counts.
            transforms: of the recording.

        Returns:
            bool [H, W] over the grid, row 0 = y_min; None without a mask, or where it cannot be placed.
        """
        counting = [entry for entry in self._received if entry[0] <= answered_ns]
        if not counting:
            return None
        _, map_frame, road = counting[-1]
        try:
            map_from_grid = SE2.from_matrix(transforms.lookup(map_frame, frame_id, stamp))
            return np.asarray(RoadView(road, map_from_grid).mask(grid))
        except (UserError, ValueError):
            return None
