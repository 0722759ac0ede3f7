"""Plane geometry that the simulated world shares: paths, and boxes that must not overlap."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Path:
    """A polyline float64 [K, 2] in metres, followed from its first to its last vertex."""

    line: np.ndarray

    @cached_property
    def arc(self) -> np.ndarray:
        """Distance of each vertex from the start, float64 [K]."""
        steps = np.linalg.norm(np.diff(self.line, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    @property
    def length(self) -> float:
        return float(self.arc[-1])

    def at(self, s: np.ndarray | float) -> np.ndarray:
        """Points [..., 2] at the distances `s` from the start."""
        return np.stack([np.interp(s, self.arc, self.line[:, axis]) for axis in (0, 1)], -1)

    def yaw(self, s: np.ndarray | float) -> np.ndarray:
        """Heading [...] at the distances `s`, over a metre to either side."""
        s = np.clip(s, 1.0, self.length - 1.0)
        step = self.at(s + 1.0) - self.at(s - 1.0)
        return np.arctan2(step[..., 1], step[..., 0])

    @cached_property
    def _table(self) -> list[tuple[float, float, float, float]]:
        """(s, x, y, unwrapped yaw) per vertex."""
        yaw = np.unwrap(self.yaw(self.arc))
        return list(zip(self.arc.tolist(), *self.line.T.tolist(), yaw.tolist(), strict=True))

    def pose(self, s: float) -> tuple[float, float, float]:
        """x, y and heading at one distance from the start."""
        i = min(max(bisect_right(self._table, (s,)) - 1, 0), len(self._table) - 2)
        s0, *a = self._table[i]
        s1, *b = self._table[i + 1]
        t = min(max((s - s0) / (s1 - s0), 0.0), 1.0)
        x, y, yaw = (p + t * (q - p) for p, q in zip(a, b, strict=True))
        return x, y, yaw

    def offset(self, left: float) -> Path:
        """The parallel path `left` metres to the left; the same vertices, moved along their normals."""
        tangent = np.gradient(self.line, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        return Path(self.line + left * np.stack([-tangent[:, 1], tangent[:, 0]], 1))

    def reversed(self) -> Path:
        return Path(self.line[::-1])


def corners(boxes: np.ndarray) -> np.ndarray:
    """Corners [M, 4, 2] of the ground rectangles of boxes [M, 7], counter-clockwise from the front left."""
    c, s = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    along = np.stack([c, s], 1)[:, None] * boxes[:, 3, None, None] / 2
    across = np.stack([-s, c], 1)[:, None] * boxes[:, 4, None, None] / 2
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float64)
    return boxes[:, None, :2] + signs[None, :, :1] * along + signs[None, :, 1:] * across


def overlaps(box: np.ndarray, others: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Whether the rectangle of `box` [7] comes within about `margin` m of each of `others` [M, 7]
    (separating axes)."""
    dx, dy = others[:, 0] - box[0], others[:, 1] - box[1]
    length, width = box[3] + 2 * margin, box[4] + 2 * margin
    turn = others[:, 6] - box[6]
    c, s = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    result = np.ones(len(others), bool)
    # Along every side's direction: the distance of the middles against half of what both rectangles cover.
    for yaw, along, across in (
        (box[6], length + c * others[:, 3] + s * others[:, 4], width + s * others[:, 3] + c * others[:, 4]),
        (others[:, 6], others[:, 3] + c * length + s * width, others[:, 4] + s * length + c * width),
    ):
        ahead, left = np.cos(yaw), np.sin(yaw)
        result &= 2 * np.abs(dx * ahead + dy * left) <= along
        result &= 2 * np.abs(dy * ahead - dx * left) <= across
    return result


def inside(points: np.ndarray, boxes: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Which points [P, >= 3] lie inside any of the boxes [M, 7], or at most `margin` metres beside one, bool [P]."""
    found = np.zeros(len(points), bool)
    for rows, within in _members(points, boxes, margin):
        found[rows[within]] = True
    return found


def count_inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Number of points [P, >= 3] inside each box [M, 7], int64 [M]."""
    return np.array([within.sum() for _, within in _members(points, boxes, 0.0)], np.int64)


def _members(points: np.ndarray, boxes: np.ndarray, margin: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each box [7] the numbers of some points, those inside among them, and which of these are inside."""
    order = np.argsort(points[:, 0], kind="stable")
    xyz = points[order, :3]
    x_sorted = np.ascontiguousarray(xyz[:, 0])
    for cx, cy, cz, length, width, height, yaw in boxes.tolist():
        radius = np.hypot(length, width) / 2 + margin
        low, high = np.searchsorted(x_sorted, np.array((cx - radius - 0.01, cx + radius + 0.01), np.float32))
        x, y, z = xyz[low:high].T - np.array((cx, cy, cz))[:, None]
        c, s = np.cos(yaw), np.sin(yaw)
        along, across = np.abs(x * c + y * s), np.abs(y * c - x * s)
        within = (along <= length / 2 + margin) & (across <= width / 2 + margin) & (np.abs(z) <= height / 2 + margin)
        yield order[low:high], within
