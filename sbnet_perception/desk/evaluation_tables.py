"""The tables that `sbnet evaluate` prints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from rich.table import Table

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.learning.evaluate import SimulatedResult
from sbnet_perception.learning.kitti_metric import RECALLS
from sbnet_perception.learning.metrics import SEEN_POINTS
from sbnet_perception.learning.mistakes import Deviations, FalsePositive, Miss, Trait
from sbnet_perception.learning.real import LEAST_POINTS, RECALL, Part


class KittiFigures(TypedDict):
    """Frames, cars asked for by difficulty, and AP by kind and difficulty under both rules."""

    frames: int
    cars: dict[str, int]
    official: dict[str, dict[str, float]]
    all_vehicles: dict[str, dict[str, float]]


def simulated_table(results: Sequence[SimulatedResult], config: DetectorConfig, kind: str) -> Table:
    asked = ", ".join(f"{entry.name}s with at least {entry.least_points} points" for entry in config.objects)
    table = Table(title=f"{results[0].frames} frames of {kind} simulated drives: {asked}")
    thresholds = dict(zip(config.classes, config.thresholds, strict=True))
    table.caption = None if config.dtype == "auto" else f"computed in {config.dtype}"
    by_class = len(config.classes) > 1
    threshold = "threshold" if by_class else f"{config.thresholds[0]}"
    figures = ("AP, IoU 0.5", "AP, IoU 0.7", f"recall at {threshold}", "precision", "best F1 at")
    for column in ("mask", "asked for", *(["class", "threshold"] if by_class else []), "number", *figures):
        table.add_column(column)
    for column in ("vehicle pixels computed", "tiles skipped, stride 4", "mask, ms"):
        table.add_column(column)
    for r in results:
        of_class = [r.object, f"{thresholds[r.object]}"] if by_class else []
        numbers = (f"{figure:.3f}" for figure in (r.ap50, r.ap70, r.recall50, r.precision50, r.best_f1_score))
        shares = (f"{100 * share:.1f} %" for share in (r.pixel_recall, r.mean_sparsity["conv-3"]))
        table.add_row(r.mask, r.asked, *of_class, str(r.objects), *numbers, *shares, f"{r.mask_ms:.1f}")
    return table


def parts_table(measured: Sequence[Part], name: str, threshold: float) -> Table:
    """The figures of a class over real frames, by part."""
    table = Table(
        "", "frames", "number", "AP, IoU 0.5", "AP, IoU 0.7", f"recall at {threshold}", "false positives a frame",
        f"at recall {RECALL:g} ({SEEN_POINTS}+ points)", "heading wrong by > 90°",
        title=f"{name}s with at least {LEAST_POINTS} points; BEV IoU 0.5 unless it says so",
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


def kitti_table(figures: KittiFigures) -> Table:
    """KITTI's metric, by its rules and where trucks and DontCare regions are not held against a detector."""
    table = Table(title=f"KITTI's metric, cars, IoU 0.7, AP R{RECALLS}; {figures['frames']} frames")
    for column in ("", *(f"{level}: {number} cars" for level, number in figures["cars"].items())):
        table.add_column(column)
    lenient = ", trucks and DontCare regions left out"
    for rules, name in ((figures["official"], ""), (figures["all_vehicles"], lenient)):
        for kind, title in (("bev", "bird's-eye view"), ("3d", "3D")):
            table.add_row(title + name, *(shown(value, ".1f") for value in rules[kind].values()))
    most = {level: 100 * min(RECALLS, number - 1) / RECALLS for level, number in figures["cars"].items() if number}
    if any(value < 100 for value in most.values()):
        table.add_row("most that so few cars allow", *(f"{value:.1f}" for value in most.values()))
    return table


def errors_table(
    title: str, kinds: Sequence[str], errors: Sequence[FalsePositive | Miss], frames: Counter[str]
) -> Table:
    """How many errors of each kind, of all and of each source; ``frames`` counts those of a source."""
    number = sum(frames.values())
    table = Table("", "all", "a frame", *sorted(frames), title=f"{title} at the threshold, {number} frames")
    counts = Counter((error.kind, error.judged.frame.source) for error in errors)
    for kind in kinds:
        of_kind = [counts[kind, source] for source in sorted(frames)]
        table.add_row(kind, str(sum(of_kind)), f"{sum(of_kind) / number:.2f}", *map(str, of_kind))
    table.add_section()
    of_source = [sum(error.judged.frame.source == source for error in errors) for source in sorted(frames)]
    table.add_row("all", str(len(errors)), f"{len(errors) / number:.2f}", *map(str, of_source))
    return table


def traits_table(traits: Sequence[Trait]) -> Table:
    """Which objects are missed."""
    table = Table("", "", "objects", "missed", "share", title="which objects are missed")
    for before, trait in zip([None, *traits], traits, strict=False):
        if before is not None and before.group != trait.group:
            table.add_section()
        share = f"{trait.missed / trait.objects:.0%}" if trait.objects else "-"
        group = trait.group if before is None or before.group != trait.group else ""
        table.add_row(group, trait.name, str(trait.objects), str(trait.missed), share)
    return table


def deviations_table(deviations: Sequence[Deviations]) -> Table:
    """How far hits are off."""
    title = "how far hits are off: metres; degrees, front and rear the same"
    table = Table("detection less label", "median", "median, absolute", "90 % are within", title=title)
    for one in deviations:
        figures = (one.median, one.absolute, one.absolute_90)
        table.add_row(one.name, *(shown(figure, ".2f") for figure in figures))
    return table


def shown(value: float, form: str) -> str:
    """The figure, or a dash where there is none."""
    return "-" if math.isnan(value) else format(value, form)
