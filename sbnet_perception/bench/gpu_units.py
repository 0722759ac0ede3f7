"""`sbnet bench gpu units`: residual units under synthetic masks, beside the best dense ones and the model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sbnet_perception.bench import launches, limits
from sbnet_perception.bench.cases import UNITS, Case, top_left
from sbnet_perception.bench.chips import Chip
from sbnet_perception.bench.contest import Contest
from sbnet_perception.bench.measure import Row
from sbnet_perception.detector.network import STRIDES, Detector

SPARSITIES = (0.0, 0.5, 0.75, 0.9)
DTYPE = "bfloat16"


def measure(device: torch.device, rounds: int, chip: Chip | None) -> Iterator[list[Row]]:
    """The rows of one unit after the other: one for each of `SPARSITIES`."""
    for layer in UNITS:
        contest = Contest(Case.named(layer, DTYPE), device)
        masks = {f"{100 * sparsity:.0f} %": top_left(contest.case.size, sparsity) for sparsity in SPARSITIES}
        times = contest.run(masks, rounds)
        rows = [contest.row(times, name, mask) for name, mask in masks.items()]
        for row in rows:
            # A stage needs the tiles once: what a unit of it takes without them.
            unit = float(np.median(contest.per_layer(times, str(row["mask"]))))
            row |= {"unit_ms": unit, "unit_speedup": float(row["dense_ms"] or 0) / unit}
            row["model_dense_ms"], row["model_sparse_ms"] = _model(layer, float(row["tile_sparsity"] or 0), chip)
        yield rows


def _model(layer: str, sparsity: float, chip: Chip | None) -> tuple[float | None, float | None]:
    """Milliseconds of a unit, dense and sparse, as the model has them on the paper grid."""
    if chip is None:
        return None, None
    with torch.device("meta"):
        network = Detector()
    height, width = (side * STRIDES[layer] for side in Case.named(layer, DTYPE).size)
    pixels = {stage: (1 - sparsity) * count for stage, count in launches.everywhere(height, width).items()}
    sparse = [one for one in launches.sparse(network, pixels, height * width) if one.part == layer]
    dense = [one for one in launches.dense(network, height, width) if one.part == layer]
    # The second unit of the stage: it keeps the shape, and ends with the 1x1 of the next.
    return 1e3 * limits.total(dense[3:6], chip).seconds, 1e3 * limits.total(sparse[1:2], chip).seconds
