"""Frames on a GPU: recorded once as a CUDA graph from cloud to boxes, replayed for every cloud and mask.

A graph has buffers of a fixed size. Which pixels are computed differs from frame to frame, so it has room for a share
of each map, and the counts on the device say how much of it is in use. They come back with the boxes, in one copy: a
frame that needed more room is computed again in the next larger graph, and its first boxes are thrown away.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sbnet_perception.bev.grid import Grid
from sbnet_perception.blocks.pixels import has_words
from sbnet_perception.detector.boxes import Found
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.frame import Computed, Inputs, Room, compute
from sbnet_perception.detector.mask_network import PreparedMaskNetwork
from sbnet_perception.detector.network import STRIDES, PreparedDetector
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.frame import Frame
from sbnet_perception.masks.road import RoadView

SHARES = (1 / 20, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of each map: how many of its pixels a graph has room for; the smallest suffices for points on a road."""
SPARE = 1.25
"""A smaller graph is taken again when it would have had so many times the room that a frame needed."""
FEWEST_POINTS = 1 << 15
"""Graphs are for this many points, or that times a power of two."""


@dataclass(frozen=True, eq=False)
class Returned:
    """What the host learns of a frame, in one copy.

    Attributes:
        found: boxes, scores, classes and their number, as `detect` returns them.
        points: int64 [], points inside the grid.
        wanted: int32 [6, 2], of the voxels and of each stage: pixels that were computed, and how many there are.
    """

    found: Found
    points: Tensor
    wanted: Tensor

    @staticmethod
    def of(computed: Computed) -> Returned:
        """The same on the device."""
        counts = [pixels.index[0] for pixels in (computed.voxels.pixels, *computed.stages.values())]
        return Returned(computed.found, computed.voxels.points, torch.stack(counts))

    def packed(self) -> Tensor:
        """All of it as uint8 [bytes]."""
        return torch.cat([part.contiguous().reshape(-1).view(torch.uint8) for part in self._parts])

    def unpacked(self, data: Tensor) -> Returned:
        """What was packed from tensors like these."""
        values, at = [], 0
        for part in self._parts:
            size = part.numel() * part.element_size()
            # A copy is aligned, whatever lies before it.
            values.append(data[at : at + size].clone().view(part.dtype).view(part.shape))
            at += size
        boxes, scores, classes, count, points, wanted = values
        return Returned((boxes, scores, classes, count), points, wanted)

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return (*self.found, self.points, self.wanted)


