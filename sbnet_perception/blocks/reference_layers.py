"""The sparse layers in plain PyTorch: gather the active tiles with their halo, compute them as a batch, scatter them
back (paper, section 3.2). Results are channels_last, as those of the fused kernels.

The oracle of the fused kernels, their form where those are not built or do not run (other devices), and what is
differentiated: every step has a gradient. Parameters are lists as `sbnet_perception.blocks.layer_ops` takes them.

Zero padding happens at every convolution's own input, so blocks at the image border set the part of their
intermediate features that lies outside the image to zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception.blocks.block_ops import sparse_gather, sparse_scatter
from sbnet_perception.blocks.plain import Pair, block_pixels, inside_image

NORM = 4
"""Tensors of a batch normalization: weight, bias, running mean, running variance."""
UNIT = 3 * NORM + 3
"""Tensors of a residual unit without projection: norm1, reduce, norm2, conv, norm3, expand."""


def split_units(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """The parameters of each unit; the first alone may have one more tensor, its projection."""
    first = UNIT + 1 if len(parameters) % UNIT else UNIT
    others = [list(parameters[start : start + UNIT]) for start in range(first, len(parameters), UNIT)]
    return [list(parameters[:first]), *others]


def residual_units(
    x: Tensor, indices: Tensor, tile: Pair, stride: int, eps: Sequence[float], parameters: Sequence[Tensor]
) -> Tensor:
    """Residual units one after the other; ``stride`` is that of the first."""
    for number, unit in enumerate(split_units(parameters)):
        x = _residual_unit(x, indices, tile, 1 if number else stride, eps[3 * number : 3 * number + 3], unit)
    return x


def conv_unit(x: Tensor, indices: Tensor, tile: Pair, eps: float, parameters: Sequence[Tensor]) -> Tensor:
    """Convolution, then batch normalization and ReLU if there are parameters for it, or a bias."""
    weight, *rest = parameters
    halo = weight.shape[2] // 2
    size = (tile[0] + 2 * halo, tile[1] + 2 * halo)
    blocks = _convolve(sparse_gather(x, indices, size, tile, (-halo, -halo)), weight)
    blocks = F.relu(_norm(blocks, rest, eps)) if len(rest) == NORM else blocks + rest[0].to(x.dtype)[:, None, None]
    return _scatter(blocks, indices, tile, (x.shape[0], *x.shape[2:]))


def upsample_unit(
    x: Tensor, skip: Tensor, indices: Tensor, tile: Pair, eps: float, parameters: Sequence[Tensor]
) -> Tensor:
    """Transposed convolution of ``x`` plus 1x1 convolution of ``skip``, batch normalization, ReLU."""
    up, lateral, *norm = parameters
    half = (tile[0] // 2, tile[1] // 2)
    blocks = F.conv_transpose2d(sparse_gather(x, indices, half, half), up.to(x.dtype), stride=2)
    blocks = blocks + _convolve(sparse_gather(skip, indices, tile, tile), lateral)
    return _scatter(F.relu(_norm(blocks, norm, eps)), indices, tile, (skip.shape[0], *skip.shape[2:]))


def _convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Without padding, in the dtype of ``x``: under autocast the weights have another."""
    return F.conv2d(x, weight.to(x.dtype), stride=stride)


def _norm(x: Tensor, norm: Sequence[Tensor], eps: float) -> Tensor:
    weight, bias, mean, variance = norm
    return F.batch_norm(x, mean, variance, weight, bias, eps=eps)


def _scatter(blocks: Tensor, indices: Tensor, tile: Pair, size: tuple[int, int, int]) -> Tensor:
    """A new map [N, C, H, W] that holds ``blocks`` on active tiles and 0 elsewhere."""
    images, height, width = size
    shape = (images, blocks.shape[1], height, width)
    base = torch.empty(shape, dtype=blocks.dtype, device=blocks.device, memory_format=torch.channels_last).zero_()
    return sparse_scatter(blocks, indices, base, tile, tile)


def _residual_unit(
    x: Tensor, indices: Tensor, tile: Pair, stride: int, eps: Sequence[float], parameters: Sequence[Tensor]
) -> Tensor:
    norm1, reduce, norm2 = parameters[0:4], parameters[4], parameters[5:9]
    conv, norm3, expand, project = parameters[9], parameters[10:14], parameters[14], parameters[15:]
    # Blocks of the input, with the halo of the 3x3 convolution.
    size = (stride * (tile[0] - 1) + 3, stride * (tile[1] - 1) + 3)
    step, offset = (stride * tile[0], stride * tile[1]), (-1, -1)
    blocks = sparse_gather(x, indices, size, step, offset)
    activated = F.relu(_norm(blocks, norm1, eps[0]))
    y = F.relu(_norm(_convolve(activated, reduce), norm2, eps[1]))
    # The 3x3 convolution pads with zeros outside the image.
    inside = inside_image(*block_pixels(indices, size, step, offset), (x.shape[2], x.shape[3]))
    y = _convolve(y * inside[:, None], conv, stride)
    y = _convolve(F.relu(_norm(y, norm3, eps[2])), expand)
    # Shortcut: x itself, or its projection where the shape changes.
    centre = activated if project else blocks
    centre = centre[:, :, 1 : 2 + stride * (tile[0] - 1) : stride, 1 : 2 + stride * (tile[1] - 1) : stride]
    if project:
        height, width = -(-x.shape[2] // stride), -(-x.shape[3] // stride)
        return _scatter(y + _convolve(centre, project[0]), indices, tile, (x.shape[0], height, width))
    return sparse_scatter(y + centre, indices, x.contiguous(memory_format=torch.channels_last), tile, tile)
