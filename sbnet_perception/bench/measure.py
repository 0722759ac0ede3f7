"""How times are taken: alternating, medians, without page faults."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Without these, malloc gives large tensors back to the system after every use, and the dense side pays
# thousands of page faults per frame that the sparse side does not.
_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456"}


def with_steady_memory() -> None:
    """Start this program again with an allocator that keeps its memory, unless it runs so already."""
    if any(os.environ.get(name) != value for name, value in _MALLOC.items()):
        os.execve(
            sys.executable, [sys.executable, "-m", "sbnet_perception.cli", *sys.argv[1:]], {**os.environ, **_MALLOC}
        )


@dataclass(frozen=True)
class Times:
    """Milliseconds of the rounds of one candidate, and its page faults per round."""

    ms: NDArray[np.float64]
    faults: float

    @property
    def median(self) -> float:
        return float(np.median(self.ms))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.ms, 95))


def alternate(candidates: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3) -> dict[str, Times]:
    """Run the candidates in turn, ``rounds`` times each, so that noise of the machine falls on all alike."""
    ms: dict[str, list[float]] = {name: [] for name in candidates}
    faults = dict.fromkeys(candidates, 0)
    for number in range(warm_up + rounds):
        for name, candidate in candidates.items():
            before, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            candidate()
            elapsed = (time.perf_counter() - start) * 1e3
            if number >= warm_up:
                ms[name].append(elapsed)
                faults[name] += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {name: Times(np.array(values), faults[name] / rounds) for name, values in ms.items()}
