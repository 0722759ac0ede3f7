"""Weights as the fused kernels read them: normalizations as scale and shift, matrices in the order of the vectors.

Packing takes as long as computing a small layer, so it is done once and kept for as long as the parameters live. A
parameter that is changed in place (by an optimizer, load_state_dict, copy_) is packed anew; only a change through
``parameter.data`` goes unnoticed, because PyTorch does not count it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from sbnet_perception.blocks.reference_layers import NORM, split_units

Key = tuple[object, ...]
_kept: WeakIdKeyDictionary = WeakIdKeyDictionary()


def remember(
    parameters: Sequence[Tensor], like: Tensor, eps: Sequence[float], pack: Callable[[], list[Tensor]]
) -> list[Tensor]:
    """What ``pack`` returned for these parameters and the dtype of ``like``, as long as the parameters are the same."""
    if any(p.is_inference() for p in parameters):
        return pack()  # nothing counts changes of tensors that were made in inference mode
    key: Key = (tuple((p.data_ptr(), p._version) for p in parameters), tuple(eps))
    kept = _kept.setdefault(parameters[0], {})
    if kept.get(like.dtype, (None,))[0] != key:
        kept[like.dtype] = key, pack()
    result: list[Tensor] = kept[like.dtype][1]
    return result


def pack_units(parameters: Sequence[Tensor], like: Tensor, eps: Sequence[float]) -> list[Tensor]:
    """Seven tensors per residual unit, as ``torch.ops.sbnet.residual_units_packed`` takes them."""
    packed: list[Tensor] = []
    for number, unit in enumerate(split_units(parameters)):
        eps1, eps2, eps3 = eps[3 * number : 3 * number + 3]
        packed += [scale_and_shift(unit[0:4], eps1, like), _pack(_pointwise(unit[4]), like)]
        packed += [scale_and_shift(unit[5:9], eps2, like), _pack(_rows(unit[9]), like)]
        packed += [scale_and_shift(unit[10:14], eps3, like), _pack(_pointwise(unit[14]), like)]
        packed.append(_pack(_pointwise(unit[15]), like) if len(unit) > 15 else like.new_empty(0, dtype=torch.uint8))
    return packed


def pack_conv(parameters: Sequence[Tensor], like: Tensor, eps: float) -> list[Tensor]:
    """Weights, scale and shift of a convolution with a normalization, or with a bias."""
    weight, *rest = parameters
    matrix = _pack(_rows(weight) if weight.shape[2] == 3 else _pointwise(weight), like)
    if len(rest) == NORM:
        return [matrix, scale_and_shift(rest, eps, like)]
    return [matrix, torch.stack([torch.ones_like(rest[0]), rest[0]]).to(_sum_dtype(like)).contiguous()]


def pack_upsample(parameters: Sequence[Tensor], like: Tensor, eps: float) -> list[Tensor]:
    """Weights of the four phases, of the lateral convolution, scale and shift."""
    up, lateral, *norm = parameters
    phases = up.permute(2, 3, 1, 0).reshape(4, up.shape[1], up.shape[0])
    return [_pack(phases, like), _pack(_pointwise(lateral), like), scale_and_shift(norm, eps, like)]


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
