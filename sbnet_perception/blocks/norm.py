"""Batch normalization over the pixels that are computed (paper, section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sbnet_perception.blocks.tiles import Tiles


class SparseBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization whose training statistics come from active pixels only, each counted once.

    Same parameters and state_dict as ``nn.BatchNorm2d``; the same function in evaluation.
    """

    def forward(self, x: Tensor, tiles: Tiles | None = None) -> Tensor:
        """Normalize ``x`` [N, C, H, W]; ``tiles`` lie on the map of ``x``."""
        return self.normalize(x, None if tiles is None else tiles.mask())

    def normalize(self, x: Tensor, active: Tensor | None) -> Tensor:
        """As `forward`, with the active pixels as bool [N, H, W].

        Without any there is nothing to take statistics of: the running ones serve, and stay as they are.
        """
        if not self.training or active is None:
            return super().forward(x)
        count = int(active.sum())
        if count == 0:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        y, mean, variance = _MaskedNorm.apply(x, active, self.weight, self.bias, self.eps)
        with torch.no_grad():
            if count > 1:
                momentum = self.momentum if self.momentum is not None else 0.1
                assert self.running_mean is not None and self.running_var is not None
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        return y


class _MaskedNorm(torch.autograd.Function):
    """y = weight * (x - mean) / std + bias everywhere, with mean and std of the active pixels, of which there are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, active: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Any:
        channels = x.shape[1]
        pixels = torch.nonzero(active.reshape(-1)).squeeze(1)
        rows = x.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, pixels).to(weight.dtype)
        # torch.var_mean is seven times slower here.
        mean = rows.sum(0) / len(rows)
        variance = (rows - mean).square_().sum(0) / len(rows)
        rstd = (variance + eps).rsqrt()
        scale = weight * rstd
        y = torch.addcmul(_per_channel(bias - mean * scale, x), x, _per_channel(scale, x))
        ctx.save_for_backward(x, active, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, active, weight, mean, rstd = ctx.saved_tensors
        dy = gradients[0]
        count = int(active.sum())
        # Every pixel, active or not, was normalized with the same mean and std, so all send gradients to them.
        dbias = dy.sum((0, 2, 3), dtype=weight.dtype)
        dscale = (dy * x).sum((0, 2, 3), dtype=weight.dtype) - mean * dbias
        scale = weight * rstd
        slope = -scale * rstd.square() * dscale / count
        offset = -scale * dbias / count - slope * mean
        # Only active pixels had a part in the mean and std.
        dx = torch.addcmul(_per_channel(offset, x), x, _per_channel(slope, x))
        dx = (dx * active[:, None].to(x.dtype)).addcmul_(dy, _per_channel(scale, x))
        return dx, None, dscale * rstd, dbias, None


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype)[None, :, None, None]
