"""How times are taken: alternating, medians, without page faults, and on which machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom

Row = dict[str, float | str | None]
Samples = NDArray[np.float64]
Run = Callable[[], object]

# Without the first three, malloc gives large tensors back to the system after every use, and the dense side pays
# thousands of page faults per frame that the sparse side does not. The last keeps torch.compile from leaving
# helper processes behind that would share the cores with what is measured.
_ENVIRONMENT = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
MANY_FAULTS, BUSY = 100, 0.05
"""Page faults per round, and share of the cores taken by other programs, above which times are not to be trusted."""


def with_steady_memory() -> None:
    """Start this program again with an allocator that keeps its memory, unless it runs so already."""
    if any(os.environ.get(name) != value for name, value in _ENVIRONMENT.items()):
        command = [sys.executable, "-m", "sbnet_perception.cli", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **_ENVIRONMENT})


@dataclass(frozen=True)
class Times:
    """Milliseconds of the rounds of one candidate, its page faults per round, and who else was computing.

    ``others`` is the share of the machine's cores that other programs used during the run of all candidates.
    """

    ms: Samples
    faults: float
    others: float

    @property
    def median(self) -> float:
        return float(np.median(self.ms))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.ms, 95))


def wall_ms(run: Run) -> float:
    """Milliseconds of the clock on the wall that a run takes."""
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def alternate(
    candidates: Mapping[str, Run],
    rounds: int,
    warm_up: int = 3,
    after_round: Run = lambda: None,
    ms_of: Callable[[Run], float] = wall_ms,
) -> dict[str, Times]:
    """Run the candidates in turn, ``rounds`` times each, so that noise of the machine falls on all alike."""
    ms: dict[str, list[float]] = {name: [] for name in candidates}
    faults = dict.fromkeys(candidates, 0)
    began, busy = time.perf_counter(), others_seconds()
    for number in range(warm_up + rounds):
        for name, candidate in candidates.items():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            elapsed = ms_of(candidate)
            if number >= warm_up:
                ms[name].append(elapsed)
                faults[name] += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        if number >= warm_up:
            after_round()
    others = share_of_others(began, busy)
    return {name: Times(np.array(values), faults[name] / rounds, others) for name, values in ms.items()}


def others_seconds() -> float:
    """Seconds that all cores have spent on other programs since the machine and this program started."""
    try:
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - time.process_time()


def share_of_others(began: float, busy: float) -> float:
    """Share of the cores that other programs used since `others_seconds` was ``busy``, at perf_counter ``began``."""
    return max(others_seconds() - busy, 0.0) / (time.perf_counter() - began) / (os.cpu_count() or 1)


def median_interval(samples: Samples) -> tuple[float, float, float]:
    """Median of ``samples`` and its 95 % confidence interval, from order statistics: no distribution is assumed."""
    ordered = np.sort(samples)
    below = int(binom.ppf(0.025, len(ordered), 0.5))
    low, high = max(below - 1, 0), min(len(ordered) - below, len(ordered) - 1)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[high])


def machine() -> Row:
    """What a figure depends on: GPU if one is in use, CPU, its vector instructions, threads, PyTorch; and the day."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpuinfo = ""
    cpu = dict(re.findall(r"^(.*?)\s*:\s*(.*)$", cpuinfo, re.MULTILINE))
    names = (cpu.get("flags") or cpu.get("Features") or "").split()
    model = f" (family {cpu['cpu family']}, model {cpu['model']})" if "cpu family" in cpu else ""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_initialized() else {}
    return {
        **gpu,
        "cpu": (cpu.get("model name") or platform.processor() or platform.machine()) + model,
        "cores": os.cpu_count(),
        "flags": " ".join(flag for flag in _CPU_FLAGS if flag in names),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def warnings(rows: Sequence[Row]) -> list[str]:
    """What the user should know about times that were taken in bad conditions."""
    found = []
    if max((float(row["page_faults"] or 0) for row in rows), default=0.0) > MANY_FAULTS:
        found.append("WARNING: page faults distort these times; free some memory and measure again")
    busy = max((float(row["other_programs"] or 0) for row in rows), default=0.0)
    if busy > BUSY:
        found.append(f"WARNING: other programs used {100 * busy:.0f} % of the cores; stop them and measure again")
    return found


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes {"machine": {...}, "rows": [...]} as JSON."""
    path.write_text(json.dumps({"machine": machine(), "rows": list(rows)}, indent=1) + "\n")
