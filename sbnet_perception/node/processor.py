"""One cloud from message to result: read its points, move them into the grid frame, place the road, detect."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.device import first_line
from sbnet_perception.detector.pipeline import Pipeline, PipelineResult
from sbnet_perception.masks.road import RoadView
from sbnet_perception.messages.detections import raised, split_invalid
from sbnet_perception.messages.pointcloud2 import CloudPoints, read_points
from sbnet_perception.messages.raw_cloud import CloudError, RawCloud, read_cloud
from sbnet_perception.node.gate import stamp_ns
from sbnet_perception.node.ground import Ground
from sbnet_perception.node.intensity import Intensity, IntensityAnswer
from sbnet_perception.node.parameters import NodeConfig
from sbnet_perception.node.road_layer import RoadAnswer, RoadLayer
from sbnet_perception.node.status import Dropped, FrameFacts, Rejected
from sbnet_perception.node.transforms import Matrix, Transforms, TransformUnavailable, lookup_before


@dataclass(frozen=True)
class Arrived:
    """A cloud and when it came (time.monotonic seconds)."""

    msg: RawCloud
    at: float


@dataclass(frozen=True)
class Processed:
    """What is published for one cloud.

    Attributes:
        frame_id: frame of the boxes and of the grid.
        ground_z: height of the ground in it, in metres.
        detections: valid boxes in that frame, at their true height.
        invalid: boxes that were dropped since they were not finite or huge.
    """

    frame_id: str
    ground_z: float
    stamp: Any
    detections: Detections
    invalid: int
    result: PipelineResult
    facts: FrameFacts


def read(raw: bytes) -> RawCloud:
    """The cloud of a CDR message, not yet decoded.

    Raises:
        Rejected: the message cannot be read.
    """
    try:
        return read_cloud(raw)
    except CloudError as error:
        raise Rejected("cloud malformed", str(error)) from error


class Processor:
    """Applies the node's configuration to clouds, one at a time, in the worker thread."""

    def __init__(
        self,
        config: NodeConfig,
        pipeline: Pipeline,
        transforms: Transforms,
        road: RoadLayer,
        clock_ns: Callable[[], int],
    ) -> None:
        self._config = config
        self._pipeline = pipeline
        self._transforms = transforms
        self._road = road
        self._clock_ns = clock_ns
        self._device = pipeline.device
        self._wanted = pipeline.config
        self._grid_frame, self._stamp_ns = "", 0
        self._ground, self._intensities = self._nothing_learnt("")

    def change(self, detector: DetectorConfig) -> None:
        """Another configuration of the detector, from the next cloud on; may be called from any thread."""
        self._wanted = detector

    def __call__(self, arrived: Arrived, stop: threading.Event) -> Processed:
        """Detects.

        Raises:
            Rejected: the cloud is malformed.
            Dropped: no transform in time, or no road mask where one is required.
        """
        self._take_change()
        header = arrived.msg.header
        deadline = arrived.at + self._config.tf_timeout
        grid_frame = self._config.grid_frame or header.frame_id
        self._watch(grid_frame, stamp_ns(header.stamp))
        laps = [time.monotonic()]
        cloud, intensity = self._read(arrived.msg)
        points = torch.from_numpy(cloud.points).to(self._device)
        self._to_grid_frame(points, header, grid_frame, deadline, stop)
        laps.append(time.monotonic())
        # The ground goes to z = 0.
        ground = self._ground(points)
        points[:, 2] -= ground.z
        laps.append(time.monotonic())
        road = self._road_at(header, grid_frame, deadline, stop)
        laps.append(time.monotonic())
        result, again = self._detect(points, None if road is None else road.view)
        laps.append(time.monotonic())
        # Whatever the network makes of an empty image where it computes densely: nothing was there.
        found = result.detections if result.points_in_range else Detections.empty()
        good, invalid = split_invalid(found)
        steps_ms = [1e3 * (after - before) for before, after in itertools.pairwise(laps)]
        facts = FrameFacts(
            stamp_ns=stamp_ns(header.stamp),
            points=len(points),
            points_in_range=result.points_in_range,
            detections=len(good),
            latency_ms=(time.monotonic() - arrived.at) * 1e3,
            pipeline_ms=steps_ms[-1],
            dense=result.dense,
            road_problem="" if road is None else road.problem,
            road_age_s=None if road is None else road.age_s,
            ground=ground,
            intensity=intensity,
            warnings=cloud.warnings + ground.warnings + intensity.warnings + again,
            times_computed=result.times_computed,
            sparsity=result.sparsity,
            timings_ms={**dict(zip(("cloud", "ground", "road"), steps_ms, strict=False)), **result.timings_ms},
        )
        return Processed(grid_frame, ground.z, header.stamp, raised(good, ground.z), invalid, result, facts)

    def _take_change(self) -> None:
        """The whole of a cloud is computed with one configuration: here is where it changes."""
        wanted = self._wanted
        if wanted != self._pipeline.config:
            self._pipeline.use(wanted)
            # Roads grown by distances that no expression names any more.
            self._road.forget_masks()

    def _detect(self, points: Tensor, road: RoadView | None) -> tuple[PipelineResult, tuple[str, ...]]:
        """The result, and a warning where it took a second attempt with memory released.

        On a GPU any error may be a lack of memory: that of a compiled operation does not say so.
        """
        try:
            return self._pipeline(points, road), ()
        except Exception as error:
            if self._device.type == "cpu" and not isinstance(error, torch.OutOfMemoryError):
                raise
            warning = f"computed twice, memory was released: {first_line(error)}"
        # Outside the handler: the error holds what the attempt had allocated.
        self._pipeline.release()
        return self._pipeline(points, road), (warning,)

    def _watch(self, grid_frame: str, now_ns: int) -> None:
        """What was learnt in another grid frame, or before time began anew, does not count."""
        if grid_frame != self._grid_frame or now_ns < self._stamp_ns:
            self._ground, self._intensities = self._nothing_learnt(grid_frame)
        self._grid_frame, self._stamp_ns = grid_frame, now_ns

    def _nothing_learnt(self, grid_frame: str) -> tuple[Ground, dict[str, Intensity]]:
        """The ground of a grid frame, and the intensities of each LiDAR, by the frame of its clouds."""
        return Ground(self._config.ground_z, grid_frame), {}

    def _read(self, msg: RawCloud) -> tuple[CloudPoints, IntensityAnswer]:
        """The points, intensity from 0 to 1."""
        fresh = Intensity(self._config.intensity_scale)
        scale = self._intensities.setdefault(msg.header.frame_id, fresh)
        try:
            cloud = read_points(
                msg,
                missing_intensity=self._config.missing_intensity,  # type: ignore[arg-type]
                intensity_scale=scale.declared,
                max_points=self._pipeline.config.max_points,
            )
        except CloudError as error:
            raise Rejected("cloud malformed", str(error)) from error
        return cloud, scale(cloud)

    def _to_grid_frame(
        self, points: Tensor, header: Any, grid_frame: str, deadline: float, stop: threading.Event
    ) -> None:
        """Moves the points into the grid frame."""
        try:
            grid_from_cloud = lookup_before(
                self._transforms, grid_frame, header.frame_id, stamp_ns(header.stamp), deadline, stop
            )
        except TransformUnavailable as error:
            raise Dropped("no transform", f"{error} (waited tf_timeout {self._config.tf_timeout:g} s)") from error
        if grid_frame != header.frame_id:
            move(points, grid_from_cloud)

    def _road_at(self, header: Any, grid_frame: str, deadline: float, stop: threading.Event) -> RoadAnswer | None:
        """What the road mask says; None where the configuration does not ask for one."""
        if "road" not in self._pipeline.config.mask.names:
            return None
        now_ns = self._clock_ns()
        answer = self._road.at(self._transforms, grid_frame, stamp_ns(header.stamp), now_ns, deadline, stop)
        if answer.view is None and self._config.without_road_mask == "refuse":
            raise Dropped("no road mask", f"{answer.problem} (without_road_mask is refuse)")
        return answer


def move(points: Tensor, target_from_source: Matrix) -> None:
    """Transforms x, y, z of points float32 [P, >= 3] in place, on their device.

    By columns: a matrix product as narrow as this one costs more than it computes. Sensors are mostly mounted upright,
    so that many of the nine weights are 0.
    """
    rows = target_from_source[:3].tolist()
    columns = [points[:, axis] for axis in range(3)]
    # A column is overwritten once it has been computed: keep a copy of those that are needed later.
    before = [
        column.clone() if any(row[axis] for row in rows[axis + 1 :]) else column for axis, column in enumerate(columns)
    ]
    for axis, (*weights, offset) in enumerate(rows):
        (weight, column), *others = [(w, c) for w, c in zip(weights, before, strict=True) if w]
        if weights[axis] == 1.0 and not others:
            columns[axis] += offset
            continue
        moved = column * weight
        for weight, column in others:
            moved.add_(column, alpha=weight)
        torch.add(moved, offset, out=columns[axis])
