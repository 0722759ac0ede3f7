"""Pictures of the worst errors on real frames: each from above and from the side, several on a sheet."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from sbnet_perception.desk.birdview import BACKGROUND, DETECTION, HEIGHT_RANGE, HEIGHTS, QUIET, TEXT, TRUTH
from sbnet_perception.detector.boxes import corners_bev
from sbnet_perception.learning.mistakes import FalsePositive, Miss
from sbnet_perception.learning.real import Judged

COLUMNS, ROWS = 4, 3
MOST = 36
"""Errors of each sort that are drawn."""
AROUND = 10.0
"""Metres shown to each side of the box from above."""
ALONG, DEEP, HIGH, BELOW = 7.0, 1.5, 4.0, 0.8
"""Metres of the side view: to each side of the box, into the picture, its height, and of this below the box."""
LIKELY = 2 / 3
"""Of the threshold: detections below it that are drawn, thin."""
WIDTH = 44
"""Letters of a title's line."""
OTHER = "#ff7ab2"
"""Labelled objects that are no vehicles."""


@dataclass(frozen=True)
class _Tile:
    """An error: its frame, its box [7], and what is written above it."""

    judged: Judged
    box: NDArray[np.float32]
    text: str


class Worst:
    """The false positives of the highest scores and the misses with the most points, of all frames so far.

    `MOST` of each are kept, with the part of their clouds that is drawn.
    """

    def __init__(self, threshold: float) -> None:
        """Above the threshold a detection counts."""
        self._threshold = threshold
        self._false, self._missed = _Sorted(), _Sorted()

    def add(self, false: Iterable[FalsePositive], missed: Iterable[Miss]) -> None:
        """Errors of the next frame, with its cloud."""
        for one in false:
            self._false.add(one.score, partial(_tile, one, f"{one.score:.2f}  {one.kind}"))
        for lost in missed:
            self._missed.add(lost.points, partial(_tile, lost, _about(lost)))

    def draw(self, folder: Path) -> list[Path]:
        """Draws ``false_positives_1.png`` ..., ``misses_1.png`` ... into the folder, which is made; returns them."""
        folder.mkdir(parents=True, exist_ok=True)
        per_sheet = COLUMNS * ROWS
        pages = [
            (folder / f"{name}_{start // per_sheet + 1}.png", tiles[start : start + per_sheet])
            for name, tiles in (("false_positives", self._false.tiles()), ("misses", self._missed.tiles()))
            for start in range(0, len(tiles), per_sheet)
        ]
        for path, tiles in track(pages, "drawing", console=Console(stderr=True)):
            _sheet(tiles, self._threshold, path)
        return [path for path, _ in pages]


