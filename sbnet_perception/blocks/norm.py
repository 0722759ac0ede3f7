"""Batch normalization over the pixels that are computed (paper, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbnet_perception.blocks.sparse_map import rows_of
from sbnet_perception.blocks.tiles import Tiles


class SparseBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization whose training statistics come from active pixels only, each counted once.

    Same parameters and state_dict as ``nn.BatchNorm2d``; the same function in evaluation.
    """

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """Normalize ``x`` [N, C, H, W]; ``tiles`` lie on the map of ``x``."""
        if tiles is None or not self.training:
            return super().forward(x)
        images, channels, height, width = x.shape
        y = self.rows(rows_of(x), tiles.pixels.flat)
        return y.view(images, height, width, channels).permute(0, 3, 1, 2)

    def rows(self, rows: Tensor, counted: Tensor | None = None) -> Tensor:
        """Normalize rows [R, C]; in training the statistics are those of the rows ``counted``, int64, or of all.

        Of fewer than two there is nothing to take statistics of: the running ones serve, and stay as they are.
        """
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
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (rows * scale + (self.bias - mean * scale)).to(rows.dtype)

    def scale_and_shift(self) -> Tensor:
        """[2, C], scale and shift of the normalization in evaluation: float32, or float64 if its weights are."""
        assert self.running_mean is not None and self.running_var is not None
        variance, sums = self.running_var.double(), torch.promote_types(self.weight.dtype, torch.float32)
        scale = self.weight.double() / torch.sqrt(variance + self.eps)
        return torch.stack([scale, self.bias.double() - self.running_mean.double() * scale]).to(sums)
