"""The newest mask of a topic and what it says about one cloud."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.masks.road import RoadMap, RoadView
from sbnet_perception.messages.occupancy_grid import ROAD_FROM, MaskError, road_from_occupancy_grid
from sbnet_perception.node.clocks import clock_remark
from sbnet_perception.node.frame_names import frame_name
from sbnet_perception.node.mask_kinds import EXTERNAL_MASK, ROAD_MASK, MaskKind
from sbnet_perception.node.parameters import NodeConfig
from sbnet_perception.node.status import Rejected
from sbnet_perception.node.transforms import Transforms, TransformUnavailable, lookup_before

LEAST_COVERAGE = 0.5
"""Share of the grid that a mask should cover."""
OFF_ROAD, NEAR = 10, 2.0
"""Clouds in a row without road within so many metres of the vehicle that are a complaint."""
RETRY_S = 1.0
"""After the map's transform failed to come in time, clouds wait for it again only this often."""


@dataclass(frozen=True)
class MaskAnswer:
    """The mask on the grid, or why there is none.

    Attributes:
        view: the raster beneath the grid; None when the mask has to count as everywhere.
        problem: why view is None, empty otherwise.
        age_s: seconds since the mask in use arrived, by the node's clock; None without one.
        coverage: share (0-1) of the grid that lies on the mask's raster; None where it was not placed.
        warnings: what is wrong with a mask that is in use all the same.
        on_road: there is road within 2 m of the grid frame's origin, where the vehicle is; None where the mask ends
            before it, and where it is of something else.
    """

    view: RoadView | None
    problem: str
    age_s: float | None
    coverage: float | None = None
    warnings: tuple[str, ...] = ()
    on_road: bool | None = None


@dataclass(frozen=True)
class _Received:
    raster: RoadMap
    frame_id: str
    at_ns: int
    values: NDArray[np.int8]


