"""The sparse layers as operations of torch: each is one opaque node for torch.compile and torch.export.

``torch.ops.sbnet.residual_units``, ``conv_unit`` and ``upsample_unit`` take maps [N, C, H, W], the active tiles and
the layer's own parameters, and return a new map in channels_last. On the CPU they run the fused kernels of
ops/; on other devices, and where those are not built, the plain form. Where the mask is so full that a dense
convolution is faster (`sbnet_perception.blocks.tuning`), they run that and then undo it outside the tiles. Gradients
are those of the plain form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sbnet_perception.blocks import dense_layers, packing, reference_layers, tuning
from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.blocks.reference_layers import UNIT, split_units

Ints = Sequence[int]
Floats = Sequence[float]
Form = Callable[..., Tensor]

_library = torch.library.Library("sbnet", "FRAGMENT")
_library.define(
    "residual_units(Tensor x, Tensor indices, int[2] tile, int stride, float[] eps, Tensor[] parameters) -> Tensor"
)
_library.define("conv_unit(Tensor x, Tensor indices, int[2] tile, float eps, Tensor[] parameters) -> Tensor")
_library.define(
    "upsample_unit(Tensor x, Tensor skip, Tensor indices, int[2] tile, float eps, Tensor[] parameters) -> Tensor"
)


def _check_channels(name: str, x: Tensor, channels: int) -> None:
    if x.shape[1] != channels:
        raise ValueError(f"{name} must have {channels} channels, as the layer's weights, got {tuple(x.shape)}")


# --- CPU: the fused kernels, or dense convolutions


def _is_too_full(
    kind: str, x: Tensor, indices: Tensor, tile: Ints, channels: int, size: tuple[int, int], stride: int = 1
) -> bool:
    """Whether so many tiles of an output map of ``size`` are active that a dense layer is faster."""
    images, inputs, height, width = x.shape
    if not dense_layers.is_fast(x.dtype):
        return False
    shape = tuning.Shape(kind, inputs, channels, stride, (images, height, width), x.dtype)
    tiles = images * -(-size[0] // tile[0]) * -(-size[1] // tile[1])
    return len(indices) >= tuning.dense_above(shape) * max(tiles, 1)


def _restore_inactive(y: Tensor, x: Tensor | None, indices: Tensor, tile: Ints) -> Tensor:
    """``y`` in channels_last, outside the tiles as ``x``, or 0."""
    rows = _pixels_last(y)
    # also where all tiles seem active: it checks the indices, and some may be repeated
    torch.ops.sbnet.restore_inactive_(rows, None if x is None else _pixels_last(x), indices.contiguous(), tile)
    return rows.permute(0, 3, 1, 2)


def _pixels_last(x: Tensor) -> Tensor:
    """[N, C, H, W] as contiguous [N, H, W, C]."""
    return x.permute(0, 2, 3, 1).contiguous()


def _residual_units(
    x: Tensor, indices: Tensor, tile: Ints, stride: int, eps: Floats, parameters: list[Tensor]
) -> Tensor:
    _check_channels("x", x, parameters[0].shape[0])
    units = [(unit, eps[3 * number : 3 * number + 3]) for number, unit in enumerate(split_units(parameters))]
    channels, size = parameters[UNIT - 1].shape[0], (-(-x.shape[2] // stride), -(-x.shape[3] // stride))
    if _is_too_full("residual", x, indices, tile, channels, size, stride):
        for unit, unit_eps in units:
            y = dense_layers.residual_unit(x, stride, unit_eps, unit)
            x = _restore_inactive(y, x if len(unit) == UNIT else None, indices, tile)
            stride = 1
        return x
    weights = [
        tensor for unit, unit_eps in units for tensor in packing.remember(packing.pack_unit, unit, x, unit_eps)
    ]
    y = torch.ops.sbnet.residual_units_packed(_pixels_last(x), indices.contiguous(), tile, stride, channels, weights)
    return y.permute(0, 3, 1, 2)


def _conv_unit(x: Tensor, indices: Tensor, tile: Ints, eps: float, parameters: list[Tensor]) -> Tensor:
    _check_channels("x", x, parameters[0].shape[1])
    channels, _, _, kernel = parameters[0].shape
    if _is_too_full(f"conv{kernel}x{kernel}", x, indices, tile, channels, (x.shape[2], x.shape[3])):
        return _restore_inactive(dense_layers.conv_unit(x, eps, parameters), None, indices, tile)
    weights = packing.remember(packing.pack_conv, parameters, x, [eps])
    relu = len(parameters) > 2
    y = torch.ops.sbnet.conv_unit_packed(_pixels_last(x), indices.contiguous(), tile, kernel, relu, *weights)
    return y.permute(0, 3, 1, 2)


def _upsample_unit(
    x: Tensor, skip: Tensor, indices: Tensor, tile: Ints, eps: float, parameters: list[Tensor]
) -> Tensor:
    _check_channels("x", x, parameters[0].shape[0])
    _check_channels("skip", skip, parameters[1].shape[1])
    weights = packing.remember(packing.pack_upsample, parameters, x, [eps])
    y = torch.ops.sbnet.upsample_unit_packed(_pixels_last(x), _pixels_last(skip), indices.contiguous(), tile, *weights)
    return y.permute(0, 3, 1, 2)


# --- shapes, for tracing


def _new_map(like: Tensor, size: tuple[int, int, int, int]) -> Tensor:
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def _residual_units_shape(
    x: Tensor, indices: Tensor, tile: Ints, stride: int, eps: Floats, parameters: list[Tensor]
) -> Tensor:
    height, width = -(-x.shape[2] // stride), -(-x.shape[3] // stride)
    return _new_map(x, (x.shape[0], parameters[UNIT - 1].shape[0], height, width))


def _conv_unit_shape(x: Tensor, indices: Tensor, tile: Ints, eps: float, parameters: list[Tensor]) -> Tensor:
    return _new_map(x, (x.shape[0], parameters[0].shape[0], x.shape[2], x.shape[3]))


def _upsample_unit_shape(
    x: Tensor, skip: Tensor, indices: Tensor, tile: Ints, eps: float, parameters: list[Tensor]
) -> Tensor:
    return _new_map(skip, (skip.shape[0], parameters[1].shape[0], skip.shape[2], skip.shape[3]))


# --- gradients: those of the plain form, which is computed again


def _keep_arguments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *others, parameters = inputs
    tensors = [value for value in others if isinstance(value, Tensor)]
    ctx.others = [None if isinstance(value, Tensor) else value for value in others]
    ctx.save_for_backward(*tensors, *parameters)


def _differentiate(plain: Form) -> Callable[..., tuple[Any, ...]]:
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        saved = iter(ctx.saved_tensors)
        others = [next(saved) if value is None else value for value in ctx.others]
        parameters = list(saved)
        wanted = [t for t in (*others, *parameters) if isinstance(t, Tensor) and t.requires_grad]
        again = torch.is_grad_enabled()  # somebody will differentiate the gradient too
        with torch.enable_grad():
            y = plain(*others, parameters)
        gradients = torch.autograd.grad(y, wanted, gradient, allow_unused=True, create_graph=again)
        found = dict(zip(map(id, wanted), gradients, strict=True))
        return (*(found.get(id(value)) for value in others), [found.get(id(p)) for p in parameters])

    return backward


def _register(name: str, fused: Form, shape: Form, plain: Form) -> None:
    # Without the library the plain form serves the CPU too.
    _library.impl(name, plain, "CompositeExplicitAutograd")
    if not UNAVAILABLE:
        _library.impl(name, fused, "CPU")
    torch.library.register_fake(f"sbnet::{name}", shape, lib=_library)
    torch.library.register_autograd(
        f"sbnet::{name}", _differentiate(plain), setup_context=_keep_arguments, lib=_library
    )


_register("residual_units", _residual_units, _residual_units_shape, reference_layers.residual_units)
_register("conv_unit", _conv_unit, _conv_unit_shape, reference_layers.conv_unit)
_register("upsample_unit", _upsample_unit, _upsample_unit_shape, reference_layers.upsample_unit)

residual_units = torch.ops.sbnet.residual_units.default
conv_unit = torch.ops.sbnet.conv_unit.default
upsample_unit = torch.ops.sbnet.upsample_unit.default
