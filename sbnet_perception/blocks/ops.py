"""Public block operations on ``torch.ops.sbnet``, or on the plain-PyTorch reference where that is not built.

All take ``indices`` int32 [B, 3] of rows (n, by, bx), in any order and with repetitions, and the geometry of blocks as
pairs (vertical, horizontal) in pixels: block (by, bx) covers rows ``oh + sh*by + dh*i`` (i < h) and columns
``ow + sw*bx + dw*j`` (j < w), where ``block_size`` = (h, w), ``block_stride`` = (sh, sw), ``block_offset`` = (oh, ow),
which may be negative, and ``block_dilation`` = (dh, dw).

Images and blocks are float32, float64, bfloat16 or float16 in any memory layout. Results do not depend on the number of
threads. All raise ValueError for an argument of a wrong rank, dtype, device, sign or size, with its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sbnet_perception.blocks import reference
from sbnet_perception.blocks.reference import Pair
from sbnet_perception.blocks.registration import LIBRARY, UNAVAILABLE

__all__ = [
    "LIBRARY",
    "UNAVAILABLE",
    "reduce_mask",
    "sparse_gather",
    "sparse_scatter",
    "sparse_scatter_",
    "tile_pyramid",
]

KERNELS: Any = reference if UNAVAILABLE else torch.ops.sbnet


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
    return _call("reduce_mask", mask, block_count, block_size, block_stride, block_offset, tol, mode == "avg")


def tile_pyramid(mask: Tensor, sides: Sequence[Pair]) -> list[Tensor]:
    """Indices of the active tiles of several partitions of one mask, from one pass over it.

    Args:
        mask: bool [N, H, W].
        sides: (rows, columns) of a tile of each partition, in pixels of the mask; tiles at its edges may be cut.

    Returns:
        For each partition int32 [B, 3] rows (n, ty, tx) of the tiles with a True pixel, in raster order.
    """
    return _call("tile_pyramid", mask, [side for pair in sides for side in pair])


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
    return _call("sparse_gather", x, indices, block_size, block_stride, block_offset, block_dilation, channels_last)


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
    _call("sparse_scatter_", blocks, indices, base, block_size, block_stride, block_offset, block_dilation, add)
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
    return _call("sparse_scatter", blocks, indices, base, block_size, block_stride, block_offset, block_dilation, add)


def _call(name: str, *arguments: Any) -> Any:
    return call_checked(getattr(KERNELS, name), *arguments)


def call_checked(operation: Callable[..., Any], *arguments: Any) -> Any:
    """``operation(*arguments)``; what the library and the schema find wrong with an argument is a ValueError."""
    try:
        return operation(*arguments)
    except RuntimeError as error:
        # Their messages begin with the name of an operation; other errors are not about arguments.
        name = re.match(r"(?:sbnet::)?(\w+)(?:\(\)|: )", str(error))
        if name and hasattr(torch.ops.sbnet, name[1]):
            raise ValueError(str(error)) from None
        raise
