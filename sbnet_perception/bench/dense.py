"""The dense network to beat, as fast as PyTorch makes it on this machine: chains of layers and the whole detector."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbnet_perception.bench.folded import FoldedConv, FoldedUpsample, Layer, Size, fold
from sbnet_perception.blocks import ConvUnit, PointwiseConv2d, ResidualUnit
from sbnet_perception.detector.device import multiplies_bfloat16
from sbnet_perception.detector.network import Detector

Dense = Callable[[Tensor], Tensor]

STAGES = {
    "conv-1": ("bev",),
    "conv-2": ("conv-1",),
    "conv-3": ("conv-2",),
    "conv-4": ("conv-3",),
    "conv-5": ("conv-4",),
    "up": ("conv-5", "conv-4", "conv-3"),
    "header": ("up",),
    "branches": ("header",),
}
"""Stages of the detector in the order of execution, and the maps that each reads."""
MIXED, WHOLE = "mixed", "compile-whole"
HAS_TRITON = importlib.util.find_spec("triton") is not None
"""Without it torch.compile has nothing for a GPU."""


def baselines(layers: Sequence[ConvUnit | ResidualUnit], x: Tensor) -> dict[str, Dense]:
    """The dense candidates, by name, for a chain of ``layers`` applied to maps like ``x``."""
    folded = [fold(layer) for layer in layers]
    candidates: dict[str, Dense] = {"eager": eager(folded)}
    if x.device.type == "cpu" or HAS_TRITON:
        candidates["compile"] = compiled(nn.Sequential(*folded))
    if x.device.type == "cpu" and has_onednn(x.dtype):
        candidates["onednn"] = onednn(folded, _size(x))
    return candidates


@functools.cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether this CPU and this PyTorch run oneDNN's convolutions in ``dtype``."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype is torch.float32 or (dtype is torch.bfloat16 and multiplies_bfloat16())


def eager(layers: Sequence[Layer]) -> Dense:
    """Eager PyTorch on channels_last maps, in place wherever it can be."""

    def run(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer.eager(x)
        return x

    return run


def compiled(module: nn.Module, **options: bool) -> Callable[..., Any]:
    """torch.compile; on a CPU with freezing: weights packed for oneDNN, and fused what follows a convolution."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
    return torch.compile(module.eval(), dynamic=False, options={"freezing": on_cpu, **options})


def onednn(layers: Sequence[Layer], size: Size) -> Dense:
    """oneDNN's convolutions with weights packed for maps of ``size`` (N, H, W), ReLU and residual add fused into them.

    From the second layer on the map belongs to the chain, and a unit adds to it in place: a pass over memory less
    than torch.compile, which does not see that it may. Leading normalization and ReLU are one compiled pass.
    """
    chain = []
    for layer in layers:
        run, size = layer.packed(size)
        chain.append(run)

    def run_all(x: Tensor) -> Tensor:
        for number, run in enumerate(chain):
            x = run(x, number > 0)
        return x

    return run_all


