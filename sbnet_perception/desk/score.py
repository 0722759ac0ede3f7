"""How well a recorded replay found the vehicles whose ground truth it carries."""

from __future__ import annotations

from dataclasses import dataclass

from sbnet_perception.bags.recorded import Recording
from sbnet_perception.learning.frames import in_grid
from sbnet_perception.learning.metrics import SEEN_IOU, SEEN_POINTS, match
from sbnet_perception.learning.simulator.geometry import count_inside


@dataclass(frozen=True)
class Score:
    """Over all processed frames with ground truth.

    Attributes:
        frames: how many.
        vehicles: with their centre in the grid and at least SEEN_POINTS points, summed over frames.
        found: those that a detection overlaps by at least SEEN_IOU.
        skipped: those whose centre was not computed, so that no detection was possible: parked off the
            road, or too little of them seen.
        false_positives: detections that overlap no labelled vehicle.
    """

    frames: int
    vehicles: int
    found: int
    skipped: int
    false_positives: int

    def rows(self) -> list[tuple[str, str]]:
        """For the closing table."""
        if not self.frames:
            return []
        share = f" ({self.found / self.vehicles:.0%})" if self.vehicles else ""
        found = f"{self.found} of {self.vehicles}{share}, BEV IoU {SEEN_IOU}, all frames together"
        wrong = f"{self.false_positives / self.frames:.2f} per frame ({self.false_positives} in {self.frames})"
        rows = [(f"vehicles of {SEEN_POINTS}+ points found", found)]
        if self.vehicles > self.found:
            missed = self.vehicles - self.found
            why = "have their centre outside the mask: off the road, or hardly seen"
            rows.append(("", f"{self.skipped} of the {missed} others {why}"))
        return [*rows, ("false positives", wrong)]


def score(recording: Recording) -> Score:
    """Compares each frame's detections with its ground truth, where the recording has one."""
    frames = vehicles = found = skipped = wrong = 0
    for frame in recording.frames():
        if frame.truth is None:
            continue
        counted = in_grid(frame.truth, frame.grid) & (count_inside(frame.points, frame.truth) >= SEEN_POINTS)
        matches = match(frame.detections, frame.truth, counted, SEEN_IOU)
        frames += 1
        vehicles += len(matches.found)
        found += int(matches.found.sum())
        wrong += int((~matches.hits).sum())
        if frame.mask is not None:
            row, column, _ = frame.grid.cells(frame.truth[counted])
            skipped += int((~frame.mask[row, column] & ~matches.found).sum())
    return Score(frames, vehicles, found, skipped, wrong)
