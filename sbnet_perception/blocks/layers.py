"""Layers that compute all of a map, or only its active tiles, with one set of weights.

``layer(x)`` is dense. ``layer(x, tiles)`` computes the active tiles with the fused kernels of ops/ (through
`sbnet_perception.blocks.layer_ops`); inactive tiles are 0 (x for a unit of unchanged shape). In training it computes
densely and selects, which is the definition of the sparse result, with the statistics of the active pixels.

``layer(x, tiles)`` of a `SparseMap` (a `ConvUnit` also of `Voxels`) computes and returns stored pixels alone: by the
kernels in evaluation mode on the CPU with gradients and autocast off, else, more slowly, in plain PyTorch.

Under autocast a layer computes in autocast's dtype, and so is its result. Otherwise maps have the dtype of the layer's
convolutions, and the normalizations that one or, where it is a half precision, float32.

All layers raise ValueError for maps that are not floating point [N, C, H, W] and for tiles that do not lie on their
output map; ``layer(x, tiles)`` in evaluation raises it for a wrong dtype too, and for all that the kernels refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbnet_perception.blocks import layer_ops, sparse_layers, sparse_ops
from sbnet_perception.blocks.norm import SparseBatchNorm2d
from sbnet_perception.blocks.operation import call as call_checked
from sbnet_perception.blocks.plain import Pair, check_image
from sbnet_perception.blocks.sparse_map import SparseMap, Voxels
from sbnet_perception.blocks.tiles import Tiles

Map = Tensor | SparseMap


def keep_active(y: Tensor, tiles: Tiles) -> Tensor:
    """``y`` [N, C, H, W] on active tiles, 0 elsewhere."""
    return y.masked_fill(~tiles.mask()[:, None], 0)


def _check_tiles(tiles: Tiles | None, images: int, size: Pair) -> None:
    """Raises ValueError unless the tiles lie on a map of ``images`` images of ``size`` (H, W)."""
    if tiles is not None and (tiles.batch, *tiles.size) != (images, *size):
        raise ValueError(
            f"tiles are for {tiles.batch} images of {tuple(tiles.size)} pixels, the layer's output has {images} of "
            f"{tuple(size)}; make them from the mask of the same images with the stride of this map"
        )


def _needed(tiles: Tiles | None, size: tuple[int, int, int]) -> Tiles:
    """The tiles of a layer on stored pixels; raises ValueError unless they lie on maps of ``size`` (N, H, W)."""
    if tiles is None:
        raise ValueError("tiles is None: a layer on a SparseMap computes active tiles only")
    _check_tiles(tiles, size[0], size[1:])
    return tiles


def _map(name: str, x: Tensor) -> Tensor:
    """``x`` in the dtype that a layer computes in; raises ValueError unless it is floating point [N, C, H, W]."""
    check_image(name, x)
    return x.to(torch.get_autocast_dtype(x.device.type)) if _autocasts(x) else x


def _autocasts(x: Tensor) -> bool:
    """Whether convolutions of ``x`` compute in the dtype of autocast; it leaves float64 alone."""
    device = x.device.type
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device) and x.dtype is not torch.float64


def _check_dtypes(name: str, x: Tensor, parameters: Sequence[Tensor]) -> None:
    """Raises ValueError unless the layer computes with ``parameters`` on ``x``; see the head of this module."""
    wrong = {parameter.dtype for parameter in parameters} - {x.dtype}
    if torch.float32 in wrong and x.dtype in (torch.bfloat16, torch.float16):
        vectors_only = all(parameter.dim() == 1 for parameter in parameters if parameter.dtype is torch.float32)
        if vectors_only or _autocasts(x):
            wrong.remove(torch.float32)
    if wrong:
        raise ValueError(f"{name} is {x.dtype}, the layer has parameters of {wrong.pop()}; convert one of them")


def _check_rows(name: str, x: SparseMap, channels: int, parameters: Sequence[Tensor]) -> None:
    """Raises ValueError unless a layer of ``parameters`` for maps of ``channels`` channels computes with ``x``."""
    if x.values.shape[1] != channels:
        raise ValueError(f"{name} must have {channels} channels, as the layer's weights, got {x.values.shape[1]}")
    _check_dtypes(name, x.values, parameters)


def _run(operation: Callable[..., Tensor], x: Tensor, *arguments: Any) -> Tensor:
    """An operation of `layer_ops`; the parameters are the last argument."""
    _check_dtypes("x", x, arguments[-1])
    y: Tensor = call_checked(operation, x, *arguments)
    return y


def _norm_parameters(norm: Any) -> list[Tensor]:
    # Past Module.__getattr__, which would take as long as a small layer for all the tensors of a stage.
    parameters, buffers = norm._parameters, norm._buffers
    return [parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]]


class ConvUnit(nn.Module):
    """Convolution, batch normalization, ReLU; stride 1, same size, ``kernel`` 1 or 3 (or ValueError)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        if kernel not in (1, 3):
            raise ValueError(f"kernel must be 1 or 3, got {kernel}")
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = SparseBatchNorm2d(out_channels)

    def forward(self, x: Map | Voxels, tiles: Tiles | None = None) -> Map:
        """[N, C_in, H, W] -> [N, C_out, H, W]."""
        if not isinstance(x, Tensor):
            return self._sparse(x, _needed(tiles, x.pixels.size))
        x = _map("x", x)
        _check_tiles(tiles, x.shape[0], (x.shape[2], x.shape[3]))
        if tiles is None:
            y: Tensor = self.norm(self.conv(x)).relu_()
            return y
        if self.training:
            return keep_active(self.norm(self.conv(x), tiles).relu(), tiles)
        parameters = [self.conv.weight, *_norm_parameters(self.norm)]
        return _run(layer_ops.conv_unit, x, tiles.indices, tiles.tile, self.norm.eps, parameters)

    def _sparse(self, x: SparseMap | Voxels, tiles: Tiles) -> SparseMap:
        pointwise, of_voxels = self.conv.kernel_size == (1, 1), isinstance(x, Voxels)
        if not self.training and sparse_ops.applies(self.conv.weight) and not (pointwise and of_voxels):
            compute: Any = sparse_ops.voxel_conv if of_voxels else sparse_ops.conv_unit
            parameters = [self.conv.weight, *_norm_parameters(self.norm)]
            if isinstance(x, SparseMap):
                _check_rows("x", x, self.conv.in_channels, parameters)
            return SparseMap(compute(x, tiles.pixels, self.norm.eps, parameters), tiles)
        values = x.values().to(self.conv.weight.dtype) if isinstance(x, Voxels) else x.values
        rows = sparse_layers.with_absent(values)
        if pointwise:
            y = sparse_layers.pointwise(sparse_layers.beneath(rows, x.pixels, tiles.pixels), self.conv)
        else:
            y = sparse_layers.windows(rows, x.pixels, tiles.pixels, self.conv)
        return SparseMap(sparse_layers.normalize(y, self.norm).relu(), tiles)


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution with a bias and nothing after it: a branch of the detector."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Map, tiles: Tiles | None = None) -> Map:  # type: ignore[override]
        """[N, C_in, H, W] -> [N, C_out, H, W]; 0 on inactive tiles."""
        if isinstance(x, SparseMap):
            tiles = _needed(tiles, x.pixels.size)
            assert self.bias is not None
            if sparse_ops.applies(x.values):
                _check_rows("x", x, self.in_channels, [self.weight, self.bias])
                return SparseMap(sparse_ops.conv_unit(x, tiles.pixels, 0.0, [self.weight, self.bias]), tiles)
            rows = sparse_layers.beneath(sparse_layers.with_absent(x.values), x.pixels, tiles.pixels)
            return SparseMap(sparse_layers.pointwise(rows, self), tiles)
        x = _map("x", x)
        _check_tiles(tiles, x.shape[0], (x.shape[2], x.shape[3]))
        if tiles is None or self.training:
            y = super().forward(x)
            return y if tiles is None else keep_active(y, tiles)
        assert self.bias is not None
        return _run(layer_ops.conv_unit, x, tiles.indices, tiles.tile, 0.0, [self.weight, self.bias])


