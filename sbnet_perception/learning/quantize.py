"""`sbnet quantize`: finds what a level of each map is worth, so that weights can be used with ``dtype: int8``.

The network sees simulated scenes in float32, and the largest value of each channel is kept. Between the steps that give
each channel all levels and those that give all channels of a map the same, their geometric mean is taken: the first
round the weights of small channels, the second their values.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from sbnet_perception.bev.grid import NAMED_RESOLUTIONS
from sbnet_perception.blocks import Prepared, SparseMap, Stage, Tiles, layer_plain
from sbnet_perception.blocks.layers import output_pixels
from sbnet_perception.blocks.pixels import strided
from sbnet_perception.detector.classes import CLASSES
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector, PreparedDetector
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.quantized import SKIPS, STAGES, Steps, channels_of_maps, step_of
from sbnet_perception.detector.quantized_weights import save_steps
from sbnet_perception.detector.weights import WeightsError, load_network, read_metadata
from sbnet_perception.errors import UserError
from sbnet_perception.learning.frames import LabelledFrame, simulated_frame
from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.simulator.sensors import randomised_sensor

SCENES, FIRST_SEED = 24, 6_000_000
"""Scenes that are neither trained on nor measured on."""


class Largest:
    """The largest amount of each channel of the maps so far."""

    def __init__(self) -> None:
        self.of: dict[str, Tensor] = {}

    def take(self, name: str, rows: Tensor) -> Tensor:
        """Counts rows [P, C] in and returns them."""
        if len(rows):
            largest = rows.abs().amax(0)
            self.of[name] = torch.maximum(self.of.get(name, largest), largest)
        return rows


def observed(network: Detector, seen: Largest) -> PreparedDetector:
    """The network in float32; ``seen`` takes the maps that `channels_of_maps` names."""
    plain = network.prepare(torch.float32)
    layers: dict[str, Any] = {name: _layer(name, getattr(plain, name), seen) for name in SKIPS}
    for name in ("conv1", "header"):
        layers[name] = [_layer(f"{name}.{i}", layer, seen) for i, layer in enumerate(getattr(plain, name))]
    for name in STAGES:
        layers[name] = _stage(name, getattr(network, name), seen)
    return replace(plain, **layers)


def _layer(name: str, layer: Prepared, seen: Largest) -> Prepared:
    def run(*arguments: Any) -> SparseMap:
        if name in SKIPS:
            seen.take(f"{name}.skip", arguments[-2].values)  # before it stands x, if there is one; behind it the tiles
        y = layer(*arguments)
        seen.take(name, y.values)
        return y

    return run


def _stage(name: str, stage: Stage, seen: Largest) -> Prepared:
    units: list[Any] = list(stage.units)

    def run(x: SparseMap, tiles: Tiles) -> SparseMap:
        output = output_pixels(tiles, strided(x.pixels.size, units[0].stride))
        for i, unit in enumerate(units):
            convolutions = [c.weight for c in (unit.reduce, unit.conv, unit.expand, unit.project) if c is not None]
            norms = [_norm(f"{name}.units.{i}.norm{n}", getattr(unit, f"norm{n}"), seen) for n in (1, 2, 3)]
            y = layer_plain.residual_unit(x.values, x.pixels, output, unit.stride, convolutions, norms)
            x = SparseMap(y, output)
        return x

    return run


def _norm(name: str, norm: Any, seen: Largest) -> layer_plain.Rows:
    return lambda rows: seen.take(name, norm.rows(rows).relu())


def steps_on(config: DetectorConfig, frames: Iterable[LabelledFrame]) -> Steps:
    """What the levels of the configured network should be worth, seen on some frames under the configured mask."""
    pipeline, network, seen = Pipeline(config), load_network(config), Largest()
    pipeline.network = observed(network, seen)
    for frame in frames:
        pipeline(frame.points, frame.road)
    missing = [name for name in channels_of_maps(network) if name not in seen.of]
    if missing:
        raise ValueError(f"no frame has a pixel of {', '.join(missing)}")
    return {name: step_of(name, seen.of[name]) for name in channels_of_maps(network)}


def scene(seed: int, config: DetectorConfig) -> LabelledFrame:
    """A simulated scene of any sensor, in the configured region."""
    scan, road = sample_scene(seed, config.raster.bounds, randomised_sensor)
    return simulated_frame(scan, road, f"scene {seed}", config.objects)


def config_for(weights: Path) -> DetectorConfig:
    """The configuration that a weights file is for.

    Raises:
        WeightsError: it is none, or for cells or classes that no configuration has.
    """
    about = read_metadata(weights)
    size, classes = about["cell_size"], tuple(entry["name"] for entry in about["classes"])
    grids = [name for name, resolution in NAMED_RESOLUTIONS.items() if abs(resolution - size) < 1e-6]
    if not grids or not set(classes) <= set(CLASSES):
        raise WeightsError(f"weights: {weights} is for cells of {size:g} m and classes {classes}, unknown here")
    return DetectorConfig(grid=grids[0], weights=str(weights), classes=classes, device="cpu", dtype="float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file of sbnet train or sbnet adapt")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write: the same weights, and scales beside them")


def _check_out(out: Path) -> None:
    """Raises UserError, before the scenes are made, where ``out`` cannot be written."""
    if out.is_dir():
        raise UserError(f"OUT is {out}, a folder; name a file to write in it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"OUT is {out}, whose folder cannot be made ({error.strerror}); choose another") from None
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"OUT is {out}, but nothing can be written to {out.parent}; choose another folder")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.weights.is_file():
        raise UserError(f"there is no file {arguments.weights}; give a weights file, as weights/compact.safetensors")
    _check_out(arguments.out)
    config = config_for(arguments.weights)
    seeds = track(range(FIRST_SEED, FIRST_SEED + SCENES), "simulated scenes", console=Console(stderr=True))
    steps = steps_on(config, (scene(seed, config) for seed in seeds))
    save_steps(arguments.weights, arguments.out, steps, {"scenes": SCENES, "first_seed": FIRST_SEED})
    print(f"wrote {arguments.out}; measure it with 'sbnet evaluate --weights {arguments.out} --dtype int8'")
    return 0
