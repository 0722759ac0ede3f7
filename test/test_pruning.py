"""Gradual pruning: the ramp, which blocks go, that they stay away, and what is said of them."""

from __future__ import annotations

import pytest
import torch

from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.network import Detector, NetworkConfig, initialize
from sbnet_perception.detector.weights import read_metadata, save_weights, share_of_zeros
from sbnet_perception.errors import UserError
from sbnet_perception.learning.pruning import Pruning, pruned_weights, share_at
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer

SMALL = NetworkConfig(32, (24, 32, 32, 32), (1, 1, 1, 1), 36, (32, 20), 1)
"""Some of its widths are no multiple of 16."""


def small_detector(seed=0):
    return initialize(Detector(1, SMALL), seed)


def test_the_share_grows_along_a_cubic_ramp_over_the_first_half():
    shares = [share_at(progress, 0.8) for progress in (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)]
    assert shares == pytest.approx([0.0, 0.8 * (1 - 0.75**3), 0.8 * (1 - 0.5**3), 0.8, 0.8, 0.8])


@pytest.mark.parametrize("inputs", [1, 2, 4])
def test_the_blocks_of_least_magnitude_go_and_never_come_back(inputs):
    network = small_detector()
    before = {name: weight.clone() for name, weight in pruned_weights(network).items()}
    pruning, gone = Pruning(network, 0.6, inputs), {name: torch.zeros(()) == 1 for name in before}
    for step in range(1, 11):
        for weight in pruned_weights(network).values():
            weight[weight == 0] = 5.0  # as an optimizer might
        pruning.advance(network, step / 10)
        for name, kept in pruning.kept.items():
            assert not (gone[name] & kept).any(), "a block came back"
            assert step <= 5 or torch.equal(gone[name], ~kept), "a block went after the ramp"
            gone[name] = ~kept.clone()
    for name, weight in pruned_weights(network).items():
        kept = pruning.kept[name]
        assert int((~kept).sum()) == round(0.6 * kept.numel())
        rows, columns = weight.shape[:2]
        each = kept.repeat_interleave(16, 0)[:rows].repeat_interleave(inputs, 1)[:, :columns]
        assert torch.equal(weight, before[name] * each)
        squares = [before[name][16 * n : 16 * n + 16, inputs * k : inputs * (k + 1), y, x].square().mean()
                   for n, k, y, x in torch.cartesian_prod(*map(torch.arange, kept.shape))]  # fmt: skip
        squares = torch.stack(squares).reshape(kept.shape)
        assert squares[~kept].max() <= squares[kept].min()


def test_the_first_convolution_and_the_branches_stay_dense():
    network = small_detector()
    Pruning(network, 0.9, 2).advance(network, 1.0)
    dense = {name for name, p in network.named_parameters() if p.dim() == 4 and (p != 0).all()}
    assert dense == {f"{name}.weight" for name in ("conv1.0.conv", "logits", "size", "orientation")}


def test_a_file_says_how_many_of_its_weights_are_zero_and_training_keeps_the_zeros_it_starts_from(tmp_path):
    network = initialize(Detector(), 0)
    Pruning(network, 0.7, 2).advance(network, 1.0)
    start = tmp_path / "sparse.safetensors"
    save_weights(start, network, 0.2, (VEHICLE,), {})
    assert read_metadata(start)["zeros"] == share_of_zeros(network) == pytest.approx(0.7, abs=0.005)
    trainer = Trainer(TrainConfig(start=str(start)), "scenes")
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.add_(1.0)
    assert trainer.pruning
    trainer.pruning.advance(trainer.network, 1.0)
    assert share_of_zeros(trainer.network) == share_of_zeros(network)
    assert Trainer(TrainConfig(), "scenes").pruning is None


def test_zeros_of_the_start_that_are_finer_than_the_blocks_stay_and_no_convolution_is_emptied(tmp_path):
    network = initialize(Detector(), 0)
    Pruning(network, 0.7, 1).advance(network, 1.0)
    start = tmp_path / "sparse.safetensors"
    save_weights(start, network, 0.2, (VEHICLE,), {})
    trainer = Trainer(TrainConfig(start=str(start), zeros=0.1, zeros_inputs=4), "scenes")
    with torch.no_grad():
        for parameter in trainer.network.parameters():
            parameter.add_(1.0)
    assert trainer.pruning
    trainer.pruning.advance(trainer.network, 1.0)
    after = pruned_weights(trainer.network)
    assert all((after[name][weight == 0] == 0).all() for name, weight in pruned_weights(network).items())
    save_weights(start, initialize(Detector(), 0), 0.2, (VEHICLE,), {})
    checkpoint = tmp_path / "checkpoint"
    Trainer(TrainConfig(start=str(start)), "scenes").save(checkpoint)
    save_weights(start, network, 0.2, (VEHICLE,), {})
    with pytest.raises(UserError, match="began with another file than --start has now"):
        Trainer(TrainConfig(start=str(start)), "scenes").load(checkpoint)
    small = small_detector()
    Pruning(small, 0.999, 4).advance(small, 1.0)
    assert all((weight != 0).any() for weight in pruned_weights(small).values())
    with pytest.raises(UserError, match="--zeros-inputs is 4"):
        TrainConfig(zeros_inputs=4)
