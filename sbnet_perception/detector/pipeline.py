"""The paper in one screen: points to mask to tiles to detections."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.detector.boxes import Detections, decode, nms
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Prediction
from sbnet_perception.detector.weights import load_network
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.road import RoadView


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
        self.grid = config.raster
        if config.threads:
            torch.set_num_threads(config.threads)
        self.network = load_network(config)
        self._warm_up()

    @torch.inference_mode()
    def _warm_up(self) -> None:
        """The first inference packs weights: on a few pixels, or on all where the configuration asks for all."""
        corner = torch.zeros(self.grid.shape, dtype=torch.bool)
        corner[:64, :64] = True
        nothing = torch.zeros((0, 4))
        self._compute(nothing, corner if self.config.mask.names else None, _Clock())

    @torch.inference_mode()
    def __call__(
        self,
        points: NDArray[np.float32],
        road: NDArray[np.bool_] | RoadView | None = None,
        predicted: NDArray[np.bool_] | None = None,
    ) -> PipelineResult:
        """Detect vehicles.

        Args:
            points: float32 [P, 4] x, y, z (metres, grid frame, z = 0 is the ground) and intensity (0-1).
            road: bool [H, W] on the grid, True = road, or a view of the map; None when unknown.
            predicted: bool [H, W], what the mask expression calls ``predicted``.
        """
        clock = _Clock()
        # A cheap mask says where to compute.
        cloud = _tensor(np.asarray(points, np.float32))
        on_road = road if road is None or isinstance(road, RoadView) else _tensor(road)
        expected = None if predicted is None else _tensor(predicted)
        where = computation_mask(cloud, self.grid, on_road, self.config.mask, expected)
        prediction, count = self._compute(cloud, where.mask, clock)
        # Active positions become boxes; the better of two that overlap stays.
        detections = decode(prediction, self.grid, min(self.config.thresholds))
        detections = nms(detections, self.config.nms_iou, self.config.max_detections)
        clock.lap("nms")
        return PipelineResult(
            detections=detections,
            mask=None if where.mask is None else where.mask.numpy(),
            computed=prediction.pixels.mask()[0].numpy(),
            dense=where.mask is None,
            missing_road=where.missing_road,
            points_in_range=count,
            sparsity={stage: tiles.sparsity for stage, tiles in prediction.tiles.items()},
            timings_ms=clock.laps,
        )

    def _compute(
        self, points: torch.Tensor, mask: torch.Tensor | None, clock: _Clock
    ) -> tuple[Prediction, int]:
        """The network's prediction where ``mask`` is True, and how many points it has seen."""
        tiles = {} if mask is None else self.network.tiles(mask)
        clock.lap("mask")
        # The cloud becomes a bird's-eye view.
        seen = voxels(points, self.grid)
        bev = seen if tiles else seen.dense().to(self.network.logits.weight.dtype)
        clock.lap("voxelize")
        # The network computes the active tiles of each stage.
        return self.network.predict(bev, tiles, clock.lap), int(seen.points)


def _tensor(array: NDArray) -> torch.Tensor:
    """The array as a tensor, copied only where torch cannot share its memory."""
    steps = all(step >= 0 and step % array.itemsize == 0 for step in array.strides)
    return torch.from_numpy(array if steps and array.flags.writeable else array.copy())


class _Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1e3
        self._last = now
