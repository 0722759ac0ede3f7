"""Layers that compute all of a map, or only its active tiles, with one set of weights.

``layer(x)`` is dense. ``layer(x, tiles)`` of a `SparseMap` computes and returns the pixels of ``tiles`` alone. Of a
tensor [N, C, H, W] it computes the same pixels of the whole map; inactive tiles are 0, or x where a unit keeps the
shape.

In evaluation the operations of `layer_ops` compute; ``layer.prepare(dtype, device)`` gives a layer for that alone, with
its weights packed once: a copy, which later changes of the parameters do not reach. Without it weights are packed at
each call. In training the plain form computes, with the statistics of the active pixels.

Under autocast a layer computes in autocast's dtype, and so is its result. Otherwise maps have the dtype of the layer's
convolutions, and the normalizations that one or, where it is a half precision, float32.

All layers raise ValueError for maps that are not floating point [N, C, H, W] or have other channels, for tiles that do
not lie on their output map, and for a wrong dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbnet_perception.blocks import layer_ops, layer_plain
from sbnet_perception.blocks.block_plain import check_image
from sbnet_perception.blocks.layer_ops import ConvWeights, UnitWeights, UpsampleWeights, packed
from sbnet_perception.blocks.norm import SparseBatchNorm2d
from sbnet_perception.blocks.pixels import Pixels, Size, strided
from sbnet_perception.blocks.sparse_map import SparseMap, Voxels, rows_of, spread
from sbnet_perception.blocks.tiles import Tiles

Map = Tensor | SparseMap
Prepared = Callable[..., SparseMap]
"""A layer in evaluation with packed weights, called as the layer on stored pixels."""


def output_pixels(tiles: Tiles | None, size: Size) -> Pixels:
    """The pixels that a layer computes; raises ValueError unless the tiles lie on maps of ``size`` (N, H, W)."""
    if tiles is None:
        raise ValueError("tiles is None: a layer on a SparseMap computes active tiles only")
    if (tiles.batch, *tiles.size) != size:
        raise ValueError(
            f"tiles are for {tiles.batch} images of {tuple(tiles.size)} pixels, the layer's output has {size[0]} of "
            f"{tuple(size[1:])}; make them from the mask of the same images with the stride of this map"
        )
    return tiles.pixels


def _taken(name: str, x: SparseMap, channels: int, dtype: torch.dtype) -> SparseMap:
    """``x``; raises ValueError unless it is what a prepared layer is for."""
    if x.values.shape[1] != channels or x.values.dtype is not dtype:
        found = f"{x.values.dtype} {tuple(x.values.shape)}"
        raise ValueError(f"{name} must have {channels} channels of {dtype}, as the layer was prepared for, got {found}")
    return x


def _checked(name: str, x: Map, layer: nn.Module, channels: int) -> Any:
    """``x`` in the dtype that the layer computes in; raises ValueError unless it suits the layer."""
    values = x.values if isinstance(x, SparseMap) else x
    if isinstance(x, Tensor):
        check_image(name, x)
    if values.shape[1] != channels:
        raise ValueError(f"{name} must have {channels} channels, as the layer's weights, got {tuple(values.shape)}")
    if _autocasts(values.device) and values.dtype is not torch.float64:
        values = values.to(torch.get_autocast_dtype(values.device.type))
    else:
        _check_dtypes(name, values.dtype, layer)
    return values if isinstance(x, Tensor) else SparseMap(values, x.pixels)


def _autocasts(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda") and torch.is_autocast_enabled(device.type)


def _check_dtypes(name: str, dtype: torch.dtype, layer: nn.Module) -> None:
    half = dtype in (torch.bfloat16, torch.float16)
    for parameter in layer.parameters():
        is_norm = parameter.dim() == 1 and half and parameter.dtype is torch.float32
        if parameter.dtype is not dtype and not is_norm:
            raise ValueError(f"{name} is {dtype}, the layer has parameters of {parameter.dtype}; convert one of them")


def _whole(x: Tensor) -> SparseMap:
    """All pixels of ``x`` [N, C, H, W]."""
    return SparseMap(rows_of(x), Pixels.all((x.shape[0], x.shape[2], x.shape[3]), x.device))


def _forward(layer: Any, x: Any, tiles: Tiles | None, channels: int) -> Any:
    """A layer of one input and stride 1: ``layer.dense``, or ``layer.sparse`` of all pixels or of those stored."""
    x = _checked("x", x, layer, channels)
    if isinstance(x, SparseMap):
        return layer.sparse(x, output_pixels(tiles, x.pixels.size))
    if tiles is None:
        return layer.dense(x)
    whole = _whole(x)
    return layer.sparse(whole, output_pixels(tiles, whole.pixels.size)).dense()


def _sums(weight: Tensor) -> Tensor:
    """A weight in the dtype of the sums."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


