"""Training on for a known sensor within a time: how much of what, and what it gained."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.trained_masks import masks_of
from sbnet_perception.errors import UserError
from sbnet_perception.learning.evaluate import SimulatedResult, evaluate_simulated, own_masks, pipeline_under
from sbnet_perception.learning.frames import LabelledFrame, simulated_frame
from sbnet_perception.learning.scenes import SHARD
from sbnet_perception.learning.sensor import KnownSensor, read_sensor
from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.train import train
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer

HELD_OUT = 9_500_001
"""Seed of the first scene that measures; no training has seen it."""
PROBE = 12
"""Steps that tell how long one takes."""
SIMULATING = 0.15
"""Share of the time for simulating scenes; the rest is for training on them, each about four times."""
MOST_SCENES = 4000
LEARNING_RATE = 5e-4
"""Peak; a quarter of what a training from nothing begins with."""


@dataclass(frozen=True)
class Plan:
    """Scenes to simulate and steps to train, and what that is based on: seconds for each, and the minutes given."""

    scenes: int
    steps: int
    scene_seconds: float
    step_seconds: float
    minutes: float


def training(detector: DetectorConfig, start: Path, sensor: Path) -> TrainConfig:
    """A short training that goes on from the weights ``start`` with scenes of the sensor's file."""
    return TrainConfig(
        grid=detector.grid,
        region=detector.region,
        classes=detector.classes,
        start=str(start),
        mask=tuple(masks_of(start)) or TrainConfig.mask,
        sensor=str(sensor),
        learning_rate=LEARNING_RATE,
        crop=min(TrainConfig.crop, detector.raster.width // 16 * 16),
        crop_rows=min(TrainConfig.crop_rows, detector.raster.height // 16 * 16),
        scenes=SHARD,
        steps=PROBE,
        scene_seed=2_000_000,
    )


def make_plan(config: TrainConfig, work: Path, seconds: float, minutes: float) -> Plan:
    """What fits into the seconds left of the minutes on this machine, by trying: the first scenes and some steps."""
    began = time.monotonic()
    scene_seconds = _scene_seconds(config)
    probe = work / "probe.checkpoint"
    probe.unlink(missing_ok=True)
    # The scenes are simulated in the first of two trainings, so that the second tells of the steps alone.
    train(replace(config, steps=1), work / "scenes", probe)
    probe.unlink()
    started = time.monotonic()
    train(config, work / "scenes", probe)
    step_seconds = (time.monotonic() - started) / config.steps
    probe.unlink()
    left = seconds - (time.monotonic() - began)
    return planned(left, scene_seconds, step_seconds, minutes)


def planned(seconds: float, scene_seconds: float, step_seconds: float, minutes: float) -> Plan:
    """What fits into the time.

    Raises:
        UserError: not even a few steps fit.
    """
    scenes = SHARD * int(min(seconds * SIMULATING / scene_seconds, MOST_SCENES) // SHARD)
    scenes = max(scenes, SHARD)
    steps = int((seconds - scenes * scene_seconds) / step_seconds)
    if steps < PROBE:
        needed = math.ceil((2 * SHARD * scene_seconds + 2 * PROBE * step_seconds) / 60) + 1
        raise UserError(f"no time is left to train in; give --minutes at least {needed} more than now")
    return Plan(scenes, steps, scene_seconds, step_seconds, minutes)


def train_on(config: TrainConfig, plan: Plan, work: Path) -> Trainer:
    """Carries out the plan, going on where an interrupted run stopped."""
    return train(replace(config, scenes=plan.scenes, steps=plan.steps), work / "scenes", work / "train.checkpoint")


def held_out(sensor: Path, detector: DetectorConfig, count: int) -> list[LabelledFrame]:
    """Simulated frames of the sensor alone, a little varied, that no training has seen."""
    only = replace(read_sensor(sensor), others=0.0)
    return [
        _frame(seed, detector, only)
        for seed in track(range(HELD_OUT, HELD_OUT + count), "scenes to measure on", console=Console(stderr=True))
    ]


def measured(detector: DetectorConfig, frames: list[LabelledFrame]) -> list[SimulatedResult]:
    """The figures of the configured weights on the frames under their own mask, without a map."""
    shown = track(frames, "measuring", console=Console(stderr=True))
    mask = own_masks(detector)[-1]
    return evaluate_simulated({mask: pipeline_under(detector, mask)}, shown, detector.thresholds)


def read_plan(path: Path) -> Plan:
    """The plan of an interrupted run."""
    return Plan(**json.loads(path.read_text(encoding="utf-8")))


def write_plan(plan: Plan, path: Path) -> None:
    """For `read_plan`."""
    path.write_text(json.dumps(asdict(plan)) + "\n", encoding="utf-8")


def _frame(seed: int, detector: DetectorConfig, sensor: KnownSensor) -> LabelledFrame:
    scan, road = sample_scene(seed, detector.raster.bounds, sensor)
    return simulated_frame(scan, road, f"scene {seed}", detector.objects)


def _scene_seconds(config: TrainConfig) -> float:
    """How long a scene takes where all processors simulate."""
    assert config.sensor
    sensor, bounds = read_sensor(Path(config.sensor)), config.detector.raster.bounds
    # The first pays for loading.
    times = []
    for seed in range(HELD_OUT - 9, HELD_OUT):
        began = time.monotonic()
        sample_scene(seed, bounds, sensor)
        times.append(time.monotonic() - began)
    return float(np.mean(times[1:])) / (os.cpu_count() or 1)
