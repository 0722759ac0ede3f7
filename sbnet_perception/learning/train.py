"""`sbnet train`: from simulated scenes to weights."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from sbnet_perception import __version__
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Tiles, Voxels
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import CPU, device_of, multiplies_bfloat16
from sbnet_perception.detector.network import OUTPUT_STRIDE, Detector, NetworkConfig, initialize
from sbnet_perception.detector.weights import load_network, save_weights
from sbnet_perception.errors import UserError
from sbnet_perception.learning.augment import augment, crop
from sbnet_perception.learning.datasets import frame_files
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.losses import detection_loss
from sbnet_perception.learning.scenes import Scenes
from sbnet_perception.learning.sweeps import Sweep, read_sweep, with_simulated_vehicles
from sbnet_perception.learning.targets import make_targets
from sbnet_perception.masks.computation import computation_mask

AVERAGED = 500
"""Steps over which the weights are averaged."""
Batch = tuple[Voxels, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """How weights are made. The same configuration gives the same weights on the same kind of machine."""

    grid: str = field(default="compact", metadata={"help": "grid to train for (compact or paper)"})
    region: tuple[float, float, float, float] = field(
        default=DetectorConfig.region, metadata={"help": "where scenes are simulated: x_min x_max y_min y_max, metres"}
    )
    classes: tuple[str, ...] = field(
        default=DetectorConfig.classes, metadata={"help": "classes to learn, of detector/classes.py"}
    )
    scenes: int = field(default=4000, metadata={"help": "simulated scenes to train on"})
    steps: int = field(default=4000, metadata={"help": "optimizer steps"})
    batch: int = field(default=4, metadata={"help": "scenes per step"})
    crop: int = field(default=192, metadata={"help": "columns of the grid seen in one sample, a multiple of 16"})
    crop_rows: int = field(default=176, metadata={"help": "rows of the grid seen in one sample, a multiple of 16"})
    learning_rate: float = field(default=2e-3, metadata={"help": "peak of the one-cycle schedule"})
    weight_decay: float = field(default=1e-2, metadata={"help": "AdamW weight decay"})
    seed: int = field(default=1, metadata={"help": "seed of initialization, order and augmentation"})
    start: str = field(default="", metadata={"help": "weights file to begin with; empty means random weights"})
    real: str = field(default="", metadata={"help": "folder of real sweeps to mix in, see docs/frames.md"})
    real_share: float = field(default=0.3, metadata={"help": "share of the samples that are of real sweeps"})
    sensor: str = field(default="", metadata={"help": "file of the sensor to simulate, of sbnet adapt; empty: random"})
    scene_seed: int = field(default=1_000_000, metadata={"help": "seed of the first scene"})

    def __post_init__(self) -> None:
        for name in ("scenes", "steps", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.real_share <= 1:
            raise UserError(f"--real-share is {self.real_share}; it must lie in [0, 1]")
        try:
            grid = self.detector.raster
        except ValueError as error:
            raise UserError(f"--{error}") from None
        for name, value, extent in (("crop", self.crop, grid.width), ("crop-rows", self.crop_rows, grid.height)):
            if not 16 <= value <= extent or value % 16:
                raise UserError(f"--{name} is {value}; it must be a multiple of 16 up to the grid's {extent}")

    @property
    def detector(self) -> DetectorConfig:
        """What the weights are for, and what they begin with."""
        return DetectorConfig(grid=self.grid, region=self.region, classes=self.classes, weights=self.start)


class _Batches(Dataset[Batch]):
    """Batch ``i`` of the training, a function of the configuration and ``i`` alone, so training resumes exactly."""

    def __init__(self, scenes: Scenes, sweeps: list[Sweep], config: TrainConfig) -> None:
        self.scenes, self.sweeps, self.config = scenes, sweeps, config
        self.detector, self.network = config.detector, NetworkConfig()
        # Sweeps of more points show more.
        self.ends = np.cumsum([len(sweep.frame.points) for sweep in sweeps])

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> Batch:
        samples = [self._sample(step * self.config.batch + i) for i in range(self.config.batch)]
        inputs, *others = zip(*samples, strict=True)
        mask, label, regression = (torch.cat(parts) for parts in others)
        return Voxels.cat(list(inputs)), mask, label, regression

    def _sample(self, number: int) -> Batch:
        rng = np.random.default_rng((self.config.seed, 1, number))
        size = self.config.crop_rows, self.config.crop
        frame, grid = crop(augment(self._frame(number, rng), rng), self.scenes.grid.resolution, size, rng)
        # What the detector will see at this frame: input and mask; what it should say.
        points = torch.from_numpy(frame.points)
        mask = computation_mask(points, grid, frame.road, self.detector.mask).mask
        assert mask is not None, "the default mask always has the occupancy"
        computed = Tiles.from_mask(mask, self.network.tile("conv-3"), OUTPUT_STRIDE).mask()[0].numpy()
        objects = self.detector.objects
        targets = make_targets(frame.boxes, frame.point_counts, frame.classes, objects, grid, computed)
        return (
            voxels(points, grid),
            mask[None],
            torch.from_numpy(targets.label)[None],
            torch.from_numpy(targets.regression)[None],
        )

    def _frame(self, number: int, rng: np.random.Generator) -> LabelledFrame:
        if self.sweeps and rng.random() < self.config.real_share:
            chosen = self.sweeps[int(np.searchsorted(self.ends, rng.integers(self.ends[-1]), "right"))]
            return with_simulated_vehicles(chosen, self.detector.objects, rng)
        # Each epoch is another permutation of the scenes.
        epoch, position = divmod(number, len(self.scenes))
        order = np.random.default_rng((self.config.seed, 0, epoch)).permutation(len(self.scenes))
        return self.scenes[int(order[position])]


class Trainer:
    """Network, optimizer and schedule at one step of the training."""

    def __init__(self, config: TrainConfig, scenes: str, device: torch.device = CPU) -> None:
        """``scenes`` names the scenes and the version of the simulator that made them."""
        self.device = device
        self.made_with = json.dumps({**asdict(config), "made_from": scenes})
        self.step = 0
        self.network = _begin(config).to(device)
        self.network.train()
        self.average = AveragedModel(self.network, multi_avg_fn=_average, use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: one_cycle(step / config.steps))

    @property
    def averaged(self) -> Detector:
        """The network with its weights averaged over the last `AVERAGED` steps: what is handed out."""
        module = self.average.module
        assert isinstance(module, Detector)
        return module

    def train_on(self, batch: Batch) -> dict[str, float]:
        """One optimizer step; returns the parts of the loss."""
        inputs = batch[0].to(self.device)
        mask, label, regression = (part.to(self.device) for part in batch[1:])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=multiplies_bfloat16(self.device)):
            prediction = self.network(inputs, mask)
        loss, parts = detection_loss(prediction, label, regression)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return {name: float(value) for name, value in parts.items()}

    def save(self, path: Path) -> None:
        """Write a checkpoint (read back with ``weights_only``: it holds tensors and numbers only)."""
        state = {
            "made_with": self.made_with,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            UserError: it is unreadable or was made with another configuration or other scenes.
        """
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise UserError(f"checkpoint {path} is unreadable ({error}); delete it to start again") from error
        if state.get("made_with") != self.made_with:
            raise UserError(
                f"checkpoint {path} was made with {state.get('made_with')}, not with {self.made_with}; "
                "use the same options to resume, or delete it to start again"
            )
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def _begin(config: TrainConfig) -> Detector:
    """The network before the first step.

    Raises:
        WeightsError: the weights to begin with are missing, damaged or for another network.
    """
    network = initialize(Detector(len(config.classes)), config.seed)
    if config.start:
        given = load_network(config.detector)
        if given.config != network.config:
            raise UserError(f"--start is {config.start}, a network of {given.config}; this one is {network.config}")
        network.load_state_dict(given.state_dict())
    return network


