"""How long a launch takes on a GPU, on paper, and what limits it: a roofline with a cache and a floor.

A model. Nothing was measured on a GPU, and the shares below are assumptions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sbnet_perception.bench.chips import Chip
from sbnet_perception.bench.launches import Launch

DRAM, L2, TENSOR, FLOOR = "DRAM", "L2", "tensor cores", "launch"
"""What can limit a launch."""

DRAM_REACHED = 0.9
"""Share of the memory's bandwidth that copies reach."""
SPARSE_TENSOR, DENSE_TENSOR = 0.4, 0.5
"""Share of the tensor cores' peak that kernels reach: of stored pixels by mma.sync, and of dense maps."""
MISSES = 0.4
"""Share of what windows read again that L1 does not have: 16 pixels in a row see 3 x 18 others, not 9 x 16."""
L2_HOLDS = 0.5
"""Maps up to this share of L2 are still there, written by the launch before; weights come from memory every frame."""
WARPS, BUSY_WARPS = 16, 8
"""Warps that find room on a multiprocessor, and how many keep its tensor cores busy."""


@dataclass(frozen=True)
class Time:
    """Seconds of a launch without its floor, and the limit that they are of."""

    seconds: float
    limit: str


def time_of(launch: Launch, chip: Chip) -> Time:
    """How long the launch moves and computes; the longest of its limits is what it takes."""
    work, multiprocessors = launch.work, chip.multiprocessors
    # Few groups leave multiprocessors idle; many read the weights several times.
    active, warps, readings = float(multiprocessors), 1.0, 0
    if launch.groups is not None:
        groups = max(launch.groups, 1.0)
        active = min(groups, active)
        warps = min(1.0, groups * launch.warps / (BUSY_WARPS * multiprocessors))
        readings = math.ceil(launch.groups / (multiprocessors * max(WARPS // launch.warps, 1)))
    cold = work.weights + (work.maps if work.maps > L2_HOLDS * chip.l2_bytes else 0.0)
    through_l2 = work.maps + MISSES * work.windows + (0.0 if launch.dense else readings * work.weights * active)
    reached = (DENSE_TENSOR if launch.dense else SPARSE_TENSOR) * warps
    seconds = {
        DRAM: cold / (DRAM_REACHED * chip.dram),
        L2: through_l2 / min(chip.l2, active * chip.l2_each),
        TENSOR: work.flops / (reached * chip.tensor),
    }
    limit = max(seconds, key=lambda name: seconds[name])
    return Time(seconds[limit], limit)


@dataclass(frozen=True)
class Total:
    """Several launches, one after the other.

    Attributes:
        launches: how many.
        bytes: that are read or written at least once.
        flops: floating point operations.
        seconds: all that they take, the floor of each launch included.
        limit: what most of the time goes to.
    """

    launches: int
    bytes: float
    flops: float
    seconds: float
    limit: str


def total(launches: Sequence[Launch], chip: Chip) -> Total:
    """The launches' sum; each takes the chip's floor beside what it moves and computes."""
    spent = dict.fromkeys((DRAM, L2, TENSOR, FLOOR), 0.0)
    for launch in launches:
        time = time_of(launch, chip)
        spent[time.limit] += time.seconds
        spent[FLOOR] += chip.dense_launch if launch.dense else chip.launch
    return Total(
        len(launches),
        sum(launch.work.maps + launch.work.weights for launch in launches),
        sum(launch.work.flops for launch in launches),
        sum(spent.values()),
        max(spent, key=lambda name: spent[name]),
    )
