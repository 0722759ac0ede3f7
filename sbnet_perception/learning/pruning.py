"""Gradual magnitude pruning: weights of a detector become 0 in blocks that the kernels leave out.

Fast Sparse ConvNets (Elsen, Dukhan, Gale, Simonyan, CVPR 2020) trains sparse weights as Zhu and Gupta do (To prune, or
not to prune, arXiv 1710.01878): the share of zeros grows along a cubic ramp, the smallest weights go first. Here they
go in blocks of some inputs and 16 outputs, which is what kernels multiply at once: the outputs are two vectors of AVX2
or one of AVX-512, the inputs those of one instruction (1 in float32, 2 in bfloat16, 4 in 8 bits).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbnet_perception.blocks import PointwiseConv2d

OUTPUTS = 16
"""Outputs of a block."""
FIRST = "conv1.0.conv"
"""The convolution that reads voxels."""
RAMP = 0.5
"""Part of the training in which the share grows; after it no block changes between zero and not."""


def share_at(progress: float, final: float) -> float:
    """The share of zeros after this part of the training (0 to 1)."""
    return float(final * (1 - (1 - min(progress / RAMP, 1.0)) ** 3))


def pruned_weights(network: nn.Module) -> dict[str, Tensor]:
    """Name -> weight [outputs, inputs, k, k] of every convolution of a detector that may be sparse.

    Of the first one only the weights of voxels that are there are added, and the branches are tiny: neither would gain.
    """
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.ConvTranspose2d):
            found[name] = module.weight.detach().transpose(0, 1)
        elif isinstance(module, nn.Conv2d) and not isinstance(module, PointwiseConv2d):
            found[name] = module.weight.detach()
    del found[FIRST]
    return found


class Pruning:
    """Which blocks of a network's weights are 0, and which will be."""

    def __init__(self, network: nn.Module, share: float, inputs: int) -> None:
        """Args:
        network: a detector; its weights that are 0 for 16 outputs together stay so, whatever ``inputs`` is.
        share: of the blocks of each weight that are 0 in the end, in [0, 1).
        inputs: of a block.
        """
        self.share, self.inputs = share, inputs
        self.finest = Pruning(network, 0.0, 1) if inputs > 1 else None
        self.kept = {name: self._mean_squares(weight) > 0 for name, weight in pruned_weights(network).items()}

    @property
    def kept(self) -> dict[str, Tensor]:
        """Name -> bool [outputs / 16, inputs / those of a block, k, k]: whether a block is not 0. For a checkpoint."""
        return self._kept

    @kept.setter
    def kept(self, kept: dict[str, Tensor]) -> None:
        self._kept = kept
        self._factors: dict[str, Tensor] = {}

    def advance(self, network: nn.Module, progress: float) -> None:
        """Sets the smallest of the other blocks to 0 until the share for this part of the training (0 to 1) is 0.

        A hundredth of the blocks at a time, since choosing them takes time.
        """
        for name, weight in pruned_weights(network).items():
            kept = self.kept[name]
            gone = min(round(share_at(progress, self.share) * kept.numel()), kept.numel() - 1)  # one is left at least
            more = gone - int((~kept).sum())
            if more >= kept.numel() / 100 or (more > 0 and progress >= RAMP):
                squares = self._mean_squares(weight).masked_fill(~kept, torch.inf).flatten()
                kept.view(-1)[squares.argsort(stable=True)[:more]] = False
                self._factors.pop(name, None)
        self.apply(network)

    def apply(self, network: nn.Module) -> None:
        """Sets the chosen blocks of ``network`` to 0."""
        for name, weight in pruned_weights(network).items():
            if name not in self._factors:
                each = self.kept[name].repeat_interleave(OUTPUTS, 0).repeat_interleave(self.inputs, 1)
                self._factors[name] = each[: weight.shape[0], : weight.shape[1]].to(weight.dtype)
            weight.mul_(self._factors[name])
        if self.finest:
            self.finest.apply(network)

    def _mean_squares(self, weight: Tensor) -> Tensor:
        """Of the weights of each block; those at the ends are smaller."""
        ends = (0, 0, 0, 0, 0, -weight.shape[1] % self.inputs, 0, -weight.shape[0] % OUTPUTS)

        def sums(values: Tensor) -> Tensor:
            return F.pad(values, ends).unflatten(1, (-1, self.inputs)).unflatten(0, (-1, OUTPUTS)).sum((1, 3))

        return sums(weight.square()) / sums(torch.ones_like(weight))