class UpsampleUnit(nn.Module):
    """Upsample 2x, add a 1x1 convolution of the skip map, normalize, ReLU.

    Upsampling is a 2x2 transposed convolution of stride 2: each output pixel reads one input pixel,
    so no halo is needed. The upsampled map is cropped to the skip's size.
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
        self.lateral = nn.Conv2d(skip_channels, out_channels, 1, bias=False)
        self.norm = SparseBatchNorm2d(out_channels)

    def forward(self, x: Map, skip: Map, tiles: Tiles | None = None) -> Map:
        """[N, C_in, ceil(H/2), ceil(W/2)] and [N, C_skip, H, W] -> [N, C_out, H, W]; ``tiles`` have even sides."""
        if isinstance(x, SparseMap) or isinstance(skip, SparseMap):
            if not (isinstance(x, SparseMap) and isinstance(skip, SparseMap)):
                raise TypeError("x and skip must both be SparseMap, or both tensors")
            return self._sparse(x, skip, _needed(tiles, skip.pixels.size))
        x, skip = _map("x", x), _map("skip", skip)
        _check_tiles(tiles, skip.shape[0], (skip.shape[2], skip.shape[3]))
        if tiles is not None and (tiles.tile[0] % 2 or tiles.tile[1] % 2):
            raise ValueError(f"tiles of an upsampling must have even sides, got {tiles.tile}")
        if tiles is None or self.training:
            up = self.up(x)[:, :, : skip.shape[2], : skip.shape[3]]
            y = self.norm(up + self.lateral(skip), tiles).relu()
            return y if tiles is None else keep_active(y, tiles)
        parameters = [self.up.weight, self.lateral.weight, *_norm_parameters(self.norm)]
        _check_dtypes("skip", skip, parameters)
        return _run(layer_ops.upsample_unit, x, skip, tiles.indices, tiles.tile, self.norm.eps, parameters)

    def _sparse(self, x: SparseMap, skip: SparseMap, tiles: Tiles) -> SparseMap:
        images, height, width = skip.pixels.size
        half = (images, -(-height // 2), -(-width // 2))
        if x.pixels.size != half:
            raise ValueError(f"x must have half the size of skip, (N, H, W) = {half}, got {x.pixels.size}")
        if not self.training and sparse_ops.applies(x.values):
            parameters = [self.up.weight, self.lateral.weight, *_norm_parameters(self.norm)]
            _check_rows("x", x, self.up.in_channels, parameters)
            _check_rows("skip", skip, self.lateral.in_channels, parameters)
            return SparseMap(sparse_ops.upsample_unit(x, skip, tiles.pixels, self.norm.eps, parameters), tiles)
        y = sparse_layers.upsampled(sparse_layers.with_absent(x.values), x.pixels, tiles.pixels, self.up)
        rows = sparse_layers.beneath(sparse_layers.with_absent(skip.values), skip.pixels, tiles.pixels)
        y = y + sparse_layers.pointwise(rows, self.lateral)
        return SparseMap(sparse_layers.normalize(y, self.norm).relu(), tiles)


class ResidualUnit(nn.Module):
    """Bottleneck residual unit, pre-activation: BN ReLU 1x1, BN ReLU 3x3, BN ReLU 1x1, plus shortcut.

    The bottleneck is a quarter of ``out_channels``; ``stride`` (1 or 2) sits in the 3x3. Where the shape
    changes the shortcut is a 1x1 convolution with that stride on the activated input.

    Raises ValueError for fewer than 4 ``out_channels`` and for other strides.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if out_channels < 4:
            raise ValueError(f"out_channels must be at least 4: the bottleneck is a quarter of it; got {out_channels}")
        if stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {stride}")
        self.stride, self.keeps_shape = stride, stride == 1 and in_channels == out_channels
        bottleneck = out_channels // 4
        self.norm1 = SparseBatchNorm2d(in_channels)
        self.reduce = nn.Conv2d(in_channels, bottleneck, 1, bias=False)
        self.norm2 = SparseBatchNorm2d(bottleneck)
        self.conv = nn.Conv2d(bottleneck, bottleneck, 3, stride=stride, padding=1, bias=False)
        self.norm3 = SparseBatchNorm2d(bottleneck)
        self.expand = nn.Conv2d(bottleneck, out_channels, 1, bias=False)
        self.project = None if self.keeps_shape else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Map, tiles: Tiles | None = None) -> Map:
        """[N, C_in, H, W] -> [N, C_out, ceil(H/stride), ceil(W/stride)]; ``tiles`` lie on the output map."""
        return _residual_units([self], x, tiles)

    def tensors(self) -> list[Tensor]:
        """Parameters in the order of `layer_ops.residual_units`."""
        parts: Any = self._modules
        tensors = _norm_parameters(parts["norm1"])
        for convolution, norm in (("reduce", "norm2"), ("conv", "norm3")):
            tensors.append(parts[convolution]._parameters["weight"])
            tensors += _norm_parameters(parts[norm])
        tensors.append(parts["expand"]._parameters["weight"])
        return tensors if self.keeps_shape else [*tensors, parts["project"]._parameters["weight"]]

    def eps(self) -> list[float]:
        """Of the three normalizations."""
        parts: Any = self._modules
        return [parts["norm1"].eps, parts["norm2"].eps, parts["norm3"].eps]

    def dense(self, x: Tensor, tiles: Tiles | None) -> Tensor:
        """Computes everything, then selects the active tiles; normalizations in training count these alone."""
        active = None if tiles is None else tiles.mask()
        # Beneath an active output pixel of a strided unit lie stride x stride input pixels.
        beneath = active
        if active is not None and self.stride > 1:
            beneath = active.repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
            beneath = beneath[:, : x.shape[2], : x.shape[3]]
        activated = self.norm1.normalize(x, beneath).relu()
        y = self.norm2.normalize(self.reduce(activated), beneath).relu()
        y = self.norm3.normalize(self.conv(y), active).relu()
        y = self.expand(y)
        if self.project is not None:
            y = y + self.project(activated)
        y = y if tiles is None else keep_active(y, tiles)
        return x + y if self.project is None else y

    def sparse(self, x: SparseMap, tiles: Tiles) -> SparseMap:
        """As `dense`, of stored pixels; normalizations in training count these and one that stands for the others."""
        activated = sparse_layers.normalize(sparse_layers.with_absent(x.values), self.norm1).relu()
        y = sparse_layers.normalize(sparse_layers.pointwise(activated, self.reduce), self.norm2).relu()
        y = sparse_layers.windows(y, x.pixels, tiles.pixels, self.conv)
        y = sparse_layers.pointwise(sparse_layers.normalize(y, self.norm3).relu(), self.expand)
        if self.project is None:
            return SparseMap(x.values + y, tiles)
        centres = sparse_layers.beneath(activated, x.pixels, tiles.pixels, self.stride)
        return SparseMap(y + sparse_layers.pointwise(centres, self.project), tiles)


