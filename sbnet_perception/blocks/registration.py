"""The compiled operations of ``torch.ops.sbnet``: loaded, with their fake kernels, gradients and other devices."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sbnet_perception.blocks import reference
from sbnet_perception.blocks.reference import (
    Pair,
    check_blocks,
    check_geometry,
    check_image,
    check_indices,
    check_mask,
    check_pyramid,
)

# `make sanitize` names another library.
LIBRARY = Path(os.environ.get("SBNET_OPS") or Path(__file__).resolve().parent.parent / "_ops.so")


def _load_library() -> str:
    """Load the compiled operations; returns why not, or an empty string.

    Raises RuntimeError if SBNET_ISA names no instruction set of this machine.
    """
    if not LIBRARY.exists():
        return f"{LIBRARY.name} is not built (run 'python setup.py build_ext --inplace', needs g++)"
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        return f"{LIBRARY.name} cannot be loaded: {error}"
    torch.ops.sbnet.isa()  # a wrong SBNET_ISA is an error here, not at the first layer
    return ""


def _fake_reduce_mask(
    mask: Tensor, block_count: Pair, block_size: Pair, block_stride: Pair, block_offset: Pair, tol: float, avg: bool
) -> Tensor:
    check_mask(mask, block_count, block_size, block_stride, block_offset)
    return mask.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int32)


def _fake_tile_pyramid(mask: Tensor, sides: Sequence[int]) -> list[Tensor]:
    check_pyramid(mask, sides)
    new_size = torch.library.get_ctx().new_dynamic_size
    return [mask.new_empty((new_size(), 3), dtype=torch.int32) for _ in sides[::2]]


def _fake_gather(
    x: Tensor, indices: Tensor, size: Pair, stride: Pair, offset: Pair, dilation: Pair, channels_last: bool
) -> Tensor:
    check_image("x", x)
    check_indices(indices, "x", x)
    check_geometry(size, stride, offset, dilation)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    shape = (indices.shape[0], x.shape[1], *size)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


def _fake_scatter_(
    blocks: Tensor, indices: Tensor, base: Tensor, size: Pair, stride: Pair, offset: Pair, dilation: Pair, add: bool
) -> None:
    check_image("base", base)
    check_indices(indices, "base", base)
    check_geometry(size, stride, offset, dilation)
    check_blocks(blocks, base, size)


def _fake_scatter(blocks: Tensor, indices: Tensor, base: Tensor, *rest: Any) -> Tensor:
    _fake_scatter_(blocks, indices, base, *rest)
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


def _register() -> torch.library.Library:
    """Registers what the library leaves to Python; returns what must stay alive."""
    torch.library.register_fake("sbnet::reduce_mask", _fake_reduce_mask)
    torch.library.register_fake("sbnet::tile_pyramid", _fake_tile_pyramid)
    torch.library.register_fake("sbnet::sparse_gather", _fake_gather)
    torch.library.register_fake("sbnet::sparse_scatter", _fake_scatter)
    torch.library.register_fake("sbnet::sparse_scatter_", _fake_scatter_)
    torch.library.register_autograd("sbnet::sparse_gather", _backward_of_gather, setup_context=_set_up_gather)
    torch.library.register_autograd("sbnet::sparse_scatter", _backward_of_scatter, setup_context=_set_up_scatter)
    library = torch.library.Library("sbnet", "IMPL")
    library.impl("sparse_scatter_", _scatter_with_gradient_, "Autograd")
    # Devices without kernels of their own run the reference.
    for name in ("reduce_mask", "tile_pyramid", "sparse_gather", "sparse_scatter", "sparse_scatter_"):
        library.impl(name, getattr(reference, name), "CompositeExplicitAutograd")
    return library


UNAVAILABLE = _load_library()
"""Why the compiled operations are not in use; empty when they are."""
if UNAVAILABLE:
    warnings.warn(f"block operations run in plain PyTorch: {UNAVAILABLE}", RuntimeWarning, stacklevel=2)
else:
    _KEPT = _register()
