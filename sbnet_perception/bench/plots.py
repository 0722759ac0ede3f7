"""The speed-up over sparsity, as the paper's Figure 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from sbnet_perception.bench.measure import Row

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""One per layer, told apart by readers of any colour vision."""


def plot_sweep(rows: Sequence[Row], machine: Row, path: Path) -> None:
    """Draws the rows of a sweep to ``path`` (.png, .svg, .pdf): a panel per dtype, a line per layer."""
    dtypes, layers = (list(dict.fromkeys(str(row[key]) for row in rows)) for key in ("dtype", "layer"))
    figure = Figure(figsize=(1.0 + 4.8 * len(dtypes), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for panel, dtype in zip(panels, dtypes, strict=True):
        for layer, colour in zip(layers, COLOURS, strict=False):
            points = [row for row in rows if (row["dtype"], row["layer"]) == (dtype, layer)]
            _line(panel, points, layer, colour)
        _finish(panel, dtype)
    panels[0].set_ylabel("speed-up over the best dense PyTorch")
    panels[0].legend(frameon=False, loc="upper left")
    figure.suptitle(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}", fontsize=9)
    figure.savefig(path, dpi=150)


def _line(panel: Axes, rows: Sequence[Row], layer: str, colour: str) -> None:
    shown = [row for row in rows if float(row["pixel_sparsity"] or 0) < 1.0]
    percent = [100 * float(row["pixel_sparsity"] or 0) for row in shown]
    panel.plot(percent, [float(row["speedup"] or 0) for row in shown], "o-", ms=4, lw=1.5, color=colour, label=layer)


def _finish(panel: Axes, dtype: str) -> None:
    """Axes: sparsity to 99 %, speed-up on a logarithmic scale, and the two lines to compare with."""
    percent = [float(value) for value in range(100)]
    ideal = [100.0 / (100.0 - value) for value in percent]
    panel.plot(percent, ideal, ":", lw=1.2, color="#888888", label="1 / share of pixels computed", zorder=1)
    panel.axhline(1.0, lw=1.0, color="#888888", zorder=1)
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10, 20, 50, 100]))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter("{x:g}x")
    panel.set_xlabel("pixels left out by the mask, %")
    panel.set_xticks(range(0, 101, 10))
    panel.set_title(dtype)
    panel.grid(color="#dddddd", lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)
