"""The transforms of a whole recording."""

from __future__ import annotations

import bisect
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from sbnet_perception.errors import UserError


class TransformTable:
    """Transforms of a recording; a moving one counts from its stamp until its next."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}
        self._history: dict[str, list[tuple[int, npt.NDArray[np.float64]]]] = defaultdict(list)

    def add(self, item: Any) -> None:
        """Takes one geometry_msgs/TransformStamped; those of one child come in order."""
        move, turn = item.transform.translation, item.transform.rotation
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        matrix[:3, 3] = (move.x, move.y, move.z)
        child = item.child_frame_id.lstrip("/")
        self._parents[child] = item.header.frame_id.lstrip("/")
        self._history[child].append((stamp_ns(item.header), matrix))

    def lookup(self, target: str, source: str, stamp: int) -> npt.NDArray[np.float64]:
        """``target_from_source``, float64 [4, 4].

        Raises:
            UserError: the two frames are not connected.
        """
        up, down = self._to_root(source.lstrip("/"), stamp), self._to_root(target.lstrip("/"), stamp)
        for frame, matrix in up.items():
            if frame in down:
                return np.linalg.inv(down[frame]) @ matrix
        raise UserError(f"the recording has no transform from {source} to {target}")

    def _to_root(self, frame: str, stamp: int) -> dict[str, npt.NDArray[np.float64]]:
        """ancestor -> ancestor_from_frame, nearest first."""
        found = {frame: np.eye(4)}
        matrix = np.eye(4)
        while frame in self._parents:
            history = self._history[frame]
            position = bisect.bisect_right(history, stamp, key=lambda entry: entry[0])
            matrix = history[max(0, position - 1)][1] @ matrix
            frame = self._parents[frame]
            if frame in found:
                raise UserError(f"the recording's transforms go in a circle at {frame}")
            found[frame] = matrix
        return found


def stamp_ns(header: Any) -> int:
    """header.stamp in nanoseconds."""
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)
