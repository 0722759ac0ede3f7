"""Boxes in the grid frame: decoding, overlap and non-maximum suppression.

A box is (cx, cy, cz, length, width, height, yaw) in metres and radians, REP-103: x forward, y left,
z up, yaw counter-clockwise from x; cz is the centre. Bird's-eye view (BEV) ignores z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.detector.network import OUTPUT_STRIDE, Prediction

Floats = NDArray[np.float32]
CANDIDATES = 512
"""At most this many of the best-scored pixels go into non-maximum suppression."""


@dataclass(frozen=True)
class Detections:
    """What was found in one frame, best first.

    Attributes:
        boxes: float32 [M, 7] in the grid frame.
        scores: float32 [M] in 0-1.
        classes: int64 [M], positions in the class list.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, keep: NDArray) -> Detections:
        return Detections(self.boxes[keep], self.scores[keep], self.classes[keep])

    @staticmethod
    def empty() -> Detections:
        """No detections."""
        return Detections(np.zeros((0, 7), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def decode(prediction: Prediction, grid: Grid, score_threshold: float) -> Detections:
    """Detections of one image above the threshold, best first, before suppression."""
    best, classes = torch.sigmoid(prediction.logits.float()).max(1)
    chosen = torch.nonzero(best > score_threshold)[:, 0]
    if len(chosen) > CANDIDATES:
        chosen = chosen[best[chosen].topk(CANDIDATES).indices]
    chosen = chosen[torch.argsort(best[chosen], descending=True, stable=True)]
    size = prediction.size[chosen].float().T.numpy()
    cosine, sine = prediction.orientation[chosen].float().T.numpy()
    row, column = np.divmod(prediction.pixels.flat[chosen].numpy(), prediction.pixels.size[2])
    # Size and offset are relative to the centre of the pixel.
    step = grid.resolution * OUTPUT_STRIDE
    x = grid.x_min + (column + 0.5) * step + size[3]
    y = grid.y_min + (row + 0.5) * step + size[4]
    boxes = np.stack([x, y, size[5], *np.exp(size[:3]), np.arctan2(sine, cosine)], 1).astype(np.float32)
    return Detections(boxes, best[chosen].numpy(), classes[chosen].numpy())


def nms(detections: Detections, iou: float, limit: int) -> Detections:
    """Greedy rotated non-maximum suppression over all classes; ``detections`` are best first."""
    if UNAVAILABLE:
        return reference_nms(detections, iou, limit)
    return detections[torch.ops.sbnet.rotated_nms(torch.from_numpy(detections.boxes), iou, limit).numpy()]


def reference_nms(detections: Detections, iou: float, limit: int) -> Detections:
    """`nms` in NumPy."""
    kept: list[int] = []
    left: NDArray[np.intp] = np.arange(len(detections))
    while len(left) and len(kept) < limit:
        # The best of those left stays, and those that it overlaps go; most pairs are never compared.
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[bev_iou(detections.boxes[best, None], detections.boxes[left])[0] <= iou]
    return detections[np.array(kept, np.int64)]


def corners_bev(boxes: NDArray) -> NDArray[np.float64]:
    """Corners [M, 4, 2] of boxes [M, 7] on the ground, counter-clockwise from the front left."""
    boxes = np.asarray(boxes, np.float64)
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    local = signs * boxes[:, None, 3:5]
    cosine, sine = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    x = boxes[:, 0, None] + cosine * local[..., 0] - sine * local[..., 1]
    y = boxes[:, 1, None] + sine * local[..., 0] + cosine * local[..., 1]
    return np.stack([x, y], -1)


def bev_iou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Intersection over union [M, K] of the footprints of boxes ``a`` [M, 7] and ``b`` [K, 7]."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    result = np.zeros((len(a), len(b)))
    # Footprints whose circumscribed circles are apart do not overlap.
    reach = np.hypot(a[:, 3], a[:, 4])[:, None] / 2 + np.hypot(b[:, 3], b[:, 4])[None] / 2
    distance = np.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1])
    i, j = np.nonzero(distance < reach)
    if len(i) == 0:
        return result
    intersection = _convex_intersection(corners_bev(a)[i], corners_bev(b)[j])
    area_a, area_b = a[i, 3] * a[i, 4], b[j, 3] * b[j, 4]
    union = area_a + area_b - intersection
    result[i, j] = np.where(union > 0, intersection / np.where(union > 0, union, 1), 0)
    return result


def _convex_intersection(p: NDArray, q: NDArray) -> NDArray[np.float64]:
    """Area [P] of the intersection of convex quadrilaterals [P, 4, 2], both counter-clockwise."""
    # Coordinates relative to p keep the arithmetic exact far from the origin.
    origin = p.mean(1, keepdims=True)
    p, q = p - origin, q - origin
    # The corners of the intersection are corners inside the other shape, and crossings of edges.
    crossings, crossed = _edge_crossings(p, q)
    points = np.concatenate([p, q, crossings], 1)
    valid = np.concatenate([_inside(p, q), _inside(q, p), crossed], 1)
    count = np.maximum(valid.sum(1), 1)
    centre = (points * valid[..., None]).sum(1, keepdims=True) / count[:, None, None]
    # Sort them around their centre; invalid ones collapse onto the first valid one and add no area.
    offset = points - centre
    angle = np.where(valid, np.arctan2(offset[..., 1], offset[..., 0]), np.inf)
    order = np.argsort(angle, 1)
    offset = np.take_along_axis(offset, order[..., None], 1)
    offset = np.where(np.take_along_axis(valid, order, 1)[..., None], offset, offset[:, :1])
    following = np.roll(offset, -1, 1)
    twice = (offset[..., 0] * following[..., 1] - offset[..., 1] * following[..., 0]).sum(1)
    return np.where(valid.sum(1) >= 3, np.abs(twice) / 2, 0.0)


def _cross(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _inside(points: NDArray, shape: NDArray) -> NDArray[np.bool_]:
    """Bool [P, 4]: which points [P, 4, 2] lie in the convex shape [P, 4, 2]."""
    edge = np.roll(shape, -1, 1) - shape
    side = _cross(edge[:, None], points[:, :, None] - shape[:, None])
    return np.all(side >= -1e-9, axis=2)


def _edge_crossings(p: NDArray, q: NDArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Crossings [P, 16, 2] of the edges of p with those of q, and which of them exist [P, 16]."""
    edge_p, edge_q = np.roll(p, -1, 1) - p, np.roll(q, -1, 1) - q
    between = q[:, None] - p[:, :, None]
    determinant = _cross(edge_p[:, :, None], edge_q[:, None])
    safe = np.where(np.abs(determinant) > 1e-12, determinant, 1.0)
    along_p = _cross(between, edge_q[:, None]) / safe
    along_q = _cross(between, edge_p[:, :, None]) / safe
    exists = (np.abs(determinant) > 1e-12) & (along_p >= 0) & (along_p <= 1) & (along_q >= 0) & (along_q <= 1)
    crossings = p[:, :, None] + along_p[..., None] * edge_p[:, :, None]
    return crossings.reshape(len(p), 16, 2), exists.reshape(len(p), 16)
