"""`sbnet train`: from simulated scenes to weights."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from sbnet_perception import __version__, processes
from sbnet_perception.blocks.norm import normalize_across_processes
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import CPU, device_of, multiplies_bfloat16
from sbnet_perception.detector.mask_network import MaskNetwork
from sbnet_perception.detector.mask_weights import load_mask_network, prepared_mask_network, save_mask_weights
from sbnet_perception.detector.network import Detector, initialize
from sbnet_perception.detector.weights import load_network, save_weights
from sbnet_perception.errors import UserError
from sbnet_perception.learning.batches import Batches
from sbnet_perception.learning.datasets.registry import Data, open_data
from sbnet_perception.learning.evaluate import VALIDATION, frames_of_drives
from sbnet_perception.learning.mask_threshold import chosen_threshold
from sbnet_perception.learning.pruning import Pruning
from sbnet_perception.learning.scenes import Scenes
from sbnet_perception.learning.sweeps import sweep_of
from sbnet_perception.learning.tasks import DetectorTask, MaskTask, Sample, Task, on_device
from sbnet_perception.learning.train_config import TrainConfig

AVERAGED = 500
"""Steps over which the weights are averaged; from random weights on no more than an eighth of the training."""


class Trainer:
    """Network, optimizer and schedule at one step of the training; the same in all processes that train together."""

    def __init__(self, config: TrainConfig, scenes: str, device: torch.device = CPU) -> None:
        """``scenes`` names the scenes and the version of the simulator that made them."""
        self.device = device
        self.made_with = json.dumps({**asdict(config), "made_from": scenes})
        processes.check_equal(self.made_with, "what the training is made with")
        self.step = 0
        self.task, self.network = begin(config)
        self.network.to(device)
        self.network.train()
        self._model = _shared(self.network)
        steps = AVERAGED if config.start else max(1, min(AVERAGED, config.steps // 8))
        self.average = AveragedModel(self.network, multi_avg_fn=partial(_average, steps), use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: one_cycle(step / config.steps))
        self.steps = config.steps
        self.pruning = pruning_of(config, self.network)

    @property
    def averaged(self) -> nn.Module:
        """The network with its weights averaged over the last steps: what is handed out."""
        return self.average.module

    def train_on(self, batch: Sample) -> dict[str, float]:
        """One optimizer step; returns the parts of the loss."""
        batch = on_device(batch, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=multiplies_bfloat16(self.device)):
            outputs = self._model(*batch[: self.task.inputs])
        loss, parts = self.task.loss(outputs, *batch[self.task.inputs :])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        if self.pruning:
            self.pruning.advance(self.network, self.step / self.steps)
        self.average.update_parameters(self.network)
        if self.pruning:
            self.pruning.apply(self.averaged)
        values = processes.averaged(torch.stack(list(parts.values())))
        return dict(zip(parts, values.tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write a checkpoint (read back with ``weights_only``: it holds tensors and numbers only).

        Of several processes the first writes.
        """
        if processes.rank():
            return
        state = {
            "made_with": self.made_with,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "kept": self.pruning.kept if self.pruning else {},
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> bool:
        """Go on from a checkpoint, that of the first process; False where there is none.

        Raises:
            UserError: it is unreadable or was made with another configuration or other scenes.
        """
        state = processes.of_first(lambda: self._read(path) if path.exists() else None)
        if state is None:
            return False
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.pruning:
            self.pruning.kept = {name: kept.to(self.device) for name, kept in state["kept"].items()}
        return True

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise UserError(f"checkpoint {path} is unreadable ({error}); delete it to start again") from error
        if state.get("made_with") != self.made_with:
            raise UserError(
                f"checkpoint {path} was made with {state.get('made_with')}, not with {self.made_with}; "
                "use the same options to resume, or delete it to start again"
            )
        return state


def _shared(network: nn.Module) -> nn.Module:
    """The network, with the gradients and the statistics of all processes that train together."""
    if not processes.together():
        return network
    normalize_across_processes(network)
    return DistributedDataParallel(network)


def pruning_of(config: TrainConfig, network: nn.Module) -> Pruning | None:
    """What keeps weights at 0: those that ``zeros`` asks for, and blocks that are 0 in the weights of ``start``."""
    if config.mask_network:
        return None
    pruning = Pruning(network, config.zeros, config.zeros_inputs if config.zeros else 1)
    return pruning if config.zeros or not all(kept.all() for kept in pruning.kept.values()) else None


def begin(config: TrainConfig) -> tuple[Task, nn.Module]:
    """What is taught, and the network before the first step.

    Raises:
        WeightsError: weights that are asked for are missing, damaged or for another network.
    """
    if config.mask_network:
        torch.manual_seed(config.seed)
        network = MaskNetwork()
        if config.start:
            network.load_state_dict(load_mask_network(Path(config.start), config.detector.cell_size)[0].state_dict())
        return MaskTask(config.detector), network
    detector = initialize(Detector(len(config.classes)), config.seed)
    if config.start:
        given = load_network(config.detector)
        if given.config != detector.config:
            raise UserError(f"--start is {config.start}, a network of {given.config}; this one is {detector.config}")
        detector.load_state_dict(given.state_dict())
    return DetectorTask(config.detector, prepared_mask_network(config.detector), config.loss_mask), detector


def _average(
    most: int, averages: Sequence[torch.Tensor], values: Sequence[torch.Tensor], steps: torch.Tensor | int
) -> None:
    """Exponential moving average over the last ``most`` steps, over fewer at first."""
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value, max(1 / most, 1 / (int(steps) + 1)))
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
    """Train, going on from ``checkpoint`` where it exists; an interrupt ends the step and saves it first.

    In a group of processes (`processes.joined`) all call this with the same arguments.
    """
    detector = config.detector
    sensor = Path(config.sensor) if config.sensor else None
    scenes = Scenes(scenes_folder, detector.raster, config.scenes, config.scene_seed, detector.objects, sensor)
    data = data_of(config)
    items = data.items if data else ()
    sweeps = [sweep_of(item.read(detector.objects)) for item in track(items, "real sweeps")]
    sizes = repr([(item.name, len(sweep.frame.points)) for item, sweep in zip(items, sweeps, strict=True)]).encode()
    trainer = Trainer(config, f"{scenes.folder.name} {hashlib.sha256(sizes).hexdigest()[:12]}", device)
    if trainer.load(checkpoint) and not processes.rank():
        Console().print(f"resuming at step {trainer.step} of {config.steps} from {checkpoint}")
    batches = Batches(scenes, sweeps, config, trainer.task)
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
    with Progress(*columns, disable=processes.rank() > 0) as progress:
        bar = progress.add_task("training", total=config.steps, completed=trainer.step)
        try:
            for batch in loader:
                with _uninterrupted():
                    losses = trainer.train_on(batch)
                for name, value in losses.items():
                    mean[name] = 0.98 * mean.get(name, value) + 0.02 * value
                progress.update(bar, advance=1, description=" ".join(f"{k} {v:.3f}" for k, v in mean.items()))
                if trainer.step % checkpoint_every == 0 and not processes.rank():
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


