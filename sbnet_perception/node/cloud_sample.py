"""A few points of a cloud, kept on the CPU: enough to tell whether it is what the detector was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.messages.pointcloud2 import CloudPoints

MOST = 997
"""Points of a sample: a prime, so that its steps meet all beams of a sensor alike."""
# Beyond these, in metres, no driver's coordinate lies that is not 0.
_FINEST, _LARGEST = 1e-6, 1e8


@dataclass(frozen=True, eq=False)
class CloudSample:
    """Some points of one cloud, in its own frame.

    Attributes:
        frame_id: that frame.
        xyz: float64 [S, 3] in metres, S <= 997, taken evenly.
        points: finite points of the whole cloud.
        non_finite: its points that were left out since a value was NaN or infinite.
        digest: of the sampled points; equal for clouds that are the same, point for point.
    """

    frame_id: str
    xyz: NDArray[np.float64]
    points: int
    non_finite: int
    digest: int

    @classmethod
    def of(cls, cloud: CloudPoints, frame_id: str) -> CloudSample:
        """Taken before the points are moved."""
        count = len(cloud.points)
        size = min(count, MOST)
        rows = cloud.points[np.arange(size) * count // max(size, 1)]
        return cls(frame_id, rows[:, :3].astype(np.float64), count, cloud.dropped_non_finite, hash(rows.tobytes()))

    def moved(self, target_from_source: NDArray[np.float64]) -> NDArray[np.float64]:
        """xyz after a rigid transform [4, 4]."""
        return self.xyz @ target_from_source[:3, :3].T + target_from_source[:3, 3]

    @cached_property
    def middle(self) -> NDArray[np.float64]:
        """float64 [3]: the median of each coordinate; of at least one point."""
        return np.median(self.xyz, 0)

    @cached_property
    def off_middle(self) -> NDArray[np.float64]:
        """float64 [S]: metres from the middle, along the axis where it is furthest."""
        return np.abs(self.xyz - self.middle).max(1)

    @property
    def largest(self) -> float:
        """Size of the largest coordinate."""
        return float(np.abs(self.xyz).max()) if self.xyz.size else 0.0

    @property
    def extent(self) -> float:
        """Metres from the middle of the points within which half of them lie; 0 where there is none."""
        return float(np.median(self.off_middle)) if len(self.xyz) else 0.0

    @property
    def absurd(self) -> float:
        """Share (0-1) of coordinates that are not 0 and yet of no size that a LiDAR measures."""
        size = np.abs(self.xyz)
        return float((((size < _FINEST) & (size > 0)) | (size > _LARGEST)).mean()) if size.size else 0.0
