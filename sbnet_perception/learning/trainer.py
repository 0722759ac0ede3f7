"""A network that is being trained: its optimizer, schedule, average and checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sbnet_perception import processes
from sbnet_perception.blocks.norm import normalize_across_processes
from sbnet_perception.detector.device import CPU, multiplies_bfloat16
from sbnet_perception.detector.mask_network import MaskNetwork
from sbnet_perception.detector.mask_weights import load_mask_network, prepared_mask_network
from sbnet_perception.detector.network import Detector, initialize
from sbnet_perception.detector.weights import load_network
from sbnet_perception.errors import UserError
from sbnet_perception.learning.pruning import Pruning
from sbnet_perception.learning.tasks import DetectorTask, MaskTask, Sample, Task, on_device
from sbnet_perception.learning.teacher import Teacher
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
        # On a CPU each new number of pixels would have bfloat16 products compiled anew: float32 takes half the time.
        half = self.device.type != "cpu" and multiplies_bfloat16(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
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
            "finest": self.pruning.finest.kept if self.pruning and self.pruning.finest else {},
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
            if self.pruning.finest and state.get("finest"):
                self.pruning.finest.kept = {name: kept.to(self.device) for name, kept in state["finest"].items()}
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
        if bool(state["kept"]) != bool(self.pruning):
            raise UserError(
                f"checkpoint {path} began with another file than --start has now: one of them has weights that are 0; "
                "give that file again, or delete the checkpoint to start again"
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
    pruning = Pruning(network, config.zeros, config.zeros_inputs if config.zeros else 1)  # of --start the finest count
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
            network.load_state_dict(load_mask_network(Path(config.start))[0].state_dict())
        return MaskTask(config.detector), network
    given = load_network(config.detector) if config.start else None
    detector = Detector(len(config.classes), given.config if given else config.network)
    if given:
        detector.load_state_dict(given.state_dict())
    else:
        initialize(detector, config.seed)
    # Those that name predicted name the same network.
    networks = (prepared_mask_network(replace(config.detector, mask=mask)) for mask in config.masks)
    mask_network = next((network for network in networks if network), None)
    wise = replace(config.detector, weights=config.teacher)
    teacher = Teacher(wise, detector.config) if config.teacher else None
    task = DetectorTask(config.detector, detector.config, config.masks, mask_network, config.loss_mask, teacher)
    return task, detector


def _average(
    most: int, averages: Sequence[torch.Tensor], values: Sequence[torch.Tensor], steps: torch.Tensor | int
) -> None:
    """Exponential moving average over the last ``most`` steps, over fewer at first; of tensors of one dtype.

    Counts, which are no floating point numbers, are taken over.
    """
    kept = min(1 - 1 / most, 1 - 1 / (int(steps) + 1)) if averages[0].is_floating_point() else 0.0
    get_ema_multi_avg_fn(kept)(list(averages), list(values), steps)


def one_cycle(progress: float) -> float:
    """Share of the peak learning rate: up linearly in the first tenth, then down to nothing along a cosine."""
    warm_up = 0.1
    if progress < warm_up:
        return 0.05 + 0.95 * progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
