"""Arguments for every operation of ``torch.ops.sbnet``. The lists of pixels are right, as the library makes them:
kernels trust them (`Pixels`); everything else may be anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import quantized_operations
import torch
from draw import DTYPES, Draw
from torch import Tensor

from sbnet_perception.bev import voxelize  # noqa: F401  (defines its operation, as those below)
from sbnet_perception.blocks import layer_ops, tiles  # noqa: F401
from sbnet_perception.blocks.pixels import Pixels
from sbnet_perception.detector import boxes  # noqa: F401
from sbnet_perception.masks import computation  # noqa: F401

OPS = torch.ops.sbnet
Arguments = tuple[Any, ...]


def _geometry(d: Draw) -> Arguments:
    return d.integers(2, 1, 9), d.integers(2, 1, 9), d.integers(2, -9, 9)


def _indices(d: Draw, images: int) -> Tensor:
    rows = [
        [d.random.randint(0, max(images - 1, 0)), d.integer(-3, 9), d.integer(-3, 9)]
        for _ in range(d.random.randint(0, 9))
    ]
    table = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).clamp(-(2**31), 2**31 - 1).int()
    if len(table) and d.chance(0.05):
        table[0, 0] = d.one_of((-1, min(images, 2**31 - 1), 2**31 - 1))
    return d.retyped(table)


def reduce_mask(d: Draw) -> Arguments:
    mask = d.mask(d.shape(3, 24)) if d.chance(0.5) else d.values(d.shape(3, 24), d.one_of(DTYPES))
    return d.retyped(mask), d.integers(2, 0, 12), *_geometry(d), d.number(-1, 1), d.chance(0.5)


def sparse_gather(d: Draw) -> Arguments:
    x = d.values(d.shape(4, 12), d.one_of(DTYPES))
    return d.retyped(x), _indices(d, len(x) if x.dim() else 0), *_geometry(d), d.integers(2, 1, 3), d.chance(0.5)


def sparse_scatter(d: Draw) -> Arguments:
    base = d.values(d.shape(4, 12), d.one_of(DTYPES))
    indices, (size, *others) = _indices(d, len(base) if base.dim() else 0), _geometry(d)
    channels = base.shape[1] if base.dim() > 1 else 1
    fits = max([0, *size]) < 100 and channels < 100 and min([0, *size]) >= 0
    blocks = d.values([len(indices), channels, *size] if fits else [1, 1, 1, 1], base.dtype)
    return d.retyped(blocks), indices, base, size, *others, d.integers(2, 1, 3), d.chance(0.5)


def tile_pyramid(d: Draw) -> Arguments:
    count = d.random.randint(0, 4)
    return d.retyped(d.mask(d.shape(3, 24))), d.integers(2 * count, 1, 9), d.integers(count, 1, 9)


def pixel_index(d: Draw) -> Arguments:
    size = d.integers(3, 0, 12)
    flat = sorted({d.random.randrange(-1, 300) for _ in range(d.random.randint(0, 20))})
    return d.retyped(torch.tensor(flat, dtype=torch.int64)), size


def dilate(d: Draw) -> Arguments:
    runs = sorted(d.integers(d.random.randint(0, 6), 0, 40), reverse=not d.chance(0.05))
    return d.retyped(d.mask(d.shape(2, 90))), runs


def shadow(d: Draw) -> Arguments:
    return d.retyped(d.mask(d.shape(2, 90))), d.integers(2, -400, 400), d.random.randrange(-1, 100)


def sample_raster(d: Draw) -> Arguments:
    far = 40 << 32  # a cell is 2^32
    pairs = [d.integers(2, -far, far) for _ in range(3)]
    return d.retyped(d.mask(d.shape(2, 40))), *pairs, d.integers(2, 1, 40)


def _cloud(d: Draw, columns: int) -> Tensor:
    return d.retyped(d.values([d.random.randint(0, 200), columns + (-1 if d.chance(0.02) else 0)], scale=20.0))


def height_above_ground(d: Draw) -> Arguments:
    return _cloud(d, d.random.randint(3, 5)), d.numbers(4, -50, 50)


def _raster(d: Draw) -> Arguments:
    return d.numbers(4, -50, 50), d.number(0.05, 2.0), d.integers(2, 1, 200)


def occupancy(d: Draw) -> Arguments:
    return _cloud(d, d.random.randint(3, 5)), d.number(-3, 3), d.number(-3, 3), *_raster(d)


def voxelize_cloud(d: Draw) -> Arguments:
    return _cloud(d, 4), *_raster(d), d.number(-5, 5), d.number(0.05, 1.0), d.integer(1, 61)


def detect(d: Draw) -> Arguments:
    classes, count = d.random.randint(1, 3), d.random.randint(0, 60)
    rows = d.values([count, classes + 8 + (1 if d.chance(0.02) else 0)], scale=3.0)
    flat = torch.tensor([d.integer(-1, 200) for _ in range(count)], dtype=torch.int64)
    place = d.numbers(3, 0.1, 2.0)
    return (
        d.retyped(rows),
        d.retyped(flat),
        d.integer(1, 20),
        place,
        d.numbers(classes, 0, 1),
        d.integers(classes, 0, 2),
        d.number(0, 1),
        d.integer(0, 50),
    )


def pack_weights(d: Draw) -> Arguments:
    side = d.random.randint(1, 3)
    weight = d.values([d.random.randint(0, 40), d.random.randint(0, 40), side, side if d.chance(0.95) else 2])
    return d.retyped(weight), torch.empty(0, dtype=d.one_of((*DTYPES, torch.int8)))


def _map(d: Draw, size: list[int], channels: int, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    lists = Pixels.from_mask(torch.rand(size, generator=d._torch) < d.random.random()).lists
    rows = len(lists[0]) + (1 if d.chance(0.03) else 0)
    return d.retyped(torch.randn(rows, channels, generator=d._torch).to(dtype)), lists


def _size(d: Draw) -> list[int]:
    return [d.random.randint(1, 2), d.random.randint(1, 12), d.random.randint(1, 12)]


def _weight(d: Draw, n: int, k: int, side: int, dtype: torch.dtype) -> Tensor:
    weight = d.values([n, k + (1 if d.chance(0.02) else 0), side, side], torch.promote_types(dtype, torch.float32))
    like = torch.empty(0, dtype=dtype)
    if n != k and d.chance(0.02) and weight.numel() < 1e6:  # packed for another shape, often of as many bytes
        return OPS.pack_weights(weight.transpose(0, 1).contiguous(), like)
    return OPS.pack_weights(weight.contiguous(), like) if d.chance(0.5) and weight.numel() < 1e6 else weight


def _norm(d: Draw, channels: int, dtype: torch.dtype) -> Tensor:
    channels += 1 if d.chance(0.02) else 0
    return d.retyped(torch.randn(2, channels, generator=d._torch).to(torch.promote_types(dtype, torch.float32)))


def _called(d: Draw, size: list[int]) -> list[int]:
    """The size of the maps, seldom something else of as many rows or none."""
    return d.integers(3, 0, 12) if d.chance(0.05) else size


def conv(d: Draw) -> Arguments:
    dtype, kernel, size = d.one_of(DTYPES), d.one_of((1, 3)), _size(d)
    inputs, outputs = d.random.randint(1, 40), d.random.randint(1, 40)
    x, lists = _map(d, size, inputs, dtype)
    weight, norm = _weight(d, outputs, inputs, kernel, dtype), _norm(d, outputs, dtype)
    width = size[2]
    called = [*_called(d, size)[:2], width] if d.chance(0.5) else size
    return (
        x,
        lists,
        called,
        _map(d, size, 1, dtype)[1],
        kernel if d.chance(0.97) else d.integer(0, 4),
        d.chance(0.5),
        weight,
        norm,
    )


def upsample(d: Draw) -> Arguments:
    dtype, size = d.one_of(DTYPES), _size(d)
    half = [size[0], -(-size[1] // 2), -(-size[2] // 2)]
    inputs, beside, outputs = (d.random.randint(1, 40) for _ in range(3))
    x, x_lists = _map(d, half, inputs, dtype)
    skip, skip_lists = _map(d, size, beside, dtype)
    up, lateral = _weight(d, outputs, inputs, 2, dtype), _weight(d, outputs, beside, 1, dtype)
    return x, x_lists, skip, skip_lists, size, _map(d, size, 1, dtype)[1], up, lateral, _norm(d, outputs, dtype)


def voxel_conv(d: Draw) -> Arguments:
    dtype, size, channels, outputs = d.one_of(DTYPES), _size(d), d.random.randint(2, 40), d.random.randint(1, 40)
    last, lists = _map(d, size, 1, torch.float32)
    top = 1 << (channels - 1 + (1 if d.chance(0.02) else 0))
    bits = torch.tensor([d.random.randrange(top) for _ in range(len(last))], dtype=torch.int64)
    sums = torch.promote_types(dtype, torch.float32)
    weight = torch.randn(9, channels, -(-outputs // 16) * 16, generator=d._torch).to(sums)
    like = torch.empty(0, dtype=dtype)
    last = last[:, 0].contiguous() if last.dim() == 2 else last
    return bits, last, lists, size, _map(d, size, 1, dtype)[1], channels, weight, _norm(d, outputs, dtype), like


def residual_units(d: Draw) -> Arguments:
    dtype, size, stride = d.one_of(DTYPES), _size(d), d.one_of((1, 2))
    inputs, channels, middle = (d.random.randint(1, 40) for _ in range(3))
    x, lists = _map(d, size, inputs, dtype)
    output = [size[0], -(-size[1] // stride), -(-size[2] // stride)]
    weights, into = [], inputs
    for unit in range(d.random.randint(1, 2)):
        project = unit == 0 and (stride == 2 or inputs != channels or d.chance(0.5))
        weights += [
            _norm(d, into, dtype), _weight(d, middle, into, 1, dtype), _norm(d, middle, dtype),
            _weight(d, middle, middle, 3, dtype), _norm(d, middle, dtype), _weight(d, channels, middle, 1, dtype),
            _weight(d, channels, into, 1, dtype) if project else torch.empty(0),
        ]  # fmt: skip
        into = channels
    if d.chance(0.02):
        weights = weights[:-1]
    return x, lists, size, _map(d, output, 1, dtype)[1], stride, channels, weights


ARGUMENTS: dict[str, Callable[[Draw], Arguments]] = {
    "reduce_mask": reduce_mask, "sparse_gather": sparse_gather, "sparse_scatter": sparse_scatter,
    "sparse_scatter_": sparse_scatter, "tile_pyramid": tile_pyramid, "pixel_index": pixel_index, "dilate": dilate,
    "shadow": shadow, "sample_raster": sample_raster, "height_above_ground": height_above_ground,
    "occupancy": occupancy, "voxelize": voxelize_cloud, "detect": detect, "pack_weights": pack_weights,
    "conv": conv, "upsample": upsample, "voxel_conv": voxel_conv, "residual_units": residual_units,
    **quantized_operations.ARGUMENTS,
}  # fmt: skip


def refused(name: str, error: Exception) -> bool:
    """Whether an operation, or torch before it, has found an argument wrong, with a sentence that says which."""
    if isinstance(error, (ValueError, TypeError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and text.startswith(
        (f"{name}: ", f"sbnet::{name}", "Overflow when unpacking")
    )


def target(name: str) -> Callable[[Draw], None]:
    """Calls an operation with one input; what it raises beyond a refusal is a finding."""
    operation, arguments = getattr(OPS, name), ARGUMENTS[name]

    def call(d: Draw) -> None:
        try:
            given = arguments(d)
        except (RuntimeError, ValueError) as error:
            # Weights are packed, and pixels found, by operations too.
            if not any(refused(other, error) for other in ("pack_weights", "pixel_index")):
                raise
            return
        try:
            operation(*given)
        except Exception as error:
            if not refused(name, error):
                raise

    return call
