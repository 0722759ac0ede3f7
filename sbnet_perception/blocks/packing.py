"""Weights as the fused kernels read them: normalizations as scale and shift, matrices in the order of the vectors.

Packing takes as long as computing a small layer, so it is done once and kept for as long as the parameters live. A
parameter that is changed in place (by an optimizer, load_state_dict, copy_) is packed anew; only a change through
``parameter.data`` goes unnoticed, because PyTorch does not count it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from sbnet_perception.blocks.reference_layers import NORM, UNIT

Eps = Sequence[float]
_kept: WeakIdKeyDictionary = WeakIdKeyDictionary()


def remember(
    pack: Callable[[Sequence[Tensor], Tensor, Eps], list[Tensor]],
    parameters: Sequence[Tensor],
    like: Tensor,
    eps: Eps,
) -> list[Tensor]:
    """``pack(parameters, like, eps)``, or what it returned last if nothing has changed since.

    It is kept with the first parameter, for each ``pack`` and dtype of ``like``.
    """
    try:
        state = tuple(eps), [(p.data_ptr(), p._version) for p in parameters]
    except RuntimeError:
        return pack(parameters, like, eps)  # nothing counts changes of tensors that were made in inference mode
    kept = _kept.get(parameters[0])
    if kept is None:
        kept = _kept[parameters[0]] = {}
    key = pack, like.dtype
    found = kept.get(key)
    # Another tensor may lie where a parameter lay, with the same count of changes: the tensors must be the same too.
    if found is None or found[0] != state or any(ref() is not p for ref, p in zip(found[1], parameters, strict=True)):
        packed = pack(parameters, like, eps)
        found = kept[key] = state, [weakref.ref(p) for p in parameters], packed
    result: list[Tensor] = found[2]
    return result


def pack_unit(parameters: Sequence[Tensor], like: Tensor, eps: Eps) -> list[Tensor]:
    """Seven tensors of a residual unit, as ``torch.ops.sbnet.residual_units_packed`` takes them."""
    project = _pointwise(parameters[15]) if len(parameters) > UNIT else None
    return [
        scale_and_shift(parameters[0:4], eps[0], like),
        _pack(_pointwise(parameters[4]), like),
        scale_and_shift(parameters[5:9], eps[1], like),
        _pack(_rows(parameters[9]), like),
        scale_and_shift(parameters[10:14], eps[2], like),
        _pack(_pointwise(parameters[14]), like),
        like.new_empty(0, dtype=torch.uint8) if project is None else _pack(project, like),
    ]


def pack_conv(parameters: Sequence[Tensor], like: Tensor, eps: Eps) -> list[Tensor]:
    """Weights, scale and shift of a convolution with a normalization, or with a bias."""
    weight, *rest = parameters
    matrix = _pack(_rows(weight) if weight.shape[2] == 3 else _pointwise(weight), like)
    if len(rest) == NORM:
        return [matrix, scale_and_shift(rest, eps[0], like)]
    return [matrix, torch.stack([torch.ones_like(rest[0]), rest[0]]).to(_sum_dtype(like)).contiguous()]


def pack_upsample(parameters: Sequence[Tensor], like: Tensor, eps: Eps) -> list[Tensor]:
    """Weights of the four phases, of the lateral convolution, scale and shift."""
    up, lateral, *norm = parameters
    phases = up.permute(2, 3, 1, 0).reshape(4, up.shape[1], up.shape[0])
    return [_pack(phases, like), _pack(_pointwise(lateral), like), scale_and_shift(norm, eps[0], like)]


def scale_and_shift(norm: Sequence[Tensor], eps: float, like: Tensor) -> Tensor:
    """[2, C] of a batch normalization in evaluation: y = x * scale + shift."""
    weight, bias, mean, variance = (tensor.double() for tensor in norm)
    scale = weight / torch.sqrt(variance + eps)
    return torch.stack([scale, bias - mean * scale]).to(_sum_dtype(like))


def _sum_dtype(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def _pointwise(weight: Tensor) -> Tensor:
    """[N, K, 1, 1] -> [1, N, K]."""
    return weight[None, :, :, 0, 0]


def _rows(weight: Tensor) -> Tensor:
    """[N, K, 3, 3] -> [3, N, 3 K]: each row of the window is one matrix; K is padded to an even number."""
    rows = _even(weight.permute(2, 0, 3, 1))
    return rows.reshape(3, rows.shape[1], -1)


def _even(matrix: Tensor) -> Tensor:
    return F.pad(matrix, (0, matrix.shape[-1] % 2))


def _pack(matrices: Tensor, like: Tensor) -> Tensor:
    packed: Tensor = torch.ops.sbnet.pack_weights(_even(matrices).to(_sum_dtype(like)).contiguous(), like)
    return packed