class Stage(nn.Module):
    """Several units one after the other; only the first may change the shape.

    Raises TypeError for another module than a `ResidualUnit`, ValueError for a wrong shape or no unit at all.
    """

    def __init__(self, units: list[ResidualUnit]) -> None:
        super().__init__()
        if not units:
            raise ValueError("a stage has at least one unit, got none")
        for unit in units:
            if not isinstance(unit, ResidualUnit):
                raise TypeError(f"a stage has units of type ResidualUnit only, got {type(unit).__name__}")
        if not all(unit.keeps_shape for unit in units[1:]):
            raise ValueError("units after the first must keep the shape")
        self.units = nn.ModuleList(units)

    def forward(self, x: Map, tiles: Tiles | None = None) -> Map:
        """As the units one by one; the map is copied once, and the units after the first work in place."""
        units: Any = self.units
        return _residual_units(list(units), x, tiles)


def _residual_units(units: list[ResidualUnit], x: Map, tiles: Tiles | None) -> Map:
    stride = units[0].stride
    if isinstance(x, SparseMap):
        images, height, width = x.pixels.size
        tiles = _needed(tiles, (images, -(-height // stride), -(-width // stride)))
        if units[0].keeps_shape and tiles is not x.tiles:
            raise ValueError("a unit that keeps the shape computes the tiles that a SparseMap is stored on, got others")
        if not any(unit.training for unit in units) and sparse_ops.applies(x.values):
            sets = [unit.tensors() for unit in units]
            _check_rows("x", x, units[0].reduce.in_channels, [tensor for unit in sets for tensor in unit])
            each = [eps for unit in units for eps in unit.eps()]
            return SparseMap(sparse_ops.residual_units(x, tiles.pixels, stride, each, sets), tiles)
        for unit in units:
            x = unit.sparse(x, tiles)
        return x
    x = _map("x", x)
    _check_tiles(tiles, x.shape[0], (-(-x.shape[2] // stride), -(-x.shape[3] // stride)))
    if tiles is None or any(unit.training for unit in units):
        for unit in units:
            x = unit.dense(x, tiles)
        return x
    eps = [eps for unit in units for eps in unit.eps()]
    parameters = [tensor for unit in units for tensor in unit.tensors()]
    return _run(layer_ops.residual_units, x, tiles.indices, tiles.tile, stride, eps, parameters)
