"""The paper in one screen: points to mask to tiles to boxes, all of it on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Pixels, Voxels
from sbnet_perception.detector.boxes import Found, detect
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_network import PreparedMaskNetwork
from sbnet_perception.detector.network import PreparedDetector
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.frame import Frame
from sbnet_perception.masks.road import RoadView


@dataclass(frozen=True)
class Inputs:
    """What a frame is computed from, on the device.

    Attributes:
        points: float32 [P, 4] x, y, z (metres, grid frame, z = 0 is the ground) and intensity (0-1); rows of NaN do not
            count.
        road: bool [H, W] on the grid, True = road, or a view of the map; None when unknown.
        external: the same of a mask that somebody else has made.
    """

    points: Tensor
    road: RoadView | Tensor | None = None
    external: RoadView | Tensor | None = None

    def to(self, device: torch.device) -> Inputs:
        """The same there."""
        return Inputs(self.points.to(device), _on(self.road, device), _on(self.external, device))


def _on(raster: RoadView | Tensor | None, device: torch.device) -> RoadView | Tensor | None:
    if isinstance(raster, RoadView):
        return RoadView(raster.road.to(device), raster.map_from_grid)
    return None if raster is None else raster.to(device)


@dataclass(frozen=True)
class Room:
    """Rows of a frame's buffers, so that their sizes do not depend on it; only the kernels of a GPU know them.

    Attributes:
        voxels: of the occupied cells.
        stages: of the pixels of each stage's map, conv-1 first.
    """

    voxels: int
    stages: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Computed:
    """What came of one frame, on the device.

    Attributes:
        found: the boxes, as `detect` returns them.
        mask: bool [H, W] on the grid, True = compute here.
        rows: what the network says of each pixel of the header, as in `Prediction`.
        header: the pixels at stride 4 that were computed.
        stages: stage -> the pixels of its map.
        voxels: the bird's-eye view, and how many points are in it.
        dense: no mask was applied: everything was computed.
        missing: the masks that the configured expression names and that were not given.
    """

    found: Found
    mask: Tensor
    rows: Tensor
    header: Pixels
    stages: dict[str, Pixels]
    voxels: Voxels
    dense: bool
    missing: tuple[str, ...]


def compute(
    network: PreparedDetector,
    mask_network: PreparedMaskNetwork | None,
    config: DetectorConfig,
    inputs: Inputs,
    room: Room | None = None,
    lap: Callable[[str], None] = lambda step: None,
) -> Computed:
    """One frame; with ``room`` nothing waits for the device. ``lap`` gets the name of each step when it is done."""
    grid = config.raster
    # A cheap mask says where to compute.
    predicted = None if mask_network is None else mask_network(inputs.points, grid)
    where = computation_mask(Frame(inputs.points, grid, config.mask, inputs.road, inputs.external, predicted))
    mask = where.mask
    if mask is None:
        mask = torch.ones(grid.shape, dtype=torch.bool, device=inputs.points.device)
    tiles = network.tiles(mask, None if room is None else room.stages)
    lap("mask")
    # The cloud becomes a bird's-eye view.
    bev = voxels(inputs.points, grid, None if room is None else room.voxels)
    lap("voxelize")
    # The network computes the active tiles of each stage.
    prediction = network.predict(bev, tiles, lap)
    # Active positions become boxes; the better of two that overlap stays.
    found = detect(prediction, grid, config.thresholds, config.nms_groups, config.nms_iou, config.max_detections)
    lap("nms")
    return Computed(
        found=found,
        mask=mask,
        rows=prediction.rows,
        header=prediction.pixels,
        stages={stage: of_stage.pixels for stage, of_stage in tiles.items()},
        voxels=bev,
        dense=where.mask is None,
        missing=where.missing,
    )
