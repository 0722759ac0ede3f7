"""Boxes in the grid frame: from the network's outputs to what stays after non-maximum suppression.

A box is (cx, cy, cz, length, width, height, yaw) in metres and radians, REP-103: x forward, y left,
z up, yaw counter-clockwise from x; cz is the centre. Bird's-eye view (BEV) ignores z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.network import ORIENTATION, OUTPUT_STRIDE, SIZE, Prediction
from sbnet_perception.extents import MOST_CELLS, check_positions, check_side
from sbnet_perception.operation import call, register

Floats = NDArray[np.float32]
Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""Boxes float32 [limit, 7], scores float32 [limit], classes int64 [limit], best first, and how many of them count."""
MOST_BOXES = 1 << 16
"""Most boxes that `detect` may be asked for."""
# Votes for axes cancel where what is left of their weight is no more than rounding.
_CANCELLED = 1e-6
# Of two outlines one is larger by this share: no edges of theirs lie on one line, where rounding would decide.
_LARGER = 1.234e-8


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


def detect(
    prediction: Prediction, grid: Grid, thresholds: Sequence[float], groups: Sequence[int], iou: float, limit: int
) -> Found:
    """Boxes of one image: all pixels above the threshold, after greedy rotated non-maximum suppression.

    A pixel is of that class, of those whose threshold it exceeds, which has the highest score. A box goes where it
    overlaps a better one of the same group by more than ``iou`` in the bird's-eye view. What stays is the mean of the
    box and of those that went for it, weighted by score and the fourth power of the overlap, so that neighbours have no
    say (Gidaris, Komodakis 2015, box voting); its score, class and place in the order remain. Rows whose ``flat`` is
    negative are none.

    Args:
        thresholds: score of each class above which a pixel is a box.
        groups: number of each class; only those of one number suppress each other.
        limit: most boxes that are returned, the best ones.

    Returns:
        On the device of the prediction; what lies behind the number of boxes is 0.

    Raises:
        ValueError: an argument is out of its range; ``limit`` may be `MOST_BOXES`.
    """
    step = grid.resolution * OUTPUT_STRIDE
    place = (grid.x_min, grid.y_min, step)
    pixels, rows = prediction.pixels, prediction.rows.float().contiguous()
    found: Found = call(_DETECT, rows, pixels.flat, pixels.size[2], place, thresholds, groups, iou, limit)
    return found


def on_host(found: Found) -> Detections:
    """What `detect` has found, on the CPU."""
    boxes, scores, classes, count = (tensor.cpu() for tensor in found)
    number = int(count)
    return Detections(boxes[:number].numpy(), scores[:number].numpy(), classes[:number].numpy())


def plain_detect(
    rows: Tensor, flat: Tensor, width: int, place: Sequence[float], thresholds: Sequence[float], groups: Sequence[int],
    iou: float, limit: int,
) -> Found:  # fmt: skip
    """The operation of `detect` in PyTorch: rows float32 [P, classes + 8] of the pixels at flat [P] (row * width +
    column; negative: none), with x_min, y_min and the side of a pixel in metres."""
    _check(rows, flat, width, place, thresholds, groups, iou, limit)
    x_min, y_min, step = place
    scores = torch.sigmoid(rows[:, : -SIZE - ORIENTATION])
    is_box = (scores > scores.new_tensor(thresholds)) & (flat >= 0)[:, None]
    scores = torch.where(is_box, scores, 0)
    best, classes = scores.max(1)
    # Best first; what is below its threshold comes last.
    order = torch.argsort(best, descending=True, stable=True)
    best, classes, rows, flat = best[order], classes[order], rows[order], flat[order]
    box, row, column = rows[:, -SIZE - ORIENTATION :], torch.div(flat, width, rounding_mode="floor"), flat % width
    x = x_min + (column.double() + 0.5) * step + box[:, 3]
    y = y_min + (row.double() + 0.5) * step + box[:, 4]
    size = torch.exp(box[:, :3])
    boxes = torch.stack([x, y, box[:, 5], *size.unbind(1), torch.atan2(box[:, 7], box[:, 6])], 1).float()

    group = torch.tensor(groups, device=rows.device)[classes]
    left, numbers = best > 0, torch.arange(len(rows), device=rows.device)
    finite = torch.isfinite(boxes).all(1) & torch.isfinite(box[:, 6:8]).all(1)
    taken = boxes.new_zeros((limit, 7)), best.new_zeros(limit), classes.new_zeros(limit), classes.new_zeros(())
    for position in range(min(limit, len(rows))):
        if rows.device.type == "cpu" and not left.any():
            break
        # The best of those left stays, and those that it overlaps go: all of them say what it is.
        one = torch.argmax(left.int())
        itself, overlaps = numbers == one, plain_iou(boxes[one], boxes)
        gone = left & (itself | (group == group[one]) & (overlaps > iou))
        weights = torch.where(gone & (finite | itself), best * torch.where(itself, 1, overlaps) ** 4, 0)
        voted = _vote(boxes, box[:, 6:8], weights, boxes[one, 6])
        for to, value in zip(taken, (voted, best[one], classes[one]), strict=False):
            to[position] = torch.where(left[one], value, 0)
        taken[3].add_(left[one])
        left = left & ~gone
    return taken