class ConvUnit(nn.Module):
    """Convolution, batch normalization, ReLU; stride 1, same size, ``kernel`` 1 or 3 (or ValueError)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__()
        if kernel not in (1, 3):
            raise ValueError(f"kernel must be 1 or 3, got {kernel}")
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = SparseBatchNorm2d(out_channels)

    def forward(self, x: Map, tiles: Tiles | None = None) -> Map:
        """[N, C_in, H, W] -> [N, C_out, H, W]."""
        return _forward(self, x, tiles, self.conv.in_channels)

    def dense(self, x: Tensor) -> Tensor:
        """All of the map."""
        return self.norm(self.conv(x)).relu_()

    def sparse(self, x: SparseMap, output: Pixels) -> SparseMap:
        """The pixels ``output``."""
        if not self.training:
            return layer_ops.conv(x, output, self.weights(), self.conv.kernel_size[0], relu=True)
        y = layer_plain.conv(x.values, x.pixels, output, self.conv.weight, lambda rows: self.norm.rows(rows).relu())
        return SparseMap(y, output)

    def weights(self) -> ConvWeights:
        """What the operation takes."""
        return ConvWeights(_sums(self.conv.weight), self.norm.scale_and_shift())

    def prepare(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Prepared:
        """The layer for maps of ``dtype`` on ``device``, as it is now."""
        weights = packed(self.weights(), dtype, device)
        return _prepared_conv(weights, self.conv.in_channels, dtype, self.conv.kernel_size[0], relu=True)


class VoxelConvUnit(ConvUnit):
    """A 3x3 `ConvUnit` whose sparse input is `Voxels`: it adds up rows of weights, as many as there are ones."""

    def forward(self, x: Tensor | Voxels, tiles: Tiles | None = None) -> Map:  # type: ignore[override]
        """[N, C_in, H, W] -> [N, C_out, H, W]; of voxels in the dtype of the weights, or of autocast."""
        if isinstance(x, Tensor):
            return super().forward(x, tiles)
        if x.channels != self.conv.in_channels:
            raise ValueError(f"x must have {self.conv.in_channels} channels, as the layer's weights, got {x.channels}")
        output, dtype = output_pixels(tiles, x.pixels.size), self.conv.weight.dtype
        if self.training:
            return self.sparse(SparseMap(x.values().to(dtype), x.pixels), output)
        if _autocasts(x.last.device) and dtype is not torch.float64:
            dtype = torch.get_autocast_dtype(x.last.device.type)
        return layer_ops.voxel_conv(x, output, layer_ops.voxel_weights(*self.weights()), dtype)

    def prepare(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Prepared:
        """The layer for voxels on ``device``, with results of ``dtype``, as it is now."""
        weights = packed(layer_ops.voxel_weights(*self.weights()), dtype, device)
        return lambda x, tiles: layer_ops.voxel_conv(x, output_pixels(tiles, x.pixels.size), weights, dtype)


class PointwiseConv2d(nn.Conv2d):
    """1x1 convolution with a bias and nothing after it: a branch of the detector."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Map, tiles: Tiles | None = None) -> Map:  # type: ignore[override]
        """[N, C_in, H, W] -> [N, C_out, H, W]; 0 on inactive tiles."""
        return _forward(self, x, tiles, self.in_channels)

    def dense(self, x: Tensor) -> Tensor:
        return super().forward(x)

    def sparse(self, x: SparseMap, output: Pixels) -> SparseMap:
        """The pixels ``output``."""
        return layer_ops.conv(x, output, self.weights(), 1, relu=False)

    def weights(self) -> ConvWeights:
        """What the operation takes."""
        assert self.bias is not None
        bias = _sums(self.bias)
        return ConvWeights(_sums(self.weight), torch.stack([torch.ones_like(bias), bias]))

    def prepare(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Prepared:
        """The layer for maps of ``dtype`` on ``device``, as it is now."""
        return prepare_branches([self], dtype, device)


def prepare_branches(
    branches: Sequence[PointwiseConv2d], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Prepared:
    """Several branches of one map as one layer, their channels one behind the other."""
    each = [branch.weights() for branch in branches]
    joined = ConvWeights(torch.cat([w.weight for w in each]), torch.cat([w.norm for w in each], 1))
    return _prepared_conv(packed(joined, dtype, device), branches[0].in_channels, dtype, 1, relu=False)


def _prepared_conv(weights: ConvWeights, channels: int, dtype: torch.dtype, kernel: int, relu: bool) -> Prepared:
    return lambda x, tiles: layer_ops.conv(
        _taken("x", x, channels, dtype), output_pixels(tiles, x.pixels.size), weights, kernel, relu
    )


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
        """[N, C_in, ceil(H/2), ceil(W/2)] and [N, C_skip, H, W] -> [N, C_out, H, W]."""
        x, skip = _checked("x", x, self, self.up.in_channels), _checked("skip", skip, self, self.lateral.in_channels)
        if isinstance(x, SparseMap) and isinstance(skip, SparseMap):
            return self._sparse(x, skip, tiles)
        if not (isinstance(x, Tensor) and isinstance(skip, Tensor)):
            raise TypeError("x and skip must both be SparseMap, or both tensors")
        if tiles is None:
            up = self.up(x)[:, :, : skip.shape[2], : skip.shape[3]]
            return self.norm(up + self.lateral(skip)).relu()
        return self._sparse(_whole(x), _whole(skip), tiles).dense()

    def _sparse(self, x: SparseMap, skip: SparseMap, tiles: Tiles | None) -> SparseMap:
        output = output_pixels(tiles, skip.pixels.size)
        half = strided(skip.pixels.size, 2)
        if x.pixels.size != half:
            raise ValueError(f"x must have half the size of skip, (N, H, W) = {half}, got {x.pixels.size}")
        if not self.training:
            return layer_ops.upsample(x, skip, output, self.weights())
        up, lateral, after = self.up.weight.transpose(0, 1), self.lateral.weight, lambda y: self.norm.rows(y).relu()
        y = layer_plain.upsample(x.values, x.pixels, skip.values, skip.pixels, output, up, lateral, after)
        return SparseMap(y, output)

    def weights(self) -> UpsampleWeights:
        """What the operation takes."""
        up, lateral = _sums(self.up.weight.transpose(0, 1)), _sums(self.lateral.weight)
        return UpsampleWeights(up, lateral, self.norm.scale_and_shift())

    def prepare(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Prepared:
        """The layer for maps of ``dtype`` on ``device``, as it is now."""
        weights, channels = packed(self.weights(), dtype, device), (self.up.in_channels, self.lateral.in_channels)
        return lambda x, skip, tiles: layer_ops.upsample(
            _taken("x", x, channels[0], dtype), _taken("skip", skip, channels[1], dtype),
            output_pixels(tiles, skip.pixels.size), weights,
        )  # fmt: skip


class ResidualUnit(nn.Module):
    """Bottleneck residual unit, pre-activation: BN ReLU 1x1, BN ReLU 3x3, BN ReLU 1x1, plus shortcut.

    The bottleneck is a quarter of ``out_channels``; ``stride`` (1 or 2) sits in the 3x3. Where the shape
    changes the shortcut is a 1x1 convolution with that stride on the activated input.

    Raises ValueError for fewer than 1 ``in_channels``, fewer than 4 ``out_channels`` and for other strides.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
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

    def prepare(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Prepared:
        """The layer for maps of ``dtype`` on ``device``, as it is now."""
        return _prepare_units([self], dtype, device)

    def weights(self) -> UnitWeights:
        """What the operation takes."""
        reduce, conv, expand = _sums(self.reduce.weight), _sums(self.conv.weight), _sums(self.expand.weight)
        project = expand.new_empty(0) if self.project is None else _sums(self.project.weight)
        norms = self.norm1.scale_and_shift(), self.norm2.scale_and_shift(), self.norm3.scale_and_shift()
        return UnitWeights(norms[0], reduce, norms[1], conv, norms[2], expand, project)

    def dense(self, x: Tensor) -> Tensor:
        """All of the map."""
        activated = self.norm1(x).relu()
        y = self.norm2(self.reduce(activated)).relu()
        y = self.expand(self.norm3(self.conv(y)).relu())
        return y + (x if self.project is None else self.project(activated))

    def plain(self, x: SparseMap, output: Pixels, counted: Tensor | None) -> SparseMap:
        """With the statistics of the batch: of the input pixels those of ``counted``, int64, or of all and one that
        stands for what is not stored."""
        weights = [conv.weight for conv in (self.reduce, self.conv, self.expand, self.project) if conv is not None]
        norms: list[layer_plain.Rows] = [
            lambda rows: self.norm1.rows(rows, counted, counted is None).relu(),
            lambda rows: self.norm2.rows(rows, counted, counted is None).relu(),
            lambda rows: self.norm3.rows(rows).relu(),
        ]
        return SparseMap(layer_plain.residual_unit(x.values, x.pixels, output, self.stride, weights, norms), output)


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
        """As the units one by one; of stored pixels in one operation."""
        return _residual_units(list(self.units), x, tiles)  # type: ignore[arg-type]

    def prepare(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Prepared:
        """The layer for maps of ``dtype`` on ``device``, as it is now."""
        return _prepare_units(list(self.units), dtype, device)  # type: ignore[arg-type]


def _residual_units(units: list[ResidualUnit], x: Map, tiles: Tiles | None) -> Map:
    first = units[0]
    x = _checked("x", x, first, first.reduce.in_channels)
    if isinstance(x, SparseMap):
        return _stored_units(units, x, output_pixels(tiles, strided(x.pixels.size, first.stride)))
    for unit in units:
        x = unit.dense(x) if tiles is None else _whole_unit(unit, x, tiles)
    return x


def _stored_units(units: list[ResidualUnit], x: SparseMap, output: Pixels) -> SparseMap:
    _check_stored_on(x, output, units[0].keeps_shape)
    if not any(unit.training for unit in units):
        weights = [tensor for unit in units for tensor in unit.weights()]
        return layer_ops.residual_units(x, output, units[0].stride, units[0].expand.out_channels, weights)
    for unit in units:
        x = unit.plain(x, output, None)
    return x


def _check_stored_on(x: SparseMap, output: Pixels, keeps_shape: bool) -> None:
    if keeps_shape and output is not x.pixels:
        raise ValueError("a unit that keeps the shape computes the tiles that a SparseMap is stored on, got others")


def _whole_unit(unit: ResidualUnit, x: Tensor, tiles: Tiles) -> Tensor:
    """One unit on a whole map [N, C, H, W]; inactive tiles are x, or 0 where the shape changes."""
    whole = _whole(x)
    output = output_pixels(tiles, strided(whole.pixels.size, unit.stride))
    if unit.training:
        y = unit.plain(whole, output, _beneath(output, whole.pixels.size, unit.stride))
    else:
        y = layer_ops.residual_units(whole, output, unit.stride, unit.expand.out_channels, list(unit.weights()))
    return spread(y.values, output, x if unit.keeps_shape else None)


def _beneath(output: Pixels, size: Size, stride: int) -> Tensor:
    """int64: the pixels of maps of ``size`` beneath those of the output, stride x stride for each."""
    mask = output.mask().repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, : size[1], : size[2]]
    return torch.nonzero(mask.reshape(-1))[:, 0]


def _prepare_units(units: list[ResidualUnit], dtype: torch.dtype, device: torch.device | str) -> Prepared:
    stride, channels, keeps_shape = units[0].stride, units[0].expand.out_channels, units[0].keeps_shape
    inputs = units[0].reduce.in_channels
    weights = [tensor for unit in units for tensor in packed(unit.weights(), dtype, device)]

    def run(x: SparseMap, tiles: Tiles) -> SparseMap:
        output = output_pixels(tiles, strided(x.pixels.size, stride))
        _check_stored_on(x, output, keeps_shape)
        return layer_ops.residual_units(_taken("x", x, inputs, dtype), output, stride, channels, weights)

    return run
