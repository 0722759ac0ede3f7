"""Arguments for the operations that multiply 8-bit levels."""

from __future__ import annotations

import torch
from draw import Draw
from torch import Tensor

from sbnet_perception.blocks import quantized_ops  # noqa: F401  (defines the operations)
from sbnet_perception.blocks.pixels import Pixels

OPS = torch.ops.sbnet
MAPS = (torch.uint8, torch.float32)


def _map(d: Draw, size: list[int], channels: int, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    lists = Pixels.from_mask(torch.rand(size, generator=d._torch) < d.random.random()).lists
    return d.retyped(_contiguous(d.values([len(lists[0]), channels], dtype, scale=100.0))), lists


def _contiguous(x: Tensor) -> Tensor:
    """Copies what is small; a vast expanded tensor stays one that takes no memory."""
    return x.contiguous() if x.numel() < 1e6 else x


def _weight(d: Draw, n: int, k: int, side: int) -> Tensor:
    most = 127 if d.chance(0.05) else 64
    shape = n, k + (1 if d.chance(0.02) else 0), side, side
    weight = torch.randint(-most, most + 1, shape, dtype=torch.int8, generator=d._torch)
    if d.chance(0.02):  # packed for another shape, often of as many bytes
        weight = weight.transpose(0, 1).contiguous()
    return OPS.pack_weights(weight, torch.empty(0, dtype=torch.uint8)) if most == 64 and d.chance(0.5) else weight


def _norm(d: Draw, channels: int) -> Tensor:
    return d.retyped(_contiguous(d.values([2, channels + (1 if d.chance(0.02) else 0)])))


def _size(d: Draw) -> list[int]:
    return [d.random.randint(1, 2), d.random.randint(1, 12), d.random.randint(1, 12)]


def quantized_conv(d: Draw) -> tuple[object, ...]:
    size, kernel, (inputs, outputs) = _size(d), d.one_of((1, 3)), (d.random.randint(1, 40) for _ in range(2))
    x, lists = _map(d, size, inputs, d.one_of(MAPS))
    after = _weight(d, outputs, inputs, kernel), _norm(d, outputs), torch.empty(0, dtype=d.one_of(MAPS))
    kernel = kernel if d.chance(0.97) else d.integer(0, 4)
    return x, _norm(d, inputs), lists, size, _map(d, size, 1, torch.uint8)[1], kernel, *after


def quantized_upsample(d: Draw) -> tuple[object, ...]:
    size, (inputs, beside, outputs) = _size(d), (d.random.randint(1, 40) for _ in range(3))
    x, x_lists = _map(d, [size[0], -(-size[1] // 2), -(-size[2] // 2)], inputs, torch.uint8)
    skip, skip_lists = _map(d, size, beside, torch.float32)
    weights = _weight(d, outputs, inputs, 2), _weight(d, outputs, beside, 1), _norm(d, outputs)
    return x, x_lists, skip, _norm(d, beside), skip_lists, size, _map(d, size, 1, torch.uint8)[1], *weights


def quantized_units(d: Draw) -> tuple[object, ...]:
    size, stride, (inputs, channels, middle) = _size(d), d.one_of((1, 2)), (d.random.randint(1, 40) for _ in range(3))
    x, lists = _map(d, size, inputs, d.one_of(MAPS))
    output = [size[0], -(-size[1] // stride), -(-size[2] // stride)]
    weights, into = [], inputs
    for unit in range(d.random.randint(1, 2)):
        project = unit == 0 and (stride == 2 or inputs != channels or d.chance(0.5))
        weights += [_norm(d, into), _weight(d, middle, into, 1), _norm(d, middle), _weight(d, middle, middle, 3)]
        weights += [_norm(d, middle), _weight(d, channels, middle, 1)]
        weights += [_weight(d, channels, into, 1) if project else torch.empty(0), _contiguous(d.values([channels]))]
        into = channels
    if d.chance(0.02):
        weights = weights[:-1]
    return x, lists, size, _map(d, output, 1, torch.uint8)[1], stride, channels, weights


ARGUMENTS = {
    "quantized_conv": quantized_conv, "quantized_upsample": quantized_upsample, "quantized_units": quantized_units,
}  # fmt: skip
