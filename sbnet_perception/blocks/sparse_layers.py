"""The layers on stored pixels, in plain PyTorch: what training differentiates and the oracle of the compiled ones.

Rows are pixels: the stored ones in raster order, then one that stands for all that are not stored. Where a layer
keeps zeros as zeros that last row is 0; within a residual unit it is what the unit makes of 0.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sbnet_perception.blocks.pixels import Pixels


def with_absent(values: Tensor) -> Tensor:
    """Rows [P + 1, C]: ``values`` and the pixel that stands for all that are not stored."""
    return F.pad(values, (0, 0, 0, 1))


def beneath(rows: Tensor, pixels: Pixels, output: Pixels, stride: int = 1) -> Tensor:
    """The rows [P_out, C] under the pixels of ``output``, of rows [P + 1, C] with the absent pixel."""
    if pixels is output and stride == 1:
        return rows[:-1]
    image, row, column = output.positions
    return F.embedding(pixels.numbers(image, stride * row, stride * column), rows)


def pointwise(rows: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 1x1 convolution of rows [P, C_in]."""
    return F.linear(rows, conv.weight[:, :, 0, 0], conv.bias)


def windows(rows: Tensor, pixels: Pixels, output: Pixels, conv: nn.Conv2d) -> Tensor:
    """A 3x3 convolution (padding 1) at the pixels of ``output``, of rows [P + 1, C_in] with the absent pixel."""
    rows = F.pad(rows, (0, 0, 0, 1))  # what lies outside the map
    beneath = pixels.beneath(output, conv.stride[0])
    columns = F.embedding(beneath, rows).reshape(len(beneath), 9 * rows.shape[1])
    return F.linear(columns, conv.weight.permute(0, 2, 3, 1).reshape(len(conv.weight), -1))


def normalize(rows: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Batch normalization of rows; in training the statistics are those of the rows, of which there are two or more."""
    training = norm.training and len(rows) > 1
    momentum = norm.momentum if norm.momentum is not None else 0.1
    return F.batch_norm(
        rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, training, momentum, norm.eps
    )


def upsampled(rows: Tensor, pixels: Pixels, output: Pixels, conv: nn.ConvTranspose2d) -> Tensor:
    """A transposed 2x2 convolution at the pixels of ``output``, of rows [P + 1, C_in] with the absent pixel."""
    image, row, column = output.positions
    source = pixels.numbers(image, row // 2, column // 2)
    products = F.linear(rows, conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.weight.shape[0]))
    phase = row % 2 * 2 + column % 2
    return F.embedding(source * 4 + phase, products.reshape(-1, conv.weight.shape[1]))
