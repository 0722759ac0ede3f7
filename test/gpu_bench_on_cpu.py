"""`sbnet bench gpu` with the kernels of a GPU on a CPU, and everything tiny: that it runs, not what it measures.

python test/gpu_bench_on_cpu.py [sbnet bench gpu's arguments]
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from bench_helpers import tiny_weights
from devices import operations_on

from sbnet_perception.bench import cases, gpu_units, inputs
from sbnet_perception.bench.inputs import Input, Scene
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.cli import main
from sbnet_perception.detector import gpu
from sbnet_perception.masks.road import RoadMap

REGION = ["0", "12.8", "-6.4", "6.4"]


def scene() -> Scene:
    """Three boxes of points on a plane, of which the road is a half."""
    rng = np.random.default_rng(0)
    parts = [rng.uniform([0, -6.4, -0.02, 0], [12.8, 6.4, 0.02, 1], (300, 4))]
    for x, y in ((2, -5), (7, -2), (3, 3)):
        parts.append(rng.uniform([x, y, 0.2, 0], [x + 4, y + 1.8, 1.6, 1], (100, 4)))
    cells = torch.zeros(100, 100, dtype=torch.bool)
    cells[:60] = True
    return Scene(np.concatenate(parts).astype(np.float32), RoadMap(cells, 0.2, SE2(-5.0, -10.0, 0.0)))


def run(*arguments: str) -> int:
    """The command's exit code."""
    tiny = ["--device", "cpu", "--grid", "compact", "--frames", "1", "--rounds", "1", "--region", *REGION]
    with contextlib.ExitStack() as stack:
        for module, name, value in (
            (cases, "STAGES", dict.fromkeys(cases.UNITS, ((10, 20), 16))),
            (gpu_units, "UNITS", ("conv-3",)),
            (gpu_units, "SPARSITIES", (0.0, 0.9)),
            (gpu, "FEWEST_POINTS", 1024),
            (inputs, "read_inputs", lambda _text: [Input("made", (scene(),))]),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(operations_on("shim"))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return main(["bench", "gpu", *arguments, *tiny, "--weights", str(tiny_weights(folder))])


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