def add_field_arguments(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """An option for each of these fields of `TrainConfig`."""
    for name in names:
        spec = TrainConfig.__dataclass_fields__[name]
        default: Any = spec.default
        if isinstance(default, bool):
            parser.add_argument("--" + name.replace("_", "-"), action="store_true", help=spec.metadata["help"])
            continue
        count: dict[str, Any] = {"nargs": 4 if name == "region" else "+"} if isinstance(default, tuple) else {}
        kind, text = (type(default[0]), " ".join(map(str, default))) if count else (type(default), default)
        text = f"{spec.metadata['help']} (default {text})"
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=default, help=text, **count)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "With several processes or machines: torchrun --no-python --nproc-per-node N sbnet train ..."
    parser.add_argument("out", type=Path, help="weights file to write (.safetensors)")
    add_field_arguments(parser, TrainConfig.__dataclass_fields__)
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
    paths = {name: getattr(config, name) for name in ("start", "data", "sensor", "mask_weights")}
    told = {**asdict(config), **{name: Path(path).resolve().name for name, path in paths.items() if path}}
    told = {name: " ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in told.items()}
    words = {name: "" if value is True else f" {value}" for name, value in told.items() if value not in ("", False)}
    return " ".join(f"--{name.replace('_', '-')}{value}" for name, value in words.items())


@lru_cache(maxsize=1)
def data_of(config: TrainConfig) -> Data | None:
    """The real sweeps that a training mixes in; opened once, since tables of large data sets take their time."""
    return open_data(config.data).evenly(config.data_frames) if config.data else None


def _told(data: Data | None) -> str:
    """What real data there is and whose, for the notes in the weights."""
    if data is None:
        return "no real data"
    sources = ", ".join(f"{count} of {source}" for source, count in data.sources.items())
    return f"real sweeps: {sources} ({data.reader.licence})"


def run(arguments: argparse.Namespace) -> int:
    given: dict[str, Any] = {name: getattr(arguments, name) for name in TrainConfig.__dataclass_fields__}
    given |= {name: tuple(given[name]) for name in ("region", "classes")}
    config = TrainConfig(**given)
    if arguments.threads < 0:
        raise UserError(f"--threads is {arguments.threads}; it must be at least 0")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    make_weights(config, arguments.out, arguments.work, device_of(arguments.device))
    return 0


def make_weights(config: TrainConfig, out: Path, work: Path, device: torch.device = CPU) -> None:
    """Train and write the weights ``out``; scenes and the checkpoint to go on from are kept in the folder ``work``.

    Where torchrun has started several processes all call this, and the first writes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    if data := data_of(config):
        print(f"{data}; licence: {data.reader.licence}")
    device = processes.own_device(device)
    with processes.joined(device):
        trainer = train(config, work / "scenes", work / f"{out.stem}.checkpoint", device=device)
        if processes.rank():
            return
    real = _told(data_of(config))
    notes = {
        "command": f"sbnet train {out.name} {_options(config)}",
        "data": f"{config.scenes} simulated scenes of this repository, seeds {config.scene_seed} and up; {real}",
        "version": __version__,
    }
    hand_out(trainer.averaged.eval().cpu(), config.detector, out, notes)


def hand_out(network: nn.Module, detector: DetectorConfig, path: Path, notes: dict[str, Any]) -> None:
    """Write trained weights; a mask network gets its threshold first."""
    if isinstance(network, MaskNetwork):
        frames = list(track(frames_of_drives(VALIDATION, detector.objects), "validation drives"))
        threshold = chosen_threshold(network, frames, detector)
        save_mask_weights(path, network, detector.cell_size, threshold, notes)
        option = f"--mask predicted --mask-weights {path}"
    else:
        assert isinstance(network, Detector)
        save_weights(path, network, detector.cell_size, detector.objects, notes)
        option = f"--weights {path}"
    print(f"wrote {path}; measure it with 'sbnet evaluate {option}'")
