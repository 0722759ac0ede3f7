"""The speed-up over sparsity, of single layers as in the paper's Figure 6 and of the network as in its Figure 7."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from sbnet_perception.bench.measure import Row

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999")
"""One per line, told apart by readers of any colour vision."""
BIN, LEAST = 5.0, 3
"""Width of a bin in percent, and the fewest dots of which a mean is drawn."""
SYNTHETIC = "top left"
"""Begins the names of masks that are rectangles."""
Floats = NDArray[np.float64]


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
    _save(figure, machine, path)


def plot_network(rows: Sequence[Row], machine: Row, path: Path) -> None:
    """Draws the network's rows to ``path``, a panel per dtype.

    A dot per frame and mask, the mean and the deviation of all of them in bins, and a line for the rectangles.
    """
    dtypes = list(dict.fromkeys(str(row["dtype"]) for row in rows))
    real = [row for row in rows if not str(row["mask"]).startswith(SYNTHETIC)]
    figure = Figure(figsize=(1.0 + 4.8 * len(dtypes), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(dtypes), sharey=True, squeeze=False)[0]
    for panel, dtype in zip(panels, dtypes, strict=True):
        for mask, colour in zip(dict.fromkeys(str(row["mask"]) for row in real), COLOURS, strict=False):
            points = _points([row for row in real if (row["dtype"], row["mask"]) == (dtype, mask)])
            panel.plot(*points, "o", ms=4, alpha=0.5, mew=0, color=colour, label=mask)
        _bins(panel, *_points([row for row in real if row["dtype"] == dtype]))
        _rectangles(panel, [row for row in rows if row not in real and row["dtype"] == dtype])
        _finish(panel, f"{rows[0]['grid']} grid, {dtype}")
        panel.set_ylim(0.5, 60)
    panels[0].set_ylabel("speed-up of the network over the best dense")
    panels[0].legend(frameon=False, loc="upper left", fontsize=8)
    _save(figure, machine, path)


def plot_sparsity(rows: Sequence[Row], machine: Row, path: Path) -> None:
    """Draws the rows of `bench sparsity` to ``path``: the speed-up over the share of zeros; where there are figures,
    average precision over the time beside it."""
    measured = [row for row in rows if "ap50" in row]
    figure = Figure(figsize=(10.6 if measured else 5.8, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if measured else 1, squeeze=False)[0]
    for dtype, colour in zip(dict.fromkeys(str(row["dtype"]) for row in rows), COLOURS, strict=False):
        of = [row for row in rows if row["dtype"] == dtype]
        zeros = [row for row in of if row["kind"] in ("the weights", "zeros")]
        panels[0].plot(*_columns(zeros, "zeros", "speedup", 100), "o-", ms=5, lw=1.5, color=colour, label=dtype)
        for row in (row for row in of if row["kind"] == "rival"):
            speedup = float(row["speedup"] or 0)
            panels[0].axhline(speedup, lw=0.9, ls="--", color=colour)
            _name(panels[0], f"dense, {row['network']}", 0.0, speedup)
    _finish_sparsity(panels[0], "weights that are 0, %", f"{rows[0]['grid']} grid", "speed-up of the network")
    if measured:
        several = len({row["dtype"] for row in measured}) > 1
        for key, marker, colour in (("ap50", "o", COLOURS[0]), ("ap70", "s", COLOURS[1])):
            panels[1].plot(*_columns(measured, "ms", key), marker, ms=6, color=colour, label=f"IoU 0.{key[2]}")
            # Every other name lies below: neighbours may be as good.
            for number, row in enumerate(sorted(measured, key=lambda row: float(row["ms"] or 0))):
                name = Path(str(row["network"])).stem + (f", {row['dtype']}" if several else "")
                _name(panels[1], name, float(row["ms"] or 0), float(row[key] or 0), below=number % 2 == 1)
        _finish_sparsity(panels[1], "the network, ms", "accuracy at equal time", "average precision")
        panels[1].margins(x=0.3, y=0.15)
    _save(figure, machine, path)


def _name(panel: Axes, name: str, x: float, y: float, below: bool = False) -> None:
    panel.annotate(name, (x, y), (4, -10 if below else 3), textcoords="offset points", fontsize=8)


def _columns(rows: Sequence[Row], x: str, y: str, factor: float = 1.0) -> tuple[list[float], list[float]]:
    return [factor * float(row[x] or 0) for row in rows], [float(row[y] or 0) for row in rows]


def _finish_sparsity(panel: Axes, x: str, title: str, y: str) -> None:
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.set_title(title)
    panel.grid(color="#dddddd", lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="best", fontsize=8)


def _points(rows: Sequence[Row]) -> tuple[Floats, Floats]:
    """Percent of the pixels left out, and speed-up."""
    percent = np.array([100 * float(row["pixel_sparsity"] or 0) for row in rows])
    return percent, np.array([float(row["speedup"] or 0) for row in rows])


def _bins(panel: Axes, percent: Floats, speedup: Floats) -> None:
    """Mean and standard deviation of all dots in bins."""
    number = (percent // BIN).astype(np.int64)
    chosen = [number == one for one in np.unique(number) if (number == one).sum() >= LEAST]
    middle, mean, deviation = ([of(bin) for bin in chosen] for of in (
        lambda bin: percent[bin].mean(), lambda bin: speedup[bin].mean(), lambda bin: speedup[bin].std()
    ))
    label = f"mean and deviation in bins of {BIN:g} %"
    panel.errorbar(middle, mean, deviation, fmt="_", ms=9, mew=1.6, lw=1.2, capsize=2.5, color="black", label=label)


def _rectangles(panel: Axes, rows: Sequence[Row]) -> None:
    """Mean over the frames of each rectangle at the top left."""
    masks = dict.fromkeys(str(row["mask"]) for row in rows)
    means = [[values.mean() for values in _points([row for row in rows if row["mask"] == mask])] for mask in masks]
    if means:
        panel.plot(*zip(*means, strict=True), "-", lw=1.2, color="#777777", label="a rectangle at the top left")


def _save(figure: Figure, machine: Row, path: Path) -> None:
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
