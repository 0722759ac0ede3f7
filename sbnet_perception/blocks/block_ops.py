"""The block operations of the paper (section 3).

All take ``indices`` int32 [B, 3] of rows (n, by, bx), in any order and with repetitions, and the geometry of blocks as
pairs (vertical, horizontal) in pixels: block (by, bx) covers rows ``oh + sh*by + dh*i`` (i < h) and columns
``ow + sw*bx + dw*j`` (j < w), where ``block_size`` = (h, w), ``block_stride`` = (sh, sw), ``block_offset`` = (oh, ow),
which may be negative, and ``block_dilation`` = (dh, dw).

Images and blocks are float32, float64, bfloat16 or float16 in any memory layout. Results do not depend on the number of
threads. All raise ValueError for an argument of a wrong rank, dtype, device, sign or size, with its name. So does an
image n that is not there, save on a GPU, where nobody waits to see it: its blocks read zeros and write nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sbnet_perception.blocks import block_plain
from sbnet_perception.blocks.block_plain import Pair, check_gather, check_mask, check_scatter
from sbnet_perception.operation import call, dynamic_size, override, register


def reduce_mask(
    mask: Tensor,
    block_count: Pair,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair = (0, 0),
    tol: float = 0.5,
    mode: str = "max",
) -> Tensor:
    """Indices of the blocks whose pooled mask exceeds ``tol`` (paper, section 3.1).

    Args:
        mask: bool or floating point [N, H, W]. NaN exceeds nothing, nor does a mean over NaN.
        block_count: blocks per image (rows, columns).
        mode: ``max`` ignores pixels outside the image, ``avg`` counts them as 0. Compared in float64.

    Returns:
        int32 [B, 3] rows (n, by, bx) in raster order; B = 0 for an empty mask.
    """
    if mode not in ("max", "avg"):
        raise ValueError(f"mode must be 'max' or 'avg', got {mode!r}")
    return call(_REDUCE_MASK, mask, block_count, block_size, block_stride, block_offset, tol, mode == "avg")


def sparse_gather(
    x: Tensor,
    indices: Tensor,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair = (0, 0),
    block_dilation: Pair = (1, 1),
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Blocks [B, C, h, w] of ``x`` [N, C, H, W] in ``memory_format``; pixels outside the image are 0.

    Its gradient sums over the blocks that read a pixel, as `sparse_scatter` with ``add``.
    """
    if memory_format not in (torch.channels_last, torch.contiguous_format):
        raise ValueError(f"memory_format must be channels_last or contiguous_format, got {memory_format}")
    channels_last = memory_format == torch.channels_last
    return call(_SPARSE_GATHER, x, indices, block_size, block_stride, block_offset, block_dilation, channels_last)


def sparse_scatter_(
    blocks: Tensor,
    indices: Tensor,
    base: Tensor,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair = (0, 0),
    block_dilation: Pair = (1, 1),
    add: bool = False,
) -> Tensor:
    """Write blocks [B, C, h, w] into ``base`` [N, C, H, W] in place, or add them; returns ``base``.

    Pixels outside the image are dropped. Where blocks overlap, the last in the order of ``indices`` wins and only it
    receives a gradient. With ``add`` a pixel becomes ((base + first block) + second) + ... in the order of ``indices``;
    bfloat16 and float16 are summed in float32 and rounded once.

    ``base`` must not be an expanded view.
    """
    call(_SPARSE_SCATTER_IN_PLACE, blocks, indices, base, block_size, block_stride, block_offset, block_dilation, add)
    return base


def sparse_scatter(
    blocks: Tensor,
    indices: Tensor,
    base: Tensor,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair = (0, 0),
    block_dilation: Pair = (1, 1),
    add: bool = False,
) -> Tensor:
    """As `sparse_scatter_`, into a copy of ``base``."""
    return call(_SPARSE_SCATTER, blocks, indices, base, block_size, block_stride, block_offset, block_dilation, add)


# --- shapes of the results, and gradients


def _fake_reduce_mask(
    mask: Tensor, block_count: Pair, block_size: Pair, block_stride: Pair, block_offset: Pair, tol: float, avg: bool
) -> Tensor:
    check_mask(mask, block_count, block_size, block_stride, block_offset)
    return mask.new_empty((dynamic_size(), 3), dtype=torch.int32)


def _fake_gather(
    x: Tensor, indices: Tensor, size: Pair, stride: Pair, offset: Pair, dilation: Pair, channels_last: bool
) -> Tensor:
    check_gather(x, indices, size, stride, offset, dilation)
    blocks = x.new_empty((indices.shape[0], x.shape[1], *size))
    return blocks.contiguous(memory_format=torch.channels_last) if channels_last else blocks


