"""`sbnet bench tune`: the best tile of every layer on this machine, and from which fill on a dense convolution wins."""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from sbnet_perception.bench.cases import DTYPES, STAGES, Pair, road_like, top_left
from sbnet_perception.bench.measure import Row, alternate, check_writable, with_steady_memory, write_rows
from sbnet_perception.bev.grid import NAMED_RESOLUTIONS, Grid
from sbnet_perception.bev.voxelize import CHANNELS
from sbnet_perception.blocks import ConvUnit, ResidualUnit, Stage, Tiles, UpsampleUnit, dense_layers, tuning
from sbnet_perception.blocks.layers import PointwiseConv2d
from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.blocks.tuning import NEVER, Choice, Shape
from sbnet_perception.detector.network import Detector
from sbnet_perception.errors import UserError

TILES = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 2), (2, 4), (4, 4), (8, 8))
SINGLE_LAYERS = (ConvUnit, PointwiseConv2d, UpsampleUnit)
IN_A_STAGE = 3
WITHIN = 1.01
"""Our kernels may take this much longer than a dense convolution before a layer runs that instead."""
BETTER = 0.98
"""A tile replaces the default only if it takes at most this share of its time: smaller gains are noise."""


@dataclass(frozen=True)
class Layer:
    """A layer of a network and the sizes [N, C, H, W] of its inputs."""

    module: nn.Module
    sizes: tuple[tuple[int, ...], ...]

    def shape(self, dtype: torch.dtype) -> Shape:
        """As `sbnet_perception.blocks.layer_ops` looks it up."""
        module, (images, channels, height, width) = self.module, self.sizes[0]
        size = (images, height, width)
        if isinstance(module, ResidualUnit):
            return Shape("residual", channels, module.expand.out_channels, module.stride, size, dtype)
        if isinstance(module, UpsampleUnit):
            return Shape("upsample", channels, module.up.out_channels, 1, size, dtype)
        conv = module.conv if isinstance(module, ConvUnit) else module
        assert isinstance(conv, nn.Conv2d)
        return Shape(f"conv{conv.kernel_size[0]}x{conv.kernel_size[1]}", channels, conv.out_channels, 1, size, dtype)

    @property
    def output(self) -> tuple[int, int]:
        """(H, W) of the output."""
        stride = self.module.stride if isinstance(self.module, ResidualUnit) else 1
        height, width = self.sizes[-1][2:]
        return -(-height // stride), -(-width // stride)

    def ready(self, dtype: torch.dtype) -> Callable[[Tiles], Tensor]:
        """The layer with weights of its own and normally distributed inputs.

        A unit that works in place runs as it does in a network, several times in a stage, which is copied once.
        """
        module = copy.deepcopy(self.module).to_empty(device="cpu")
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
                part.reset_parameters()
        if isinstance(module, ResidualUnit) and module.keeps_shape:
            module = Stage([module] * IN_A_STAGE)
        module.to(dtype).eval().requires_grad_(False)
        inputs = [torch.randn(size).to(dtype, memory_format=torch.channels_last) for size in self.sizes]
        return lambda tiles: module(*inputs, tiles)


@dataclass(frozen=True)
class Found:
    """What was measured for one layer: ratios of times."""

    choice: Choice
    over_default: float
    """The chosen tile over the default one, geometric mean of both masks, the mask's reduction included."""
    over_dense: float
    """Our kernels on all tiles over the layer run densely."""


def network_layers(size: tuple[int, int]) -> list[Layer]:
    """The detector's layers on a grid of ``size`` (H, W), on the meta device: shapes without memory."""
    network = Detector().eval().to("meta")
    seen: list[Layer] = []

    def note(module: nn.Module, inputs: tuple[Tensor | None, ...]) -> None:
        seen.append(Layer(module, tuple(tuple(x.shape) for x in inputs if isinstance(x, Tensor))))

    def note_units(stage: nn.Module, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        # a stage does not call its units; all but the first are given maps like its output
        assert isinstance(stage, Stage)
        for number, unit in enumerate(stage.units):
            note(unit, (output,) if number else inputs)

    hooks = [
        *(part.register_forward_hook(note_units) for part in network.modules() if isinstance(part, Stage)),
        *(part.register_forward_pre_hook(note) for part in network.modules() if isinstance(part, SINGLE_LAYERS)),
    ]
    with torch.inference_mode():
        network(torch.empty((1, CHANNELS, *size), device="meta"))
    for hook in hooks:
        hook.remove()
    return seen


def layers_by_shape(dtype: torch.dtype) -> dict[Shape, Layer]:
    """All shapes of layers of the detector, on either grid, and of the single convolutions of `sbnet bench units`."""
    found = [layer for grid in NAMED_RESOLUTIONS for layer in network_layers(Grid.named(grid).shape)]
    for size, channels in STAGES.values():
        found.append(Layer(ConvUnit(channels // 4, channels // 4), ((1, channels // 4, *size),)))
    return {layer.shape(dtype): layer for layer in found}


def tune(layer: Layer, dtype: torch.dtype, rounds: int) -> Found:
    """Measures every tile under two masks that leave out 90 %, then ours and dense on all tiles and on half of them."""
    run, size = layer.ready(dtype), layer.output
    kind = layer.shape(dtype).kind
    default = tuning.DEFAULTS[kind].tile
    with torch.inference_mode():
        tile, over_default = _best_tile(run, size, _tiles(kind), default, rounds)
        if not dense_layers.is_fast(dtype) or kind == "upsample":
            return Found(Choice(tile, NEVER), over_default, float("nan"))
        above, over_dense = _break_even(run, size, tile, rounds)
    return Found(Choice(tile, above), over_default, over_dense)


def _tiles(kind: str) -> list[Pair]:
    return [tile for tile in TILES if kind != "upsample" or not (tile[0] % 2 or tile[1] % 2)]


def _best_tile(
    run: Callable[[Tiles], Tensor], size: Pair, tiles: Sequence[Pair], default: Pair, rounds: int
) -> tuple[Pair, float]:
    masks = (top_left(size, 0.9), road_like(size))
    candidates = {
        f"{tile} {number}": partial(_by_tiles, run, mask, tile) for tile in tiles for number, mask in enumerate(masks)
    }
    times = alternate(candidates, rounds)
    mean = {tile: math.prod(times[f"{tile} {number}"].median for number in (0, 1)) ** 0.5 for tile in tiles}
    best = min(tiles, key=lambda tile: mean[tile])
    if mean[best] > BETTER * mean[default]:
        best = default
    return best, mean[best] / mean[default]


def _break_even(run: Callable[[Tiles], Tensor], size: Pair, tile: Pair, rounds: int) -> tuple[float, float]:
    """The share of active tiles at which ours takes as long as dense, on a line through half and all; their ratio."""
    half, full = top_left(size, 0.5), top_left(size, 0.0)
    candidates = {
        "half": partial(_by_tiles, run, half, tile),
        "full": partial(_by_tiles, run, full, tile),
        "dense": partial(_densely, run, full, tile),
    }
    times = alternate(candidates, rounds)
    half_ms, full_ms, dense_ms = (times[name].median for name in candidates)
    if full_ms <= WITHIN * dense_ms:
        return NEVER, full_ms / dense_ms
    share = 1.0 - 0.5 * (full_ms - dense_ms) / max(full_ms - half_ms, 1e-9)
    return round(min(max(share, 0.05), 1.0), 3), full_ms / dense_ms


def _by_tiles(run: Callable[[Tiles], Tensor], mask: Tensor, tile: Pair) -> None:
    with tuning.dense_from(NEVER):
        run(Tiles.from_mask(mask, tile))


def _densely(run: Callable[[Tiles], Tensor], mask: Tensor, tile: Pair) -> None:
    with tuning.dense_from(0.0):
        run(Tiles.from_mask(mask, tile))


def run(arguments: argparse.Namespace) -> int:
    if arguments.dtype is not None and arguments.dtype not in DTYPES:
        raise UserError(f"--dtype is {arguments.dtype!r}; use one of {', '.join(DTYPES)}")
    if UNAVAILABLE:
        raise UserError(f"there is nothing to tune: {UNAVAILABLE}")
    check_writable("--json", arguments.json)
    with_steady_memory()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console()
    dtypes = [DTYPES[arguments.dtype]] if arguments.dtype else list(DTYPES.values())
    work = {shape: layer for dtype in dtypes for shape, layer in layers_by_shape(dtype).items()}
    found = {}
    for shape, layer in track(work.items(), "layers", console=console, transient=True):
        found[shape] = tune(layer, shape.dtype, arguments.rounds)
        _save(shape, found[shape].choice)
    console.print(_table(found), "")
    console.print(f"{tuning.hardware(torch.get_num_threads())}: kept in {tuning.path()}", soft_wrap=True)
    if arguments.json:
        write_rows(arguments.json, [_row(shape, one) for shape, one in found.items()])
    return 0


def _save(shape: Shape, choice: Choice) -> None:
    """Layer by layer: what was measured stays, should the rest be interrupted."""
    try:
        tuning.save({shape: choice})
    except OSError as error:
        raise UserError(f"{tuning.path()} cannot be written ({error}); name another file in SBNET_TUNING") from None


def _row(shape: Shape, found: Found) -> Row:
    above = found.choice.dense_above
    return {
        "shape": str(shape),
        "tile": "x".join(map(str, found.choice.tile)),
        "dense_above": None if above == NEVER else above,
        "over_default": found.over_default,
        "over_dense": None if math.isnan(found.over_dense) else found.over_dense,
    }


def _table(found: Mapping[Shape, Found]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), title="over default: the tile's time; over dense: all tiles")
    table.add_column("layer", no_wrap=True)
    for heading in ("tile", "over\ndefault", "over\ndense", "dense above"):
        table.add_column(heading, justify="right", no_wrap=True)
    for shape, one in found.items():
        row = _row(shape, one)
        above, over_dense = row["dense_above"], row["over_dense"]
        figures = ["" if over_dense is None else f"{over_dense:.2f}", "never" if above is None else f"{above:.2f}"]
        table.add_row(str(shape), str(row["tile"]), f"{one.over_default:.2f}", *figures)
    return table
