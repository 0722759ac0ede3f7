"""What weights reach on real frames: detections against labels, and the figures of any part of them.

Asked for are objects with their centre in the grid and at least `LEAST_POINTS` points. A detection that found none of
these is false, but for two kinds that nobody can judge: one that overlaps an object not asked for by `TOUCHES`, and one
whose centre lies outside the view or the area that was labelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.learning.datasets.frame import RealFrame
from sbnet_perception.learning.frames import in_grid
from sbnet_perception.learning.metrics import SEEN_POINTS, area_under_curve, bev_iou
from sbnet_perception.learning.simulator.geometry import count_inside

LEAST_POINTS = 20
"""Fewest points of an object that is asked for."""
TOUCHES = 0.1
"""BEV IoU with an object not asked for from which on a detection is not judged."""
IOUS = (0.5, 0.7)
RECALL = 0.8
"""Of the objects with at least SEEN_POINTS points: where false positives are compared."""
DISTANCES = ((0.0, 20.0), (20.0, 40.0), (40.0, 70.0))
"""Ranges in metres from the origin, in the plane."""
POINTS = ((20, 50), (50, 200), (200, 2**31))
"""Ranges of the number of points. A false positive of fewer than the first range has counts there."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """The detections of one class in one frame against its objects of that class.

    Attributes:
        frame: what was labelled.
        detections: [M] of the class, best first.
        points: int64 [M], points inside each detection.
        boxes: float32 [K, 7] of the frame's objects of the class.
        point_counts: int64 [K], points inside each object.
        labels: text [K], the source's words for them.
        counted: bool [K], which of them are asked for.
        overlaps: float64 [M, K], BEV IoU.
        hits: for each of `IOUS` int64 [M]: the object that a detection found, or -1.
        held: for each of `IOUS` bool [M]: the detection is a hit or a false positive.
    """

    frame: RealFrame
    detections: Detections
    points: Ints
    boxes: NDArray[np.float32]
    point_counts: Ints
    labels: NDArray[np.str_]
    counted: Bools
    overlaps: Floats
    hits: dict[float, Ints]
    held: dict[float, Bools]

    def without_cloud(self) -> Judged:
        """The same without what takes most of a frame's memory: its points and maps; what asks for these is first."""
        none = np.zeros((0, self.frame.points.shape[1]), np.float32)
        return replace(self, frame=replace(self.frame, points=none, road=None, area=None, doubtful=None))


def judge(detections: Detections, frame: RealFrame, grid: Grid, number: int = 0) -> Judged:
    """Judge the detections of the class at position ``number``."""
    detections, same = detections[detections.classes == number], frame.classes == number
    boxes, counts = frame.boxes[same], frame.point_counts[same]
    counted = in_grid(boxes, grid) & (counts >= LEAST_POINTS)
    overlaps = bev_iou(detections.boxes, boxes)
    in_view = frame.is_labelled_at(detections.boxes[:, :2])
    excused = ~in_view | (np.where(counted, 0.0, overlaps).max(1, initial=0.0) >= TOUCHES)
    hits = {iou: _assign(np.where(counted, overlaps, 0.0), detections.scores, iou) for iou in IOUS}
    held = {iou: (hits[iou] >= 0) | ~excused for iou in IOUS}
    points = count_inside(frame.points, detections.boxes)
    return Judged(frame, detections, points, boxes, counts, frame.labels[same], counted, overlaps, hits, held)


def _assign(overlaps: Floats, scores: NDArray, iou: float) -> Ints:
    """For each detection, best first, the free object [M, K] that it overlaps most, by at least ``iou``; or -1."""
    hits = np.full(len(scores), -1)
    free = overlaps.copy()
    for index in np.argsort(-scores, kind="stable"):
        if free.shape[1] and free[index].max() >= iou:
            hits[index] = np.argmax(free[index])
            free[:, hits[index]] = -1.0
    return hits


