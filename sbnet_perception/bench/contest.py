"""One layer, dense and sparse, in the same alternating run.

Ours runs as in the detector: packed weights, on stored pixels. A unit is timed inside a `Stage`: the time of a stage of
DEPTH units less that of a stage of one, divided by the units between them, on both sides. The mask's tiles and their
pixels are added to every unit of ours, although a stage needs them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbnet_perception.bench.cases import DTYPES, Case
from sbnet_perception.bench.dense import baselines
from sbnet_perception.bench.measure import Row, Run, Samples, Times, alternate, median_interval
from sbnet_perception.bench.recorded import recorded, timer
from sbnet_perception.blocks import ResidualUnit, SparseMap, Stage, Tiles
from sbnet_perception.blocks.pixels import has_words
from sbnet_perception.detector.device import CPU

TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Relative error (2-norm) up to which two ways to compute a chain of layers are the same."""


ALL_TILES = "all tiles"
"""The mask that leaves nothing out."""


class Contest:
    """The candidates for one layer; creating it compiles the dense ones and checks that all agree.

    Raises:
        RuntimeError: a candidate computes something else.
    """

    def __init__(self, case: Case, device: torch.device = CPU) -> None:
        # torch.compile keeps a few variants per function; those of earlier cases would crowd out this one's.
        torch.compiler.reset()
        self.case, self.device, self.x = case, device, case.input().to(device)
        self.layers = [layer.to(device) for layer in case.layers()]
        chains = {depth: baselines(self.layers[:depth], self.x) for depth in case.depths}
        self.dense = {name: {depth: chains[depth][name] for depth in chains} for name in chains[1]}
        self.ours = {depth: self._chain(depth).prepare(DTYPES[case.dtype], device) for depth in case.depths}
        with torch.inference_mode():
            self._check_agreement()

    def _check_agreement(self) -> None:
        everywhere = self._tiles(torch.ones((1, *self.case.size), dtype=torch.bool, device=self.device))
        for depth in self.case.depths:
            expected = self._chain(depth)(self.x)
            results = {name: chain[depth](self.x) for name, chain in self.dense.items()}
            results["ours"] = self.ours[depth](SparseMap.from_dense(self.x, everywhere), everywhere).dense()
            for name, result in results.items():
                error = float((result - expected).float().norm() / expected.float().norm())
                if not error < TOLERANCE[self.case.dtype]:
                    raise RuntimeError(f"{name} does not compute {self.case.layer}: relative error {error:.1e}")

    def _chain(self, depth: int) -> Any:
        units = [layer for layer in self.layers[:depth] if isinstance(layer, ResidualUnit)]
        return Stage(units).eval() if units else self.layers[0]

    def run(
        self,
        masks: Mapping[str, Tensor],
        rounds: int,
        dense: Iterable[str] | None = None,
        after_round: Callable[[], object] = lambda: None,
    ) -> dict[str, Times]:
        """Times of ours under each mask and of the dense candidates (all, unless named), all in one run."""
        candidates: dict[str, Run] = {}
        for name in self.dense if dense is None else dense:
            for depth, chain in self.dense[name].items():
                candidates[f"{name} {depth}"] = partial(chain, self.x)
        for name, mask in masks.items():
            mask = mask.to(self.device)
            tiles = self._tiles(mask)
            # What is recorded cannot wait for the number of pixels.
            room = max(len(tiles.pixels), 1) if has_words(self.device) else None
            candidates[f"{name} mask"] = partial(self._tiles, mask, room)
            for depth, ours in self.ours.items():
                candidates[f"{name} {depth}"] = partial(ours, SparseMap.from_dense(self.x, tiles), tiles)
        with torch.inference_mode():
            candidates = {name: recorded(run, self.device) for name, run in candidates.items()}
            return alternate(candidates, rounds, after_round=after_round, ms_of=timer(self.device))

    def _tiles(self, mask: Tensor, room: int | None = None) -> Tiles:
        return Tiles.pyramid(mask, [self.case.tile], [1], None if room is None else [room])[0]

    def per_layer(self, times: Mapping[str, Times], name: str) -> Samples:
        """Milliseconds of one layer, round by round; of a unit, inside a stage."""
        short, long = self.case.depths[0], self.case.depths[-1]
        if short == long:
            return times[f"{name} 1"].ms
        return (times[f"{name} {long}"].ms - times[f"{name} {short}"].ms) / (long - short)

    def contenders(self, rounds: int = 12, within: float = 1.03) -> list[str]:
        """The dense candidates that a short run finds to be the best, alone or in a chain, or nearly so."""
        times = self.run({}, rounds)
        kept: set[str] = set()
        for samples in (
            {name: self.per_layer(times, name) for name in self.dense},
            {name: times[f"{name} 1"].ms for name in self.dense},
        ):
            medians = {name: float(np.median(ms)) for name, ms in samples.items()}
            kept |= {name for name, ms in medians.items() if ms <= within * min(medians.values())}
        return [name for name in self.dense if name in kept]

    def row(self, times: Mapping[str, Times], name: str, mask: Tensor) -> Row:
        """The figures of the mask ``name``; all but `all_tiles_ms`, which another run may hold."""
        entered = [one for one in self.dense if f"{one} 1" in times]
        chained = {one: self.per_layer(times, one) for one in entered}
        best = min(entered, key=lambda one: float(np.median(chained[one])))
        lone_best = min(entered, key=lambda one: times[f"{one} 1"].median)
        used = [time for key, time in times.items() if key.rsplit(" ", 1)[0] in (best, lone_best, name)]
        sparse, tile_sparsity = self.sparse(times, name), Tiles.from_mask(mask, self.case.tile).sparsity
        return {
            "layer": self.case.layer,
            "dtype": self.case.dtype,
            "mask": name,
            "pixel_sparsity": 1.0 - float(mask.double().mean()),
            "tile_sparsity": tile_sparsity,
            "tile": f"{self.case.tile[0]}x{self.case.tile[1]}",
            "dense_ms": float(np.median(chained[best])),
            "dense_best": best,
            "sparse_ms": float(np.median(sparse)),
            "all_tiles_ms": None,
            "speedup": float(np.median(chained[best]) / np.median(sparse)),
            **_interval("ratio", sparse / chained[best]),
            **self._alone(times, name, lone_best),
            **{f"dense_{one}_ms": float(np.median(ms)) for one, ms in chained.items()},
            "rounds": len(sparse),
            "page_faults": max(time.faults for time in used),
            "other_programs": used[0].others,
        }

    def sparse(self, times: Mapping[str, Times], name: str) -> Samples:
        """Milliseconds of one layer of ours under the mask ``name``, the mask's reduction included."""
        return self.per_layer(times, name) + times[f"{name} mask"].ms

    def _alone(self, times: Mapping[str, Times], name: str, dense: str) -> Row:
        """What does not show in the time of a unit inside a stage: the layer on its own."""
        reduce_mask, lone = times[f"{name} mask"], times[f"{name} 1"]
        return {
            "mask_ms": reduce_mask.median,
            "lone_ms": lone.median,
            "dense_lone_ms": times[f"{dense} 1"].median,
            **_interval("lone_ratio", (lone.ms + reduce_mask.ms) / times[f"{dense} 1"].ms),
        }


def _interval(name: str, samples: Samples) -> Row:
    return dict(zip((name, f"{name}_low", f"{name}_high"), median_interval(samples), strict=True))
