"""Batch normalization over the pixels that are computed (paper, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbnet_perception import processes
from sbnet_perception.blocks.sparse_map import rows_of
from sbnet_perception.blocks.tiles import Tiles


class SparseBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization whose training statistics come from active pixels only, each counted once.

    Same parameters and state_dict as ``nn.BatchNorm2d``; the same function in evaluation.

    Attributes:
        across_processes: the statistics are those of all processes that train together (`processes`), each of which
            must then call this layer as often as the others. `normalize_across_processes` sets it in a whole network.
    """

    across_processes = False

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """Normalize ``x`` [N, C, H, W]; ``tiles`` lie on the map of ``x``."""
        if not self.training or (tiles is None and not self.across_processes):
            return super().forward(x)
        images, channels, height, width = x.shape
        y = self.rows(rows_of(x), None if tiles is None else tiles.pixels.flat)
        return y.view(images, height, width, channels).permute(0, 3, 1, 2)

    def rows(self, rows: Tensor, counted: Tensor | None = None, absent: bool = False) -> Tensor:
        """Normalize rows [R, C]; in training the statistics are those of the rows ``counted``, int64, or of all.

        Of fewer than two there is nothing to take statistics of: the running ones serve, and stay as they are. With
        ``absent`` the last row stands for what is not stored: of several processes all have it, and it counts once.
        """
        if self.training and self.across_processes:
            return self._rows_across_processes(rows, rows if counted is None else rows[counted], absent)
        count = len(rows) if counted is None else len(counted)
        training, momentum = self.training and count > 1, self.momentum if self.momentum is not None else 0.1
        if counted is None or not training:
            return F.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, training, momentum, self.eps
            )
        assert self.running_mean is not None and self.running_var is not None
        variance, mean = torch.var_mean(rows[counted].to(self.weight.dtype), 0, correction=0)
        with torch.no_grad():
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        return self._normalized(rows, mean, variance)

    def _rows_across_processes(self, rows: Tensor, counted: Tensor, absent: bool) -> Tensor:
        """`rows` in training, by the rows [K, C] ``counted`` in all processes, of which some may have none."""
        assert self.running_mean is not None and self.running_var is not None
        values, momentum = counted.to(self.weight.dtype), self.momentum if self.momentum is not None else 0.1
        # Number, sum and sum of squares go from process to process in double precision: their difference is small.
        weight = values.new_ones(len(values), 1)
        if absent:
            weight[-1] /= processes.count()
        number = weight.sum(0)
        centre = (weight * values).sum(0) / number.clamp(min=1 / processes.count())
        spread = (weight * (values - centre).square()).sum(0)
        number, mean = number.double(), centre.double()
        square = spread.double() + number * mean.square()
        total = processes.summed(torch.cat([number, number * mean, square]))
        count, (mean, square) = total[:1], total[1:].view(2, -1) / total[:1].clamp(min=1)
        # No branch on their number, which on a GPU the host would have to wait for.
        enough = count > 1.5  # shares of one row may add up to a little more than 1
        variance = torch.where(enough, square - mean.square(), self.running_var.double()).to(self.weight.dtype)
        mean = torch.where(enough, mean, self.running_mean.double()).to(self.weight.dtype)
        with torch.no_grad():
            share = momentum * enough.to(mean.dtype)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)).to(mean.dtype), share)
        return self._normalized(rows, mean, variance)

    def _normalized(self, rows: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (rows * scale + (self.bias - mean * scale)).to(rows.dtype)

    def scale_and_shift(self) -> Tensor:
        """[2, C], scale and shift of the normalization in evaluation: float32, or float64 if its weights are."""
        assert self.running_mean is not None and self.running_var is not None
        variance, sums = self.running_var.double(), torch.promote_types(self.weight.dtype, torch.float32)
        scale = self.weight.double() / torch.sqrt(variance + self.eps)
        return torch.stack([scale, self.bias.double() - self.running_mean.double() * scale]).to(sums)


def normalize_across_processes(network: nn.Module) -> None:
    """Has every `SparseBatchNorm2d` of a network take its statistics over all processes."""
    for module in network.modules():
        if isinstance(module, SparseBatchNorm2d):
            module.across_processes = True
