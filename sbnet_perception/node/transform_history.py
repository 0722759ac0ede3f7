"""The last seconds of a transform tree, as tf2 keeps it, on pytransform3d's temporal graph."""

from __future__ import annotations

import bisect
import collections
import math

import numpy as np
from pytransform3d.transform_manager import TemporalTransformManager, TimeVaryingTransform

from sbnet_perception.node.gate import JUMP_BACK_NS
from sbnet_perception.node.transforms import Matrix, TransformUnavailable, matrix_from_pose

Pose = tuple[float, float, float, float, float, float, float]
"""x, y, z in metres, then the unit quaternion w, x, y, z: parent_from_child."""


class TransformHistory:
    """Transform tree over time: static edges hold always, moving ones from first to last sample.

    Not thread-safe. Times are integer nanoseconds throughout, so that epoch stamps lose nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._span_ns = round(seconds * 1e9)
        self._graph = TemporalTransformManager(check=False)
        self._edges: dict[str, _Edge] = {}

    def add(self, parent: str, child: str, stamp_ns: int, pose: Pose, static: bool) -> None:
        """One sample of parent_from_child. A child's new parent replaces its old one.

        A slash before a name, as ROS 1 wrote it, is left out, as in tf2.

        Raises:
            ValueError: a frame name is empty or both are the same, or the pose is not one.
        """
        parent, child = parent.removeprefix("/"), child.removeprefix("/")
        if not parent or not child or parent == child:
            raise ValueError(f"frames {parent!r} -> {child!r}: two different names are needed")
        norm = math.sqrt(sum(q * q for q in pose[3:]))
        if not math.isfinite(sum(pose)) or abs(norm - 1.0) > 0.1:
            raise ValueError(
                f"frames {parent!r} -> {child!r}: not a finite pose with a unit quaternion: {pose}"
            )
        x, y, z, *turn = pose
        w, i, j, k = (q / norm for q in turn)
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            if edge is not None:
                self._graph.remove_transform(child, edge.parent)
            edge = self._edges[child] = _Edge(parent, child, static)
            self._graph.add_transform(child, parent, edge)
        edge.add(stamp_ns, (x, y, z, w, i, j, k), self._span_ns)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """``target_from_source`` at a time, float64 [4, 4].

        Raises:
            TransformUnavailable: a frame is unknown, they are not connected, or the time is outside the
                samples of an edge on the way.
        """
        for name in (target, source):
            if not self._graph.has_frame(name):
                raise TransformUnavailable(
                    f"{target} <- {source}: frame {name!r} was never heard of"
                )
        try:
            found = self._graph.get_transform_at_time(source, target, stamp_ns)
        except KeyError as error:
            raise TransformUnavailable(
                f"{target} <- {source}: they are not connected"
            ) from error
        return np.asarray(found, np.float64)

    def time_jumped_back(self, now_ns: int) -> None:
        """Forgets moving edges that are ahead of the time that it is now; those that began anew stay."""
        for edge in self._edges.values():
            edge.time_jumped_back(now_ns)


class _Edge(TimeVaryingTransform):
    """Samples of one parent_from_child in order of time, interpolated as tf2 does."""

    def __init__(self, parent: str, child: str, static: bool) -> None:
        self.parent, self.child, self.static = parent, child, static
        self._times: collections.deque[int] = collections.deque()
        self._poses: collections.deque[Pose] = collections.deque()

    def add(self, stamp_ns: int, pose: Pose, span_ns: int) -> None:
        self.time_jumped_back(stamp_ns)
        if self.static:
            self._forget()
        at = len(self._times)
        if self._times and stamp_ns <= self._times[-1]:
            at = bisect.bisect_left(self._times, stamp_ns)
            if self._times[at] == stamp_ns:
                self._poses[at] = pose
                return
        self._times.insert(at, stamp_ns)
        self._poses.insert(at, pose)
        while self._times[0] < self._times[-1] - span_ns:
            self._times.popleft()
            self._poses.popleft()

    def time_jumped_back(self, now_ns: int) -> None:
        if self._times and not self.static and self._times[-1] > now_ns + JUMP_BACK_NS:
            self._forget()

    def _forget(self) -> None:
        self._times.clear()
        self._poses.clear()

    def as_matrix(self, query_time: int) -> Matrix:  # type: ignore[override]
        """Pose at integer nanoseconds; what lies outside the samples is unavailable, never clipped."""
        if self.static:
            return matrix_from_pose(self._poses[0])
        if not self._times:
            raise TransformUnavailable(f"{self.parent} <- {self.child}: nothing heard since time was reset")
        if not self._times[0] <= query_time <= self._times[-1]:
            off = (
                query_time - self._times[-1] if query_time > self._times[-1] else query_time - self._times[0]
            )
            raise TransformUnavailable(
                f"{self.parent} <- {self.child}: known for {len(self._times)} samples, "
                f"the time asked for is {off / 1e9:+.3f} s off"
            )
        later = bisect.bisect_left(self._times, query_time)
        if self._times[later] == query_time:
            return matrix_from_pose(self._poses[later])
        begin, end = self._times[later - 1], self._times[later]
        share = (query_time - begin) / (end - begin)
        return matrix_from_pose(_between(self._poses[later - 1], self._poses[later], share))

    def check_transforms(self) -> _Edge:
        return self


def _between(first: Pose, second: Pose, share: float) -> Pose:
    """Linear in position, spherical along the shorter way in rotation."""
    x, y, z = (a + share * (b - a) for a, b in zip(first[:3], second[:3], strict=True))
    cosine = sum(a * b for a, b in zip(first[3:], second[3:], strict=True))
    sign = -1.0 if cosine < 0 else 1.0
    angle = math.acos(min(1.0, abs(cosine)))
    if angle < 1e-6:
        weights = (1.0 - share, share)
    else:
        weights = (
            math.sin((1.0 - share) * angle) / math.sin(angle),
            math.sin(share * angle) / math.sin(angle),
        )
    turn = [weights[0] * a + sign * weights[1] * b for a, b in zip(first[3:], second[3:], strict=True)]
    norm = math.sqrt(sum(q * q for q in turn))
    w, i, j, k = (q / norm for q in turn)
    return (x, y, z, w, i, j, k)
