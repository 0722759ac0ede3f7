"""The block operations in plain PyTorch: the oracle of every test and the fallback without compiled ops.

Each is one numpy-like expression over explicit pixel positions (paper, section 3.2). A block
``(n, by, bx)`` covers rows ``oh + sh * by + dh * i`` (i < h) and columns ``ow + sw * bx + dw * j``
(j < w) of image ``n``; positions outside the image read zeros and write nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]


def reduce_mask(
    mask: Tensor,
    block_count: Pair,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair,
    tol: float,
    average: bool,
) -> Tensor:
    """Indices int32 [B, 3] of the active blocks of ``mask`` [N, H, W], in raster order."""
    height, width = mask.shape[-2:]
    (rows, columns), (h, w), (sh, sw), (oh, ow) = block_count, block_size, block_stride, block_offset
    # Lay the part of the mask that blocks cover on a canvas of exactly their span; -inf never wins a maximum.
    span_h, span_w = (rows - 1) * sh + h, (columns - 1) * sw + w
    canvas = mask.new_full((len(mask), 1, span_h, span_w), 0.0 if average else -torch.inf, dtype=torch.float64)
    top, bottom, left, right = max(oh, 0), min(oh + span_h, height), max(ow, 0), min(ow + span_w, width)
    if top < bottom and left < right:
        canvas[:, 0, top - oh : bottom - oh, left - ow : right - ow] = mask[:, top:bottom, left:right]
    pool = F.avg_pool2d if average else F.max_pool2d
    return torch.nonzero(pool(canvas, (h, w), (sh, sw))[:, 0] > tol).to(torch.int32)


def block_pixels(
    indices: Tensor, block_size: Pair, block_stride: Pair, block_offset: Pair, block_dilation: Pair = (1, 1)
) -> tuple[Tensor, Tensor]:
    """Rows int64 [B, h] and columns int64 [B, w] that each block covers, in or out of the image."""
    rows = block_offset[0] + block_stride[0] * indices[:, 1:2].long()
    columns = block_offset[1] + block_stride[1] * indices[:, 2:3].long()
    rows = rows + block_dilation[0] * torch.arange(block_size[0], device=indices.device)
    columns = columns + block_dilation[1] * torch.arange(block_size[1], device=indices.device)
    return rows, columns


def inside_image(rows: Tensor, columns: Tensor, size: Pair) -> Tensor:
    """Bool [B, h, w]: which pixels of the blocks lie in an image of ``size`` (H, W)."""
    inside_rows = (rows >= 0) & (rows < size[0])
    inside_columns = (columns >= 0) & (columns < size[1])
    return inside_rows[:, :, None] & inside_columns[:, None, :]


def sparse_gather(
    x: Tensor,
    indices: Tensor,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair,
    block_dilation: Pair = (1, 1),
) -> Tensor:
    """Blocks [B, C, h, w] (channels_last) of ``x`` [N, C, H, W]; pixels outside the image are 0."""
    _, channels, height, width = x.shape
    rows, columns = block_pixels(indices, block_size, block_stride, block_offset, block_dilation)
    inside = inside_image(rows, columns, (height, width))
    # Copy whole pixels (rows of C numbers) out of the flattened image.
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    pixel = (indices[:, :1].long() * height + rows)[:, :, None] * width + columns[:, None, :]
    flat = x.permute(0, 2, 3, 1).reshape(-1, channels)
    blocks = flat.index_select(0, pixel.reshape(-1))
    outside = torch.nonzero(~inside.reshape(-1)).squeeze(1)
    if len(outside):
        blocks[outside] = 0
    return blocks.view(*pixel.shape, channels).permute(0, 3, 1, 2)


def sparse_scatter_(
    blocks: Tensor,
    indices: Tensor,
    base: Tensor,
    block_stride: Pair,
    block_offset: Pair,
    block_dilation: Pair = (1, 1),
    add: bool = False,
) -> Tensor:
    """Write (or add) blocks [B, C, h, w] into ``base`` [N, C, H, W] in place; returns ``base``."""
    _, _, height, width = base.shape
    rows, columns = block_pixels(
        indices, (blocks.shape[2], blocks.shape[3]), block_stride, block_offset, block_dilation
    )
    inside = inside_image(rows, columns, (height, width))
    block, i, j = torch.nonzero(inside, as_tuple=True)
    image, row, column = indices[block, 0].long(), rows[block, i], columns[block, j]
    values = blocks.permute(0, 2, 3, 1)
    values = values.reshape(-1, blocks.shape[1]) if len(block) == inside.numel() else values[block, i, j]
    # Where blocks overlap without add, only the last writer of each pixel may write.
    if not add and _may_overlap(indices, (blocks.shape[2], blocks.shape[3]), block_stride, block_dilation):
        pixel = (image * height + row) * width + column
        order = torch.arange(len(pixel), device=pixel.device)
        last = torch.full((base.shape[0] * height * width,), -1, dtype=torch.int64, device=pixel.device)
        last.scatter_reduce_(0, pixel, order, "amax")
        keep = last[pixel] == order
        image, row, column, values = image[keep], row[keep], column[keep], values[keep]
    base.permute(0, 2, 3, 1).index_put_((image, row, column), values, accumulate=add)
    return base


def _may_overlap(indices: Tensor, block_size: Pair, block_stride: Pair, block_dilation: Pair) -> bool:
    """True unless blocks are surely disjoint: no larger than their stride and no index given twice."""
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(block_size, block_dilation, strict=True)]
    if spans[0] > block_stride[0] or spans[1] > block_stride[1]:
        return True
    # One number per index: 2**21 blocks along each axis are more than any map has.
    number = (indices[:, 0].long() << 42) + (indices[:, 1].long() << 21) + indices[:, 2].long()
    return len(torch.unique(number)) != len(number)
