"""What figures of many real frames are made of, gathered frame by frame: clouds and maps are let go."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.learning import av2_metric, nuscenes_metric
from sbnet_perception.learning.center_distance import Counted
from sbnet_perception.learning.datasets.frame import RealFrame
from sbnet_perception.learning.kitti_labels import KittiFrame, kitti_frame
from sbnet_perception.learning.mistakes import FalsePositive, Miss, Trait, false_positives, misses, traits
from sbnet_perception.learning.real import Judged, judge

COUNTED = {"nuscenes": nuscenes_metric.counted, "av2": av2_metric.counted}
"""Source -> what counts of its frames by its own metric."""


class Gathered:
    """Of the detections and objects of one class.

    Attributes:
        judged: every frame, without its cloud and its map.
        false_positives: above the threshold, of these frames.
        misses: of these frames.
        traits: sums over the frames.
        kitti: those with KITTI's own labels.
        counted: source -> those of the data set's own layout, by its own metric.
        mapped: all of Argoverse 2's frames have a map.
    """

    def __init__(self, number: int, threshold: float, grid: Grid) -> None:
        """Of the class at position ``number``."""
        self._number, self._threshold, self._grid = number, threshold, grid
        self.judged: list[Judged] = []
        self.false_positives: list[FalsePositive] = []
        self.misses: list[Miss] = []
        self.traits: list[Trait] = []
        self.kitti: list[KittiFrame] = []
        self.counted: defaultdict[str, list[Counted]] = defaultdict(list)
        self.mapped = True

    def add(self, detections: Detections, frame: RealFrame) -> tuple[list[FalsePositive], list[Miss]]:
        """Gathers a frame; returns its errors, with its cloud.

        Raises:
            UserError: a file of KITTI's labels is damaged.
        """
        judged = judge(detections, frame, self._grid, self._number)
        labelled = kitti_frame(judged.detections, frame)
        false = list(false_positives(judged, self._threshold, labelled))
        missed = list(misses(judged, self._threshold))
        self._count(judged, labelled)
        bare = judged.without_cloud()
        self.judged.append(bare)
        self.false_positives += [replace(one, judged=bare) for one in false]
        self.misses += [replace(one, judged=bare) for one in missed]
        return false, missed

    def _count(self, judged: Judged, labelled: KittiFrame | None) -> None:
        """What asks for the frame's map or labels."""
        frame, found = judged.frame, traits([judged], self._threshold, self._grid)
        self.traits = [a + b for a, b in zip(self.traits, found, strict=True)] if self.traits else found
        self.kitti += [] if labelled is None else [labelled]
        if frame.source in COUNTED and frame.asked is not None:
            self.counted[frame.source].append(COUNTED[frame.source](judged.detections, frame, self._number))
            self.mapped &= frame.source != "av2" or frame.area is not None
