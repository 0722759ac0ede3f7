"""Rigid motions in space, as data sets write them down."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Matrices = NDArray[np.float64]


def matrices(quaternions: ArrayLike, translations: ArrayLike) -> Matrices:
    """float64 [..., 4, 4] of quaternions [..., 4] (w, x, y, z) and translations [..., 3] in metres.

    Raises:
        ValueError: a number is not finite, or a quaternion is 0.
    """
    turns, moves = np.asarray(quaternions, np.float64), np.asarray(translations, np.float64)
    if not (np.isfinite(turns).all() and np.isfinite(moves).all()):
        raise ValueError("a pose is not finite")
    result = np.zeros((*moves.shape[:-1], 4, 4))
    result[..., :3, :3] = Rotation.from_quat(turns[..., [1, 2, 3, 0]].reshape(-1, 4)).as_matrix().reshape(
        *moves.shape[:-1], 3, 3
    )
    result[..., :3, 3], result[..., 3, 3] = moves, 1.0
    return result


def inverse(target_from_source: Matrices) -> Matrices:
    """source_from_target, float64 [4, 4]."""
    return np.asarray(np.linalg.inv(target_from_source), np.float64)


def moved(points: NDArray, target_from_source: Matrices) -> NDArray:
    """Points [P, >= 3] with x, y, z in the target frame, in their own type; further columns stay."""
    result = points.copy()
    result[:, :3] = points[:, :3] @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    return result


def yaws(rotations: Matrices) -> NDArray[np.float64]:
    """The headings [M] of rotations or poses [M, >= 3, >= 3]: of their x axes as seen from above, radians."""
    return np.asarray(np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0]))