def rooms_on(grid: Grid) -> list[tuple[int, ...]]:
    """Rows of the buffers of each stage's map, conv-1 first, for each of `SHARES`."""
    sizes = [-(-grid.height // stride) * -(-grid.width // stride) for stride in STRIDES.values()]
    return [tuple(max(int(share * size), 1) for size in sizes) for share in SHARES]


def smallest(rooms: Sequence[Sequence[int]], wanted: Sequence[float]) -> int:
    """Which of the rooms is the first that holds so many pixels of each stage; the last one holds all."""
    fitting = (number for number, room in enumerate(rooms) if all(map(operator.le, wanted, room)))
    return next(fitting, len(rooms) - 1)


class Graphs:
    """The graphs of one detector, each recorded when it is first needed."""

    def __init__(
        self, network: PreparedDetector, mask_network: PreparedMaskNetwork | None, config: DetectorConfig
    ) -> None:
        self._network, self._mask_network, self._config = network, mask_network, config
        self._grid = config.raster
        self._rooms = rooms_on(self._grid)
        self._recorded: dict[tuple[int, int, type, type], _Recorded] = {}
        self._level = 0

    @staticmethod
    def run_on(device: torch.device) -> bool:
        """Whether a device has kernels for buffers of a fixed size."""
        return has_words(device)

    def __call__(self, inputs: Inputs) -> tuple[Computed, Returned, int]:
        """Computes a frame.

        Returns:
            What holds on the device until the next frame, what came back to the host, and how often the frame was
            computed: again where a graph had too little room.

        Raises:
            ValueError: points, road or external are of another shape or dtype.
        """
        _check(inputs, self._grid, self._config)
        times = 0
        while True:
            times += 1
            computed, returned = self._graph(inputs)(inputs)
            level, wanted = self._level, returned.wanted[1:, 1].tolist()
            fits = smallest(self._rooms, wanted)
            spared = smallest(self._rooms, [SPARE * count for count in wanted])
            self._level = fits if fits > level else min(level, spared)
            if fits <= level:
                return computed, returned, times

    def release(self) -> None:
        """Drops all graphs and their memory."""
        self._recorded.clear()

    def _graph(self, inputs: Inputs) -> _Recorded:
        points = FEWEST_POINTS
        while points < len(inputs.points):
            points *= 2
        key = points, self._level, type(inputs.road), type(inputs.external)
        if key not in self._recorded:
            room = Room(min(points, self._grid.height * self._grid.width), self._rooms[self._level])
            function = partial(compute, self._network, self._mask_network, self._config, room=room)
            self._recorded[key] = _Recorded(function, _buffers_for(inputs, points, self._config))
        return self._recorded[key]


class _Recorded:
    """One graph and its buffers."""

    def __init__(self, compute: Callable[[Inputs], Computed], buffers: Inputs) -> None:
        self._compute, self._inputs = compute, buffers
        self._graph: torch.cuda.CUDAGraph | None = None
        device = buffers.points.device
        if device.type == "cuda":
            with torch.cuda.device(device):  # a capture is of the current one
                self._record(device)

    def __call__(self, inputs: Inputs) -> tuple[Computed, Returned]:
        self._fill(inputs)
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
        return self._computed, self._returned.unpacked(self._packed.cpu())

    def _run(self) -> None:
        self._computed = self._compute(self._inputs)
        self._returned = Returned.of(self._computed)
        self._packed = self._returned.packed()

    def _record(self, device: torch.device) -> None:
        # Once outside of a graph: what libraries set up at their first call must not be recorded.
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            self._run()
        torch.cuda.current_stream(device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._run()

    def _fill(self, inputs: Inputs) -> None:
        """Copies a frame's inputs to the buffers."""
        count = len(inputs.points)
        self._inputs.points[:count].copy_(inputs.points)
        self._inputs.points[count:].fill_(torch.nan)
        for into, raster in ((self._inputs.road, inputs.road), (self._inputs.external, inputs.external)):
            # A graph is for one kind of raster.
            if isinstance(into, RoadView) and isinstance(raster, RoadView):
                for (grid, dilation), buffer in into.sampled.items():
                    buffer.copy_(raster.mask(grid, dilation))
            if isinstance(into, Tensor) and isinstance(raster, Tensor):
                into.copy_(raster)


def _check(inputs: Inputs, grid: Grid, config: DetectorConfig) -> None:
    """What the operations demand of a frame: copied to a buffer, anything would get its shape and dtype."""
    points = inputs.points
    if points.dim() != 2 or points.shape[1] != 4 or points.dtype != torch.float32:
        raise ValueError(f"points must be float32 [P, 4], got {points.dtype} {list(points.shape)}")
    Frame(points, grid, config.mask, inputs.road, inputs.external)


def _buffers_for(inputs: Inputs, points: int, config: DetectorConfig) -> Inputs:
    """Buffers for inputs like these, with room for so many points, none of which counts."""
    nowhere = torch.full((points, 4), torch.nan, device=inputs.points.device)
    buffers = Inputs(nowhere, _buffer_like(inputs.road), _buffer_like(inputs.external))
    # The masks that the expression asks of a view: all that a graph sees of it.
    nothing = torch.zeros(config.raster.shape, dtype=torch.bool, device=nowhere.device)
    computation_mask(Frame(nowhere, config.raster, config.mask, buffers.road, buffers.external, nothing))
    for view in (buffers.road, buffers.external):
        if isinstance(view, RoadView):
            for key, mask in view.sampled.items():
                view.sampled[key] = torch.empty_like(mask, device=nowhere.device)
    return buffers


def _buffer_like(raster: RoadView | Tensor | None) -> RoadView | Tensor | None:
    if isinstance(raster, RoadView):
        return RoadView(raster.road, raster.map_from_grid)
    return None if raster is None else torch.zeros_like(raster)
