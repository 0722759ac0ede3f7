"""The plane of the ground in clouds of unknown height and tilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.errors import UserError

NEAR, FAR = 3.0, 25.0  # where the ground is looked for: not on the vehicle itself, not beyond a hill [m]
CELL = 1.0  # of one cell the low points count [m]
STEEPEST = 0.2  # slope of the plane against the cloud's frame
CLOSE = 0.12  # a cell's low points this near the plane lie on it [m]
TRIALS = 300
FEWEST_CELLS = 60


@dataclass(frozen=True)
class Plane:
    """z = x * slope[0] + y * slope[1] + offset, metres in the cloud's frame."""

    slope: tuple[float, float]
    offset: float

    def height(self, points: NDArray) -> NDArray:
        """Of points [P, >= 3] above the plane, along its normal: [P] metres."""
        below = points[:, 0] * self.slope[0] + points[:, 1] * self.slope[1] + self.offset
        return np.asarray((points[:, 2] - below) * self.normal[2])

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector [3], upward."""
        upward = np.array((-self.slope[0], -self.slope[1], 1.0))
        return upward / np.linalg.norm(upward)


def ground_plane(clouds: Sequence[NDArray[np.float32]]) -> Plane:
    """The plane that the ground of the clouds float32 [P, >= 3] has in common: the median of their own.

    Raises:
        UserError: no cloud has enough ground near the origin of its frame.
    """
    plane = _common_plane(clouds)
    if plane is None:
        raise UserError(
            f"no cloud shows the ground within {FAR:.0f} m of the origin of its frame; give clouds of a LiDAR on a "
            "road vehicle, x forward and z up"
        )
    return plane


def simulated_ground(clouds: Sequence[NDArray[np.float32]], upward: NDArray[np.float64]) -> Plane:
    """`ground_plane` of simulated clouds; where they show too little, that through the origin with its normal [3]."""
    level = Plane((float(-upward[0] / upward[2]), float(-upward[1] / upward[2])), 0.0)
    return _common_plane(clouds) or level


def _common_plane(clouds: Sequence[NDArray[np.float32]]) -> Plane | None:
    planes = [plane for cloud in clouds if (plane := _plane_of(cloud)) is not None]
    if not planes:
        return None
    a, b, offset = np.median([(*plane.slope, plane.offset) for plane in planes], axis=0)
    return Plane((float(a), float(b)), float(offset))


def _plane_of(cloud: NDArray[np.float32]) -> Plane | None:
    """Of one cloud; None where it has too little ground."""
    low = _low_points(cloud)
    if len(low) < FEWEST_CELLS:
        return None
    rng = np.random.default_rng(0)
    # The plane through three cells on which the most cells lie; what lies deeper than it speaks against it.
    picks = low[rng.integers(len(low), size=(TRIALS, 3))]
    matrix = np.concatenate([picks[..., :2], np.ones((TRIALS, 3, 1))], axis=2)
    solvable = np.abs(np.linalg.det(matrix)) > 1.0
    planes = np.linalg.solve(matrix[solvable], picks[solvable][..., 2:])[..., 0]
    planes = planes[np.abs(planes[:, :2]).max(axis=1) < STEEPEST]
    if not len(planes):
        return None
    residual = low[:, 2] - (planes[:, :2] @ low[:, :2].T + planes[:, 2:])
    votes = (np.abs(residual) < CLOSE).sum(axis=1) - (residual < -2 * CLOSE).sum(axis=1)
    best = planes[np.argmax(votes)]
    # Least squares over what lies on it.
    for _ in range(3):
        on = np.abs(low[:, 2] - low[:, :2] @ best[:2] - best[2]) < CLOSE
        if on.sum() < FEWEST_CELLS / 2:
            return None
        matrix = np.concatenate([low[on, :2], np.ones((on.sum(), 1))], axis=1)
        best = np.linalg.lstsq(matrix, low[on, 2], rcond=None)[0]
    return Plane((float(best[0]), float(best[1])), float(best[2]))


def _low_points(cloud: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each cell about the origin the point at a quarter of its heights, float64 [cells, 3]."""
    distance = np.hypot(cloud[:, 0], cloud[:, 1])
    near = cloud[(distance > NEAR) & (distance < FAR), :3].astype(np.float64)
    cells = np.floor(near[:, :2] / CELL).astype(np.int64)
    key = cells[:, 0] * 10_000 + cells[:, 1]
    order = np.lexsort((near[:, 2], key))
    _, first, count = np.unique(key[order], return_index=True, return_counts=True)
    chosen = first + count // 4
    return near[order][chosen[count >= 4]]
