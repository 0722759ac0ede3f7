"""Precision over recall, of all real frames and of each source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sbnet_perception.learning.real import IOUS, Curve

COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999")
"""One per line, told apart by readers of any colour vision; the first is of all frames."""
FEWEST = 5
"""Objects that a source needs for a line of its own."""


def plot_curves(curves: Sequence[Curve], name: str, path: Path) -> None:
    """Draws the curves of a class to ``path`` (.png, .svg, .pdf), a panel for each IoU; a cross is the threshold."""
    figure = Figure(figsize=(5.2 * len(IOUS), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(IOUS), sharey=True, squeeze=False)[0]
    for panel, iou in zip(panels, IOUS, strict=True):
        shown = [curve for curve in curves if curve.iou == iou and curve.objects >= FEWEST]
        for curve, colour in zip(shown, COLOURS, strict=False):
            width = 2.2 if curve.name == "all" else 1.2
            label = f"{curve.name}: {curve.objects}"
            panel.plot(curve.recall, curve.precision, lw=width, color=colour, label=label)
            panel.plot(*curve.at_threshold, "x", ms=8, mew=2, color=colour)
        panel.set_title(f"{name}s, BEV IoU {iou}")
        panel.set_xlabel("recall")
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1.02)
        panel.grid(color="#dddddd", lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("precision")
    panels[0].legend(frameon=False, loc="lower left", fontsize=8, title="objects asked for", title_fontsize=8)
    figure.savefig(path, dpi=150)
