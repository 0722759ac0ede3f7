"""What kinds of errors a detector makes on real frames: false positives, misses, and how far hits are off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.learning import background
from sbnet_perception.learning.kitti_labels import KittiFrame, covered_by_dont_care
from sbnet_perception.learning.metrics import bev_iou
from sbnet_perception.learning.real import DISTANCES, POINTS, TOUCHES, Judged, heading_errors
from sbnet_perception.learning.simulator.geometry import corners, overlaps

IOU = 0.5
BESIDE = 1.5
"""Metres between the sides of parked vehicles of a row, at most."""
SMALL_CAR, LARGE = 3.6, 5.5
"""Lengths in metres: below the one a small car, above the other a van, truck or bus."""
DUPLICATE, OTHER, DONT_CARE = "second box on a vehicle that was found", "on another labelled object", "DontCare region"
MISPLACED = "on a missed vehicle, wrong {}"
FALSE_KINDS = (
    *(MISPLACED.format(what) for what in ("place", "size", "heading", "in several ways")),
    *(DUPLICATE, OTHER, DONT_CARE),
    *(f"background, {kind}" for kind in background.KINDS),
)
NOTHING, BELOW, BADLY = "nothing there", "found below the threshold", "a box on it that fits badly"
MISS_KINDS = (NOTHING, BELOW, BADLY)
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class FalsePositive:
    """A detection above the threshold that found nothing.

    Attributes:
        judged: of which frame.
        index: position of the detection.
        kind: one of `FALSE_KINDS`.
    """

    judged: Judged
    index: int
    kind: str

    @property
    def score(self) -> float:
        return float(self.judged.detections.scores[self.index])

    @property
    def box(self) -> NDArray[np.float32]:
        return self.judged.detections.boxes[self.index]


@dataclass(frozen=True)
class Miss:
    """An object that no detection above the threshold found.

    Attributes:
        judged: of which frame.
        index: position of the object.
        kind: one of `MISS_KINDS`.
        score: the highest of the detections that overlap it by `TOUCHES` and found nothing else, or 0.
    """

    judged: Judged
    index: int
    kind: str
    score: float

    @property
    def points(self) -> int:
        return int(self.judged.point_counts[self.index])

    @property
    def box(self) -> NDArray[np.float32]:
        return self.judged.boxes[self.index]


def false_positives(judged: Judged, threshold: float, kitti: KittiFrame | None) -> Iterator[FalsePositive]:
    """Those of a frame, best first; ``kitti`` is the same frame with KITTI's labels, of all its detections."""
    above = judged.detections.scores > threshold
    in_dont_care = np.zeros(len(above), bool)
    if kitti is not None:
        in_dont_care[kitti.found] = covered_by_dont_care(kitti) > IOU
    for index in np.flatnonzero(above & judged.held[IOU] & (judged.hits[IOU] < 0)):
        kind = _kind_on_labels(judged, int(index), above)
        if kind is None and in_dont_care[index]:
            kind = DONT_CARE
        if kind is None:
            shape = background.shape_under(judged.detections.boxes[index], judged.frame.points)
            kind = f"background, {shape.kind}"
        yield FalsePositive(judged, int(index), kind)


def _kind_on_labels(judged: Judged, index: int, above: Bools) -> str | None:
    """The kind of a false positive that touches something labelled, else None."""
    box, overlap = judged.detections.boxes[index], judged.overlaps[index]
    if overlap.max(initial=0.0) >= TOUCHES:
        vehicle = int(np.argmax(overlap))
        if (judged.hits[IOU][above] == vehicle).any():
            return DUPLICATE
        return MISPLACED.format(_wrong(box, judged.boxes[vehicle]))
    others = judged.frame.other_boxes
    x, y = others[:, 0] - box[0], others[:, 1] - box[1]
    along, across = x * np.cos(box[6]) + y * np.sin(box[6]), y * np.cos(box[6]) - x * np.sin(box[6])
    centre_in = (np.abs(along) <= box[3] / 2) & (np.abs(across) <= box[4] / 2)
    touched = centre_in.any() or bev_iou(box[None], others).max(initial=0.0) >= TOUCHES
    return OTHER if touched else None


def _wrong(box: NDArray, truth: NDArray) -> str:
    """Which of a box's properties, put right, makes a hit of it."""
    for what, columns in (("place", slice(0, 3)), ("size", slice(3, 6)), ("heading", slice(6, 7))):
        mended = box.copy()
        mended[columns] = truth[columns]
        if bev_iou(mended[None], truth[None])[0, 0] >= IOU:
            return what
    return "in several ways"


def misses(judged: Judged, threshold: float) -> Iterator[Miss]:
    """The misses of a frame."""
    scores, hits = judged.detections.scores, judged.hits[IOU]
    found = np.isin(np.arange(len(judged.boxes)), hits[scores > threshold])
    for index in np.flatnonzero(judged.counted & ~found):
        touching = judged.overlaps[:, index] >= TOUCHES
        # A box that has found another vehicle is not this one's.
        touching &= (hits < 0) | (hits == index)
        kind = NOTHING
        if (hits == index).any():
            kind = BELOW
        elif (touching & (scores > threshold)).any():
            kind = BADLY
        yield Miss(judged, int(index), kind, float(scores[touching].max(initial=0.0)))


@dataclass(frozen=True)
class Trait:
    """How many of the objects with a property were missed."""

    group: str
    name: str
    objects: int
    missed: int

    def __add__(self, other: Trait) -> Trait:
        """Of the frames of both; the property is the same."""
        return replace(self, objects=self.objects + other.objects, missed=self.missed + other.missed)


