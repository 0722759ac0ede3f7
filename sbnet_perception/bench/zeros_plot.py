"""The picture of `sbnet bench zeros`: how zeros lie, and from which share of them on leaving them out would pay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sbnet_perception.bench.measure import Row
from sbnet_perception.bench.plots import COLOURS
from sbnet_perception.bench.zeros_page import HEADINGS, mean, number, of_part, of_table, parts_of
from sbnet_perception.bench.zeros_shares import GROUPS


def plot_zeros(rows: Sequence[Row], machine: Row, path: Path) -> None:
    """Draws to ``path`` (.png, .svg, .pdf): zeros by part of the network, and times over the share of zeros."""
    figure = Figure(figsize=(12.5, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _bars(left, of_table(rows, "layer"))
    _curves(right, of_table(rows, "sweep"), mean(of_table(rows, "layer"), "zero_element"))
    figure.suptitle(f"{rows[0]['weights']}; {machine['cpu']}, {machine['flags']}, one thread", fontsize=9)
    figure.savefig(path, dpi=150)


def _bars(panel: Axes, layers: Sequence[Row]) -> None:
    """A bar for each part and way of grouping."""
    parts, keys = parts_of(layers), (*GROUPS, "pixel")
    places = np.arange(len(parts))[::-1]
    for index, (key, colour) in enumerate(zip(keys, COLOURS, strict=False)):
        shares = [100 * mean(of_part(layers, part), f"zero_{key}") for part in parts]
        panel.barh(places + 0.3 - 0.2 * index, shares, 0.2, color=colour, label=HEADINGS[key])
    panel.set_yticks(places, parts)
    panel.set_xlabel("zero after ReLU, % of active pixels' outputs")
    panel.legend(frameon=False, loc="upper right", title="zeros among")
    panel.set_xlim(0, 100)
    panel.spines[["top", "right"]].set_visible(False)


def _curves(panel: Axes, sweep: Sequence[Row], zeros: float) -> None:
    """Time over the share of zeros, a thin line for each part; their means thick, without and with the copy."""
    shares = sorted({number(row, "zeros") for row in sweep})
    lines: dict[str, list[list[float]]] = {"zeros for free": [], "with the 4-bit copy": []}
    for part in parts_of(sweep):
        chosen = of_part(sweep, part)
        some, copy = ([number(row, key) / number(row, "dense_us") for row in chosen] for key in ("some_us", "copy_us"))
        lines["zeros for free"].append(some)
        lines["with the 4-bit copy"].append([a + b for a, b in zip(some, copy, strict=True)])
    for (label, each), colour in zip(lines.items(), COLOURS, strict=False):
        for line in each:
            panel.plot([100 * share for share in shares], line, lw=0.8, alpha=0.35, color=colour)
        panel.plot([100 * share for share in shares], np.mean(each, 0), "o-", ms=4, lw=2.2, color=colour, label=label)
    panel.axhline(1.0, color="#333333", lw=1.0)
    panel.text(1, 1.02, "dense product", fontsize=9)
    panel.axvline(100 * zeros, color="#333333", lw=1.0, ls=":")
    panel.text(100 * zeros + 1, 0.05, f"zeros of this network: {100 * zeros:.0f} %", fontsize=9)
    panel.set_xlabel("zeros at random places, %")
    panel.set_ylabel("time of the product, dense = 1 (thin: each part)")
    panel.set_xlim(0, 100)
    panel.set_ylim(0, None)
    panel.legend(frameon=False, loc="upper right")
    panel.grid(color="#dddddd", lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)