@dataclass(frozen=True)
class Figures:
    """Of the objects of a part of the frames; NaN where there is nothing to make a figure of.

    Attributes:
        frames: how many.
        objects: that are asked for.
        ap50: average precision at BEV IoU 0.5.
        ap70: at 0.7.
        found: objects found at the threshold, BEV IoU 0.5.
        recall: share of the objects that are.
        false_positives: a frame, at the threshold.
        false_positives_at_recall: a frame, at the highest score with which `RECALL` of the objects with at least
            SEEN_POINTS points are found; NaN where no score reaches it.
        score_at_recall: that score.
        best_recall: of the objects with at least SEEN_POINTS points, at the lowest score.
        turned: share of those found at the threshold whose heading is wrong by more than 90 degrees.
    """

    frames: int
    objects: int
    ap50: float
    ap70: float
    found: int
    recall: float
    false_positives: float
    false_positives_at_recall: float
    score_at_recall: float
    best_recall: float
    turned: float


@dataclass(frozen=True)
class Curve:
    """Precision over recall of a part, and both at the threshold.

    Attributes:
        name: of the part.
        iou: of which on a detection is a hit.
        objects: that are asked for.
        recall: float64 [M], at each score, best first.
        precision: float64 [M].
        at_threshold: recall and precision.
    """

    name: str
    iou: float
    objects: int
    recall: Floats
    precision: Floats
    at_threshold: tuple[float, float]


class Tally:
    """All frames' detections of one class and their objects in flat arrays, of which any part gives figures."""

    def __init__(self, judged: Sequence[Judged], threshold: float) -> None:
        self.threshold = threshold
        self.object_frames = _joined([np.full(int(one.counted.sum()), i) for i, one in enumerate(judged)], int)
        self.object_ranges = _joined([_ranges(one.boxes[one.counted]) for one in judged])
        self.object_points = _joined([one.point_counts[one.counted] for one in judged], int)
        self.frames = _joined([np.full(len(one.detections), i) for i, one in enumerate(judged)], int)
        self.scores = _joined([one.detections.scores for one in judged])
        self.ranges = _joined([_ranges(one.detections.boxes) for one in judged])
        self.points = _joined([one.points for one in judged], int)
        self.heading_errors = _joined([heading_errors(one) for one in judged])
        self.held = {iou: _joined([one.held[iou] for one in judged], bool) for iou in IOUS}
        # Positions among the objects that are asked for, of all frames.
        starts = np.cumsum([0, *(int(one.counted.sum()) for one in judged)])
        self.hits = {
            iou: _joined([_renumbered(one, iou, start) for one, start in zip(judged, starts, strict=False)], int)
            for iou in IOUS
        }

    def figures(self, objects: Bools, detections: Bools, frames: int) -> Figures:
        """Of these objects; a hit goes with its object, a false positive counts where ``detections`` says."""
        part = {iou: self._part(objects, detections, iou) for iou in IOUS}
        scores, hits = part[0.5]
        number = int(objects.sum())
        at_threshold = scores > self.threshold
        found, false = int((hits & at_threshold).sum()), int((~hits & at_threshold).sum())
        errors = self.heading_errors[self._hits_of(objects, 0.5) & (self.scores > self.threshold)]
        return Figures(
            frames,
            number,
            area_under_curve(*part[0.5], number),
            area_under_curve(*part[0.7], number),
            found,
            found / number if number else float("nan"),
            false / frames if frames else float("nan"),
            *self._at_recall(objects, detections, frames),
            float((errors > np.pi / 2).mean()) if len(errors) else float("nan"),
        )

    def curve(self, name: str, objects: Bools, detections: Bools, iou: float) -> Curve:
        """Of the same parts as `figures`."""
        scores, hits = self._part(objects, detections, iou)
        order = np.argsort(-scores, kind="stable")
        true, number = np.cumsum(hits[order]), int(objects.sum())
        recall, precision = true / max(number, 1), true / np.arange(1, len(true) + 1)
        last = int((scores > self.threshold).sum()) - 1
        at_threshold = (float(recall[last]), float(precision[last])) if last >= 0 else (0.0, 1.0)
        return Curve(name, iou, number, recall, precision, at_threshold)

    def _hits_of(self, objects: Bools, iou: float) -> Bools:
        """Which detections found one of the objects."""
        chosen = np.append(objects, False)
        return chosen[self.hits[iou]]

    def _part(self, objects: Bools, detections: Bools, iou: float) -> tuple[Floats, Bools]:
        """Scores of the hits and false positives of a part, and which are hits."""
        hits = self._hits_of(objects, iou)
        false = detections & self.held[iou] & (self.hits[iou] < 0)
        return self.scores[hits | false], hits[hits | false]

    def _at_recall(self, objects: Bools, detections: Bools, frames: int) -> tuple[float, float, float]:
        """False positives a frame at `RECALL` of the objects seen well, the score there, and their best recall."""
        seen = objects & (self.object_points >= SEEN_POINTS)
        hits = np.sort(self.scores[self._hits_of(seen, 0.5)])[::-1]
        wanted = int(np.ceil(RECALL * seen.sum()))
        if not seen.any():
            return (float("nan"),) * 3
        if len(hits) < wanted:
            return float("nan"), float("nan"), len(hits) / float(seen.sum())
        score = hits[wanted - 1]
        false = detections & self.held[0.5] & (self.hits[0.5] < 0) & (self.scores >= score)
        return float(false.sum() / frames), float(score), len(hits) / float(seen.sum())


