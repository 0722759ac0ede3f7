"""The detector on one device: frame in, detections out."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.detector.boxes import Detections, on_host
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import device_of, dtype_of
from sbnet_perception.detector.frame import Inputs, compute
from sbnet_perception.detector.gpu import Graphs
from sbnet_perception.detector.mask_weights import prepared_mask_network
from sbnet_perception.detector.weights import load_network
from sbnet_perception.masks.road import RoadView

Cloud = Tensor | NDArray[np.float32]
Raster = Tensor | NDArray[np.bool_]


@dataclass(frozen=True)
class PipelineResult:
    """What came of one frame.

    Attributes:
        detections: boxes in the grid frame, best first.
        mask: bool [H, W] on the grid and on the device, True = compute here.
        computed: bool [H/4, W/4] on the device, what the header computed (whole tiles).
        dense: no mask was applied: everything was computed.
        missing: the masks that the configured expression names and that were not given.
        points_in_range: points inside the grid.
        sparsity: stage -> share of its pixels that were skipped.
        times_computed: more than once where a graph of the GPU had too little room.
        timings_ms: step -> milliseconds, in the order of execution.
    """

    detections: Detections
    mask: Tensor
    computed: Tensor
    dense: bool
    missing: tuple[str, ...]
    points_in_range: int
    sparsity: dict[str, float]
    times_computed: int
    timings_ms: dict[str, float]


class Pipeline:
    """Frame in, detections out."""

    def __init__(self, config: DetectorConfig) -> None:
        """Load the network and pack its weights.

        Raises:
            WeightsError: the weights are missing, corrupt or for something else.
            DeviceError: the device is not there.
        """
        self.config = config
        self.grid = config.raster
        self.device = device_of(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.network = load_network(config).prepare(dtype_of(config.dtype, self.device), self.device)
        self.mask_network = prepared_mask_network(config, self.device)
        self._graphs = Graphs(self.network, self.mask_network, config) if Graphs.run_on(self.device) else None

    @torch.inference_mode()
    def __call__(
        self, points: Cloud, road: RoadView | Raster | None = None, external: RoadView | Raster | None = None
    ) -> PipelineResult:
        """Detect vehicles.

        Args:
            points: float32 [P, 4] x, y, z (metres, grid frame, z = 0 is the ground) and intensity (0-1).
            road: bool [H, W] on the grid, True = road, or a view of the map; None when unknown.
            external: the same of what the mask expression calls ``external``.
        """
        clock = _Clock()
        rasters = (one if one is None or isinstance(one, RoadView) else self._here(one) for one in (road, external))
        inputs = Inputs(self._here(points), *rasters)
        if self._graphs:
            computed, returned, times = self._graphs(inputs)
            found, in_range, stored = returned.found, returned.points, returned.wanted[1:, 1].tolist()
            mask = computed.mask.clone()  # the next frame overwrites it
            clock.lap("frame")
        else:
            computed, times = compute(self.network, self.mask_network, self.config, inputs, lap=clock.lap), 1
            found, in_range, mask = computed.found, computed.points, computed.mask
            stored = [len(pixels) for pixels in computed.stages.values()]
        totals = [pixels.size[1] * pixels.size[2] for pixels in computed.stages.values()]
        skipped = [1.0 - count / total for count, total in zip(stored, totals, strict=True)]
        return PipelineResult(
            detections=on_host(found),
            mask=mask,
            computed=computed.header.mask()[0],
            dense=computed.dense,
            missing=computed.missing,
            points_in_range=int(in_range),
            sparsity=dict(zip(computed.stages, skipped, strict=True)),
            times_computed=times,
            timings_ms=clock.laps,
        )

    def release(self) -> None:
        """Gives back the memory of the device that can be done without."""
        if self._graphs:
            self._graphs.release()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _here(self, values: Tensor | NDArray) -> Tensor:
        """As a tensor on the device, copied only where it must be."""
        if isinstance(values, np.ndarray):
            steps = all(step >= 0 and step % values.itemsize == 0 for step in values.strides)
            values = torch.from_numpy(values if steps and values.flags.writeable else values.copy())
        return values.to(self.device)


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1e3
        self._last = now
