"""The detector on one device: frame in, detections out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.detector.boxes import Detections, on_host
from sbnet_perception.detector.config import LIVE, DetectorConfig
from sbnet_perception.detector.device import device_of, dtype_of
from sbnet_perception.detector.frame import Inputs, compute
from sbnet_perception.detector.gpu import Graphs
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
        missing_road: the configured mask needs a road mask and none was given.
        points_in_range: points inside the grid.
        sparsity: stage -> share of its pixels that were skipped.
        times_computed: more than once where a graph of the GPU had too little room.
        timings_ms: step -> milliseconds, in the order of execution.
    """

    detections: Detections
    mask: Tensor
    computed: Tensor
    dense: bool
    missing_road: bool
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
        self._config = config
        self.grid = config.raster
        self.device = device_of(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.network = load_network(config).prepare(dtype_of(config.dtype, self.device), self.device)
        self._graphs = self._new_graphs()

    @property
    def config(self) -> DetectorConfig:
        """What the next frame is computed with."""
        return self._config

    def use(self, config: DetectorConfig) -> None:
        """Takes another configuration for the frames to come; the network stays. Not to be called during a frame.

        Raises:
            ValueError: it differs in more than the fields of `LIVE`.
        """
        if replace(config, **{name: getattr(self._config, name) for name in LIVE}) != self._config:
            raise ValueError(f"only {', '.join(LIVE)} may change; make another Pipeline")
        self._config = config
        # A graph has the thresholds and the mask's distances recorded.
        self._graphs = self._new_graphs()

    def _new_graphs(self) -> Graphs | None:
        return Graphs(self.network, self._config) if Graphs.run_on(self.device) else None

    @torch.inference_mode()
    def __call__(
        self, points: Cloud, road: RoadView | Raster | None = None, predicted: Raster | None = None
    ) -> PipelineResult:
        """Detect vehicles.

        Args:
            points: float32 [P, 4] x, y, z (metres, grid frame, z = 0 is the ground) and intensity (0-1).
            road: bool [H, W] on the grid, True = road, or a view of the map; None when unknown.
            predicted: bool [H, W], what the mask expression calls ``predicted``.
        """
        clock = _Clock()
        road = road if road is None or isinstance(road, RoadView) else self._here(road)
        inputs = Inputs(self._here(points), road, None if predicted is None else self._here(predicted))
        if self._graphs:
            computed, returned, times = self._graphs(inputs)
            found, in_range, stored = returned.found, returned.points, returned.wanted[1:, 1].tolist()
            mask = computed.mask.clone()  # the next frame overwrites it
            clock.lap("frame")
        else:
            computed, times = compute(self.network, self._config, inputs, lap=clock.lap), 1
            found, in_range, mask = computed.found, computed.points, computed.mask
            stored = [len(pixels) for pixels in computed.stages.values()]
        totals = [pixels.size[1] * pixels.size[2] for pixels in computed.stages.values()]
        skipped = [1.0 - count / total for count, total in zip(stored, totals, strict=True)]
        return PipelineResult(
            detections=on_host(found),
            mask=mask,
            computed=computed.header.mask()[0],
            dense=computed.dense,
            missing_road=computed.missing_road,
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
