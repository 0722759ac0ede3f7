"""The paper in one screen: points to mask to tiles to detections."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import CHANNELS, Voxelizer
from sbnet_perception.detector.boxes import Detections, decode, nms
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import OUTPUT_STRIDE
from sbnet_perception.detector.weights import load_network
from sbnet_perception.masks.computation import computation_mask


@dataclass(frozen=True)
class PipelineResult:
    """What came of one frame.

    Attributes:
        detections: boxes in the grid frame, best first.
        mask: bool [H, W] on the grid, True = compute here; None when the network ran dense.
        computed: bool [H/4, W/4], what the header computed (whole tiles); all True when dense.
        dense: no mask was applied.
        missing_road: the configured mask needs a road mask and none was given.
        points_in_range: points inside the grid.
        sparsity: stage -> share of tiles that were skipped.
        timings_ms: step -> milliseconds, in the order of execution.
    """

    detections: Detections
    mask: NDArray[np.bool_] | None
    computed: NDArray[np.bool_]
    dense: bool
    missing_road: bool
    points_in_range: int
    sparsity: dict[str, float]
    timings_ms: dict[str, float]


class Pipeline:
    """Frame in, detections out."""

    def __init__(self, config: DetectorConfig) -> None:
        """Load the network.

        Raises:
            WeightsError: the weights are missing, corrupt or for something else.
        """
        self.config = config
        self.grid = Grid.named(config.grid)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.network = load_network(config)
        self._voxelize = Voxelizer(self.grid)
        self._warm_up()

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """The first inference allocates and packs weights, for tiles and for masks too full for them."""
        bev = torch.zeros(1, CHANNELS, *self.grid.shape)
        for fill in (True, False):
            self.network(bev, torch.full((1, *self.grid.shape), fill))

    @torch.inference_mode()
    def __call__(self, points: NDArray[np.float32], road: NDArray[np.bool_] | None = None) -> PipelineResult:
        """Detect vehicles.

        Args:
            points: float32 [P, 4] x, y, z (metres, grid frame, z = 0 is the ground) and intensity (0-1).
            road: bool [H, W] on the grid, True = road; None when unknown.
        """
        clock = _Clock()
        # A cheap mask says where to compute.
        where = computation_mask(points, self.grid, road, self.config.mask)
        mask = None if where.mask is None else torch.from_numpy(where.mask)[None]
        clock.lap("mask")
        # The cloud becomes a bird's-eye view.
        bev = self._voxelize(points)
        clock.lap("voxelize")
        # The network computes the active tiles of each stage.
        prediction = self.network(bev, mask)
        clock.lap("network")
        # Active positions become boxes; the better of two that overlap stays.
        detections = decode(prediction, self.grid, self.config.score_threshold)
        detections = nms(detections, self.config.nms_iou, self.config.max_detections)
        clock.lap("decode")
        return PipelineResult(
            detections=detections,
            mask=where.mask,
            computed=self._everywhere() if prediction.computed is None else prediction.computed[0].numpy(),
            dense=where.mask is None,
            missing_road=where.missing_road,
            points_in_range=int(self.grid.cells(points)[2].sum()),
            sparsity={stage: tiles.sparsity for stage, tiles in prediction.tiles.items()},
            timings_ms=clock.laps,
        )

    def _everywhere(self) -> NDArray[np.bool_]:
        height, width = self.grid.shape
        return np.ones((-(-height // OUTPUT_STRIDE), -(-width // OUTPUT_STRIDE)), bool)


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1e3
        self._last = now
