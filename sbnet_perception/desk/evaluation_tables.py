"""The tables that `sbnet evaluate` prints."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from rich import box
from rich.console import Group
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


def _figures_table(title: str, words: Sequence[str], figures: Sequence[str]) -> Table:
    """An empty table whose columns of words may be folded, and those of figures never: a terminal has 80 characters."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    for column in words:
        table.add_column(column, overflow="fold")
    for column in figures:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def simulated_tables(results: Sequence[SimulatedResult], config: DetectorConfig, kind: str) -> Group:
    """A table for each mask."""
    asked = ", ".join(f"{entry.name}s with at least {entry.least_points} points" for entry in config.objects)
    computed = "" if config.dtype == "auto" else f", computed in {config.dtype}"
    tables = [
        _of_mask(mask, [result for result in results if result.mask == mask], config)
        for mask in dict.fromkeys(result.mask for result in results)
    ]
    return Group(f"{results[0].frames} frames of {kind} simulated drives: {asked}{computed}", *tables)


def _of_mask(mask: str, results: Sequence[SimulatedResult], config: DetectorConfig) -> Table:
    by_class = len(config.classes) > 1
    thresholds = dict(zip(config.classes, config.thresholds, strict=True))
    threshold = "thresh." if by_class else f"{config.thresholds[0]}"
    words = ["asked for", *(["class", "thresh."] if by_class else [])]
    figures = ["number", "AP, IoU\n0.5 / 0.7", f"recall\nat {threshold}", "preci-\nsion", "best F1\nat"]
    skipped, ms = results[0].mean_sparsity["conv-3"], results[0].mask_ms
    title = f"{mask} ({ms:.1f} ms): {100 * skipped:.1f} % of tiles at stride 4 skipped"
    table = _figures_table(title, words, [*figures, "vehicles'\npixels"])
    for r in results:
        of_class = [r.object, f"{thresholds[r.object]}"] if by_class else []
        average, kept = f"{r.ap50:.3f} / {r.ap70:.3f}", f"{100 * r.pixel_recall:.1f} %"
        numbers = (f"{figure:.3f}" for figure in (r.recall50, r.precision50, r.best_f1_score))
        table.add_row(r.asked, *of_class, str(r.objects), average, *numbers, kept)
    return table


def parts_table(measured: Sequence[Part], name: str, threshold: float) -> Table:
    """The figures of a class over real frames, by part."""
    title = f"{name}s with at least {LEAST_POINTS} points; BEV IoU 0.5 unless it says so"
    figures = ["frames", "number", "AP, IoU\n0.5 / 0.7", f"recall\nat {threshold}", "false positives\na frame"]
    figures += [f"at recall {RECALL:g}\n({SEEN_POINTS}+ points)", "heading\n> 90° off"]
    table = _figures_table(title, [""], figures)
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
        average = f"{shown(f.ap50, '.3f')} / {shown(f.ap70, '.3f')}"
        found = (average, shown(f.recall, ".3f"), shown(f.false_positives, ".2f"), at_recall, shown(f.turned, ".1%"))
        table.add_row(label, str(f.frames), str(f.objects), *found)
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