def _fake_scatter_(blocks: Tensor, indices: Tensor, base: Tensor, *rest: Any) -> None:
    check_scatter(blocks, indices, base, *rest[:4])


def _fake_scatter(blocks: Tensor, indices: Tensor, base: Tensor, *rest: Any) -> Tensor:
    check_scatter(blocks, indices, base, *rest[:4])
    return torch.empty_like(base)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def _set_up_gather(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, indices, *ctx.block, _ = inputs
    ctx.save_for_backward(indices)
    ctx.shape = x.shape
    ctx.memory_format = torch.channels_last if _is_channels_last(x) else torch.contiguous_format


def _backward_of_gather(ctx: Any, gradient: Tensor) -> Any:
    """Each pixel sums the gradients of the blocks that read it."""
    (indices,) = ctx.saved_tensors
    zeros = torch.empty(
        ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.memory_format
    ).zero_()
    torch.ops.sbnet.sparse_scatter_(gradient, indices, zeros, *ctx.block, True)
    return zeros, *[None] * 6


def _set_up_scatter(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    blocks, indices, _, *ctx.block, ctx.add = inputs
    ctx.save_for_backward(indices)
    ctx.shape, ctx.channels_last = blocks.shape, _is_channels_last(blocks)


def _backward_of_scatter(ctx: Any, gradient: Tensor) -> Any:
    """A block receives the gradient of the pixels that it wrote last (with ``add``, of all), base of the others."""
    (indices,) = ctx.saved_tensors
    gather, scatter = torch.ops.sbnet.sparse_gather, torch.ops.sbnet.sparse_scatter
    of_blocks, of_base = None, gradient
    if ctx.needs_input_grad[0]:
        of_blocks = gather(gradient, indices, *ctx.block, ctx.channels_last)
    if not ctx.add:
        count, _, *size = ctx.shape
        if of_blocks is not None:
            # Write each block's own number: where it is still to be read, the block was the last.
            numbers = torch.arange(count, dtype=torch.float64, device=gradient.device)[:, None, None, None]
            image = numbers.new_zeros((gradient.shape[0], 1, *gradient.shape[2:]))
            image = scatter(numbers.expand(count, 1, *size), indices, image, *ctx.block, False)
            is_last = gather(image, indices, *ctx.block, ctx.channels_last) == numbers
            of_blocks = of_blocks.where(is_last, 0)
        if ctx.needs_input_grad[2]:
            of_base = scatter(gradient.new_zeros(()).expand(ctx.shape), indices, gradient, *ctx.block, False)
    return of_blocks, None, of_base, *[None] * 5


def _scatter_with_gradient_(blocks: Tensor, indices: Tensor, base: Tensor, *rest: Any) -> None:
    """`sparse_scatter_` above its kernel: where a gradient is wanted, base takes the result of `sparse_scatter`."""
    if torch.is_grad_enabled() and (blocks.requires_grad or base.requires_grad):
        base.copy_(torch.ops.sbnet.sparse_scatter(blocks, indices, base, *rest))
        return
    with torch._C._AutoDispatchBelowAutograd():
        torch.ops.sbnet.sparse_scatter_(blocks, indices, base, *rest)
    torch.autograd.graph.increment_version(base)



_GEOMETRY = "int[2] block_size, int[2] block_stride, int[2] block_offset"
_REDUCE_MASK = register(
    f"reduce_mask(Tensor mask, int[2] block_count, {_GEOMETRY}, float tol, bool avg) -> Tensor",
    block_plain.reduce_mask,
    _fake_reduce_mask,
)
_SPARSE_GATHER = register(
    f"sparse_gather(Tensor x, Tensor indices, {_GEOMETRY}, int[2] block_dilation, bool channels_last) -> Tensor",
    block_plain.sparse_gather,
    _fake_gather,
    _backward_of_gather,
    _set_up_gather,
)
_SPARSE_SCATTER = register(
    f"sparse_scatter(Tensor blocks, Tensor indices, Tensor base, {_GEOMETRY}, int[2] block_dilation, bool add) "
    "-> Tensor",
    block_plain.sparse_scatter,
    _fake_scatter,
    _backward_of_scatter,
    _set_up_scatter,
)
_SPARSE_SCATTER_IN_PLACE = register(
    f"sparse_scatter_(Tensor blocks, Tensor indices, Tensor(a!) base, {_GEOMETRY}, int[2] block_dilation, bool add) "
    "-> ()",
    block_plain.sparse_scatter_,
    _fake_scatter_,
)
override("sparse_scatter_", _scatter_with_gradient_, "Autograd")