def _average(averages: Sequence[torch.Tensor], values: Sequence[torch.Tensor], steps: torch.Tensor | int) -> None:
    """Exponential moving average over the last `AVERAGED` steps, over fewer at first."""
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value, max(1 / AVERAGED, 1 / (int(steps) + 1)))
        else:
            average.copy_(value)


def one_cycle(progress: float) -> float:
    """Share of the peak learning rate: up linearly in the first tenth, then down to nothing along a cosine."""
    warm_up = 0.1
    if progress < warm_up:
        return 0.05 + 0.95 * progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back to the end of the block: half a step must not get into a checkpoint."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        signal.raise_signal(signal.SIGINT)


def train(
    config: TrainConfig, scenes_folder: Path, checkpoint: Path, checkpoint_every: int = 250, device: torch.device = CPU
) -> Trainer:
    """Train, going on from ``checkpoint`` where it exists; an interrupt ends the step and saves it first."""
    detector = config.detector
    sensor = Path(config.sensor) if config.sensor else None
    scenes = Scenes(scenes_folder, detector.raster, config.scenes, config.scene_seed, detector.objects, sensor)
    real = frame_files(Path(config.real)) if config.real else []
    batches = _Batches(scenes, [read_sweep(file, detector.objects) for file in real], config)
    sizes = repr([(file.name, file.stat().st_size) for file in real]).encode()
    trainer = Trainer(config, f"{scenes.folder.name} {hashlib.sha256(sizes).hexdigest()[:12]}", device)
    if checkpoint.exists():
        trainer.load(checkpoint)
        Console().print(f"resuming at step {trainer.step} of {config.steps} from {checkpoint}")
    rest = torch.utils.data.Subset(batches, range(trainer.step, config.steps))
    loader = DataLoader(rest, batch_size=None, num_workers=1, prefetch_factor=4)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    mean: dict[str, float] = {}
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=config.steps, completed=trainer.step)
        try:
            for batch in loader:
                with _uninterrupted():
                    losses = trainer.train_on(batch)
                for name, value in losses.items():
                    mean[name] = 0.98 * mean.get(name, value) + 0.02 * value
                progress.update(bar, advance=1, description=" ".join(f"{k} {v:.3f}" for k, v in mean.items()))
                if trainer.step % checkpoint_every == 0:
                    trainer.save(checkpoint)
                    progress.console.print(
                        f"step {trainer.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in mean.items())
                    )
        except KeyboardInterrupt:
            trainer.save(checkpoint)
            progress.console.print(f"stopped at step {trainer.step}; run the same command to go on from {checkpoint}")
            raise
    trainer.save(checkpoint)
    return trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="weights file to write (.safetensors)")
    for name, spec in TrainConfig.__dataclass_fields__.items():
        default: Any = spec.default
        count: dict[str, Any] = {"nargs": 4 if name == "region" else "+"} if isinstance(default, tuple) else {}
        kind, text = (type(default[0]), " ".join(map(str, default))) if count else (type(default), default)
        text = f"{spec.metadata['help']} (default {text})"
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=default, help=text, **count)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("build/train"),
        help="folder for scenes and checkpoint (default build/train)",
    )
    where = "cpu, cuda, cuda:N, or auto: a GPU where there is one (default cpu)"
    parser.add_argument("--device", default="cpu", help=where)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")