@dataclass(frozen=True)
class Part:
    """Figures of a part of what was seen: by ``kind`` (all, source, distance, points), its ``name``."""

    kind: str
    name: str
    figures: Figures


def parts(judged: Sequence[Judged], tally: Tally) -> list[Part]:
    """All, then by source, by distance and by number of points.

    Every source's frames; of a distance, the false positives there; of numbers of points, those with so many inside.
    """
    sources = np.array([one.frame.source for one in judged])
    frames = len(judged)
    every = np.ones(len(tally.object_points), bool), np.ones(len(tally.scores), bool)
    found = [Part("all", "all", tally.figures(*every, frames))]
    for source in sorted(set(sources.tolist())):
        here = sources == source
        figures = tally.figures(here[tally.object_frames], here[tally.frames], int(here.sum()))
        found.append(Part("source", source, figures))
    for low, high in DISTANCES:
        near = [(low <= ranges) & (ranges < high) for ranges in (tally.object_ranges, tally.ranges)]
        found.append(Part("distance", f"{low:g}-{high:g} m", tally.figures(near[0], near[1], frames)))
    for number, (least, below) in enumerate(POINTS):
        asked = (least <= tally.object_points) & (tally.object_points < below)
        false = (least * (number > 0) <= tally.points) & (tally.points < below)
        name = f"{least}-{below - 1}" if number < len(POINTS) - 1 else f"{least}+"
        found.append(Part("points", name, tally.figures(asked, false, frames)))
    return found


def curves(judged: Sequence[Judged], tally: Tally) -> list[Curve]:
    """Of all frames and of each source, for each of `IOUS`."""
    sources = np.array([one.frame.source for one in judged])
    chosen = {"all": np.ones(len(judged), bool), **{name: sources == name for name in sorted(set(sources.tolist()))}}
    return [
        tally.curve(name, here[tally.object_frames], here[tally.frames], iou)
        for iou in IOUS
        for name, here in chosen.items()
    ]


def heading_errors(judged: Judged) -> Floats:
    """float64 [M] in radians, 0 to pi: between a detection and the object that it found at BEV IoU 0.5, else NaN."""
    hits = judged.hits[0.5]
    errors = np.full(len(hits), np.nan)
    found = hits >= 0
    turn = judged.detections.boxes[found, 6].astype(np.float64) - judged.boxes[hits[found], 6]
    errors[found] = np.abs(np.arctan2(np.sin(turn), np.cos(turn)))
    return errors


def _renumbered(judged: Judged, iou: float, start: int) -> Ints:
    """The hits as positions among the counted objects, from ``start`` on."""
    positions = start + np.cumsum(judged.counted) - 1
    hits = judged.hits[iou]
    return np.where(hits >= 0, positions[hits] if len(positions) else -1, -1)


def _ranges(boxes: NDArray) -> Floats:
    return np.hypot(boxes[:, 0], boxes[:, 1]).astype(np.float64)


def _joined(parts: Iterable[NDArray], dtype: type = float) -> NDArray:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype)
