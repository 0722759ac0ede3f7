"""Average precision and recall of boxes in the bird's-eye view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from sbnet_perception.detector.boxes import Detections, corners_bev

SEEN_POINTS, SEEN_IOU = 50, 0.3
"""A vehicle with this many points should be found, and is by a box with this BEV IoU: for roughly labelled frames."""


def bev_iou(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Intersection over union [M, K] of the footprints of boxes ``a`` [M, 7] and ``b`` [K, 7]."""
    ours, theirs = shapely.polygons(corners_bev(a))[:, None], shapely.polygons(corners_bev(b))[None]
    shared = shapely.area(shapely.intersection(ours, theirs))
    union = shapely.area(ours) + shapely.area(theirs) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


@dataclass(frozen=True)
class Matches:
    """Detections of one frame against its vehicles.

    Attributes:
        scores: float32 [M] of the detections that count.
        hits: bool [M], which of them found a vehicle of their own.
        found: bool [K], which of the vehicles that count were found.
    """

    scores: NDArray[np.float32]
    hits: NDArray[np.bool_]
    found: NDArray[np.bool_]


def match(detections: Detections, boxes: NDArray, counted: NDArray[np.bool_], iou: float) -> Matches:
    """Match detections, best first, each to the free vehicle it overlaps most by at least ``iou``.

    Vehicles [K, 7] that are not ``counted`` (too few points, say) are neither asked for nor held
    against a detection that found them.
    """
    overlaps = bev_iou(detections.boxes, boxes)
    taken = np.zeros(len(boxes), bool)
    hits, counts = np.zeros(len(detections), bool), np.ones(len(detections), bool)
    for index in np.argsort(-detections.scores, kind="stable"):
        free = np.where(taken, -1.0, overlaps[index])
        if not len(boxes) or free.max() < iou:
            continue
        vehicle = int(np.argmax(free + counted * 1e-6))
        taken[vehicle], hits[index], counts[index] = True, True, counted[vehicle]
    return Matches(detections.scores[counts], hits[counts], taken[counted])


def average_precision(matches: list[Matches]) -> float:
    """`area_under_curve` of several frames together."""
    scores, hits = (np.concatenate([getattr(m, name) for m in matches]) for name in ("scores", "hits"))
    return area_under_curve(scores, hits, sum(len(m.found) for m in matches))


def area_under_curve(scores: NDArray, hits: NDArray[np.bool_], objects: int) -> float:
    """Area under the precision-recall curve, precision made monotonic, every point (PASCAL VOC 2010).

    Args:
        scores: [M] of the detections that count.
        hits: bool [M], which of them found an object of their own.
        objects: how many there are to find; of none the figure is NaN.
    """
    if objects == 0:
        return float("nan")
    hits = hits[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hits).sum() / objects)
