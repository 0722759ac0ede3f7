"""Work on a device, repeated and timed: graphs and events on a GPU, calls and a clock on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from sbnet_perception.bench.measure import Run, wall_ms

SWEPT = 512 << 20
"""Bytes of the device's memory that are written before each run: nothing of the run before is left in L2, and meanwhile
the host has handed over all that is timed."""
WARM_UP = 3
BUSY_MS = 200
"""How long a GPU computes before anything is timed: its clocks are low at rest."""


def recorded(run: Run, device: torch.device) -> Run:
    """The same work without what it costs the host: on a GPU a CUDA graph, elsewhere ``run``."""
    if device.type != "cuda":
        return run
    # Once outside of a graph: what compiles or chooses an algorithm at its first calls must not be recorded.
    beside = torch.cuda.Stream(device)
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream(device).wait_stream(beside)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return _Recorded(graph, run, result)


@dataclass(frozen=True)
class _Recorded:
    """A graph, with all of ``run``: it reads memory of tensors that nobody else may hold."""

    graph: torch.cuda.CUDAGraph
    run: Run
    result: object

    def __call__(self) -> object:
        self.graph.replay()
        return self.result


def timer(device: torch.device) -> Callable[[Run], float]:
    """What tells the milliseconds that a run takes on the device."""
    if device.type != "cuda":
        return wall_ms
    swept = torch.empty(SWEPT, dtype=torch.uint8, device=device)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def ms(run: Run) -> float:
        swept.zero_()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    factor, spent = torch.randn(4096, 4096, dtype=torch.bfloat16, device=device), 0.0
    while spent < BUSY_MS:
        spent += ms(lambda: factor @ factor)
    return ms
