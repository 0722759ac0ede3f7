"""What is measured of a node's process under load, and what of it is a problem."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import ClassVar

FILES, THREADS = 4, 4
"""By how many open files and threads a node may grow: what is made at first use."""
WARM_UP = 0.25
"""Share of the samples in which memory may grow as it likes: pools, caches, first use."""
RECOVERED = 0.1
"""Share of the clouds that must be answered in a calm, on however busy a machine."""
LEAST_SAMPLES = 8
"""Fewer do not tell growth from its beginning."""


@dataclass(frozen=True)
class Calm:
    """Some seconds at the sensor's rate without any fault: clouds sent and answered, the answers' milliseconds."""

    sent: int
    answered: int
    latencies_ms: tuple[float, ...]


@dataclass(frozen=True)
class Limits:
    """Milliseconds that 99 % of the answers keep, MB that the process may grow by."""

    latency_ms: float
    memory_mb: float


@dataclass(frozen=True)
class Sample:
    """The node after a phase and the calm behind it.

    Attributes:
        counts: of clouds since the beginning, as /diagnostics says: received, processed, failed, dropped, rejected.
    """

    phase: str
    at_s: float
    memory_mb: float
    files: int
    threads: int
    calm: Calm
    counts: Mapping[str, int]

    HEADER: ClassVar[str] = (
        f"{'s':>7} {'phase':<16} {'MB':>7} {'files':>5} {'threads':>7} {'sent':>5} {'answered':>8} {'p99 ms':>7} "
        f"{'received':>8} {'processed':>9} {'dropped':>8} {'rejected':>8} {'failed':>6}"
    )

    @staticmethod
    def of(pid: int, phase: str, at_s: float, calm: Calm, counts: Mapping[str, int]) -> Sample:
        """Reads /proc."""
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory_mb = int(status["VmRSS"].split()[0]) / 1024
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return Sample(phase, at_s, memory_mb, files, int(status["Threads"]), calm, counts)

    @property
    def p99_ms(self) -> float:
        latencies = sorted(self.calm.latencies_ms)
        return latencies[int(0.99 * (len(latencies) - 1))] if latencies else float("nan")

    @property
    def unaccounted(self) -> int:
        """Clouds that were received and became nothing; what is negative became something twice."""
        counts = self.counts
        return counts["received"] - sum(counts[name] for name in ("processed", "dropped", "rejected", "failed"))

    def row(self) -> str:
        counts = self.counts
        return (
            f"{self.at_s:7.0f} {self.phase:<16} {self.memory_mb:7.1f} {self.files:5d} {self.threads:7d} "
            f"{self.calm.sent:5d} {self.calm.answered:8d} {self.p99_ms:7.1f} {counts['received']:8d} "
            f"{counts['processed']:9d} {counts['dropped']:8d} {counts['rejected']:8d} {counts['failed']:6d}"
        )


def problems(samples: Sequence[Sample], limits: Limits) -> list[str]:
    """Sentences; none where all is well."""
    found = []
    for sample in samples:
        where = f"after {sample.phase} at {sample.at_s:.0f} s"
        if sample.unaccounted:
            found.append(f"{sample.unaccounted} clouds are not accounted for {where}: {dict(sample.counts)}")
        if sample.calm.answered < max(1, RECOVERED * sample.calm.sent):
            found.append(f"it did not recover {where}: {sample.calm.answered} of {sample.calm.sent} clouds answered")
        if sample.counts["failed"]:
            found.append(f"{sample.counts['failed']} clouds failed {where}")
    late = [sample for sample in samples if not sample.p99_ms <= limits.latency_ms]
    if len(late) > len(samples) // 10:
        worst = max(late, key=lambda sample: sample.p99_ms)
        found.append(f"answers are late in {len(late)} of {len(samples)} calms: p99 {worst.p99_ms:.0f} ms, "
                     f"{limits.latency_ms:g} are allowed")  # fmt: skip
    return found + _growth(samples, limits)


def _growth(samples: Sequence[Sample], limits: Limits) -> list[str]:
    if len(samples) < LEAST_SAMPLES:
        return []
    warm = samples[int(WARM_UP * len(samples)) :]
    early, late = warm[: len(warm) // 3], warm[-(len(warm) // 3) :]

    def grown(name: str) -> float:
        return median(getattr(sample, name) for sample in late) - median(getattr(sample, name) for sample in early)

    allowed = {"memory_mb": limits.memory_mb, "files": FILES, "threads": THREADS}
    return [
        f"{name} grew by {grown(name):.1f}, {most:g} are allowed"
        for name, most in allowed.items()
        if grown(name) > most
    ]
