"""Training with the operations of a GPU in place: the losses of the CPU, and a checkpoint goes on where it ended."""

from __future__ import annotations

import pytest
import torch
from devices import operations_on

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Voxels
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer

GRID = Grid(0.0, 12.8, -6.4, 6.4, resolution=0.2)
CONFIG = TrainConfig(steps=6, batch=2, crop=64, crop_rows=64)


def batch(seed):
    """Random points, a mask, and targets at a few pixels."""
    generator = torch.Generator().manual_seed(seed)
    span, low = torch.tensor([12.8, 12.8, 2.0, 1.0]), torch.tensor([0.0, -6.4, -0.1, 0.0])
    clouds = [torch.rand(500, 4, generator=generator) * span + low for _ in range(2)]
    mask = torch.rand(2, 64, 64, generator=generator) < 0.2
    label = torch.randint(-1, 2, (2, 16, 16), generator=generator)
    regression = torch.randn(2, 8, 16, 16, generator=generator)
    return Voxels.cat([voxels(cloud, GRID) for cloud in clouds]), mask, label, regression


def losses(device, path=None):
    """Of three steps; between the second and the third the training is interrupted."""
    first = Trainer(CONFIG, "scenes", device)
    found = [first.train_on(batch(step)) for step in range(2)]
    first.save(path)
    second = Trainer(CONFIG, "scenes", device)
    second.load(path)
    return [*found, second.train_on(batch(2))]


@pytest.mark.parametrize("name", ["shim", *(["cuda"] if torch.cuda.is_available() else [])])
def test_a_training_has_the_losses_of_the_cpu_and_goes_on_from_a_checkpoint(name, tmp_path):
    expected = losses(torch.device("cpu"), tmp_path / "cpu")
    with operations_on(name) as device:
        found = losses(device, tmp_path / "gpu")
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)
