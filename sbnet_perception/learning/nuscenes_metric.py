"""nuScenes' mean average precision, of the classes of a detector.

Written from the rules of its detection task (configuration detection_cvpr_2019): objects and detections within the
class's range of the ego vehicle, objects with a point of the LiDAR or of a radar; detections, best first, take the
nearest free object, and find it if it is near enough in the plane; of the precision above 0.1 at recalls above 0.1 the
mean is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sbnet_perception.detector.boxes import Detections
from sbnet_perception.learning.center_distance import THRESHOLDS, Counted, precision_at_recalls
from sbnet_perception.learning.datasets.frame import RealFrame

RANGE = 50.0
"""Of every class of vehicles, in metres from the ego vehicle in the plane."""
LEAST_RECALL, LEAST_PRECISION = 0.1, 0.1


def counted(detections: Detections, frame: RealFrame, number: int) -> Counted:
    """What counts of a frame, of the class at position ``number``."""
    found = detections[detections.classes == number]
    asked = frame.classes == number
    asked = asked if frame.asked is None else asked & frame.asked
    boxes, objects = found.boxes.astype(np.float64), frame.boxes[asked].astype(np.float64)
    near, asked_near = (np.hypot(some[:, 0], some[:, 1]) < RANGE for some in (boxes, objects))
    return Counted(boxes[near], found.scores[near].astype(np.float64), objects[asked_near])


def average_precisions(frames: Sequence[Counted]) -> dict[float, float]:
    """Threshold in metres -> average precision; NaN where no object is asked for."""
    return {threshold: _average_precision(frames, threshold) for threshold in THRESHOLDS}


def _average_precision(frames: Sequence[Counted], threshold: float) -> float:
    number = sum(len(frame.objects) for frame in frames)
    if number == 0:
        return float("nan")
    scores = np.concatenate([frame.scores for frame in frames])
    hits = np.concatenate([_hits(frame, threshold) for frame in frames])
    if not hits.any():
        return 0.0
    # Of equal scores the last detection comes first.
    true = np.cumsum(hits[np.lexsort((np.arange(len(scores)), scores))[::-1]])
    precision = precision_at_recalls(true / number, true / np.arange(1, len(true) + 1))
    above = np.maximum(precision[round(100 * LEAST_RECALL) + 1 :] - LEAST_PRECISION, 0.0)
    return float(above.mean() / (1 - LEAST_PRECISION))


def _hits(frame: Counted, threshold: float) -> np.ndarray:
    """bool [M]: which detections find an object of their own."""
    hits, free = np.zeros(len(frame.scores), bool), np.ones(len(frame.objects), bool)
    for index in np.lexsort((np.arange(len(hits)), frame.scores))[::-1]:
        away = frame.objects[:, :2] - frame.boxes[index, :2]
        distances = np.where(free, np.hypot(away[:, 0], away[:, 1]), np.inf)
        if len(distances) and distances.min() < threshold:
            free[distances.argmin()], hits[index] = False, True
    return hits