class MaskLayer:
    """Keeps the last good mask of a topic and places it beneath the grid at each cloud's time.

    Attributes:
        kind: which mask it is.
        required: clouds without it are not to be processed.
    """

    def __init__(
        self,
        kind: MaskKind,
        grid: Grid,
        timeout_s: float,
        outside: bool = True,
        required: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        """``outside``: what lies beyond the raster is to be computed."""
        self.kind, self.required = kind, required
        self._grid = grid
        self._outside = outside
        self._device = device
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._last: _Received | None = None
        self._cached: tuple[RoadMap, SE2, MaskAnswer] | None = None
        self._no_wait_before = 0.0
        self._off_road = 0

    def receive(self, msg: Any, now_ns: int) -> None:
        """Takes a nav_msgs/OccupancyGrid.

        Raises:
            Rejected: it is malformed; the last good one stays in use.
        """
        frame_id = frame_name(msg.header.frame_id)
        if not frame_id:
            raise Rejected(f"{self.kind.name} malformed", "frame_id is empty")
        try:
            raster = road_from_occupancy_grid(msg, self._outside).to(self._device)
        except MaskError as error:
            raise Rejected(f"{self.kind.name} malformed", str(error)) from error
        with self._lock:
            values = np.asarray(msg.data, np.int8).reshape(raster.cells.shape)
            self._last = _Received(raster, frame_id, now_ns, values)

    def clock_jumped(self) -> None:
        """Time has jumped back: the age of a mask from before means nothing, so one that ages is forgotten."""
        with self._lock:
            if self.kind.changes and self._timeout_s:
                self._last = None

    def forget_masks(self) -> None:
        """Gives back the masks made of the map so far; in the thread that calls `at`."""
        with self._lock:
            last, self._cached = self._last, None
        if last is not None:
            last.raster.grown.clear()

    def at(
        self,
        transforms: Transforms,
        grid_frame: str,
        stamp_ns: int,
        now_ns: int,
        deadline: float,
        stop: threading.Event,
    ) -> MaskAnswer:
        """The mask on the grid at a cloud's stamp; waits for the map's transform until `deadline` at most."""
        with self._lock:
            # Simulated time that began, or began anew, after the mask came: its age counts from here.
            if self._last is not None and not 0 < self._last.at_ns <= now_ns:
                self._last = replace(self._last, at_ns=now_ns)
            last = self._last
        if last is None:
            return MaskAnswer(None, f"no {self.kind.name} received yet", None)
        age_s = max(0.0, (now_ns - last.at_ns) / 1e9)
        if self._timeout_s and age_s > self._timeout_s:
            limit = f"{self.kind.topic}_timeout {self._timeout_s:g} s"
            return MaskAnswer(None, f"{self.kind.name} is older than {limit}", age_s)
        patient = time.monotonic() >= self._no_wait_before
        try:
            transform = lookup_before(
                transforms, last.frame_id, grid_frame, stamp_ns, deadline if patient else 0.0, stop
            )
        except TransformUnavailable as error:
            if patient:
                self._no_wait_before = time.monotonic() + RETRY_S
            remark = clock_remark(stamp_ns, now_ns)
            return MaskAnswer(None, f"{self.kind.name} cannot be placed: {error}{remark}", age_s)
        self._no_wait_before = 0.0
        try:
            return self._watched(self._place(last, SE2.from_matrix(transform), age_s))
        except ValueError as error:
            # The grid stands upright on the map, or a pose is beyond what can be computed.
            return MaskAnswer(None, f"{self.kind.name} cannot be placed: {error}", age_s)

    def _watched(self, answer: MaskAnswer) -> MaskAnswer:
        """The answer, with a complaint where the vehicle has stood off the road for a while."""
        self._off_road = self._off_road + 1 if answer.on_road is False else 0
        if self._off_road < OFF_ROAD:
            return answer
        where = "the vehicle stands off the road of the mask, nothing is seen around it"
        remedy = f"{ROAD_FROM} and more has to be road in it, not an obstacle, and its frame has to fit"
        return replace(answer, warnings=(*answer.warnings, f"{where}: {remedy}"))

    def _place(self, last: _Received, map_from_grid: SE2, age_s: float) -> MaskAnswer:
        if self._cached is not None and self._cached[0] is last.raster and self._cached[1] == map_from_grid:
            return replace(self._cached[2], age_s=age_s)
        view = RoadView(last.raster, map_from_grid)
        coverage = view.coverage(self._grid)
        problem = ""
        smallest, largest = int(last.values.min()), int(last.values.max())
        if not coverage:
            problem = f"{self.kind.name} covers no part of the grid"
        # A grid without any road would mean: compute nothing, see nothing.
        elif self.kind.is_road and not view.has_road(self._grid):
            problem = "no road in the grid"
            if largest < ROAD_FROM:
                problem += f" (the mask's largest value is {largest}, road is {ROAD_FROM} and more)"
        # Zeros alone are an answer; these are of another scale, such as 0 to 1.
        elif not self.kind.is_road and smallest >= 0 and 0 < largest < ROAD_FROM:
            problem = (
                f"{self.kind.name} has {largest} as its largest value: {ROAD_FROM} and more is computed, so nothing is"
            )
        if problem:
            answer = MaskAnswer(None, problem, age_s, coverage)
        else:
            near = last.raster.origin.inverse() @ map_from_grid
            on_road = _road_near(last, near) if self.kind.is_road else None
            answer = MaskAnswer(view, "", age_s, coverage, self._complaints(coverage), on_road)
        self._cached = (last.raster, map_from_grid, answer)
        return answer

    def _complaints(self, coverage: float) -> tuple[str, ...]:
        if coverage >= LEAST_COVERAGE:
            return ()
        rest = "counts as no road, nothing is seen there (road_outside is no_road)"
        if self._outside:
            rest = "counts as road (road_outside)" if self.kind.is_road else "is computed"
        return (f"the {self.kind.name} covers {100 * coverage:.2g} % of the grid: the rest {rest}",)


def _road_near(last: _Received, raster_from_grid: SE2) -> bool | None:
    """Whether the mask has road around a pose's origin; None where that is beside the raster."""
    height, width = last.values.shape
    column, row = (int(metres // last.raster.resolution) for metres in (raster_from_grid.x, raster_from_grid.y))
    if not (0 <= row < height and 0 <= column < width):
        return None
    reach = math.ceil(NEAR / last.raster.resolution)
    around = last.values[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
    return bool(((around >= ROAD_FROM) | (around < 0)).any())


def mask_layers(config: NodeConfig, pipeline: Pipeline) -> dict[str, MaskLayer]:
    """A layer for each mask that comes as a topic, by its name in expressions."""
    grid, device = pipeline.grid, pipeline.device
    road = MaskLayer(
        ROAD_MASK,
        grid,
        config.road_mask_timeout,
        outside=config.road_outside == "road",
        required=config.without_road_mask == "refuse",
        device=device,
    )
    required = config.without_external_mask == "refuse"
    external = MaskLayer(EXTERNAL_MASK, grid, config.external_mask_timeout, required=required, device=device)
    return {layer.kind.source: layer for layer in (road, external)}
