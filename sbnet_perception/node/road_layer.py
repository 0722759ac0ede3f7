"""The latched road mask and what it says about one cloud."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap, RoadView
from sbnet_perception.messages.occupancy_grid import MaskError, road_from_occupancy_grid
from sbnet_perception.node.status import Rejected
from sbnet_perception.node.transforms import Transforms, TransformUnavailable, lookup_before

RETRY_S = 1.0
"""After the map's transform failed to come in time, clouds wait for it again only this often."""


@dataclass(frozen=True)
class RoadAnswer:
    """The road on the grid, or why there is none.

    Attributes:
        view: the map beneath the grid; None when the road has to count as everywhere.
        problem: why view is None, empty otherwise.
        age_s: seconds since the mask in use arrived, by the node's clock; None without one.
    """

    view: RoadView | None
    problem: str
    age_s: float | None


@dataclass(frozen=True)
class _Received:
    road: RoadMap
    frame_id: str
    at_ns: int


class RoadLayer:
    """Keeps the last good road mask and places it beneath the grid at each cloud's time."""

    def __init__(self, grid: Grid, timeout_s: float, device: torch.device | str = "cpu") -> None:
        self._grid = grid
        self._device = device
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._last: _Received | None = None
        self._cached: tuple[RoadMap, SE2, RoadAnswer] | None = None
        self._no_wait_before = 0.0

    def receive(self, msg: Any, now_ns: int) -> None:
        """Takes a nav_msgs/OccupancyGrid.

        Raises:
            Rejected: it is malformed; the last good one stays in use.
        """
        if not msg.header.frame_id:
            raise Rejected("road mask malformed", "frame_id is empty")
        try:
            road = road_from_occupancy_grid(msg).to(self._device)
        except MaskError as error:
            raise Rejected("road mask malformed", str(error)) from error
        with self._lock:
            self._last = _Received(road, msg.header.frame_id, now_ns)

    def forget_masks(self) -> None:
        """Gives back the masks made of the map so far; in the thread that calls `at`."""
        with self._lock:
            last, self._cached = self._last, None
        if last is not None:
            last.road.grown.clear()

    def at(
        self,
        transforms: Transforms,
        grid_frame: str,
        stamp_ns: int,
        now_ns: int,
        deadline: float,
        stop: threading.Event,
    ) -> RoadAnswer:
        """The road on the grid at a cloud's stamp; waits for the map's transform until `deadline` at most."""
        with self._lock:
            # Simulated time that began, or began anew, after the mask came: its age counts from here.
            if self._last is not None and not 0 < self._last.at_ns <= now_ns:
                self._last = replace(self._last, at_ns=now_ns)
            last = self._last
        if last is None:
            return RoadAnswer(None, "no road mask received yet", None)
        age_s = max(0.0, (now_ns - last.at_ns) / 1e9)
        if self._timeout_s and age_s > self._timeout_s:
            return RoadAnswer(None, f"road mask is older than road_mask_timeout {self._timeout_s:g} s", age_s)
        patient = time.monotonic() >= self._no_wait_before
        try:
            transform = lookup_before(
                transforms, last.frame_id, grid_frame, stamp_ns, deadline if patient else 0.0, stop
            )
        except TransformUnavailable as error:
            if patient:
                self._no_wait_before = time.monotonic() + RETRY_S
            return RoadAnswer(None, f"road mask cannot be placed: {error}", age_s)
        self._no_wait_before = 0.0
        try:
            return self._place(last.road, SE2.from_matrix(transform), age_s)
        except ValueError as error:
            # The grid stands upright on the map, or a pose is beyond what can be computed.
            return RoadAnswer(None, f"road mask cannot be placed: {error}", age_s)

    def _place(self, road: RoadMap, map_from_grid: SE2, age_s: float) -> RoadAnswer:
        if self._cached is not None and self._cached[0] is road and self._cached[1] == map_from_grid:
            return replace(self._cached[2], age_s=age_s)
        view = RoadView(road, map_from_grid)
        if not view.covers(self._grid):
            answer = RoadAnswer(None, "road mask covers no part of the grid", age_s)
        else:
            # A grid without any road would mean: compute nothing, see nothing.
            has_road = view.has_road(self._grid)
            answer = RoadAnswer(view, "", age_s) if has_road else RoadAnswer(None, "no road in the grid", age_s)
        self._cached = (road, map_from_grid, answer)
        return answer
