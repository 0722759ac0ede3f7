"""`sbnet train`: from simulated scenes to weights."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
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
from torch.utils.data import DataLoader

from sbnet_perception import __version__, processes
from sbnet_perception.detector.device import CPU, device_of
from sbnet_perception.detector.mask_network import MaskNetwork
from sbnet_perception.detector.mask_weights import save_mask_weights
from sbnet_perception.detector.network import Detector
from sbnet_perception.detector.weights import save_weights
from sbnet_perception.errors import UserError
from sbnet_perception.learning.batches import Batches
from sbnet_perception.learning.datasets.registry import Data, open_data
from sbnet_perception.learning.evaluate import VALIDATION, frames_of_drives
from sbnet_perception.learning.mask_threshold import chosen_threshold
from sbnet_perception.learning.scenes import Scenes
from sbnet_perception.learning.sweeps import sweep_of
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer

MOST_LOADERS = 16


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


def _loaders(device: torch.device) -> int:
    """Processes that make batches ahead: a GPU takes them faster than one can, a CPU has its cores for the step."""
    cores = len(os.sched_getaffinity(0)) // processes.on_this_machine()[1]
    return 1 if device.type == "cpu" else min(max(cores - 1, 1), MOST_LOADERS)


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
    loaders = _loaders(device)
    loader = DataLoader(rest, batch_size=None, num_workers=loaders, prefetch_factor=4 if loaders == 1 else 2)
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
    parser.epilog = "With several processes or machines: torchrun --no-python --nproc-per-node N -- sbnet train ..."
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
    paths = {name: getattr(config, name) for name in ("start", "data", "sensor", "mask_weights", "teacher")}
    told = {**asdict(config), **{name: Path(path).resolve().name for name, path in paths.items() if path}}
    told = {name: shlex.join(map(str, value)) if isinstance(value, tuple) else value for name, value in told.items()}
    told = {name: value for name, value in told.items() if value != "" and value is not False}  # 0 is told
    words = {name: "" if value is True else f" {value}" for name, value in told.items()}
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
    given |= {name: tuple(given[name]) for name in ("region", "classes", "mask")}
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
    hand_out(trainer.averaged.eval().cpu(), config, out, notes)


def hand_out(network: nn.Module, config: TrainConfig, path: Path, notes: dict[str, Any]) -> None:
    """Write trained weights; a mask network gets its threshold first."""
    detector = config.detector
    if isinstance(network, MaskNetwork):
        frames = list(track(frames_of_drives(VALIDATION, detector.objects), "validation drives"))
        threshold = chosen_threshold(network, frames, detector)
        save_mask_weights(path, network, threshold, notes)
        option = f"--mask predicted --mask-weights {path}"
    else:
        assert isinstance(network, Detector)
        save_weights(path, network, detector.cell_size, detector.objects, notes, config.mask)
        option = f"--weights {path}"
    print(f"wrote {path}; measure it with 'sbnet evaluate {option}'")
