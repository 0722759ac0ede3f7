"""GPUs on paper: what data sheets say of them, and what has to be assumed beside that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ASSUMED = "assumption"
_H100 = "NVIDIA H100 data sheet and architecture white paper, SXM5"
_H200 = "NVIDIA H200 data sheet, SXM"
_A100 = "NVIDIA A100 80 GB data sheet and architecture white paper, SXM4"
_ORIN = "NVIDIA Jetson AGX Orin Series technical brief, 64 GB"


@dataclass(frozen=True)
class Chip:
    """Limits of a GPU, in bytes, seconds and floating point operations.

    Attributes:
        name: as its vendor calls it.
        dram: bytes/s of its memory, at most.
        l2_bytes: size of the L2 cache.
        l2: bytes/s between L2 and all multiprocessors together.
        l2_each: bytes/s that one of them draws from L2.
        tensor: FLOP/s in bfloat16 with float32 sums and without structured sparsity, at most.
        multiprocessors: how many there are.
        launch: seconds that a sparse launch takes however little it does, in a CUDA graph, waiting for the one before:
            start, a chain of loads that each need the last (count, neighbours, pixels), drain.
        dense_launch: the same of a dense convolution, which knows where its input lies.
        sources: where each number is from, by its attribute; `ASSUMED` and why where no data sheet has it.
    """

    name: str
    dram: float
    l2_bytes: float
    l2: float
    l2_each: float
    tensor: float
    multiprocessors: int
    launch: float
    dense_launch: float
    sources: Mapping[str, str]

    def numbers(self) -> dict[str, list[str]]:
        """Source -> the numbers that are from there, in words."""
        found: dict[str, list[str]] = {}
        for name, (scale, words) in _WORDS.items():
            found.setdefault(self.sources[name], []).append(words.format(getattr(self, name) / scale))
        return found


_WORDS = {
    "dram": (1e9, "memory {:,.0f} GB/s"),
    "l2_bytes": (1e6, "L2 {:.0f} MB"),
    "tensor": (1e12, "tensor cores {:g} TFLOP/s"),
    "multiprocessors": (1, "{:.0f} multiprocessors"),
    "l2": (1e9, "L2 {:,.0f} GB/s"),
    "l2_each": (1e9, "of that one multiprocessor {:.0f} GB/s"),
    "launch": (1e-6, "a launch {:g} us"),
    "dense_launch": (1e-6, "a dense launch {:g} us"),
}


def _sources(sheet: str, **others: str) -> dict[str, str]:
    """All numbers are of the data sheet but those that no sheet has."""
    return {
        **dict.fromkeys(("dram", "l2_bytes", "tensor", "multiprocessors"), sheet),
        "l2": f"{ASSUMED}: no data sheet has it",
        "l2_each": f"{ASSUMED}: half of 64 bytes a clock",
        "launch": f"{ASSUMED}: start, three dependent loads and drain",
        "dense_launch": f"{ASSUMED}, in favour of dense: the gap between two nodes of a graph alone",
        **others,
    }


CHIPS = {
    "h100-sxm": Chip("H100 SXM", 3.35e12, 50e6, 5.0e12, 58e9, 989e12, 132, 5e-6, 1.5e-6, _sources(_H100)),
    "h200-sxm": Chip(
        "H200 SXM", 4.8e12, 50e6, 5.0e12, 58e9, 989e12, 132, 5e-6, 1.5e-6,
        _sources(_H200, l2_bytes=_H100, multiprocessors=_H100),
    ),
    "a100-sxm": Chip("A100 SXM 80 GB", 2.039e12, 40e6, 4.0e12, 45e9, 312e12, 108, 5e-6, 1.5e-6, _sources(_A100)),
    "agx-orin": Chip(
        "Jetson AGX Orin 64 GB", 204.8e9, 4e6, 0.7e12, 42e9, 42.5e12, 16, 10e-6, 1.5e-6,
        _sources(_ORIN, tensor=f"{_ORIN}: a quarter of its 170 sparse INT8 TOPS"),
    ),
}  # fmt: skip
"""By the names of ``--chip``."""
DEFAULT_CHIPS = ("h100-sxm", "agx-orin")


def chip_of(gpu: str) -> Chip | None:
    """The one that CUDA calls by this name, if its numbers are here."""
    names = {"H100 80GB HBM3": "h100-sxm", "H200": "h200-sxm", "A100-SXM4-80GB": "a100-sxm", "Orin": "agx-orin"}
    return next((CHIPS[chip] for name, chip in names.items() if name in gpu), None)
