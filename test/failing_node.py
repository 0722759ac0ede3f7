"""The node with a pipeline that fails as one on a GPU would; how, the number of points of a cloud says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from sbnet_perception.detector.pipeline import Pipeline, PipelineResult
from sbnet_perception.node import node, start

PROGRAM = ("-c", f"import sys; sys.path.append({str(Path(__file__).parent)!r}); import failing_node as f; f.main()")
SHORT_OF_MEMORY, WITHOUT_MEMORY, ILLEGAL_ACCESS = 4001, 4002, 4003
FAILURE = "CUDA error: an illegal memory access was encountered"


class FailingPipeline(Pipeline):
    """Short of memory until it is released; on a device that does not answer after an illegal access."""

    released = lost = False

    def __call__(self, points: Any, road: Any = None, predicted: Any = None) -> PipelineResult:
        if len(points) == WITHOUT_MEMORY or (len(points) == SHORT_OF_MEMORY and not self.released):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if len(points) == ILLEGAL_ACCESS:
            FailingPipeline.lost = True
            raise torch.AcceleratorError(f"{FAILURE}\nSearch for cudaErrorIllegalAddress")
        self.released = False
        return super().__call__(points, road, predicted)

    def release(self) -> None:
        self.released = True


def main() -> None:
    node.Pipeline = FailingPipeline  # type: ignore[misc]
    node.failure_of = lambda device: FAILURE if FailingPipeline.lost else ""
    start.main()


def never_configures() -> None:
    """The node with a pipeline that takes ten minutes to make."""

    def make(config: Any) -> Pipeline:
        print("configuring for ten minutes", flush=True)
        time.sleep(600)
        return Pipeline(config)

    node.Pipeline = make  # type: ignore[assignment,misc]
    start.main()
