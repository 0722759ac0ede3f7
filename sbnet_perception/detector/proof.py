"""Whether a device computes what the CPU does: two made frames, before any of a sensor.

Kernels that pass all tests elsewhere may be wrong on a GPU on which nobody has run them, or one whose driver, compiler
or memory is at fault, and boxes that are wrong look like boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.blocks import Pixels, Voxels
from sbnet_perception.detector.boxes import Detections, detect, on_host
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.frame import Computed, Inputs, compute
from sbnet_perception.detector.mask_weights import prepared_mask_network
from sbnet_perception.detector.network import Detector, Prediction
from sbnet_perception.masks.road import RoadMap, RoadView

Floats = NDArray[np.floating[Any]]
FRAMES = 2
"""The second one goes through what the first has set up: it shows whether anything of that stays behind."""
CARS, LENGTH, WIDTH = 12, 4.2, 1.8
GROUND_POINTS = 6000
SIDES, ROOF, GROUND = (0.3, 0.5, 0.7, 0.9, 1.1), (1.5,), (-0.1, 0.1)
"""Heights in metres, in the middle of height bins, as points lie in the inner half of cells: rounding moves none."""
MOST_APART = {torch.float32: 0.002, torch.float16: 0.03, torch.bfloat16: 0.25}
"""How far an output of the network may lie from the same in float32, as a share of the standard deviation of its
channel. On the CPU, float16 and bfloat16 differ by up to 0.009 and 0.075 with the shipped weights."""
SAME_BOX = 1e-3
"""Metres, radians and score by which boxes may differ that were made of the same outputs."""


@torch.inference_mode()
def fault_of(network: Detector, config: DetectorConfig, run: Callable[[Inputs], Computed]) -> str:
    """What is wrong with a device; empty where it computes what the CPU does.

    Args:
        network: the detector's, on the CPU.
        run: computes a frame of inputs on the CPU as the device will compute all frames.

    Returns:
        The first thing that differs, with its figures and the tolerance.

    Raises:
        RuntimeError: what the device raises.
    """
    for number, expected in enumerate(on_cpu(network, config)):
        if difference := compared(run(made(config, number)), expected, config):
            return f"made frame {number + 1}: {difference}"
    return ""


@torch.inference_mode()
def on_cpu(network: Detector, config: DetectorConfig) -> list[Computed]:
    """The made frames as the CPU computes them, in float32."""
    prepared, mask_network = network.prepare(torch.float32), prepared_mask_network(config)
    return [compute(prepared, mask_network, config, made(config, number)) for number in range(FRAMES)]


def made(config: DetectorConfig, number: int) -> Inputs:
    """One of `FRAMES`: cars on a plane, with every mask that the configuration asks for."""
    grid, rng = config.raster, np.random.default_rng(number)
    count = CARS // (1 + number)
    clouds = [_in_cells(grid, rng.integers((0, 0), grid.shape, (GROUND_POINTS, 2)), GROUND, rng)]
    clouds += [part for _ in range(count) for part in _car(grid, rng)]
    points = torch.from_numpy(np.concatenate(clouds).astype(np.float32))
    external = torch.from_numpy(rng.random(grid.shape) < 0.05)
    names = config.mask.names
    return Inputs(
        points, _road(grid, 0.3 + number) if "road" in names else None, external if "external" in names else None
    )


def _car(grid: Grid, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Points of two sides and of the roof of a car along x."""
    rows, columns = (max(round(side / grid.resolution), 1) for side in (WIDTH, LENGTH))
    cells = np.indices((rows, columns)).reshape(2, -1).T
    first = rng.integers((0, 0), np.maximum(np.subtract(grid.shape, (rows, columns)), 1))
    sides = cells[(cells[:, 0] == 0) | (cells[:, 1] == 0)]
    roof = cells[(cells[:, 1] > 0.3 * columns) & (rng.random(len(cells)) < 0.4)]
    most = np.subtract(grid.shape, 1)
    return (
        _in_cells(grid, np.minimum(first + np.repeat(sides, len(SIDES), axis=0), most), SIDES, rng),
        _in_cells(grid, np.minimum(first + roof, most), ROOF, rng),
    )


