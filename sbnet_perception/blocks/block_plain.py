"""The block operations in plain PyTorch: the oracle of every test and the fallback without compiled ops.

Each takes the arguments of its namesake in ``torch.ops.sbnet`` and is differentiable. Each is one numpy-like expression
over explicit pixel positions (paper, section 3.2). A block ``(n, by, bx)`` covers rows ``oh + sh * by + dh * i``
(i < h) and columns ``ow + sw * bx + dw * j`` (j < w) of image ``n``; positions outside the image read zeros and write
nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbnet_perception.extents import check_bytes, check_cells, check_steps

Pair = tuple[int, int]

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def reduce_mask(
    mask: Tensor,
    block_count: Pair,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair,
    tol: float,
    avg: bool,
) -> Tensor:
    """Indices int32 [B, 3] of the active blocks of ``mask`` [N, H, W], in raster order."""
    check_mask(mask, block_count, block_size, block_stride, block_offset)
    if 0 in (*block_count, len(mask)):
        return torch.empty((0, 3), dtype=torch.int32, device=mask.device)
    # A block whose largest value exceeds tol holds a pixel that does; NaN does not.
    values = mask.double() if avg else (mask.double() > tol).double()
    for axis in (0, 1):
        values = _sums(values, axis + 1, block_count[axis], block_size[axis], block_stride[axis], block_offset[axis])
    active = values / (block_size[0] * block_size[1]) > tol if avg else values > 0
    return torch.nonzero(active).to(torch.int32)


def _sums(values: Tensor, dim: int, count: int, size: int, stride: int, offset: int) -> Tensor:
    """Sums of ``values`` along ``dim`` over the part of each of ``count`` blocks that lies inside."""
    extent = values.shape[dim]
    begins = [min(max(offset + stride * b, 0), extent) for b in range(count)]
    ends = [min(max(offset + stride * b + size, 0), extent) for b in range(count)]
    return torch.stack([values.narrow(dim, a, b - a).sum(dim) for a, b in zip(begins, ends, strict=True)], dim)


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
    block_dilation: Pair,
    channels_last: bool,
) -> Tensor:
    """Blocks [B, C, h, w] of ``x`` [N, C, H, W]; pixels outside the image are 0."""
    check_gather(x, indices, block_size, block_stride, block_offset, block_dilation)
    check_cells("sparse_gather", "block_size", len(indices), *block_size)
    _check_image_numbers(indices, len(x))
    _, channels, height, width = x.shape
    shape = (len(indices), *block_size, channels)
    rows, columns = block_pixels(indices, block_size, block_stride, block_offset, block_dilation)
    inside = inside_image(rows, columns, (height, width))
    if x.numel() == 0:
        blocks = x.new_zeros(shape)
    else:
        # Copy whole pixels (rows of C numbers) out of the flattened image.
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        pixel = (indices[:, :1].long() * height + rows)[:, :, None] * width + columns[:, None, :]
        flat = x.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, pixel.reshape(-1))
        blocks = flat.view(shape).masked_fill(~inside[..., None], 0)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return blocks.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)


def sparse_scatter_(
    blocks: Tensor,
    indices: Tensor,
    base: Tensor,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair,
    block_dilation: Pair,
    add: bool,
) -> None:
    """Write (or add) blocks [B, C, h, w] into ``base`` [N, C, H, W] in place."""
    check_scatter(blocks, indices, base, block_size, block_stride, block_offset, block_dilation)
    if len(blocks) != len(indices):
        raise ValueError(f"blocks must be {len(indices)}, one for each of the indices, got {len(blocks)}")
    if base.numel() and any(stride == 0 and size > 1 for stride, size in zip(base.stride(), base.shape, strict=True)):
        raise ValueError("base is an expanded view: several of its pixels share memory; pass base.clone()")
    _check_image_numbers(indices, len(base))
    height, width = base.shape[2:]
    rows, columns = block_pixels(indices, block_size, block_stride, block_offset, block_dilation)
    block, i, j = torch.nonzero(inside_image(rows, columns, (height, width)), as_tuple=True)
    pixels = torch.stack((indices[block, 0].long(), rows[block, i], columns[block, j]))
    # Where blocks overlap without add, only the last writer of each pixel may write.
    if not add:
        number = (pixels[0] * height + pixels[1]) * width + pixels[2]
        order = torch.arange(len(number), device=number.device)
        last = torch.full((len(base) * height * width,), -1, dtype=torch.int64, device=number.device)
        last.scatter_reduce_(0, number, order, "amax")
        keep = last[number] == order
        block, i, j, pixels = block[keep], i[keep], j[keep], pixels[:, keep]
    values = blocks.permute(0, 2, 3, 1)[block, i, j]
    if add and base.dtype in (torch.bfloat16, torch.float16):
        sums = base.permute(0, 2, 3, 1).float().index_put(tuple(pixels), values.float(), accumulate=True)
        base.copy_(sums.permute(0, 3, 1, 2))
    else:
        base.permute(0, 2, 3, 1).index_put_(tuple(pixels), values, accumulate=add)


def sparse_scatter(
    blocks: Tensor,
    indices: Tensor,
    base: Tensor,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair,
    block_dilation: Pair,
    add: bool,
) -> Tensor:
    """As `sparse_scatter_`, into a copy of ``base``."""
    check_image("base", base)
    copy = base.clone()
    sparse_scatter_(blocks, indices, copy, block_size, block_stride, block_offset, block_dilation, add)
    return copy


def check_mask(mask: Tensor, block_count: Pair, block_size: Pair, block_stride: Pair, block_offset: Pair) -> None:
    """Raises ValueError unless ``mask`` is bool or floating point [N, H, W], the pairs have their sign, and neither is
    too large."""
    if mask.dim() != 3 or mask.dtype not in (torch.bool, *FLOATING):
        raise ValueError(f"mask must be bool or floating point [N, H, W], got {mask.dtype} {tuple(mask.shape)}")
    _check_pair("block_count", block_count, 0)
    check_geometry(block_size, block_stride, block_offset)
    images, height, width = mask.shape
    rows, columns = block_count
    check_cells("reduce_mask", "mask", *mask.shape)
    check_cells("reduce_mask", "block_count", images, *block_count)
    check_steps("reduce_mask", "block_size", images, rows, min(block_size[0], height), width)
    check_steps("reduce_mask", "block_size", images, rows, columns, min(block_size[1], width))


def check_image(name: str, image: Tensor) -> None:
    """Raises ValueError unless ``image`` is floating point [N, C, H, W]."""
    if image.dim() != 4 or image.dtype not in FLOATING:
        raise ValueError(f"{name} must be floating point [N, C, H, W], got {image.dtype} {tuple(image.shape)}")
    check_cells("blocks", name, image.shape[0], *image.shape[2:])
    check_bytes(name, image.shape, image.element_size())


def check_gather(image: Tensor, indices: Tensor, *geometry: Pair, name: str = "x") -> None:
    """Raises ValueError unless ``indices`` and the pairs of a geometry are of blocks of ``image``."""
    check_image(name, image)
    if indices.device != image.device:
        raise ValueError(f"indices must be on the device of {name}, {image.device}, got {indices.device}")
    if indices.dim() != 2 or indices.shape[1] != 3 or indices.dtype != torch.int32:
        raise ValueError(f"indices must be int32 [B, 3], got {indices.dtype} {tuple(indices.shape)}")
    check_geometry(*geometry)


def check_scatter(blocks: Tensor, indices: Tensor, base: Tensor, block_size: Pair, *others: Pair) -> None:
    """As `check_gather` of ``base``, and unless ``blocks`` [B, C, h, w] suit it."""
    check_gather(base, indices, block_size, *others, name="base")
    check_image("blocks", blocks)
    if blocks.device != base.device:
        raise ValueError(f"blocks must be on the device of base, {base.device}, got {blocks.device}")
    expected = (base.shape[1], *block_size)
    if tuple(blocks.shape[1:]) != expected or blocks.dtype != base.dtype:
        shape = ", ".join(map(str, expected))
        raise ValueError(f"blocks must be {base.dtype} [B, {shape}], got {blocks.dtype} {tuple(blocks.shape)}")


def check_geometry(block_size: Pair, block_stride: Pair, block_offset: Pair, block_dilation: Pair = (1, 1)) -> None:
    """Raises ValueError unless each is two integers of 32 bits, positive ones save for the offset."""
    for name, pair in (("size", block_size), ("stride", block_stride), ("dilation", block_dilation)):
        _check_pair(f"block_{name}", pair, 1)
    _check_pair("block_offset", block_offset, -(2**31))


def _check_pair(name: str, pair: Pair, lowest: int) -> None:
    if len(pair) != 2 or not all(lowest <= value < 2**31 for value in pair):
        raise ValueError(f"{name} must be 2 integers in {lowest} .. {2**31 - 1}, got {tuple(pair)}")


def _check_image_numbers(indices: Tensor, batch: int) -> None:
    if len(indices) and not 0 <= int(indices[:, 0].min()) <= int(indices[:, 0].max()) < batch:
        raise ValueError(f"indices name an image outside the batch of {batch}")