def traits(judged: Sequence[Judged], threshold: float, grid: Grid) -> list[Trait]:
    """Objects asked for and missed, by each property that may explain it; one object has several."""
    counted = [one.counted for one in judged]
    missed = np.zeros(sum(int(c.sum()) for c in counted), bool)
    start = 0
    for one in judged:
        positions = np.cumsum(one.counted) - 1 + start
        missed[[positions[miss.index] for miss in misses(one, threshold)]] = True
        start += int(one.counted.sum())
    by_frame = [_properties(one, grid) for one in judged]
    return [
        Trait(*key, int(has.sum()), int((has & missed).sum()))
        for key in _PROPERTIES
        for has in [np.concatenate([one[key][c] for one, c in zip(by_frame, counted, strict=True)])]
    ]


_TURNED = ("along the view's axis", "turned by 20 to 70 degrees", "across")
_SIZES = (f"shorter than {SMALL_CAR:g} m", "car", f"longer than {LARGE:g} m")
_PLACES = ("beside another vehicle (parked row)", "cut by the border of the grid or view", "neither")
_PROPERTIES = (
    *(("points", f"{low}-{high - 1}" if high < 2**31 else f"{low}+") for low, high in POINTS),
    *(("distance", f"{low:g}-{high:g} m") for low, high in DISTANCES),
    *(("heading", name) for name in _TURNED),
    *(("size", name) for name in _SIZES),
    *(("place", name) for name in _PLACES),
)


def _properties(judged: Judged, grid: Grid) -> dict[tuple[str, str], Bools]:
    """For each of `_PROPERTIES` bool [K]: which of the frame's objects have it."""
    boxes, ranges = judged.boxes, np.hypot(judged.boxes[:, 0], judged.boxes[:, 1])
    off_axis = np.degrees(np.abs(np.arcsin(np.abs(np.sin(boxes[:, 6])))))
    row = np.array([_in_row(index, boxes) for index in range(len(boxes))], bool)
    cut = _cut(judged, grid)
    values = [
        *((low <= judged.point_counts) & (judged.point_counts < high) for low, high in POINTS),
        *((low <= ranges) & (ranges < high) for low, high in DISTANCES),
        *(off_axis < 20, (off_axis >= 20) & (off_axis <= 70), off_axis > 70),
        *(boxes[:, 3] < SMALL_CAR, (boxes[:, 3] >= SMALL_CAR) & (boxes[:, 3] <= LARGE), boxes[:, 3] > LARGE),
        *(row, cut, ~row & ~cut),
    ]
    return dict(zip(_PROPERTIES, values, strict=True))


def _in_row(index: int, boxes: NDArray) -> bool:
    """Whether another vehicle stands within `BESIDE` of the vehicle's sides, about parallel."""
    widened = boxes[index].copy()
    widened[4] += 2 * BESIDE
    others = np.delete(boxes, index, 0)
    parallel = np.abs(np.sin(others[:, 6] - boxes[index, 6])) < np.sin(np.radians(20))
    return bool((overlaps(widened, others) & parallel).any())


def _cut(judged: Judged, grid: Grid) -> Bools:
    """Which objects [K] reach beyond the grid or beyond what the camera saw."""
    outline = corners(judged.boxes.astype(np.float64)).reshape(-1, 2)
    beyond = ~grid.cells(outline)[2] | ~judged.frame.is_labelled_at(outline[:, :2])
    return np.asarray(beyond.reshape(-1, 4).any(1))


@dataclass(frozen=True)
class Deviations:
    """How far the hits above the threshold are off.

    Attributes:
        name: of what; metres, heading in degrees with front and rear taken for the same.
        median: of detection less label.
        absolute: median of the absolute values.
        absolute_90: their 90th percentile.
    """

    name: str
    median: float
    absolute: float
    absolute_90: float


def deviations(judged: Sequence[Judged], threshold: float) -> list[Deviations]:
    """Of detections from the objects they found: place along and across the object, size, height of the centre."""
    pairs, turns = [], []
    for one in judged:
        chosen = (one.hits[IOU] >= 0) & (one.detections.scores > threshold)
        pairs.append((one.detections.boxes[chosen], one.boxes[one.hits[IOU][chosen]]))
        turns.append(np.degrees(heading_errors(one)[chosen]))
    found, truth = (np.concatenate([pair[side] for pair in pairs]).astype(np.float64) for side in (0, 1))
    turn = np.concatenate(turns)
    x, y = (found[:, :2] - truth[:, :2]).T
    cosine, sine = np.cos(truth[:, 6]), np.sin(truth[:, 6])
    values = {
        "place along the vehicle": x * cosine + y * sine,
        "place across it": y * cosine - x * sine,
        "distance from the sensor": np.hypot(found[:, 0], found[:, 1]) - np.hypot(truth[:, 0], truth[:, 1]),
        "height of the centre": found[:, 2] - truth[:, 2],
        **{name: found[:, 3 + i] - truth[:, 3 + i] for i, name in enumerate(("length", "width", "height"))},
        "heading": np.minimum(turn, 180.0 - turn),
    }
    return [Deviations(name, *_spread(value)) for name, value in values.items()]


def _spread(values: NDArray) -> tuple[float, float, float]:
    if not len(values):
        return (float("nan"),) * 3
    size = np.abs(values)
    return float(np.median(values)), float(np.median(size)), float(np.percentile(size, 90))