def _in_cells(grid: Grid, cells: NDArray[np.int64], heights: Sequence[float], rng: np.random.Generator) -> Floats:
    """Points x, y, z, intensity float64 [P, 4], one in the inner half of each cell (row, column) int64 [P, 2]."""
    within = cells + rng.uniform(0.25, 0.75, cells.shape)
    x, y = grid.x_min + within[:, 1] * grid.resolution, grid.y_min + within[:, 0] * grid.resolution
    return np.stack([x, y, rng.choice(heights, len(cells)), rng.integers(0, 100, len(cells)) / 256], 1)


def _road(grid: Grid, yaw: float) -> RoadView:
    """A map of stripes, turned about the middle of the region."""
    middle = SE2((grid.x_min + grid.x_max) / 2, (grid.y_min + grid.y_max) / 2, yaw)
    half = float(np.hypot(grid.x_max - grid.x_min, grid.y_max - grid.y_min)) / 2
    side = int(2 * half) + 2
    cells = (torch.arange(side) % 20 < 12)[:, None].expand(side, side).contiguous()
    return RoadView(RoadMap(cells, 1.0, SE2(-side / 2, -side / 2, 0.0)), middle.inverse())


def compared(found: Computed, expected: Computed, config: DetectorConfig) -> str:
    """The first difference of a frame from the CPU's; empty where there is none."""
    return next(_differences(found, expected, config), "")


def _differences(found: Computed, expected: Computed, config: DetectorConfig) -> Iterator[str]:
    """In the order in which they come to be."""
    if cells := int((found.mask.cpu() != expected.mask).sum()):
        yield f"the computation mask differs in {cells} of {expected.mask.numel()} cells"
    for stage, pixels in expected.stages.items():
        yield from _pixels(stage, found.stages[stage], pixels)
    yield from _voxels(found.voxels, expected.voxels)
    yield from _outputs(found, expected)
    yield from _boxes(found, config)


def _pixels(name: str, found: Pixels, expected: Pixels) -> Iterator[str]:
    stored = found.flat[found.flat >= 0].cpu()
    if not torch.equal(stored, expected.flat):
        both = int(torch.isin(stored, expected.flat).sum())
        yield f"{name} has {len(stored)} pixels, {len(expected)} on the CPU, {both} of them the same"


def _voxels(found: Voxels, expected: Voxels) -> Iterator[str]:
    yield from _pixels("the bird's-eye view", found.pixels, expected.pixels)
    if int(found.points) != int(expected.points):
        yield f"of {int(expected.points)} points in the region {int(found.points)} are counted"
    stored = found.pixels.flat >= 0
    same = (found.bits[stored].cpu() == expected.bits) & ((found.last[stored].cpu() - expected.last).abs() < 1e-6)
    if not same.all():
        yield f"{int((~same).sum())} of {len(same)} voxels differ"


def _outputs(found: Computed, expected: Computed) -> Iterator[str]:
    rows = found.rows[found.header.flat >= 0].cpu().float()
    apart = (rows - expected.rows).abs() / expected.rows.std(0).clamp(min=1e-6)
    most = MOST_APART[found.rows.dtype]
    if not (apart <= most).all():
        yield f"the network's outputs are up to {apart.max():.2g} standard deviations apart, more than {most:g}"


def _boxes(found: Computed, config: DetectorConfig) -> Iterator[str]:
    """Those of the same outputs."""
    pixels = replace(found.header, flat=found.header.flat.cpu())
    prediction = Prediction(found.rows.cpu(), pixels, {})
    thresholds, groups = config.thresholds, config.nms_groups
    expected = on_host(detect(prediction, config.raster, thresholds, groups, config.nms_iou, config.max_detections))
    ours = on_host(found.found)
    alike = sum(map(partial(_is_among, expected), ours.boxes, ours.scores))
    if not len(ours) == len(expected) == alike:
        yield f"of {len(ours)} boxes {alike} are among the {len(expected)} that the CPU makes of the same outputs"


def _is_among(detections: Detections, box: Floats, score: np.float32) -> bool:
    apart = np.maximum(np.abs(detections.boxes - box).max(axis=1, initial=0), np.abs(detections.scores - score))
    return bool((apart < SAME_BOX).any())
