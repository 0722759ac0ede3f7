"""Argoverse 2's composite detection score (CDS), of the classes of a detector.

Written from the rules of its 3D detection task: objects with a point inside, and the 100 best detections of a sweep,
within 150 m and with a corner in the region of interest (5 m around the drivable area). A detection is for the object
nearest in space; the best one that is for an object finds it if it is near enough, and no other does. The score is the
mean average precision times the mean of what is left of 1 after the errors of the hits at 2 m: of place over 2 m, of
size (1 - IoU of the aligned boxes), of heading over pi.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from sbnet_perception.detector.boxes import Detections, corners_bev
from sbnet_perception.learning.center_distance import THRESHOLDS, Counted, Floats, precision_at_recalls
from sbnet_perception.learning.datasets.frame import RealFrame

RANGE = 150.0
MOST_DETECTIONS = 100
AT = 2.0
"""Threshold in metres under which the errors of hits are measured."""
LARGEST_ERRORS = (AT, 1.0, np.pi)
"""Of place (m), size and heading (rad): what counts as a score of 0, and without any hit."""


@dataclass(frozen=True)
class Av2Figures:
    """Of one class; NaN where no object is asked for.

    Attributes:
        average_precisions: by threshold in metres.
        place_error: mean of the hits at 2 m (ATE), metres.
        size_error: 1 - IoU (ASE).
        heading_error: radians (AOE).
        score: the composite detection score.
    """

    average_precisions: dict[float, float]
    place_error: float
    size_error: float
    heading_error: float
    score: float


def counted(detections: Detections, frame: RealFrame, number: int) -> Counted:
    """What counts of a frame, of the class at position ``number``."""
    found = detections[detections.classes == number]
    asked = frame.classes == number
    asked = asked if frame.asked is None else asked & frame.asked
    boxes, objects = found.boxes.astype(np.float64), frame.boxes[asked].astype(np.float64)
    best_first = np.argsort(-found.scores, kind="stable")
    boxes, scores = boxes[best_first], found.scores[best_first].astype(np.float64)
    near = _is_near(boxes, frame)
    kept = near & (np.cumsum(near) <= MOST_DETECTIONS) & _is_of_interest(boxes, frame)
    objects = objects[_is_near(objects, frame) & _is_of_interest(objects, frame)]
    return Counted(boxes[kept], scores[kept], objects)


def _is_near(boxes: Floats, frame: RealFrame) -> NDArray[np.bool_]:
    """By the distance from the egovehicle frame's origin, which is above the ground."""
    return np.linalg.norm(boxes[:, :3] - (0.0, 0.0, frame.origin_height), axis=1) < RANGE


def _is_of_interest(boxes: Floats, frame: RealFrame) -> NDArray[np.bool_]:
    """Everything is where the log has no map."""
    if frame.area is None:
        return np.ones(len(boxes), bool)
    return np.asarray(frame.area.holds(corners_bev(boxes)).any(axis=1))


def figures(frames: Sequence[Counted]) -> Av2Figures:
    """Of all frames together."""
    number = sum(len(frame.objects) for frame in frames)
    if number == 0:
        nan = float("nan")
        return Av2Figures(dict.fromkeys(THRESHOLDS, nan), nan, nan, nan, nan)
    scores = np.concatenate([frame.scores for frame in frames])
    distances, errors = (np.concatenate(parts) for parts in zip(*map(_assigned, frames), strict=True))
    order = np.argsort(-scores, kind="stable")
    precisions = {t: _average_precision((distances < t)[order], number) for t in THRESHOLDS}
    hits = distances < AT
    place, size, heading = errors[hits].mean(axis=0) if hits.any() else np.array(LARGEST_ERRORS)
    left = 1 - np.array((place, size, heading)) / LARGEST_ERRORS
    score = float(np.mean(list(precisions.values())) * left.mean())
    return Av2Figures(precisions, float(place), float(size), float(heading), score)


def _assigned(frame: Counted) -> tuple[Floats, Floats]:
    """Of each detection the distance [M] to the object that it is the best one for, or infinite; its errors [M, 3]."""
    distances, errors = np.full(len(frame.scores), np.inf), np.zeros((len(frame.scores), 3))
    if not len(frame.objects) or not len(frame.boxes):
        return distances, errors
    apart = cdist(frame.boxes[:, :3], frame.objects[:, :3])
    nearest = apart.argmin(axis=1)
    objects, detections = np.unique(nearest, return_index=True)
    distances[detections] = apart[detections, objects]
    mine, theirs = frame.boxes[detections], frame.objects[objects]
    sizes = [some(mine[:, 3:6], theirs[:, 3:6]).prod(axis=1) for some in (np.minimum, np.maximum)]
    turn = np.abs(np.arctan2(np.sin(mine[:, 6] - theirs[:, 6]), np.cos(mine[:, 6] - theirs[:, 6])))
    errors[detections] = np.stack([distances[detections], 1 - sizes[0] / sizes[1], turn], axis=1)
    return distances, errors


def _average_precision(hits: NDArray[np.bool_], number: int) -> float:
    """Of hits, best first; the precision at a recall is the best at that and any higher one."""
    if not len(hits):
        return 0.0
    true = np.cumsum(hits)
    precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
    return float(precision_at_recalls(true / number, precision).mean())
