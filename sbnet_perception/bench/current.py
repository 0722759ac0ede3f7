"""What the benches ask of the detector beyond `Pipeline(config)(points, road)`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.bench.inputs import GROUND_FRAME, Scene
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Pixels
from sbnet_perception.blocks.sparse_map import rows_of
from sbnet_perception.detector.boxes import Detections, detect, on_host
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_network import PreparedMaskNetwork
from sbnet_perception.detector.network import Detector, Prediction
from sbnet_perception.detector.pipeline import Pipeline, PipelineResult
from sbnet_perception.detector.trained_masks import with_own_mask
from sbnet_perception.detector.weights import in_dtype, load_network, weights_path
from sbnet_perception.errors import UserError
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig
from sbnet_perception.masks.frame import Frame
from sbnet_perception.masks.predicted import PREDICTED
from sbnet_perception.messages.cdr import Header, Stamp
from sbnet_perception.messages.detections import detections_message
from sbnet_perception.messages.markers import markers_message
from sbnet_perception.messages.occupancy_grid import computation_mask_message

DTYPES = {"float32": ("float32",), "bfloat16": ("bfloat16",), "int8": ("int8",), "both": ("float32", "bfloat16")}
ROAD, OCCUPANCY, ROAD_AND_OCCUPANCY = (EXPRESSIONS[name] for name in ("road", "occupancy", "road_and_occupancy"))


def configured(
    grid: str,
    dtype: str,
    mask: str = "",
    weights: str = "",
    region: Sequence[float] = DetectorConfig.region,
    device: str = "cpu",
    mask_weights: str = "",
) -> DetectorConfig:
    """The detector's configuration; an empty mask is that of the weights.

    Raises:
        ValueError: a value is out of its range; the message names it.
    """
    try:
        where = MaskConfig(mask or MaskConfig.expression, weights=mask_weights)
    except ValueError as error:
        raise ValueError(str(error).replace("expression", "mask", 1)) from None
    config = DetectorConfig(
        grid=grid, region=tuple(region), weights=weights, dtype=dtype, device=device, mask=where  # type: ignore[arg-type]
    )
    return with_own_mask(config)


def dtypes(arguments: argparse.Namespace, masks: Sequence[str] = ("",)) -> tuple[str, ...]:
    """The dtypes asked for.

    Raises:
        UserError: an option of the detector is impossible, before anything is read or measured.
    """
    if arguments.dtype not in DTYPES:
        raise UserError(f"--dtype is {arguments.dtype!r}; use one of {', '.join(DTYPES)}")
    for dtype in DTYPES[arguments.dtype]:
        for mask in masks:
            try:
                configured(arguments.grid, dtype, mask, arguments.weights, arguments.region)
            except ValueError as error:
                raise UserError(f"--{error}") from None
    return DTYPES[arguments.dtype]


def open_pipeline(config: DetectorConfig) -> tuple[Pipeline, str]:
    """The pipeline, and the name of its weights file."""
    return Pipeline(config), weights_path(config).name


def dense_network(pipeline: Pipeline) -> Detector:
    """The pipeline's network as a module, in its `dense_dtype`."""
    return in_dtype(load_network(pipeline.config), dense_dtype(pipeline))


def dense_dtype(pipeline: Pipeline) -> torch.dtype:
    """The pipeline's dtype; float32 stands beside int8, in which PyTorch has no such network."""
    dtype = pipeline.network.dtype
    return torch.float32 if dtype == torch.int8 else dtype


def grid_of(config: DetectorConfig) -> str:
    """The grid's name, and its region where that is not the default one."""
    region = "" if config.region == DetectorConfig.region else "".join(f" {bound:g}" for bound in config.region)
    return config.grid + region


def name_of(dtype: torch.dtype) -> str:
    """As the configuration calls it."""
    return str(dtype).removeprefix("torch.")


def computed(scene: Scene, grid: Grid, mask: str, mask_network: PreparedMaskNetwork | None = None) -> Tensor | None:
    """The computation mask of an expression, bool [H, W]; None where it needs a road that is not known.

    An expression that names ``predicted`` needs the mask network; with any other it does not run.
    """
    config, points = MaskConfig(mask), torch.from_numpy(scene.points)
    predicted = mask_network(points, grid) if mask_network and PREDICTED.name in config.names else None
    where = computation_mask(Frame(points, grid, config, scene.view(), predicted=predicted))
    return None if where.missing else where.mask


def dense_maps(network: Detector, bev: Tensor) -> Tensor:
    """The network's own dense result: logits, size and orientation as [N, classes + 8, h, w]."""
    prediction = network(bev)
    return prediction.rows.view(*prediction.pixels.size, -1).permute(0, 3, 1, 2)


def detections(pipeline: Pipeline, maps: Tensor) -> Detections:
    """Decoding and suppression of the whole map [1, classes + 8, h, w]."""
    config, pixels = pipeline.config, Pixels.all((1, *maps.shape[2:]))
    prediction = Prediction(rows_of(maps), pixels, {})
    thresholds, groups = config.thresholds, config.nms_groups
    return on_host(detect(prediction, pipeline.grid, thresholds, groups, config.nms_iou, config.max_detections))


def sparse_network(
    pipeline: Pipeline, points: NDArray[np.float32], mask: Tensor, lap: Callable[[str], None]
) -> None:
    """Runs the network under any mask; calls ``lap`` with "voxelize", "tiles", and then each stage when it is done."""
    bev = voxels(torch.from_numpy(points), pipeline.grid)
    lap("voxelize")
    tiles = pipeline.network.tiles(mask[None])
    lap("tiles")
    pipeline.network.predict(bev, tiles, lap)


def publisher(pipeline: Pipeline) -> Callable[[PipelineResult], object]:
    """Builds the messages of a result as the node does."""
    header, classes = Header(Stamp(0, 0), GROUND_FRAME), pipeline.config.classes

    def build(result: PipelineResult) -> object:
        return (
            detections_message(header, result.detections, classes),
            markers_message(header, result.detections, classes, 1.0),
            computation_mask_message(header, result.computed.cpu().numpy(), pipeline.grid, 0.0),
        )

    return build
