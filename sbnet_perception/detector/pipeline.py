"""The detector on one device: frame in, detections out."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.detector.boxes import Detections, on_host
from sbnet_perception.detector.config import LIVE, DetectorConfig
from sbnet_perception.detector.device import CPU, DeviceError, device_of, first_line
from sbnet_perception.detector.frame import Computed, Inputs, compute
from sbnet_perception.detector.gpu import Graphs
from sbnet_perception.detector.mask_weights import prepared_mask_network
from sbnet_perception.detector.network import Detector
from sbnet_perception.detector.proof import fault_of
from sbnet_perception.detector.quantized_weights import prepared
from sbnet_perception.detector.trained_masks import remark_on_mask, with_own_mask
from sbnet_perception.detector.weights import load_network
from sbnet_perception.masks.road import RoadView

Cloud = Tensor | NDArray[np.float32]
Raster = Tensor | NDArray[np.bool_]
TRUSTED = ("cpu",)
"""Types of devices that need not prove what they compute."""


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
    """Frame in, detections out.

    Attributes:
        remark: what the user should know of these weights under this mask; empty where that is nothing.
    """

    def __init__(self, config: DetectorConfig) -> None:
        """Load the network and pack its weights; have a GPU prove that it computes what the CPU does.

        Warns where ``device: auto`` does without a GPU that is there.

        Raises:
            WeightsError: the weights are missing, corrupt or for something else.
            DeviceError: the device is not there, does not compute what the CPU does, or raises an error.
        """
        self._config = config = with_own_mask(config)
        self.remark = remark_on_mask(config)
        self.grid = config.raster
        device = device_of(config.device, config.dtype)
        if config.threads:
            torch.set_num_threads(config.threads)
        network = load_network(config)
        if fault := self._go_to(device, network):
            if config.device != "auto":
                raise DeviceError(f"device is {config.device!r}, but {fault}, or set device to cpu")
            warnings.warn(f"computing on the CPU: {fault}", RuntimeWarning, stacklevel=2)
            self._go_to(CPU, network)

    @property
    def config(self) -> DetectorConfig:
        """What the next frame is computed with; its mask is never ``auto``."""
        return self._config

    def use(self, config: DetectorConfig) -> None:
        """Takes another configuration for the frames to come; the network stays. Not to be called during a frame.

        Raises:
            ValueError: it differs in more than the fields of `LIVE`.
            WeightsError: those of the mask network that it asks for are missing or wrong; nothing has changed then.
        """
        config = with_own_mask(config)
        if replace(config, **{name: getattr(self._config, name) for name in LIVE}) != self._config:
            raise ValueError(f"only {', '.join(LIVE)} may change; make another Pipeline")
        self.mask_network = prepared_mask_network(config, self.device)
        self.remark = remark_on_mask(config)
        self._config = config
        # A graph has the thresholds and the mask's distances recorded.
        self._graphs = self._new_graphs()

    def _new_graphs(self) -> Graphs | None:
        return Graphs(self.network, self.mask_network, self._config) if Graphs.run_on(self.device) else None

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
            computed, times = compute(self.network, self.mask_network, self._config, inputs, lap=clock.lap), 1
            found, in_range, mask = computed.found, computed.voxels.points, computed.mask
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

    def _go_to(self, device: torch.device, network: Detector) -> str:
        """Sets everything up on a device; returns what is wrong there, and empty where a frame may be computed."""
        fault = ""
        try:
            self.device = device
            self.network = prepared(network, self.config, device)
            self.mask_network = prepared_mask_network(self.config, device)
            self._graphs = self._new_graphs()
            if device.type not in TRUSTED:
                fault = fault_of(network, self.config, self._for_proof)
        except Exception as error:
            if device.type in TRUSTED:
                raise
            fault = f"{type(error).__name__}: {first_line(error)}"
        return fault and f"{device} does not compute what the CPU does ({fault}); tools/gpu_check finds out why"

    def _for_proof(self, inputs: Inputs) -> Computed:
        """A frame as the host sees it."""
        inputs = inputs.to(self.device)
        if not self._graphs:
            return compute(self.network, self.mask_network, self.config, inputs)
        computed, returned, _ = self._graphs(inputs)
        return replace(computed, found=returned.found, voxels=replace(computed.voxels, points=returned.points))

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
