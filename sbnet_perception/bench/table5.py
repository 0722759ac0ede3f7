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
from sbnet_perception.detector.mask_weights import load_mask_network
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import BOXES
from sbnet_perception.learning.datasets.registry import open_data
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
from sbnet_perception.resources import weights_named

ROAD, ROAD_AND_OCCUPANCY, PREDICTED = (EXPRESSIONS[name] for name in ("road", "road_and_occupancy", "predicted"))
EVERYWHERE = "everywhere"
ASKED = ("on the road", "all")
MASK_NETWORK = "mask"

TRAININGS: dict[str, dict[str, Any]] = {
    "road_and_occupancy": {"mask": (ROAD_AND_OCCUPANCY,)},
    "road": {"mask": (ROAD,)},
    MASK_NETWORK: {"mask_network": True},
    "predicted": {"mask": (PREDICTED,)},
    "dense": {"mask": (EVERYWHERE,)},
    "dense_road_loss": {"mask": (EVERYWHERE,), "loss_mask": ROAD},
}
"""Name -> what sets it apart from the others; the cheap ones first."""


@dataclass(frozen=True)
class Line:
    """A line of the table: which training's weights, and the mask that they run under."""

    name: str
    weights: str
    mask: str


LINES = (
    Line("Dense", "dense", EVERYWHERE),
    Line("Dense, loss on the road only", "dense_road_loss", EVERYWHERE),
    Line("SBNet + road", "road", "road"),
    Line("SBNet + predicted", "predicted", "predicted"),
    Line("SBNet + road and occupancy", "road_and_occupancy", "road_and_occupancy"),
    Line("Dense weights run under road", "dense", "road"),
    Line("Dense weights, loss on the road only, run under road", "dense_road_loss", "road"),
    Line("Dense weights run under predicted", "dense", "predicted"),
    Line("Dense weights run under road and occupancy", "dense", "road_and_occupancy"),
)
"""The paper's four; this package's mask; and what the paper did not ask: is it the training with the mask that matters,
or the mask alone?"""
TIMED = ("Dense", "SBNet + road", "SBNet + predicted", "SBNet + road and occupancy")


class Reproduction:
    """The folder of a reproduction and what is done in it."""

    def __init__(self, folder: Path, base: TrainConfig, console: Console, measured_on: str = "") -> None:
        """``base`` is what all trainings share; ``measured_on`` names a data set, or is empty for the held-out drives.

        Raises:
            UserError: the folder holds trainings of another ``base``, or figures of another data set.
        """
        self.folder, self.base, self.console, self.measured_on = folder, base, console, measured_on
        folder.mkdir(parents=True, exist_ok=True)
        shared = json.loads(json.dumps({**asdict(base), "measured_on": measured_on}))
        kept = folder / "options.json"
        if kept.exists() and (before := json.loads(kept.read_text())) != shared:
            differ = ", ".join(f"{name} {before.get(name)}" for name in shared if before.get(name) != shared[name])
            raise UserError(f"{folder} holds trainings with {differ}; use the same options, or another --out")
        kept.write_text(json.dumps(shared, indent=1) + "\n")
        self._frames: list[LabelledFrame] = []

    @property
    def trainings(self) -> list[str]:
        """Those of each seed."""
        given = {MASK_NETWORK} if self.base.mask_weights else set()
        return [name for name in TRAININGS if name not in given]

    def weights(self, training: str, seed: int) -> Path:
        """The file of a training, or that of a given mask network."""
        if training == MASK_NETWORK and self.base.mask_weights:
            return weights_named(self.base.mask_weights)
        return self.folder / f"{training}-{seed}.safetensors"

    def needed(self, line: Line, seed: int) -> list[Path]:
        """The files that a line is measured with."""
        names = [line.weights, MASK_NETWORK] if line.mask == "predicted" else [line.weights]
        return [self.weights(name, seed) for name in names]

    def config(self, training: str, seed: int) -> TrainConfig:
        """What a training is done with."""
        of_mask = str(self.weights(MASK_NETWORK, seed)) if training == "predicted" else ""
        start = "" if training == MASK_NETWORK else self.base.start
        return replace(self.base, seed=seed, mask_weights=of_mask, start=start, **TRAININGS[training])

    def frames(self) -> list[LabelledFrame]:
        """Of the data set or the held-out drives; nothing is chosen on them."""
        if not self._frames and self.measured_on:
            self._frames = frames_with_roads(self.measured_on, self.console)
        elif not self._frames:
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
            if _is_due(file, self.needed(line, number)):
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
        file, lines = self.folder / "speed.json", [line for line in LINES if line.name in TIMED]
        if _is_due(file, [path for line in lines for path in self.needed(line, 1)]):
            self.console.print("measuring the speed-up")
            of_mask = {line.mask: pipeline_under(self.detector(line, 1), line.mask) for line in lines}
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


def frames_with_roads(text: str, console: Console) -> list[LabelledFrame]:
    """The labelled frames of a data set, all of which have a road.

    Raises:
        UserError: there is no such data set, or a frame of it has no boxes or no road.
    """
    data = open_data(text).evenly(TrainConfig.data_frames)
    frames = [item.read() for item in track(data.items, data.reader.name, console=console)]
    if lacking := next((frame for frame in frames if frame.labelled != BOXES or frame.road is None), None):
        what = "labelled boxes" if lacking.labelled != BOXES else "road"
        raise UserError(f"--measure-on {text}: {lacking.name} has no {what}; Argoverse 2 and nuScenes have both")
    return [*frames]


def run(arguments: argparse.Namespace) -> int:
    shared = ["grid", "scenes", "steps", "batch", "scene_seed", "start", "mask_weights", "learning_rate"]
    shared += ["data", "data_share"]
    base = TrainConfig(**{name: getattr(arguments, name) for name in shared})
    device = device_of(arguments.device)
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console, pace = Console(), Pace()
    work = Reproduction(arguments.out, base, console, arguments.measure_on)
    if base.mask_weights:
        load_mask_network(work.weights(MASK_NETWORK, 1))  # hours before it is needed, too
    if arguments.measure_on:
        work.frames()  # hours before they are needed, but now the user is there
    plan = [(name, seed) for seed in range(1, arguments.seeds + 1) for name in work.trainings]
    for number, (name, seed) in enumerate(plan):
        if not (out := work.weights(name, seed)).exists():
            left = [name for name, seed in plan[number:] if not work.weights(name, seed).exists()]
            console.print(f"training {number + 1} of {len(plan)}: {name}, seed {seed}{pace.left(left)}")
            whole, began = not out.with_suffix(".checkpoint").exists(), time.monotonic()
            make_weights(work.config(name, seed), out, work.folder, device)
            out.with_suffix(".checkpoint").unlink(missing_ok=True)  # else a deleted file would not be trained again
            if whole:
                pace.took(name, time.monotonic() - began)
        table = report(work.figures(seed), work.speed(), base, work.folder, arguments.measure_on)
        if name == work.trainings[-1]:
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