def _options(config: TrainConfig) -> str:
    """The command's options that give this configuration; ``start`` without its folder."""
    paths = {name: getattr(config, name) for name in ("start", "real", "sensor")}
    told = {**asdict(config), **{name: Path(path).resolve().name for name, path in paths.items() if path}}
    told = {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in told.items()}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in told.items() if value != "")


def _sources(folder: Path) -> str:
    """How many files of each source there are in a folder of real sweeps."""
    number = Counter(file.stem.split("_")[0] for file in frame_files(folder))
    return ", ".join(f"{count} of {source}" for source, count in sorted(number.items()))


def run(arguments: argparse.Namespace) -> int:
    given: dict[str, Any] = {name: getattr(arguments, name) for name in TrainConfig.__dataclass_fields__}
    given |= {name: tuple(given[name]) for name in ("region", "classes")}
    config = TrainConfig(**given)
    if arguments.threads < 0:
        raise UserError(f"--threads is {arguments.threads}; it must be at least 0")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    device = device_of(arguments.device)
    checkpoint = arguments.work / f"{arguments.out.stem}.checkpoint"
    trainer = train(config, arguments.work / "scenes", checkpoint, device=device)
    real = f"real sweeps: {_sources(Path(config.real))}" if config.real else "no real data"
    notes = {
        "command": f"sbnet train {arguments.out.name} {_options(config)}",
        "data": f"{config.scenes} simulated scenes of this repository, seeds {config.scene_seed} and up; {real}",
        "version": __version__,
    }
    detector = config.detector
    save_weights(arguments.out, trainer.averaged.eval().cpu(), detector.cell_size, detector.objects, notes)
    print(f"wrote {arguments.out}; measure it with 'sbnet evaluate --weights {arguments.out}'")
    return 0
