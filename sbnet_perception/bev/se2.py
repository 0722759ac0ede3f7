"""Rigid motions of the ground plane."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class SE2:
    """Pose in the plane: rotate by ``yaw`` (radians, counter-clockwise), then move by (x, y) metres.

    Named ``target_from_source``: ``target_from_source.apply(p_source)`` gives ``p_target``.

    Raises:
        ValueError: a component is not finite.
    """

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0

    def __post_init__(self) -> None:
        for name in ("x", "y", "yaw"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"pose {name} must be finite, got {getattr(self, name)}")

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> SE2:
        """The planar part of a rigid transform [4, 4].

        A tilted pose keeps the heading of its x axis as seen from above and drops z, roll and pitch.

        Raises:
            ValueError: not a finite [4, 4] matrix, or its x axis points straight up or down.
        """
        m = np.asarray(matrix, dtype=np.float64)
        if m.shape != (4, 4) or not np.isfinite(m).all():
            raise ValueError(f"matrix must be a finite [4, 4] transform, got shape {m.shape}:\n{m}")
        if math.hypot(m[0, 0], m[1, 0]) < 1e-6:
            raise ValueError("matrix has no heading: its x axis is vertical")
        return cls(float(m[0, 3]), float(m[1, 3]), math.atan2(m[1, 0], m[0, 0]))

    def matrix(self) -> NDArray[np.float64]:
        """The same motion as a float64 [4, 4] transform that keeps z."""
        m = np.eye(4)
        m[:2, :2] = self.rotation
        m[:2, 3] = self.x, self.y
        return m

    @property
    def rotation(self) -> NDArray[np.float64]:
        """float64 [2, 2]."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([(c, -s), (s, c)])

    def apply(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Move points [..., 2] of the source frame into the target frame."""
        return np.asarray(xy, dtype=np.float64) @ self.rotation.T + (self.x, self.y)

    def inverse(self) -> SE2:
        """The motion that undoes this one."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return SE2(-c * self.x - s * self.y, s * self.x - c * self.y, -self.yaw)

    def mirrored(self) -> SE2:
        """The same motion where left and right are exchanged."""
        return SE2(self.x, -self.y, -self.yaw)

    def compose(self, other: SE2) -> SE2:
        """``a.compose(b)`` moves by b first, then by a; yaw ends in [-pi, pi]."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        yaw = math.remainder(self.yaw + other.yaw, 2.0 * math.pi)
        return SE2(self.x + c * other.x - s * other.y, self.y + s * other.x + c * other.y, yaw)

    def __matmul__(self, other: SE2) -> SE2:
        return self.compose(other)
