"""Public block operations: argument checks, then the compiled kernel or its plain-PyTorch reference."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from sbnet_perception.blocks import reference
from sbnet_perception.blocks.reference import Pair

LIBRARY = Path(__file__).resolve().parent.parent / "_ops.so"


def _load_library() -> str:
    """Load the compiled operations; returns why not, or an empty string."""
    if not LIBRARY.exists():
        return f"{LIBRARY.name} is not built (run 'python setup.py build_ext --inplace', needs g++)"
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        return f"{LIBRARY.name} cannot be loaded: {error}"
    return ""


UNAVAILABLE = _load_library()
"""Why the compiled operations are not in use; empty when they are."""
if UNAVAILABLE:
    warnings.warn(f"block operations run in plain PyTorch: {UNAVAILABLE}", RuntimeWarning, stacklevel=2)


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
        mask: bool or float32 [N, H, W].
        block_count: blocks per image (rows, columns).
        block_size, block_stride, block_offset: block (by, bx) covers rows ``oh + sh*by .. +h`` and
            columns ``ow + sw*bx .. +w``.
        mode: ``max`` ignores pixels outside the image, ``avg`` counts them as 0.

    Returns:
        int32 [B, 3] rows (n, by, bx) in raster order; B = 0 for an empty mask.

    Raises:
        ValueError: an argument has the wrong rank, dtype, sign or name.
    """
    if mask.dim() != 3 or mask.dtype not in (torch.bool, torch.float32):
        raise ValueError(f"mask must be bool or float32 [N, H, W], got {mask.dtype} {tuple(mask.shape)}")
    if mode not in ("max", "avg"):
        raise ValueError(f"mode must be 'max' or 'avg', got {mode!r}")
    _check_pairs(block_count=block_count, block_size=block_size, block_stride=block_stride)
    if UNAVAILABLE or mask.device.type != "cpu":
        return reference.reduce_mask(mask, block_count, block_size, block_stride, block_offset, tol, mode == "avg")
    return torch.ops.sbnet.reduce_mask(mask, block_count, block_size, block_stride, block_offset, tol, mode == "avg")


def sparse_gather(
    x: Tensor,
    indices: Tensor,
    block_size: Pair,
    block_stride: Pair,
    block_offset: Pair = (0, 0),
    block_dilation: Pair = (1, 1),
    memory_format: torch.memory_format = torch.channels_last,
) -> Tensor:
    """Blocks [B, C, h, w] of ``x`` [N, C, H, W] at ``indices`` int32 [B, 3]; outside the image 0.

    Raises:
        ValueError: wrong rank, dtype or sign, or an image number outside the batch.
    """
    _check_image("x", x)
    _check_indices(indices, x.shape[0])
    _check_pairs(block_size=block_size, block_stride=block_stride, block_dilation=block_dilation)
    blocks = reference.sparse_gather(x, indices, block_size, block_stride, block_offset, block_dilation)
    return blocks.contiguous(memory_format=memory_format)


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

    Where blocks overlap, ``add`` sums all of them; without it the last in index order wins.

    Raises:
        ValueError: shapes, dtypes or sizes disagree, or ``base`` is an expanded view.
    """
    _check_image("blocks", blocks)
    _check_image("base", base)
    _check_indices(indices, base.shape[0])
    _check_pairs(block_size=block_size, block_stride=block_stride, block_dilation=block_dilation)
    expected = (indices.shape[0], base.shape[1], *block_size)
    if tuple(blocks.shape) != expected or blocks.dtype != base.dtype:
        raise ValueError(f"blocks must be {base.dtype} {expected}, got {blocks.dtype} {tuple(blocks.shape)}")
    if any(stride == 0 and size > 1 for stride, size in zip(base.stride(), base.shape, strict=True)):
        raise ValueError("base is an expanded view: several of its pixels share memory; pass base.clone()")
    return reference.sparse_scatter_(blocks, indices, base, block_stride, block_offset, block_dilation, add)


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
    copy = base.clone(memory_format=torch.preserve_format)
    if any(stride == 0 and size > 1 for stride, size in zip(copy.stride(), copy.shape, strict=True)):
        copy = base.contiguous()
    return sparse_scatter_(blocks, indices, copy, block_size, block_stride, block_offset, block_dilation, add)


def _check_image(name: str, x: Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"{name} must be floating point with 4 dimensions, got {x.dtype} {tuple(x.shape)}")


def _check_indices(indices: Tensor, batch: int) -> None:
    if indices.dim() != 2 or indices.shape[1] != 3 or indices.dtype != torch.int32:
        raise ValueError(f"indices must be int32 [B, 3], got {indices.dtype} {tuple(indices.shape)}")
    if len(indices) and not 0 <= int(indices[:, 0].min()) <= int(indices[:, 0].max()) < batch:
        raise ValueError(f"indices name an image outside the batch of {batch}")


def _check_pairs(**pairs: Pair) -> None:
    for name, pair in pairs.items():
        if len(pair) != 2 or pair[0] < 1 or pair[1] < 1:
            raise ValueError(f"{name} must be two positive numbers, got {pair!r}")
