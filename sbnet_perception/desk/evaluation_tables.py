"""The tables that `sbnet evaluate` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.learning.evaluate import SimulatedResult
from sbnet_perception.learning.metrics import SEEN_POINTS
from sbnet_perception.learning.real import LEAST_POINTS, RECALL, Part


def simulated_table(results: Sequence[SimulatedResult], config: DetectorConfig, kind: str) -> Table:
    asked = ", ".join(f"{entry.name}s with at least {entry.least_points} points" for entry in config.objects)
    table = Table(title=f"{results[0].frames} frames of {kind} simulated drives: {asked}")
    thresholds = dict(zip(config.classes, config.thresholds, strict=True))
    by_class = len(config.classes) > 1
    threshold = "threshold" if by_class else f"{config.thresholds[0]}"
    figures = ("AP, IoU 0.5", "AP, IoU 0.7", f"recall at {threshold}", "precision", "best F1 at")
    for column in ("mask", "asked for", *(["class", "threshold"] if by_class else []), "number", *figures):
        table.add_column(column)
    table.add_column("tiles skipped, stride 4")
    for r in results:
        of_class = [r.object, f"{thresholds[r.object]}"] if by_class else []
        numbers = (f"{figure:.3f}" for figure in (r.ap50, r.ap70, r.recall50, r.precision50, r.best_f1_score))
        skipped = f"{100 * r.mean_sparsity['conv-3']:.0f} %"
        table.add_row(r.mask, r.asked, *of_class, str(r.objects), *numbers, skipped)
    return table


def parts_table(measured: Sequence[Part], name: str, threshold: float) -> Table:
    """The figures of a class over real frames, by part."""
    table = Table(
        "", "frames", "number", "AP, IoU 0.5", "AP, IoU 0.7", f"recall at {threshold}", "false positives a frame",
        f"at recall {RECALL:g} ({SEEN_POINTS}+ points)", "heading wrong by > 90°",
        title=f"real frames, no map: {name}s with at least {LEAST_POINTS} points; BEV IoU 0.5 unless it says so",
    )  # fmt: skip
    kind = measured[0].kind
    for part in measured:
        if part.kind != kind:
            table.add_section()
            kind = part.kind
        f = part.figures
        at_recall = shown(f.false_positives_at_recall, ".2f")
        if math.isnan(f.false_positives_at_recall) and not math.isnan(f.best_recall):
            at_recall = f"never: {f.best_recall:.2f}"
        label = f"{part.name} points" if part.kind == "points" else part.name
        averages = (shown(one, ".3f") for one in (f.ap50, f.ap70, f.recall))
        false = shown(f.false_positives, ".2f")
        table.add_row(label, str(f.frames), str(f.objects), *averages, false, at_recall, shown(f.turned, ".1%"))
    return table


def shown(value: float, form: str) -> str:
    """The figure, or a dash where there is none."""
    return "-" if math.isnan(value) else format(value, form)
