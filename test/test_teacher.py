"""`sbnet train --teacher`: what a teacher says of a sample, and what learning it means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learning_helpers import GRID, frame

from sbnet_perception.blocks import Pixels
from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.network import Detector, NetworkConfig, Prediction, initialize
from sbnet_perception.detector.weights import save_weights
from sbnet_perception.errors import UserError
from sbnet_perception.learning.losses import distillation_loss
from sbnet_perception.learning.tasks import joined
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer, begin

SMALL = NetworkConfig(16, (16, 16, 32, 32), (1, 1, 1, 1), 16, (16, 16), 1)


def prediction(rows):
    return Prediction(rows, Pixels.from_mask(torch.ones(1, 1, len(rows), dtype=torch.bool)), {})


def test_the_loss_is_nothing_for_what_the_teacher_says_and_learning_leads_there():
    torch.manual_seed(0)
    taught = torch.cat([torch.tensor([[3.0], [-1.0], [-9.0]]), torch.randn(3, 8)], 1)
    assert distillation_loss(prediction(taught), taught)[0].item() == pytest.approx(0, abs=0.02)
    rows = torch.zeros_like(taught).requires_grad_()
    optimizer = torch.optim.Adam([rows], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        distillation_loss(prediction(rows), taught)[0].backward()
        optimizer.step()
    assert torch.allclose(rows[:2].detach().sigmoid(), taught[:2].sigmoid(), atol=0.05)
    # Of a box that the teacher does not believe in only the score is learned.
    assert torch.sigmoid(rows[2, 0]) < 0.15 and torch.equal(rows[2, 1:].detach(), torch.zeros(8))


def test_a_teacher_says_of_a_sample_what_its_network_says_there(tmp_path):
    network = initialize(Detector(1, SMALL), 3).eval()
    with torch.no_grad():
        network.logits.bias.fill_(1.0)
    file = tmp_path / "teacher.safetensors"
    save_weights(file, network, 0.2, (VEHICLE,), {})
    task, _ = begin(TrainConfig(teacher=str(file), mask=("dilate(occupancy, 0.5)",)))
    rng = np.random.default_rng(0)
    bev, mask, label, regression, taught = joined([task.sample(frame(), GRID, rng) for _ in range(2)])
    with torch.no_grad():
        said = network(bev, mask)
    assert len(taught) == len(said.pixels) and torch.allclose(taught, said.rows, atol=1e-3)
    loss, parts = task.loss(said, label, regression, taught)
    alone, _ = task.loss(said, label, regression)
    assert parts["taught score"].item() == pytest.approx(0, abs=1e-3)
    assert loss.item() == pytest.approx(alone.item() + parts["taught score"].item() + parts["taught box"].item())


def test_a_teacher_of_other_pixels_or_for_a_mask_network_is_refused(tmp_path):
    other = NetworkConfig(16, (16, 16, 32, 32), (1, 1, 1, 1), 16, (16, 16), 1, (8, 8, 4, 4, 2))
    save_weights(tmp_path / "other.safetensors", initialize(Detector(1, other), 3), 0.2, (VEHICLE,), {})
    with pytest.raises(UserError, match="--teacher computes tiles of"):
        Trainer(TrainConfig(teacher=str(tmp_path / "other.safetensors")), "scenes")
    with pytest.raises(UserError, match="--teacher is for the detector"):
        TrainConfig(teacher="x", mask_network=True)
