"""How well a recorded replay found the objects whose ground truth it carries, class by class."""

from __future__ import annotations

from dataclasses import dataclass

from sbnet_perception.bags.recorded import Recording
from sbnet_perception.learning.frames import in_grid
from sbnet_perception.learning.metrics import SEEN_IOU, SEEN_POINTS, match
from sbnet_perception.learning.simulator.geometry import count_inside


@dataclass
class Score:
    """One class over all processed frames with ground truth.

    Attributes:
        name: of the class.
        frames: how many.
        objects: with their centre in the grid and at least SEEN_POINTS points, summed over frames.
        found: those that a detection of their class overlaps by at least SEEN_IOU.
        skipped: those whose centre was not computed, so that no detection was possible: parked off the
            road, or too little of them seen.
        false_positives: detections that overlap no labelled object of their class.
    """

    name: str
    frames: int = 0
    objects: int = 0
    found: int = 0
    skipped: int = 0
    false_positives: int = 0

    def rows(self) -> list[tuple[str, str]]:
        """For the closing table."""
        share = f" ({self.found / self.objects:.0%})" if self.objects else ""
        found = f"{self.found} of {self.objects}{share}, BEV IoU {SEEN_IOU}, all frames together"
        wrong = f"{self.false_positives / self.frames:.2f} per frame ({self.false_positives} in {self.frames})"
        rows = [(f"{self.name}s of {SEEN_POINTS}+ points found", found)]
        if self.objects > self.found:
            missed = self.objects - self.found
            why = "have their centre outside the mask: off the road, or hardly seen"
            rows.append(("", f"{self.skipped} of the {missed} others {why}"))
        return [*rows, ("false positives", wrong)]


def score(recording: Recording) -> list[Score]:
    """Compares each frame's detections with its ground truth; for each class that occurs in one of the two.

    Only frames with ground truth count: without any the list is empty.
    """
    scores = [Score(name) for name in recording.classes]
    occurs: set[int] = set()
    for frame in recording.frames():
        if frame.truth is None:
            continue
        occurs |= {*frame.detections.classes.tolist(), *frame.truth.classes.tolist()}
        seen = count_inside(frame.points, frame.truth.boxes) >= SEEN_POINTS
        counted = in_grid(frame.truth.boxes, frame.grid) & seen
        for label, result in enumerate(scores):
            found, mine = frame.detections[frame.detections.classes == label], frame.truth.classes == label
            matches = match(found, frame.truth.boxes[mine], counted[mine], SEEN_IOU)
            result.frames += 1
            result.objects += len(matches.found)
            result.found += int(matches.found.sum())
            result.false_positives += int((~matches.hits).sum())
            if frame.mask is not None:
                row, column, _ = frame.grid.cells(frame.truth.boxes[mine & counted])
                result.skipped += int((~frame.mask[row, column] & ~matches.found).sum())
    return [result for label, result in enumerate(scores) if label in occurs]
