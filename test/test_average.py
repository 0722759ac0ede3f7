"""The average of the weights over the last steps of a training."""

from __future__ import annotations

import torch

from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer

STEPS = 32


def test_the_first_steps_count_alike_and_later_ones_fade_and_counts_are_those_of_the_last():
    """From random weights an eighth of the training is averaged: four steps here."""
    trainer = Trainer(TrainConfig(steps=STEPS, crop=64, crop_rows=64), "scenes")
    expected = 0.0
    for step in range(6):
        with torch.no_grad():
            for tensor in trainer.network.state_dict().values():
                tensor.fill_(step)
        trainer.average.update_parameters(trainer.network)
        expected += (step - expected) / min(step + 1, 4)
        for name, tensor in trainer.averaged.state_dict().items():
            wanted = expected if tensor.is_floating_point() else step
            torch.testing.assert_close(tensor, torch.full_like(tensor, wanted), msg=name)
