"""`sbnet bench gpu frame` and `kernels`: a whole frame, its steps, its kernels, and its boxes against the CPU's."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sbnet_perception.bench import current, launches, limits
from sbnet_perception.bench.chips import Chip
from sbnet_perception.bench.gpu_network import frame_room
from sbnet_perception.bench.inputs import Input, Scene
from sbnet_perception.bench.measure import Row, Run, alternate
from sbnet_perception.bench.recorded import recorded, timer
from sbnet_perception.bench.sides import NETWORK
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.frame import Inputs, compute
from sbnet_perception.detector.network import STRIDES
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.frame import Frame
from sbnet_perception.masks.road import RoadView

STEPS = ("mask", "voxelize", *NETWORK, "nms")
"""Steps of `compute`, in the order of execution."""
MODELLED = {"tiles": "mask", "branches": "header", "boxes": "nms"}
"""Parts of the model -> the step that they belong to, where it has another name; "mask" also makes the mask."""
WARM_UP = 3
PROFILED = 20
SAME_BOX_M = 0.5
"""Boxes of two detectors whose centres are closer are one."""


class _Reached(Exception):
    """The step to stop at."""


def on_device(scene: Scene, pipeline: Pipeline) -> Scene:
    """The scene with its road where the pipeline computes, as the node has it."""
    return scene if scene.road is None else replace(scene, road=scene.road.to(pipeline.device))


def counts_of(pipeline: Pipeline, scene: Scene, road: RoadView | None) -> list[int]:
    """Pixels of each stage that the pipeline computes; ``road`` is a view of the scene, which keeps what is sampled."""
    points, grid = torch.from_numpy(scene.points).to(pipeline.device), pipeline.grid
    mask = computation_mask(Frame(points, grid, pipeline.config.mask, road)).mask
    if mask is None:
        mask = torch.ones(grid.shape, dtype=torch.bool, device=pipeline.device)
    return [len(tiles.pixels) for tiles in pipeline.network.tiles(mask).values()]


def run_until(step: str, pipeline: Pipeline, scene: Scene) -> Run:
    """A frame on the device up to a step, the last one included, with all its inputs there."""
    points = torch.from_numpy(scene.points).to(pipeline.device)
    config, network = pipeline.config, pipeline.network
    road = scene.view()  # sampled below, before anything is recorded, as `Graphs` does it
    room = frame_room(pipeline, len(points), counts_of(pipeline, scene, road))

    def lap(name: str) -> None:
        if name == step:
            raise _Reached

    def run() -> object:
        try:
            return compute(network, pipeline.mask_network, config, Inputs(points, road), room, lap)
        except _Reached:
            return None

    return run


@torch.inference_mode()
def measure(source: Input, pipeline: Pipeline, frames: int, rounds: int, chip: Chip | None) -> Iterator[list[Row]]:
    """The rows of one frame after the other: its steps and their sum on the device, then what the host sees."""
    on_cpu = Pipeline(replace(pipeline.config, device="cpu", dtype=current.name_of(pipeline.network.dtype)))
    ms_of = timer(pipeline.device)
    for number, seen in zip(range(frames), source.frames(), strict=False):
        scene = on_device(seen, pipeline)
        runs = {step: recorded(run_until(step, pipeline, scene), pipeline.device) for step in STEPS}
        medians = {step: taken.median for step, taken in alternate(runs, rounds, ms_of=ms_of).items()}
        expected = _model(pipeline, scene, chip)
        rows: list[Row] = []
        before = 0.0
        for step in STEPS:
            rows.append({"step": step, "ms": medians[step] - before, "model_ms": expected.get(step)})
            before = medians[step]
        rows.append({"step": "all on the device", "ms": before, "model_ms": sum(expected.values()) or None})
        rows.append({"step": "seen by the host", **_seen_by_host(pipeline, scene, rounds)})
        rows.append({"step": "boxes", **_compared((pipeline, scene), (on_cpu, seen))})
        yield [{"frame": number, **row} for row in rows]


def _model(pipeline: Pipeline, scene: Scene, chip: Chip | None) -> dict[str, float]:
    """Milliseconds of the steps of a frame, as the model has them; of "mask" only the tiles, of "voxelize" nothing."""
    if chip is None:
        return {}
    height, width = pipeline.grid.shape
    counts = map(float, counts_of(pipeline, scene, scene.view()))
    pixels = dict(zip(STRIDES, counts, strict=True))
    found: dict[str, float] = defaultdict(float)
    for launch in launches.sparse(current.dense_network(pipeline), pixels, height * width):
        found[MODELLED.get(launch.part, launch.part)] += 1e3 * limits.total([launch], chip).seconds
    return found


def _seen_by_host(pipeline: Pipeline, scene: Scene, rounds: int) -> Row:
    """From an array of points to boxes in memory of the host, copies included, with the clock on the wall."""
    taken, times = [], 0
    for _ in range(WARM_UP + rounds):
        view = scene.view()
        start = time.perf_counter()
        times += pipeline(scene.points, view).times_computed
        taken.append((time.perf_counter() - start) * 1e3)
    p50, p95 = np.percentile(taken[WARM_UP:], (50, 95)).tolist()
    return {"ms": p50, "p95_ms": p95, "computed_again": times - len(taken)}


def _compared(*sides: tuple[Pipeline, Scene]) -> Row:
    """The boxes of a frame beside those that the CPU finds in it, with the same dtype."""
    ours, theirs = (pipeline(scene.points, scene.view()) for pipeline, scene in sides)
    pairs = _pairs(ours.detections, theirs.detections)
    moved = [float(np.abs(ours.detections.boxes[i] - theirs.detections.boxes[j]).max()) for i, j in pairs]
    scored = [abs(float(ours.detections.scores[i] - theirs.detections.scores[j])) for i, j in pairs]
    return {
        "found": len(ours.detections),
        "found_by_cpu": len(theirs.detections),
        "same": len(pairs),
        "most_metres_apart": max(moved, default=0.0),
        "most_score_apart": max(scored, default=0.0),
        "same_mask": bool(torch.equal(ours.mask.cpu(), theirs.mask)),
        "same_pixels": bool(torch.equal(ours.computed.cpu(), theirs.computed)),
    }


def _pairs(ours: Detections, theirs: Detections) -> list[tuple[int, int]]:
    """Numbers of boxes that are one, each once."""
    left, pairs = set(range(len(theirs))), []
    for i, box in enumerate(ours.boxes):
        distance = {j: float(np.hypot(*(box[:2] - theirs.boxes[j][:2]))) for j in left}
        nearest = min(distance, key=lambda j: distance[j], default=None)
        if nearest is not None and distance[nearest] < SAME_BOX_M:
            left.remove(nearest)
            pairs.append((i, nearest))
    return pairs


@torch.inference_mode()
def kernels(source: Input, pipeline: Pipeline) -> list[Row]:
    """The kernels of the first frame, those that take longest first, as the profiler of PyTorch sees them."""
    device = pipeline.device
    replay = recorded(run_until("", pipeline, on_device(source.scenes[0], pipeline)), device)
    kind = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    activities = [ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU]
    with profile(activities=activities) as profiled:
        for _ in range(PROFILED):
            replay()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    count: Counter[str] = Counter()
    microseconds: dict[str, float] = defaultdict(float)
    for event in profiled.events():
        if event.device_type == kind:
            count[event.name] += 1
            microseconds[event.name] += event.time_range.elapsed_us()
    by_time = sorted(count, key=lambda name: -microseconds[name])
    return [
        {"kernel": name, "launches": count[name] / PROFILED, "microseconds": microseconds[name] / PROFILED}
        for name in by_time
    ]
