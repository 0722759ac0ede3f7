"""A frame from message to detections, sparse and dense, with the milliseconds of every stage."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.bench import current, dense
from sbnet_perception.bench.contest import TOLERANCE
from sbnet_perception.bench.inputs import Scene
from sbnet_perception.bench.measure import others_seconds, share_of_others
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import CHANNELS, voxels
from sbnet_perception.detector.network import Detector
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.messages.pointcloud2 import read_points

Laps = dict[str, float]
NETWORK = tuple(dense.STAGES)
"""The stages that make up "network"."""
WITHIN = 1.05
"""Dense ways that a first contest finds slower than the best by more than this take no part in the run."""
CONTEST_ROUNDS = 4


class Clock:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps: Laps = {}
        self._last = self._began = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = (now - self._last) * 1e3, now

    def total(self) -> float:
        """Since the clock was made."""
        return (time.perf_counter() - self._began) * 1e3


class Recorder:
    """Laps of every side's frames, with its page faults, and the share of the cores that others used meanwhile."""

    def __init__(self) -> None:
        self.laps: dict[str, list[Laps]] = defaultdict(list)
        self._faults: dict[str, int] = defaultdict(int)
        self._began, self._busy = time.perf_counter(), others_seconds()

    def take(self, side: str, run: Callable[[], Laps]) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.laps[side].append(run())
        self._faults[side] += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def faults(self, side: str) -> float:
        """Per frame."""
        return self._faults[side] / max(len(self.laps[side]), 1)

    def others(self) -> float:
        return share_of_others(self._began, self._busy)

    def samples(self, side: str, stage: str) -> NDArray[np.float64]:
        """Milliseconds of a stage, frame by frame; none where the side does not have it."""
        return np.array([laps[stage] for laps in self.laps[side] if stage in laps])


class Sparse:
    """The pipeline under one mask."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.publish = current.publisher(pipeline)
        self.skipped: dict[str, float] = {}
        """Share of the tiles of each stage that the last frame left out."""

    def __call__(self, scene: Scene, message: bytes) -> Laps:
        """Milliseconds by stage; "publish" is not in "total"."""
        clock = Clock()
        points = read_points(message).points
        clock.lap("decode")
        result = self.pipeline(points, scene.view())
        total = clock.total()
        self.skipped = result.sparsity
        laps = {**clock.laps, **result.timings_ms}
        laps["network"] = sum(laps[stage] for stage in NETWORK)
        clock.lap("")
        self.publish(result)
        clock.lap("publish")
        laps["publish"] = clock.laps["publish"]
        return {**laps, "total": total}


class DenseInput:
    """The map of the voxels in the network's dtype, in one buffer that is cleared only where it was written."""

    def __init__(self, grid: Grid, dtype: torch.dtype) -> None:
        self._grid, self._image = grid, torch.zeros((grid.height * grid.width, CHANNELS), dtype=dtype)
        self._written = torch.empty(0, dtype=torch.int64)

    def __call__(self, points: NDArray[np.float32]) -> Tensor:
        """[1, 33, H, W] in channels_last, valid until the next call."""
        seen = voxels(torch.from_numpy(points), self._grid)
        self._image[self._written] = 0
        self._written = seen.pixels.flat
        self._image[self._written] = seen.values().to(self._image.dtype)
        return self._image.view(1, *self._grid.shape, CHANNELS).permute(0, 3, 1, 2)


class DenseSide:
    """The same network without a mask, in the ways that are fastest on this machine.

    Creating it compiles all ways, checks that they compute what `Detector` computes, and holds a first contest.

    Attributes:
        contest: way -> median milliseconds of the network in the contest, of all ways.

    Raises:
        RuntimeError: a way computes something else.
    """

    def __init__(self, pipeline: Pipeline, points: NDArray[np.float32]) -> None:
        # torch.compile keeps a few variants per function; those of another dtype would crowd out this one's.
        torch.compiler.reset()
        self.pipeline = pipeline
        self.input = DenseInput(pipeline.grid, current.dense_dtype(pipeline))
        bev, network = self.input(points), current.dense_network(pipeline)
        with torch.inference_mode():
            staged = dense.detectors(network, bev)
            whole = dense.whole(network)
            self._check(network, {**staged, dense.WHOLE: whole}, bev)
            by_stage = {name: self._best_laps(way, bev) for name, way in staged.items()}
            self._ways: dict[str, Callable[..., Tensor]] = {**staged, dense.MIXED: dense.mixed(staged, by_stage)}
            self._ways[dense.WHOLE] = lambda bev, lap=None: whole(bev)
            self.contest = self._contest(bev)
        best = min(self.contest.values())
        self.names = [name for name, ms in self.contest.items() if ms <= WITHIN * best]

    @torch.inference_mode()
    def __call__(self, name: str, message: bytes) -> Laps:
        """Milliseconds by stage, of one of the ways ``names``; a way of a single graph has no stages."""
        clock = Clock()
        points = read_points(message).points
        clock.lap("decode")
        bev = self.input(points)
        clock.lap("voxelize")
        network = Clock()
        maps = self._ways[name](bev, network.lap)
        clock.lap("network")
        current.detections(self.pipeline, maps)
        clock.lap("nms")
        return {**clock.laps, **network.laps, "total": clock.total()}

    @torch.inference_mode()
    def network(self, name: str, bev: Tensor) -> Laps:
        """Milliseconds of "network" alone, in one of the ways ``names``."""
        clock = Clock()
        self._ways[name](bev)
        clock.lap("network")
        return clock.laps

    @staticmethod
    def _check(network: Detector, ways: Mapping[str, Callable[..., Tensor]], bev: Tensor) -> None:
        expected = current.dense_maps(network, bev).float()
        tolerance = 2 * TOLERANCE[current.name_of(bev.dtype)]
        for name, way in ways.items():
            error = float((way(bev).float() - expected).norm() / expected.norm())
            if not error < tolerance:
                raise RuntimeError(f"{name} does not compute the detector: relative error {error:.1e}")

    @staticmethod
    def _best_laps(way: Callable[..., Tensor], bev: Tensor) -> Laps:
        rounds = []
        for _ in range(CONTEST_ROUNDS):
            clock = Clock()
            way(bev, clock.lap)
            rounds.append(clock.laps)
        return {stage: min(laps[stage] for laps in rounds) for stage in rounds[0]}

    def _contest(self, bev: Tensor) -> Laps:
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(CONTEST_ROUNDS):
            for name in self._ways:
                times[name].append(self.network(name, bev)["network"])
        return {name: float(np.median(ms)) for name, ms in times.items()}


def by_frame(frames: Iterator[Scene], count: int) -> Iterator[tuple[int, Scene, bytes]]:
    """The next frames, numbered, with their messages."""
    for number, scene in zip(range(count), frames, strict=False):
        yield number, scene, scene.message()