def _vote(boxes: Tensor, headings: Tensor, weights: Tensor, best_yaw: Tensor) -> Tensor:
    """The weighted mean [7] of boxes [M, 7]; headings [M, 2], cosine and sine, count as much as they are long.

    Headings that differ by half a turn agree on the axis, then outvote each other. Where axes cancel, such as those of
    two headings across each other, the best box keeps its yaw.
    """
    voters, weights = (weights > 0)[:, None], weights.double()[:, None]
    yaw = boxes[:, 6:].double()
    values = torch.cat([boxes[:, :6], torch.cos(2 * yaw), torch.sin(2 * yaw), headings], 1)
    mean = torch.where(voters, weights * values, 0).sum(0) / weights.sum()
    along = torch.atan2(mean[7], mean[6]) / 2
    axis = torch.stack([torch.cos(along), torch.sin(along)])
    way = torch.where(mean[8:] @ axis < 0, -axis, axis)
    turned = torch.where(mean[6:8].norm() < _CANCELLED, best_yaw, torch.atan2(way[1], way[0]))
    return torch.cat([mean[:6], turned[None]]).float()


def plain_iou(box: Tensor, boxes: Tensor) -> Tensor:
    """float64 [M]: intersection over union of the footprints of a box [7] and boxes [M, 7].

    The border of the intersection is what each outline has inside the other: the area follows by Green's theorem.
    """
    # Coordinates relative to the one box keep the arithmetic exact far from the origin.
    origin = box[:2].double()
    a, b = _corners(box[None], origin).expand(len(boxes), -1, -1), _corners(boxes, origin, 1 + _LARGER)
    shared = (_inside(a, b) + _inside(b, a)) / 2
    area, areas = (t[..., 3].double() * t[..., 4].double() for t in (box, boxes))
    union = area + areas - shared
    return torch.where(union > 0, shared / union.where(union > 0, 1), 0)


def _corners(boxes: Tensor, origin: Tensor, size: float = 1.0) -> Tensor:
    """float64 [M, 4, 2] of boxes [M, 7] that are ``size`` times as large, counter-clockwise, relative to ``origin``."""
    boxes = boxes.double()
    signs = boxes.new_tensor([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]) * size
    along, across = (signs * boxes[:, None, 3:5]).unbind(2)
    cosine, sine = torch.cos(boxes[:, 6:]), torch.sin(boxes[:, 6:])
    turned = torch.stack([cosine * along - sine * across, sine * along + cosine * across], 2)
    return turned + (boxes[:, None, :2] - origin)


def _inside(outline: Tensor, shape: Tensor) -> Tensor:
    """[M]: twice the area swept, from the origin, by the parts of outlines [M, 4, 2] inside convex shapes [M, 4, 2]."""
    edges, sides = outline.roll(-1, 1) - outline, shape.roll(-1, 1) - shape
    # Distance of an edge's begin from each side, positive inside, and how it grows along the edge.
    at = _cross(sides[:, None], outline[:, :, None] - shape[:, None])
    slope = _cross(sides[:, None], edges[:, :, None])
    crossing = -at / slope.where(slope != 0, 1)
    outside = (slope == 0) & (at <= 0)
    enters = crossing.where(slope > 0, 2 * outside.to(at)).amax(2).clamp(min=0)
    leaves = crossing.where(slope < 0, 1).amin(2).clamp(max=1)
    begin, end = outline + enters[..., None] * edges, outline + leaves[..., None] * edges
    return torch.where(leaves > enters, _cross(begin, end), 0).sum(1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _check(
    rows: Tensor, flat: Tensor, width: int, place: Sequence[float], thresholds: Sequence[float], groups: Sequence[int],
    iou: float, limit: int,
) -> None:  # fmt: skip
    columns = len(thresholds) + SIZE + ORIENTATION
    if rows.dim() != 2 or rows.shape[1] != columns or rows.dtype != torch.float32:
        raise ValueError(f"detect: rows must be float32 [P, {columns}], got {rows.dtype} {list(rows.shape)}")
    if flat.dim() != 1 or flat.dtype != torch.int64:
        raise ValueError(f"detect: flat must be int64 [P], got {flat.dtype} {list(flat.shape)}")
    if not thresholds or len(groups) != len(thresholds):
        raise ValueError(f"detect: groups must be {len(thresholds)}, one for each class")
    if any(map(math.isnan, thresholds)):
        raise ValueError(f"detect: thresholds must be numbers, got {tuple(thresholds)}")
    if not 1 <= width <= MOST_CELLS:
        raise ValueError(f"detect: width must be 1 to {MOST_CELLS}, got {width}")
    if len(place) != 3:
        raise ValueError(f"detect: place must be x_min, y_min and the side of a pixel, got {len(place)} numbers")
    check_positions("detect", "place", place[:2])
    check_side("detect", "place", place[2])
    if not iou >= 0:
        raise ValueError(f"detect: iou must be 0 or more, got {iou}")
    if not 0 <= limit <= MOST_BOXES:
        raise ValueError(f"detect: limit must be 0 to {MOST_BOXES}, got {limit}")


def _fake_detect(
    rows: Tensor, flat: Tensor, width: int, place: Sequence[float], thresholds: Sequence[float], groups: Sequence[int],
    iou: float, limit: int,
) -> Found:  # fmt: skip
    _check(rows, flat, width, place, thresholds, groups, iou, limit)
    boxes, classes = rows.new_empty((limit, 7)), rows.new_empty((limit,), dtype=torch.int64)
    return boxes, rows.new_empty((limit,)), classes, classes.new_empty(())


_DETECT = register(
    "detect(Tensor rows, Tensor flat, int width, float[3] place, float[] thresholds, int[] groups, float iou, "
    "int limit) -> (Tensor, Tensor, Tensor, Tensor)",
    plain_detect,
    _fake_detect,
)


def corners_bev(boxes: NDArray) -> NDArray[np.float64]:
    """Corners [M, 4, 2] of boxes [M, 7] on the ground, counter-clockwise from the front left."""
    return _corners(torch.from_numpy(np.asarray(boxes, np.float64)), torch.zeros(2, dtype=torch.float64)).numpy()
