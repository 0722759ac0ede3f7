"""The last seconds of a transform tree, kept as tf2 keeps it.

As in tf2 every frame has the samples of its own parent in order of time, so that a frame whose parent changes keeps its
old samples (the behaviour is that of tf2's TimeCache and BufferCore, https://github.com/ros2/geometry2).
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field

import numpy as np

from sbnet_perception.node.transforms import NORM_TOLERANCE, Matrix, TransformUnavailable, matrix_from_pose

Pose = tuple[float, float, float, float, float, float, float]
"""x, y, z in metres, then the unit quaternion w, x, y, z: parent_from_child."""
MOST_FRAMES = 10_000
"""More frames than any robot has: names beyond them are refused, or memory would have no end."""


class TransformHistory:
    """Transform tree over time: static edges hold always, moving ones from first to last sample.

    Not thread-safe. Times are integer nanoseconds throughout, so that epoch stamps lose nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._span_ns = round(seconds * 1e9)
        self._samples: dict[str, _Samples] = {}
        self._parents: set[str] = set()

    def add(self, parent: str, child: str, stamp_ns: int, pose: Pose, static: bool) -> None:
        """One sample of parent_from_child, in any order; one that is older than all that are kept is left out.

        Raises:
            ValueError: a frame name is empty or both are the same, the pose is not one, or there are too many frames.
        """
        if not parent or not child or parent == child:
            raise ValueError(f"frames {parent!r} -> {child!r}: two different names are needed")
        squared = sum(q * q for q in pose[3:])
        if not math.isfinite(sum(pose)) or abs(squared - 1.0) > NORM_TOLERANCE:
            raise ValueError(f"frames {parent!r} -> {child!r}: not a finite pose with a unit quaternion: {pose}")
        norm = math.sqrt(squared)
        x, y, z, *turn = pose
        w, i, j, k = (q / norm for q in turn)
        known = self._samples.get(child)
        if known is None and len(self._samples) >= MOST_FRAMES:
            raise ValueError(f"frames {parent!r} -> {child!r}: there are {MOST_FRAMES} frames already")
        if known is None or known.static != static:
            known = self._samples[child] = _Samples(static)
        self._parents.add(parent)
        known.add(stamp_ns, parent, (x, y, z, w, i, j, k), self._span_ns)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """``target_from_source`` at a time, float64 [4, 4].

        Raises:
            TransformUnavailable: a frame is unknown, they are not connected, or the time is outside the
                samples of an edge on the way.
        """
        for name in (target, source):
            if name not in self._samples and name not in self._parents:
                raise TransformUnavailable(f"{target} <- {source}: frame {name!r} was never heard of")
        above_source, above_target = self._ancestors(source, stamp_ns), self._ancestors(target, stamp_ns)
        # The way leads through the first frame that lies above both.
        common = next((frame for frame in above_source.matrices if frame in above_target.matrices), None)
        if common is not None:
            found: Matrix = np.linalg.inv(above_target.matrices[common]) @ above_source.matrices[common]
            return found
        problem = above_source.problem or above_target.problem or f"{target} <- {source}: they are not connected"
        raise TransformUnavailable(problem)

    def clear(self) -> None:
        """Forgets all moving samples; static ones stay."""
        self._samples = {child: samples for child, samples in self._samples.items() if samples.static}

    def _ancestors(self, frame: str, stamp_ns: int) -> _Ancestors:
        found = _Ancestors({frame: np.eye(4)})
        from_first = found.matrices[frame]
        while (samples := self._samples.get(frame)) is not None:
            at = samples.at(stamp_ns)
            if isinstance(at, str):
                found.problem = f"{samples.newest_parent} <- {frame}: {at}"
                break
            parent, pose = at
            if parent in found.matrices:
                found.problem = f"{parent} <- {frame}: the frames form a loop"
                break
            from_first = matrix_from_pose(pose) @ from_first
            frame = parent
            found.matrices[frame] = from_first
        return found


@dataclass
class _Ancestors:
    """A frame and those above it, each with ancestor_from_frame [4, 4], and why the way up ends before the root."""

    matrices: dict[str, Matrix]
    problem: str = ""


@dataclass
class _Samples:
    """Parents and poses of one frame in order of time."""

    static: bool
    _times: list[int] = field(default_factory=list)
    _edges: list[tuple[str, Pose]] = field(default_factory=list)

    def add(self, stamp_ns: int, parent: str, pose: Pose, span_ns: int) -> None:
        if self.static:
            self._times, self._edges = [stamp_ns], [(parent, pose)]
            return
        if self._times and stamp_ns < self._times[-1] - span_ns:
            return
        at = bisect.bisect_left(self._times, stamp_ns)
        if at < len(self._times) and self._times[at] == stamp_ns:
            self._edges[at] = (parent, pose)
            return
        self._times.insert(at, stamp_ns)
        self._edges.insert(at, (parent, pose))
        outdated = bisect.bisect_left(self._times, self._times[-1] - span_ns)
        del self._times[:outdated], self._edges[:outdated]

    @property
    def newest_parent(self) -> str:
        return self._edges[-1][0]

    def at(self, stamp_ns: int) -> tuple[str, Pose] | str:
        """Parent and pose at a time, interpolated as tf2 does; in words what is missing where it is not known."""
        times = self._times
        if self.static:
            return self._edges[0]
        if not times[0] <= stamp_ns <= times[-1]:
            off = stamp_ns - (times[-1] if stamp_ns > times[-1] else times[0])
            return f"known for {len(times)} samples, the time asked for is {off / 1e9:+.3f} s off"
        later = bisect.bisect_left(times, stamp_ns)
        if times[later] == stamp_ns:
            return self._edges[later]
        # Between two parents the older one holds until the newer one is told, as in tf2.
        (before, first), (after, second) = self._edges[later - 1], self._edges[later]
        if before != after:
            return before, first
        share = (stamp_ns - times[later - 1]) / (times[later] - times[later - 1])
        return before, _between(first, second, share)


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
