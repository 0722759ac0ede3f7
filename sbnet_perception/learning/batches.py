"""Batches of a training: which frames, how they are varied, and which part of them is seen."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from sbnet_perception import processes
from sbnet_perception.errors import UserError
from sbnet_perception.learning.augment import augment, crop
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.scenes import Scenes
from sbnet_perception.learning.sweeps import Sweep, with_simulated_vehicles
from sbnet_perception.learning.tasks import Sample, Task, joined
from sbnet_perception.learning.train_config import TrainConfig


class Batches(Dataset[Sample]):
    """Batch ``i`` of the training, a function of the configuration and ``i`` alone, so training resumes exactly.

    Of several processes each has every so-manieth sample of it: together they see what one process would.
    """

    def __init__(self, scenes: Scenes, sweeps: list[Sweep], config: TrainConfig, task: Task) -> None:
        self._scenes, self._sweeps, self._config, self._task = scenes, sweeps, config, task
        self._share = range(processes.rank(), config.batch, processes.count())
        if not self._share:
            alone = f"--batch is {config.batch}, but {processes.count()} processes train: each needs a scene a step"
            raise UserError(f"{alone}; raise --batch, or start fewer processes")
        # Sweeps of more points show more.
        self._ends = np.cumsum([len(sweep.frame.points) for sweep in sweeps])

    def __len__(self) -> int:
        return self._config.steps

    def __getitem__(self, step: int) -> Sample:
        return joined([self._sample(step * self._config.batch + i) for i in self._share])

    def _sample(self, number: int) -> Sample:
        rng = np.random.default_rng((self._config.seed, 1, number))
        size = self._config.crop_rows, self._config.crop
        frame, grid = crop(augment(self._frame(number, rng), rng), self._scenes.grid.resolution, size, rng)
        return self._task.sample(frame, grid, rng)

    def _frame(self, number: int, rng: np.random.Generator) -> LabelledFrame:
        if self._sweeps and rng.random() < self._config.data_share:
            chosen = self._sweeps[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), "right"))]
            return with_simulated_vehicles(chosen, self._config.detector.objects, rng)
        # Each epoch is another permutation of the scenes.
        epoch, position = divmod(number, len(self._scenes))
        order = np.random.default_rng((self._config.seed, 0, epoch)).permutation(len(self._scenes))
        return self._scenes[int(order[position])]
