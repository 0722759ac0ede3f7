"""The speed of `sbnet reproduce table5`: the network under each mask against the best dense one, in alternation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from rich.progress import track

from sbnet_perception.bench.measure import Row
from sbnet_perception.bench.sides import NETWORK, DenseSide, Laps, Recorder
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.masks.road import RoadView

FRAMES, ROUNDS, WARM_UP = 12, 3, 2
DENSE = "everywhere"


def measure(of_mask: Mapping[str, Pipeline], frames: Sequence[LabelledFrame]) -> list[Row]:
    """A row for each frame and mask but `DENSE`; the weights are one network's or networks of one shape.

    Of a row, ``mask_ms`` makes the mask and its tiles, ``network_ms`` is all from conv-1 to the branches, and
    ``dense_ms`` is the fastest dense way that this machine has, of the weights under `DENSE`.
    """
    chosen = frames[:: max(len(frames) // FRAMES, 1)][:FRAMES]
    dense = DenseSide(of_mask[DENSE], chosen[0].points)
    sparse = {name: pipeline for name, pipeline in of_mask.items() if name != DENSE}
    for frame in chosen[:WARM_UP]:
        for pipeline in sparse.values():
            _laps(pipeline, frame)
    recorder = Recorder()
    skipped: dict[str, float] = {}
    for number, frame in enumerate(track(chosen, "speed")):
        for name in dense.names * ROUNDS:
            recorder.take(f"{number} {name}", partial(dense.network, name, dense.input(frame.points)))
            for mask, pipeline in sparse.items():
                recorder.take(f"{number} {mask}", partial(_laps, pipeline, frame))
        for mask, pipeline in sparse.items():
            skipped[f"{number} {mask}"] = pipeline(frame.points, frame.road).sparsity["conv-3"]

    def median(side: str, part: str) -> float:
        return float(np.median(recorder.samples(side, part)))

    numbers = range(len(chosen))
    best = min(dense.names, key=lambda name: sum(median(f"{number} {name}", "network") for number in numbers))
    return [
        {
            "mask": mask,
            "frame": number,
            "tile_sparsity": skipped[side],
            "dense_ms": median(f"{number} {best}", "network"),
            "dense_best": best,
            **{f"{part}_ms": median(side, part) for part in ("mask", "network")},
            "page_faults": max(recorder.faults(f"{number} {best}"), recorder.faults(side)),
            "other_programs": recorder.others(),
        }
        for number in numbers
        for mask in sparse
        for side in [f"{number} {mask}"]
    ]


def _laps(pipeline: Pipeline, frame: LabelledFrame) -> Laps:
    """Milliseconds of a frame whose road is looked up anew, as that of the next cloud would be."""
    road = None if frame.road is None else RoadView(frame.road.road, frame.road.map_from_grid)
    times = pipeline(frame.points, road).timings_ms
    return {**times, "network": sum(times[stage] for stage in NETWORK)}