class _Sorted:
    """The `MOST` tiles of the highest values; of equal ones the first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Tile]] = []
        self._seen = 0

    def add(self, value: float, make: Callable[[], _Tile]) -> None:
        """A tile that is made if it is kept."""
        self._seen += 1
        key = value, -self._seen
        if len(self._heap) < MOST:
            heapq.heappush(self._heap, (*key, make()))
        elif key > self._heap[0][:2]:
            heapq.heapreplace(self._heap, (*key, make()))

    def tiles(self) -> list[_Tile]:
        return [tile for *_, tile in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def _tile(error: FalsePositive | Miss, text: str) -> _Tile:
    """With the points around the box alone."""
    judged, points = error.judged, error.judged.frame.points
    near = (np.abs(points[:, :2] - error.box[:2]) < AROUND).all(1)
    frame = replace(judged.without_cloud().frame, points=points[near])
    return _Tile(replace(judged, frame=frame), error.box, text)


def _about(miss: Miss) -> str:
    best = f", best {miss.score:.2f}" if miss.score else ""
    return f"{miss.points} points, {miss.judged.labels[miss.index]}: {miss.kind}{best}"


def _sheet(tiles: Sequence[_Tile], threshold: float, path: Path) -> None:
    figure = Figure(figsize=(4.0 * COLUMNS, 5.2 * ROWS), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    figure.suptitle(
        "yellow: detected (thin: below the threshold)   green: labelled vehicle   pink: other labelled object   "
        f"colour: {HEIGHT_RANGE[0]:.0f} to {HEIGHT_RANGE[1]:.0f} m above the ground",
        color=TEXT, fontsize=11, y=0.99,
    )  # fmt: skip
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.965, wspace=0.04, hspace=0.05)
    panels = figure.subplots(2 * ROWS, COLUMNS, height_ratios=[4, 1.2] * ROWS, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for number, tile in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        _from_above(panels[2 * row, column], tile, threshold)
        _from_the_side(panels[2 * row + 1, column], tile)
    figure.savefig(path, dpi=75)


def _from_above(panel: Axes, tile: _Tile, threshold: float) -> None:
    """The surroundings of the box, x to the right, y up; a line leads to the sensor."""
    x, y = (float(value) for value in tile.box[:2])
    _open(panel, (x - AROUND, x + AROUND), (y - AROUND, y + AROUND))
    judged = tile.judged
    points = judged.frame.points
    near = (np.abs(points[:, 0] - x) < AROUND) & (np.abs(points[:, 1] - y) < AROUND)
    _scatter(panel, points[near, 0], points[near, 1], points[near, 2])
    panel.plot([x, 0], [y, 0], color=QUIET, lw=0.6, ls=":", zorder=2)
    boxes, scores = judged.detections.boxes, judged.detections.scores
    sure, likely = scores > threshold, scores > LIKELY * threshold
    for drawn, colour, width in (
        (judged.frame.other_boxes, OTHER, 1.0), (judged.boxes, TRUTH, 1.2),
        (boxes[likely & ~sure], DETECTION, 0.6), (boxes[sure], DETECTION, 1.6),
    ):  # fmt: skip
        close = np.hypot(drawn[:, 0] - x, drawn[:, 1] - y) < 1.6 * AROUND
        panel.add_collection(LineCollection(_outlines(drawn[close]), colors=colour, linewidths=width, zorder=4))
    title = f"{judged.frame.name}  at {x:.0f}, {y:.0f} m\n{fill(tile.text, WIDTH)}"
    outline = [withStroke(linewidth=2.5, foreground=BACKGROUND)]
    panel.text(
        0.02, 0.98, title, color=TEXT, fontsize=8.5, va="top", transform=panel.transAxes, path_effects=outline, zorder=6
    )


def _from_the_side(panel: Axes, tile: _Tile) -> None:
    """Points within `DEEP` of the box's long axis, and the box."""
    box, points = tile.box.astype(np.float64), tile.judged.frame.points
    relative = points[:, :2] - box[:2]
    along = relative @ np.array([np.cos(box[6]), np.sin(box[6])])
    across = relative @ np.array([-np.sin(box[6]), np.cos(box[6])])
    near = (np.abs(along) < ALONG) & (np.abs(across) < DEEP)
    # Far from the sensor the ground may lie elsewhere than at z = 0, where the box should stand.
    bottom = float(box[2] - box[5] / 2) - BELOW
    _open(panel, (-ALONG, ALONG), (bottom, bottom + HIGH))
    _scatter(panel, along[near], points[near, 2], points[near, 2])
    low, high = box[2] - box[5] / 2, box[2] + box[5] / 2
    half = box[3] / 2
    panel.plot([-half, half, half, -half, -half], [low, low, high, high, low], color=TEXT, lw=0.8, zorder=4)


def _open(panel: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    panel.set_axis_on()
    panel.set_facecolor(BACKGROUND)
    panel.set_aspect("equal")
    panel.set_xlim(*across)
    panel.set_ylim(*up)
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_color(QUIET)


def _scatter(panel: Axes, x: NDArray, y: NDArray, z: NDArray) -> None:
    order = np.argsort(z)
    low, high = HEIGHT_RANGE
    panel.scatter(x[order], y[order], c=z[order], s=1.6, cmap=HEIGHTS, vmin=low, vmax=high, linewidths=0, zorder=3)


def _outlines(boxes: NDArray) -> list[NDArray]:
    """Closed footprints, with a line from the centre to the front."""
    if not len(boxes):
        return []
    corners = corners_bev(boxes)
    front = corners[:, [0, 3]].mean(1)
    closed = np.concatenate([corners, corners[:, :1]], 1)
    ticks = np.stack([boxes[:, :2].astype(np.float64), front], 1)
    return [*closed, *ticks]