class FoldedDetector(nn.Module):
    """The detector's stages for dense inference; the three branches are one convolution of all their channels."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        stages = {f"conv-{number}": getattr(network, f"conv{number}") for number in range(2, 6)}
        parts: dict[str, nn.Module] = {"conv-1": _folded(network.conv1), "header": _folded(network.header)}
        parts |= {name: _folded(stage.units) for name, stage in stages.items()}
        parts["up"], parts["branches"] = Up(network), _folded([_merged(network)])
        self.parts = nn.ModuleDict({name: parts[name] for name in STAGES})

    def forward(self, bev: Tensor) -> Tensor:
        """[N, 33, H, W] -> [N, classes + 8, H/4, W/4]: logits, size and orientation, one after the other."""
        return DenseDetector(dict(self.parts.items()))(bev)


class Up(nn.Module):
    """The stage "up": top, then the two upsamplings with their skips."""

    def __init__(self, network: Detector) -> None:
        super().__init__()
        self.top, self.up4, self.up3 = FoldedConv(network.top), FoldedUpsample(network.up4), FoldedUpsample(network.up3)

    def forward(self, c5: Tensor, c4: Tensor, c3: Tensor) -> Tensor:
        y: Tensor = self.up3(self.up4(self.top(c5), c4), c3)
        return y

    def eager(self, c5: Tensor, c4: Tensor, c3: Tensor) -> Tensor:
        return self.up3.eager(self.up4.eager(self.top.eager(c5), c4), c3)

    def packed(self, size5: Size, size4: Size, size3: Size) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """As those of `sbnet_perception.bench.folded`, for the sizes of c5, c4 and c3."""
        top, up4, up3 = self.top.packed(size5)[0], self.up4.packed(size5, size4), self.up3.packed(size4, size3)
        return lambda c5, c4, c3: up3(up4(top(c5, False), c4), c3)


class DenseDetector:
    """One way to run the dense detector: a callable for each stage, in the order of `STAGES`."""

    def __init__(self, stages: dict[str, Callable[..., Tensor]]) -> None:
        self.stages = stages

    def __call__(self, bev: Tensor, lap: Callable[[str], object] = lambda stage: None) -> Tensor:
        """[N, 33, H, W] -> [N, classes + 8, H/4, W/4]; calls ``lap`` with the name of each stage that is done."""
        maps = {"bev": bev}
        for stage, inputs in STAGES.items():
            maps[stage] = self.stages[stage](*(maps[name] for name in inputs))
            lap(stage)
        return maps[stage]


def detectors(network: Detector, bev: Tensor) -> dict[str, DenseDetector]:
    """Ways to run the dense detector stage by stage, by name, for inputs like ``bev`` [N, 33, H, W]."""
    folded = FoldedDetector(network)
    parts: dict[str, Any] = dict(folded.parts.items())
    chains = {name: list(part) for name, part in parts.items() if name != "up"}
    ways: dict[str, dict[str, Callable[..., Tensor]]] = {
        "eager": {name: eager(chain) for name, chain in chains.items()} | {"up": parts["up"].eager},
        "compile": {name: compiled(part) for name, part in parts.items()},
    }
    if bev.device.type == "cpu" and has_onednn(bev.dtype):
        sizes = _sizes(bev)
        ways["onednn"] = {name: onednn(chain, sizes[STAGES[name][0]]) for name, chain in chains.items()}
        ways["onednn"]["up"] = parts["up"].packed(*(sizes[name] for name in STAGES["up"]))
    return {name: DenseDetector(stages) for name, stages in ways.items()}


def whole(network: Detector, **options: bool) -> Dense:
    """The dense detector as a single graph of torch.compile; without stages."""
    return compiled(FoldedDetector(network), **options)


def tensorrt(network: Detector) -> Dense:
    """The dense detector as TensorRT compiles it, where torch_tensorrt is installed."""
    importlib.import_module("torch_tensorrt")
    options: Any = {"enabled_precisions": {network.logits.weight.dtype}}
    return torch.compile(FoldedDetector(network).eval(), backend="torch_tensorrt", dynamic=False, options=options)


def mixed(ways: dict[str, DenseDetector], ms: dict[str, dict[str, float]]) -> DenseDetector:
    """Each stage in the way that took the least of the milliseconds ``ms`` [way][stage]."""
    best = {stage: min(ways, key=lambda way: ms[way][stage]) for stage in STAGES}
    return DenseDetector({stage: ways[way].stages[stage] for stage, way in best.items()})


def _folded(layers: Any) -> nn.Sequential:
    return nn.Sequential(*(fold(layer) for layer in layers))


def _merged(network: Detector) -> PointwiseConv2d:
    """The three branches as one 1x1 convolution."""
    branches = (network.logits, network.size, network.orientation)
    weight = torch.cat([branch.weight.detach() for branch in branches])
    merged = PointwiseConv2d(weight.shape[1], weight.shape[0]).to(weight.dtype)
    merged.weight.data = weight
    biases = [branch.bias.detach() for branch in branches if branch.bias is not None]
    assert merged.bias is not None
    merged.bias.data = torch.cat(biases)
    return merged


def _size(x: Tensor) -> Size:
    return x.shape[0], x.shape[2], x.shape[3]


def _sizes(bev: Tensor) -> dict[str, Size]:
    """(N, H, W) of every map: conv-1 at the grid's resolution, each stage after it halves."""
    images, height, width = _size(bev)
    sizes = {"bev": (images, height, width)}
    for number in range(1, 6):
        sizes[f"conv-{number}"] = (images, height, width)
        height, width = -(-height // 2), -(-width // 2)
    return sizes | {"up": sizes["conv-3"], "header": sizes["conv-3"]}
