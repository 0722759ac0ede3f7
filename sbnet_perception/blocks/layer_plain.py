"""The layers on stored pixels, in plain PyTorch: the oracle of the kernels, what is differentiated, and what training
and devices without kernels run.

Rows are pixels: the stored ones in raster order, where it says so followed by one that stands for all that are not
stored. It is 0 at the input of a layer; within a residual unit it is what the unit makes of 0. What comes after a
convolution (normalization and ReLU) is a function of rows: in training it has the statistics of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception.blocks.pixels import Pixels

Rows = Callable[[Tensor], Tensor]


def with_absent(values: Tensor) -> Tensor:
    """Rows [P + 1, C]: ``values`` and the pixel that stands for all that are not stored."""
    return F.pad(values, (0, 0, 0, 1))


def beneath(rows: Tensor, pixels: Pixels, output: Pixels, stride: int = 1) -> Tensor:
    """The rows [P_out, C] under the pixels of ``output``, of rows [P + 1, C] with the absent pixel."""
    if pixels is output and stride == 1:
        return rows[:-1]
    image, row, column = output.positions
    return F.embedding(pixels.numbers(image, stride * row, stride * column), rows)


def pointwise(rows: Tensor, weight: Tensor) -> Tensor:
    """A 1x1 convolution, weight [N, C, 1, 1], of rows [P, C]."""
    return F.linear(rows, weight[:, :, 0, 0].to(rows.dtype))


def windows(rows: Tensor, pixels: Pixels, output: Pixels, weight: Tensor, stride: int = 1) -> Tensor:
    """A 3x3 convolution (padding 1), weight [N, C, 3, 3], at the pixels of ``output``, of rows [P + 1, C]."""
    rows = F.pad(rows, (0, 0, 0, 1))  # what lies outside the map
    same = pixels is output and stride == 1
    found = _Windows.apply(rows, pixels) if same else F.embedding(pixels.beneath(output, stride), rows)
    columns = found.reshape(len(output), 9 * rows.shape[1])
    return F.linear(columns, weight.permute(0, 2, 3, 1).reshape(len(weight), -1).to(rows.dtype))


class _Windows(torch.autograd.Function):
    """The rows [P, 9, C] in the 3x3 window of each pixel, of rows [P + 2, C]: as `torch.nn.functional.embedding`.

    Its gradient adds up what each pixel's readers have for it, instead of scattering it: several times as fast.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, pixels: Pixels) -> Tensor:
        ctx.pixels = pixels
        return F.embedding(pixels.beneath(pixels, 1), rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        read, first = ctx.pixels.readers
        places = gradient.reshape(-1, gradient.shape[2])
        return F.embedding_bag(read, places, first, mode="sum", include_last_offset=True), None


def conv(values: Tensor, pixels: Pixels, output: Pixels, weight: Tensor, after: Rows) -> Tensor:
    """Convolution of size 1 or 3, and what comes after."""
    return after(conv_of_rows(with_absent(values), pixels, output, weight))


def conv_of_rows(rows: Tensor, pixels: Pixels, output: Pixels, weight: Tensor) -> Tensor:
    """Convolution of size 1 or 3 of rows [P + 1, C]."""
    if weight.shape[2] == 1:
        return pointwise(beneath(rows, pixels, output), weight)
    return windows(rows, pixels, output, weight)


def upsample(
    x: Tensor, x_pixels: Pixels, skip: Tensor, skip_pixels: Pixels, output: Pixels, up: Tensor, lateral: Tensor,
    after: Rows,
) -> Tensor:  # fmt: skip
    """Transposed convolution, weight [N, C, 2, 2], of ``x`` plus 1x1 convolution of ``skip``, and what comes after."""
    rows, skip_rows = with_absent(x), with_absent(skip)
    return after(upsample_of_rows(rows, x_pixels, skip_rows, skip_pixels, output, up, lateral))


def upsample_of_rows(
    rows: Tensor, pixels: Pixels, skip_rows: Tensor, skip_pixels: Pixels, output: Pixels, up: Tensor, lateral: Tensor
) -> Tensor:
    """Transposed convolution of rows [P + 1, C] plus 1x1 convolution of ``skip_rows``."""
    # Each output pixel reads one input pixel, through one of four matrices.
    image, row, column = output.positions
    source, phase = pixels.numbers(image, row // 2, column // 2), row % 2 * 2 + column % 2
    matrices = up.permute(2, 3, 0, 1).reshape(-1, up.shape[1]).to(rows.dtype)
    products = F.linear(rows, matrices).reshape(-1, len(up))
    skipped = beneath(skip_rows, skip_pixels, output)
    return F.embedding(source * 4 + phase, products) + pointwise(skipped, lateral)


def residual_unit(
    values: Tensor, pixels: Pixels, output: Pixels, stride: int, weights: Sequence[Tensor], norms: Sequence[Rows]
) -> Tensor:
    """One residual unit: weights of reduce, conv, expand and, if its shape changes, project; what comes before each."""
    y = branch_of_unit(values, pixels, output, stride, weights, norms)
    return y if len(weights) == 4 else y + beneath(with_absent(values), pixels, output)


def branch_of_unit(
    values: Tensor, pixels: Pixels, output: Pixels, stride: int, weights: Sequence[Tensor], norms: Sequence[Rows]
) -> Tensor:
    """A residual unit without x itself: its three convolutions, plus the projection where the shape changes."""
    reduce, conv, expand, *project = weights
    activated = norms[0](with_absent(values))
    y = norms[1](pointwise(activated, reduce))
    y = pointwise(norms[2](windows(y, pixels, output, conv, stride)), expand)
    return y + pointwise(beneath(activated, pixels, output, stride), project[0]) if project else y
