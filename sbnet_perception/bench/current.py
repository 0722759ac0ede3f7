"""What the benches ask of the detector beyond `Pipeline(config)(points, road)`."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.bench.inputs import GROUND_FRAME, Scene
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Pixels
from sbnet_perception.detector.boxes import Detections, decode, nms
from sbnet_perception.detector.config import DetectorConfig, NetworkConfig
from sbnet_perception.detector.network import Detector, Prediction, initialize
from sbnet_perception.detector.pipeline import Pipeline, PipelineResult
from sbnet_perception.detector.weights import WeightsError, save_weights, weights_path
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig
from sbnet_perception.messages.raw_cloud import Header, Stamp

ROAD, OCCUPANCY, ROAD_AND_OCCUPANCY = (EXPRESSIONS[name] for name in ("road", "occupancy", "road_and_occupancy"))
SEED = 0


def configured(
    grid: str, dtype: str, mask: str = "", weights: str = "", region: Sequence[float] = DetectorConfig.region
) -> DetectorConfig:
    """The detector's configuration; an empty mask is the default one.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """
    try:
        where = MaskConfig(expression=mask) if mask else MaskConfig()
    except ValueError as error:
        raise ValueError(str(error).replace("expression", "mask", 1)) from None
    return DetectorConfig(grid=grid, region=tuple(region), weights=weights, dtype=dtype, mask=where)  # type: ignore[arg-type]


def open_pipeline(config: DetectorConfig) -> tuple[Pipeline, str]:
    """The pipeline, and where its weights are from: seeded ones where none are given and none shipped."""
    try:
        weights = weights_path(config)
    except WeightsError:
        if config.weights:
            raise
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "seeded.safetensors"
            network = initialize(Detector(len(config.classes), NetworkConfig()), SEED)
            save_weights(file, network, config.cell_size, config.objects, {"seed": SEED})
            return Pipeline(replace(config, weights=str(file))), f"untrained, seed {SEED}"
    return Pipeline(config), weights.name


def grid_of(config: DetectorConfig) -> str:
    """The grid's name, and its region where that is not the default one."""
    region = "" if config.region == DetectorConfig.region else "".join(f" {bound:g}" for bound in config.region)
    return config.grid + region


def dtype_of(pipeline: Pipeline) -> torch.dtype:
    """In which the network computes."""
    return pipeline.network.logits.weight.dtype


def name_of(dtype: torch.dtype) -> str:
    """As the configuration calls it."""
    return str(dtype).removeprefix("torch.")


def computed(scene: Scene, grid: Grid, mask: str) -> Tensor | None:
    """The computation mask of an expression, bool [H, W]; None where it needs a road that is not known."""
    config = configured("compact", "float32", mask).mask
    where = computation_mask(torch.from_numpy(scene.points), grid, scene.view(), config)
    return None if where.missing_road else where.mask


def dense_maps(network: Detector, bev: Tensor) -> Tensor:
    """The network's own dense result: logits, size and orientation as [N, classes + 8, h, w]."""
    prediction = network(bev)
    rows = torch.cat([prediction.logits, prediction.size, prediction.orientation], 1)
    return rows.view(*prediction.pixels.size, -1).permute(0, 3, 1, 2)


def detections(pipeline: Pipeline, maps: Tensor) -> Detections:
    """Decoding and suppression of the whole map [1, classes + 8, h, w]."""
    config, classes = pipeline.config, maps.shape[1] - 8
    rows = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])
    pixels = Pixels.all((1, *maps.shape[2:]))
    logits, size, orientation = rows.split([classes, 6, 2], 1)
    prediction = Prediction(logits, size, orientation, pixels, {})
    return nms(decode(prediction, pipeline.grid, min(config.thresholds)), config.nms_iou, config.max_detections)


def sparse_network(
    pipeline: Pipeline, points: NDArray[np.float32], mask: Tensor, lap: Callable[[str], None]
) -> None:
    """Runs the network under any mask; calls ``lap`` with "voxelize", "tiles", and then each stage when it is done."""
    bev = voxels(torch.from_numpy(points), pipeline.grid)
    lap("voxelize")
    tiles = pipeline.network.tiles(mask[None])
    lap("tiles")
    pipeline.network.predict(bev, tiles, lap)


def publisher(pipeline: Pipeline) -> Callable[[PipelineResult], object] | None:
    """Builds the messages of a result as the node does; None where ROS is not installed."""
    try:
        messages = importlib.import_module("sbnet_perception.messages.outgoing")
    except ImportError:
        return None
    header, classes = Header(Stamp(0, 0), GROUND_FRAME), pipeline.config.classes

    def build(result: PipelineResult) -> object:
        return (
            messages.detections_message(header, result.detections, classes),
            messages.markers_message(header, result.detections, classes),
            messages.computation_mask_message(header, result.computed, pipeline.grid, 0.0),
        )

    return build
