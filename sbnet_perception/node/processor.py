"""One frame from messages to result: read the points of its clouds, move them into the grid frame, place the masks,
detect."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
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
from sbnet_perception.node.clocks import clock_remark
from sbnet_perception.node.cloud_sample import CloudSample
from sbnet_perception.node.frame_names import PerSource, frame_name
from sbnet_perception.node.gate import stamp_ns
from sbnet_perception.node.ground import Ground
from sbnet_perception.node.intensity import Intensity, IntensityAnswer
from sbnet_perception.node.mask_layer import MaskAnswer, MaskLayer
from sbnet_perception.node.merge import Arrived, Frame
from sbnet_perception.node.parameters import NodeConfig
from sbnet_perception.node.premises import Premises
from sbnet_perception.node.status import Dropped, FrameFacts, MaskFacts, NotProcessed, Rejected
from sbnet_perception.node.transforms import Matrix, Transforms, TransformUnavailable, lookup_before
from sbnet_perception.text import quoted


@dataclass(frozen=True)
class _Part:
    """One cloud of a frame: float32 [P, 4] in the grid frame, on the device; what its reader and its intensity say.

    ``sample`` are some of its points, before they were moved by ``grid_from_cloud``.
    """

    arrived: Arrived
    points: Tensor
    sample: CloudSample
    grid_from_cloud: Matrix
    cloud: CloudPoints
    intensity: IntensityAnswer


@dataclass(frozen=True)
class Processed:
    """What is published for one frame.

    Attributes:
        frame_id: frame of the boxes and of the grid.
        ground_z: height of the ground in it, in metres.
        detections: valid boxes in that frame, at their true height.
        invalid: boxes that were dropped since they were not finite, huge or far away.
    """

    frame_id: str
    ground_z: float
    stamp: Any
    detections: Detections
    invalid: int
    result: PipelineResult
    facts: FrameFacts


def read(raw: bytes) -> RawCloud:
    """The cloud of a CDR message, not yet decoded; its frame_id as it stands there.

    Raises:
        Rejected: the message cannot be read.
    """
    try:
        return read_cloud(raw)
    except CloudError as error:
        raise Rejected("cloud malformed", str(error)) from error


class Processor:
    """Applies the node's configuration to frames, one at a time, in the worker thread.

    Args:
        masks: what topics of masks have delivered, by the name in expressions.
        clock_ns: the node's time.
        refuse: told of each cloud that gets no answer: why, and its frame_id.
    """

    def __init__(
        self,
        config: NodeConfig,
        pipeline: Pipeline,
        transforms: Transforms,
        masks: Mapping[str, MaskLayer],
        clock_ns: Callable[[], int],
        refuse: Callable[[NotProcessed, str], None],
    ) -> None:
        self._config = config
        self._pipeline = pipeline
        self._transforms = transforms
        self._masks = masks
        self._clock_ns = clock_ns
        self._refuse = refuse
        self._device = pipeline.device
        self._wanted = pipeline.config
        self._era = 0
        self._nothing_learnt()

    def change(self, detector: DetectorConfig) -> None:
        """Another configuration of the detector, from the next frame on; may be called from any thread."""
        self._wanted = detector

    def __call__(self, frame: Frame, stop: threading.Event) -> Processed | None:
        """Detects; None where no cloud of the frame can be used, or no mask came where one is required."""
        self._take_change()
        if frame.era != self._era:
            # What was learnt before time began anew does not count, nor what was heard.
            self._era = frame.era
            self._nothing_learnt()
            self._transforms.time_began(frame.stamp_ns)
        try:
            return self._process(frame, stop)
        except NotProcessed as error:
            self._refuse_all(frame.clouds, error, stop)
            return None


    def _process(self, frame: Frame, stop: threading.Event) -> Processed | None:
        deadline = frame.last_at + self._config.tf_timeout
        grid_frame = self._grid_frame_of(frame)
        laps = [time.monotonic()]
        parts, missing = self._parts(frame, grid_frame, deadline, stop)
        if not parts:
            return None
        points = parts[0].points if len(parts) == 1 else torch.cat([part.points for part in parts])
        laps.append(time.monotonic())
        # The ground goes to z = 0.
        ground = self._grounds[grid_frame](points)
        points[:, 2] -= ground.z
        laps.append(time.monotonic())
        masks = self._masks_at(frame.stamp_ns, grid_frame, deadline, stop)
        laps.append(time.monotonic())
        result, again = self._detect(points, {name: answer.view for name, answer in masks.items()})
        laps.append(time.monotonic())
        # Whatever the network makes of an empty image where it computes densely: nothing was there.
        found = result.detections if result.points_in_range else Detections.empty()
        good, invalid = split_invalid(found, self._pipeline.grid)
        placed = [(part.sample, part.grid_from_cloud) for part in parts]
        premises = self._premises(placed, grid_frame, result.points_in_range, ground, frame.stamp_ns)
        ground_warnings = () if premises.unusable else ground.warnings
        of_masks = tuple(warning for answer in masks.values() for warning in answer.warnings)
        of_masks += (self._pipeline.remark,) if self._pipeline.remark else ()
        steps_ms = [1e3 * (after - before) for before, after in itertools.pairwise(laps)]
        facts = FrameFacts(
            stamp_ns=frame.stamp_ns,
            clouds=len(parts),
            missing=missing,
            points=len(points),
            points_in_range=result.points_in_range,
            detections=len(good),
            latency_ms=(time.monotonic() - frame.first_at) * 1e3,
            pipeline_ms=steps_ms[-1],
            dense=result.dense,
            masks={
                self._masks[name].kind: MaskFacts(answer.problem, answer.age_s, answer.coverage)
                for name, answer in masks.items()
            },
            ground=ground,
            scales={part.arrived.topic: part.intensity.scale for part in parts},
            warnings=premises.warnings + _warnings(parts, premises.unusable) + ground_warnings + of_masks + again,
            errors=premises.errors,
            news=tuple(filter(None, (ground.news, *(part.intensity.news for part in parts)))),
            times_computed=result.times_computed,
            sparsity=result.sparsity,
            timings_ms={**dict(zip(("cloud", "ground", "road"), steps_ms, strict=False)), **result.timings_ms},
        )
        return Processed(grid_frame, ground.z, frame.stamp, raised(good, ground.z), invalid, result, facts)

    def _take_change(self) -> None:
        """The whole of a cloud is computed with one configuration: here is where it changes."""
        wanted = self._wanted
        if wanted != self._pipeline.config:
            self._pipeline.use(wanted)
            # Masks grown by distances that no expression names any more.
            for layer in self._masks.values():
                layer.forget_masks()

    def _detect(self, points: Tensor, masks: Mapping[str, RoadView | None]) -> tuple[PipelineResult, tuple[str, ...]]:
        """The result, and a warning where it took a second attempt with memory released.

        On a GPU any error may be a lack of memory: that of a compiled operation does not say so.
        """
        try:
            return self._pipeline(points, **masks), ()
        except Exception as error:
            if self._device.type == "cpu" and not isinstance(error, torch.OutOfMemoryError):
                raise
            warning = f"computed twice, memory was released: {first_line(error)}"
        # Outside the handler: the error holds what the attempt had allocated.
        self._pipeline.release()
        return self._pipeline(points, **masks), (warning,)

    def _nothing_learnt(self) -> None:
        """Grounds by grid frame, intensities by LiDAR, and what is amiss with the clouds are still to be found."""
        self._grounds = PerSource(lambda frame_id: Ground(self._config.ground_z, frame_id))
        self._intensities = PerSource(lambda _: Intensity(self._config.intensity_scale))
        self._premises = Premises(self._pipeline.grid)

    def _grid_frame_of(self, frame: Frame) -> str:
        """The frame that all clouds of a frame are moved into.

        Raises:
            Rejected: the clouds are in several, and the configuration does not say which one counts.
        """
        if self._config.grid_frame:
            return frame_name(self._config.grid_frame)
        first, *others = {cloud.msg.header.frame_id: cloud for cloud in frame.clouds}.values()
        if others:
            where = ", ".join(f"{cloud.topic} in {quoted(cloud.msg.header.frame_id)}" for cloud in (first, *others))
            raise Rejected("grid_frame not set", f"the clouds are in several frames ({where}): set grid_frame")
        return first.msg.header.frame_id

    def _parts(
        self, frame: Frame, grid_frame: str, deadline: float, stop: threading.Event
    ) -> tuple[list[_Part], dict[str, str]]:
        """The clouds that can be used, and why which topics are missing."""
        parts, missing = [], dict(frame.missing)
        # Together they must not be larger than one may be.
        most = max(1, self._pipeline.config.max_points // len(frame.clouds))
        for arrived in frame.clouds:
            try:
                cloud, intensity = self._read(arrived, most)
                sample = CloudSample.of(cloud, arrived.msg.header.frame_id)
                points = torch.from_numpy(cloud.points).to(self._device)
                grid_from_cloud = self._to_grid_frame(points, arrived.msg.header, grid_frame, deadline, stop)
            except NotProcessed as error:
                self._refuse_all((arrived,), error, stop)
                missing[arrived.topic] = f"the cloud of {arrived.topic} cannot be used: {error.reason}"
            else:
                parts.append(_Part(arrived, points, sample, grid_from_cloud, cloud, intensity))
        return parts, missing

    def _refuse_all(self, clouds: tuple[Arrived, ...], error: NotProcessed, stop: threading.Event) -> None:
        """Tells of clouds without an answer; when the node stops that is no news."""
        for arrived in clouds:
            if not stop.is_set():
                self._refuse(error, arrived.msg.header.frame_id)

    def _read(self, arrived: Arrived, max_points: int) -> tuple[CloudPoints, IntensityAnswer]:
        """The points, intensity from 0 to 1."""
        scale = self._intensities[arrived.source]
        try:
            cloud = read_points(
                arrived.msg,
                missing_intensity=self._config.missing_intensity,  # type: ignore[arg-type]
                intensity_scale=scale.declared,
                max_points=max_points,
            )
        except CloudError as error:
            raise Rejected("cloud malformed", str(error)) from error
        return cloud, scale(cloud)

    def _to_grid_frame(
        self, points: Tensor, header: Any, grid_frame: str, deadline: float, stop: threading.Event
    ) -> Matrix:
        """Moves the points into the grid frame, by the transform at their own stamp; returns that."""
        at_ns = stamp_ns(header.stamp)
        try:
            grid_from_cloud = lookup_before(self._transforms, grid_frame, header.frame_id, at_ns, deadline, stop)
        except TransformUnavailable as error:
            remark = clock_remark(at_ns, self._clock_ns())
            waited = f"waited tf_timeout {self._config.tf_timeout:g} s"
            raise Dropped("no transform", f"{error} ({waited}){remark}") from error
        if grid_frame != header.frame_id:
            move(points, grid_from_cloud)
        return grid_from_cloud

    def _masks_at(
        self, at_ns: int, grid_frame: str, deadline: float, stop: threading.Event
    ) -> dict[str, MaskAnswer]:
        """What the masks say that the configured expression names.

        Raises:
            Dropped: one that is required is not there.
        """
        now_ns, answers = self._clock_ns(), {}
        for name, layer in self._masks.items():
            if name in self._pipeline.config.mask.names:
                answers[name] = answer = layer.at(self._transforms, grid_frame, at_ns, now_ns, deadline, stop)
                if answer.view is None and layer.required:
                    rule = f"without_{layer.kind.topic} is refuse"
                    raise Dropped(f"no {layer.kind.name}", f"{answer.problem} ({rule})")
        return answers


def _warnings(parts: list[_Part], unusable: bool) -> tuple[str, ...]:
    """What is wrong with the clouds; of several each sentence says with which. Unusable ones have no intensity."""
    found = []
    for part in parts:
        whose = f" (cloud of {part.arrived.topic})" if len(parts) > 1 else ""
        found += [warning + whose for warning in part.cloud.warnings + (() if unusable else part.intensity.warnings)]
    return tuple(found)


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
