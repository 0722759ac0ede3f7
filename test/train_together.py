"""A small training, alone or, run as a program under torchrun, in several processes of which one kills itself once."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO
from unittest import mock

import torch

from sbnet_perception import processes
from sbnet_perception.blocks import SparseBatchNorm2d
from sbnet_perception.detector.device import CPU
from sbnet_perception.detector.network import Detector, NetworkConfig
from sbnet_perception.learning import scenes as scenes_module
from sbnet_perception.learning import train as train_module
from sbnet_perception.learning import trainer as trainer_module
from sbnet_perception.learning.train_config import TrainConfig

SHAPE = NetworkConfig(8, (8, 8, 8, 8), (1, 1, 1, 1), 8, (8, 8), 1)
MASK = "dilate(road, 0.5) and dilate(occupancy, 0.5)"
CONFIG = TrainConfig(scenes=4, steps=6, batch=4, crop=80, crop_rows=96, mask=(MASK,))
CHECKPOINT_EVERY, KILLED_AT = 2, 3
ROWS = 40


def trained(
    scenes: Path, checkpoint: Path, tell: Callable[[dict[str, float]], object], kill: bool = False
) -> trainer_module.Trainer:
    """The training of `CONFIG`; ``tell`` gets the losses of each step. With ``kill`` the process dies in a step."""

    class Watched(trainer_module.Trainer):
        def train_on(self, batch):
            if kill and self.step == KILLED_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            tell({"step": self.step, **super().train_on(batch)})
            return {}

    with (
        mock.patch.object(trainer_module, "Detector", lambda classes, _: Detector(classes, SHAPE)),
        mock.patch.object(train_module, "Trainer", Watched),
        mock.patch.object(scenes_module, "SHARD", 2),
    ):
        return train_module.train(CONFIG, scenes, checkpoint, CHECKPOINT_EVERY)


def normalized(
    rows: torch.Tensor, counted: torch.Tensor | None, across: bool, weight: torch.Tensor
) -> list[torch.Tensor]:
    """A normalization's output, gradient for ``(output * weight).sum()``, and running statistics.

    Where none are ``counted`` the last row stands for what is not stored.
    """
    norm = SparseBatchNorm2d(3).double()
    norm.across_processes = across
    rows = rows.clone().requires_grad_()
    output = norm.rows(rows, counted, counted is None)
    (output * weight).sum().backward()
    return [output.detach(), rows.grad, norm.running_mean, norm.running_var]


def normalization_error() -> float:
    """How far a normalization of rows that lie in two processes is from that of one process with all of them."""
    generator = torch.Generator().manual_seed(1)
    rows, weight = (torch.randn(ROWS, 3, generator=generator, dtype=torch.float64) + 5 for _ in range(2))
    every, first, errors = torch.arange(0, ROWS, 2), processes.rank() == 0, []
    # The first process has the rows before the cut, perhaps none; every second one counts.
    for cut in (0, 7):
        own = torch.arange(0, cut) if first else torch.arange(cut, ROWS)
        mine = every[torch.isin(every, own)] - (0 if first else cut)
        whole = normalized(rows, every, False, weight)
        errors += _apart(normalized(rows[own], mine, True, weight[own]), whole, own)
    # All have the last row, which none asks for.
    weight[-1] = 0
    own = torch.tensor([*(range(7) if first else range(7, ROWS - 1)), ROWS - 1])
    part, whole = normalized(rows[own], None, True, weight[own]), normalized(rows, None, False, weight)
    return max(errors + _apart([part[0], part[1][:-1], *part[2:]], [whole[0], whole[1][:-1], *whole[2:]], own))


def _apart(part: list[torch.Tensor], whole: list[torch.Tensor], own: torch.Tensor) -> list[float]:
    """How far what a process has is from its part of the whole."""
    expected = [whole[0][own], whole[1][own[own < len(whole[1])]], *whole[2:]]
    return [float((a - b).abs().max()) for a, b in zip(part, expected, strict=True) if len(a)]


def _tell(file: TextIO, losses: dict[str, float]) -> None:
    print(json.dumps(losses), file=file)


def main(folder: Path) -> None:
    restarts = os.environ["TORCHELASTIC_RESTART_COUNT"]
    with processes.joined(CPU), (folder / f"said.{os.environ['RANK']}.{restarts}").open("w", buffering=1) as said:
        print(normalization_error(), file=said)
        first_time = restarts == "0" and processes.rank() == 1
        tell = functools.partial(_tell, said)
        trainer = trained(folder / "scenes", folder / "checkpoint", tell, first_time)
        torch.save(trainer.averaged.state_dict(), folder / f"averaged.{processes.rank()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
