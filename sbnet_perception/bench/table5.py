"""`sbnet reproduce table5`: the trainings, one after the other, and what their weights reach on held-out drives."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from sbnet_perception.bench import table5_speed
from sbnet_perception.bench.measure import Row, with_steady_memory
from sbnet_perception.bench.screen import closing
from sbnet_perception.bench.table5_report import Figures, report
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import device_of
from sbnet_perception.errors import UserError
from sbnet_perception.learning.evaluate import (
    HELD_OUT,
    RATE_HZ,
    SECONDS,
    evaluate_simulated,
    frames_of_drives,
    pipeline_under,
)
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.train import make_weights
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.masks.config import EXPRESSIONS, MaskConfig

ROAD, PREDICTED, EVERYWHERE = EXPRESSIONS["road"], EXPRESSIONS["predicted"], "everywhere"
ASKED = ("on the road", "all")
MASK_NETWORK = "mask"

TRAININGS: dict[str, dict[str, Any]] = {
    "road": {"mask": ROAD},
    MASK_NETWORK: {"mask_network": True},
    "predicted": {"mask": PREDICTED},
    "dense": {"mask": EVERYWHERE},
    "dense_road_loss": {"mask": EVERYWHERE, "loss_mask": ROAD},
}
"""Name -> what sets it apart from the others; the cheap ones first."""


@dataclass(frozen=True)
class Line:
    """A line of the table: which training's weights, and the mask that they run under."""

    name: str
    weights: str
    mask: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The trainings that have to be done before."""
        return (self.weights, MASK_NETWORK) if self.mask == "predicted" else (self.weights,)


LINES = (
    Line("Dense", "dense", EVERYWHERE),
    Line("Dense, loss on the road only", "dense_road_loss", EVERYWHERE),
    Line("SBNet + road", "road", "road"),
    Line("SBNet + predicted", "predicted", "predicted"),
    Line("Dense weights run under road", "dense", "road"),
    Line("Dense weights, loss on the road only, run under road", "dense_road_loss", "road"),
    Line("Dense weights run under predicted", "dense", "predicted"),
)
"""The paper's four, and what it did not ask: is it the training with the mask that matters, or the mask alone?"""


class Reproduction:
    """The folder of a reproduction and what is done in it."""

    def __init__(self, folder: Path, base: TrainConfig, console: Console) -> None:
        """``base`` is what all trainings share.

        Raises:
            UserError: the folder holds trainings of another ``base``.
        """
        self.folder, self.base, self.console = folder, base, console
        folder.mkdir(parents=True, exist_ok=True)
        shared, kept = json.loads(json.dumps(asdict(base))), folder / "options.json"
        if kept.exists() and (before := json.loads(kept.read_text())) != shared:
            differ = ", ".join(f"{name} {before.get(name)}" for name in shared if before.get(name) != shared[name])
            raise UserError(f"{folder} holds trainings with {differ}; use the same options, or another --out")
        kept.write_text(json.dumps(shared, indent=1) + "\n")
        self._frames: list[LabelledFrame] = []

    def weights(self, training: str, seed: int) -> Path:
        return self.folder / f"{training}-{seed}.safetensors"

    def config(self, training: str, seed: int) -> TrainConfig:
        """What a training is done with."""
        of_mask = str(self.weights(MASK_NETWORK, seed)) if training == "predicted" else ""
        return replace(self.base, seed=seed, mask_weights=of_mask, **TRAININGS[training])

    def frames(self) -> list[LabelledFrame]:
        """Of the held-out drives; nothing is chosen on them."""
        if not self._frames:
            drives, count = frames_of_drives(HELD_OUT), int(SECONDS * RATE_HZ) * len(HELD_OUT)
            self._frames = list(track(drives, "held-out drives", total=count, console=self.console))
        return self._frames

    def detector(self, line: Line, seed: int) -> DetectorConfig:
        """The configuration that a line runs with, but for the mask's expression."""
        mask = MaskConfig(weights=str(self.weights(MASK_NETWORK, seed)))
        weights = str(self.weights(line.weights, seed))
        return DetectorConfig(grid=self.base.grid, weights=weights, dtype="float32", device="cpu", mask=mask)

    def figures(self, seeds: int) -> Figures:
        """What is known of every line and seed; measures what can be measured and is not yet."""
        known: Figures = {}
        for number, line in ((number, line) for number in range(1, seeds + 1) for line in LINES):
            file = self.folder / f"{LINES.index(line) + 1}-{number}.json"
            if _is_due(file, [self.weights(name, number) for name in line.needs]):
                config = self.detector(line, number)
                under = {line.name: pipeline_under(config, line.mask)}
                shown = track(self.frames(), line.name, console=self.console)
                results = evaluate_simulated(under, shown, config.thresholds, lambda _: ASKED)
                _write(file, [{**asdict(result), "mask": line.mask} for result in results])
            if file.exists():
                known[line.name, number] = json.loads(file.read_text())
        return known

    def speed(self) -> list[Row]:
        """Times of the network under each mask, with the weights of seed 1; none before these are there."""
        file, lines = self.folder / "speed.json", LINES[:4]
        if _is_due(file, [self.weights(name, 1) for line in lines for name in line.needs]):
            self.console.print("measuring the speed-up")
            of_mask = {line.mask: pipeline_under(self.detector(line, 1), line.mask) for line in (lines[0], *lines[2:])}
            _write(file, table5_speed.measure(of_mask, self.frames()))
        rows: list[Row] = json.loads(file.read_text()) if file.exists() else []
        return rows


class Pace:
    """How long the trainings that are left will take, as far as this run can tell."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def took(self, training: str, seconds: float) -> None:
        self._seconds[training] = seconds

    def left(self, trainings: Sequence[str]) -> str:
        if not self._seconds:
            return ""
        mean = float(np.mean(list(self._seconds.values())))
        hours = sum(self._seconds.get(name, mean) for name in trainings) / 3600
        return f"; about {hours:.1f} h left in all"


def run(arguments: argparse.Namespace) -> int:
    base = TrainConfig(
        grid=arguments.grid,
        scenes=arguments.scenes,
        steps=arguments.steps,
        batch=arguments.batch,
        scene_seed=arguments.scene_seed,
    )
    device = device_of(arguments.device)
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, pace = Console(), Pace()
    work = Reproduction(arguments.out, base, console)
    plan = [(name, seed) for seed in range(1, arguments.seeds + 1) for name in TRAININGS]
    for number, (name, seed) in enumerate(plan):
        if not (out := work.weights(name, seed)).exists():
            left = [name for name, seed in plan[number:] if not work.weights(name, seed).exists()]
            console.print(f"training {number + 1} of {len(plan)}: {name}, seed {seed}{pace.left(left)}")
            whole, began = not out.with_suffix(".checkpoint").exists(), time.monotonic()
            make_weights(work.config(name, seed), out, work.folder, device)
            out.with_suffix(".checkpoint").unlink(missing_ok=True)  # else a deleted file would not be trained again
            if whole:
                pace.took(name, time.monotonic() - began)
        table = report(work.figures(seed), work.speed(), base, work.folder)
        if name == list(TRAININGS)[-1]:
            console.print(table, highlight=False)
    closing(work.speed(), console)
    console.print(f"wrote {work.folder}/table5.json and table5.md")
    return 0


def _is_due(file: Path, weights: Sequence[Path]) -> bool:
    """Whether what is measured with weights that are all there is missing, or older than one of them."""
    if not all(path.exists() for path in weights):
        return False
    return not file.exists() or any(path.stat().st_mtime > file.stat().st_mtime for path in weights)


def _write(path: Path, content: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)
