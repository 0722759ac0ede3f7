"""How one frame looks from above: points, boxes, the road, and where the network computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon
from matplotlib.patheffects import withStroke

from sbnet_perception.detector.boxes import corners_bev
from sbnet_perception.detector.classes import CLASSES, VEHICLE

BACKGROUND = "#0b0f15"
QUIET = "#66788c"
TEXT = "#dce6f0"
DETECTION = VEHICLE.colour
UNKNOWN = "#ff7ab2"
"""Boxes of a class that is not in the table."""
TRUTH = "#d4ff6a"
COMPUTED = "#19c796"
ROAD = "#8fa0b3"
HEIGHTS = LinearSegmentedColormap.from_list("heights", ["#3d5166", "#3f74b5", "#4aa3dd", "#7cc4ea", "#a9b8d6"])
HEIGHT_RANGE = (0.0, 3.0)
"""Metres above the ground plane that the colours of the points span."""
BEHIND = -3.0
"""Seen behind the origin at least, in metres: the car that stands there."""


class GridLike(Protocol):
    """The part of bev.grid.Grid that is drawn."""

    @property
    def x_min(self) -> float: ...
    @property
    def x_max(self) -> float: ...
    @property
    def y_min(self) -> float: ...
    @property
    def y_max(self) -> float: ...


class Boxes(Protocol):
    """The part of detector.boxes.Detections that is drawn."""

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray: ...
    @property
    def classes(self) -> np.ndarray: ...


def view_of(grid: GridLike) -> tuple[float, float, float, float]:
    """What a picture shows, x_min, x_max, y_min, y_max in metres: the region, and the car where it begins there."""
    return min(grid.x_min, BEHIND), grid.x_max, grid.y_min, grid.y_max


def draw_frame(
    ax: Axes,
    points: np.ndarray,
    detections: Boxes,
    mask: np.ndarray | None,
    grid: GridLike,
    truth: np.ndarray | None = None,
    names: Sequence[str] = (VEHICLE.name,),
    *,
    road: np.ndarray | None = None,
    title: str = "",
    point_size: float = 1.8,
    scale: float = 1.0,
) -> None:
    """Draws one frame from above: x (forward) to the right, y (left) up.

    Args:
        ax: axes to draw into; what was in them is removed.
        points: [P, 3] or [P, 4] in the grid frame, metres, z = 0 on the ground.
        detections: boxes [M, 7] (cx, cy, cz, length, width, height, yaw), scores [M] and classes [M].
        mask: bool [h, w] over the grid's extent at any resolution, row 0 = y_min, True = computed;
            None = the whole grid was computed.
        grid: extent in metres.
        truth: boxes [K, 7], drawn as thin dashed outlines.
        names: of the classes, by number; each has its colour.
        road: bool [h, w] as `mask`, True = road, which is brighter than the rest; None = unknown, not drawn.
        title: a line above the picture.
        point_size: area of a point's dot, in typographic points squared.
        scale: of texts and lines, for small pictures.
    """
    ax.clear()
    _prepare(ax, grid, scale)
    if road is not None:
        _draw_area(ax, road, to_rgba(ROAD, 0.2), grid)
    _draw_area(ax, np.ones((1, 1), bool) if mask is None else mask, to_rgba(COMPUTED, 0.33), grid)
    _draw_points(ax, points, grid, point_size)
    if truth is not None and len(truth):
        outlines = list(_closed(corners_bev(truth)))
        dashes = (0, (4, 2))
        ax.add_collection(LineCollection(outlines, colors=TRUTH, linewidths=0.9 * scale, linestyles=dashes, zorder=4))
    _draw_detections(ax, detections, names, grid, scale)
    if title:
        ax.set_title(title, color=TEXT, fontsize=12 * scale, loc="left", pad=7 * scale)
    _draw_legend(ax, names, truth is not None, road is not None, scale)


def _prepare(ax: Axes, grid: GridLike, scale: float) -> None:
    """Dark ground, the sensor's car at the origin, rings of equal range with their distance."""
    ax.set_facecolor(BACKGROUND)
    ax.set_aspect("equal")
    x_min, x_max, y_min, y_max = view_of(grid)
    ax.set_xlim(x_min, x_max)
    ax.set_ylim(y_min, y_max)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    reach = max(x_max, -x_min)
    step = next(step for step in (5, 10, 20, 50, 100) if reach < 10 * step or step == 100)
    distances = range(step, int(reach) + 1, step)
    angles = np.linspace(-np.pi, np.pi, 181)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rings = [distance * circle for distance in distances]
    ax.add_collection(LineCollection(rings, colors=QUIET, alpha=0.4, linewidths=0.7 * scale, zorder=2))
    low = y_min + 0.015 * (y_max - y_min)
    for distance in distances:
        # The label stands where its ring meets the lower edge; small rings have it straight below the origin.
        x = math.sqrt(distance**2 - low**2) + 0.3 if distance > abs(low) else 0.3
        _write(ax, x, max(low, -distance + 0.3), f"{distance} m", QUIET, 8.5 * scale)
    car = np.array([[2.2, 0.0], [1.2, 0.95], [-2.4, 0.95], [-2.4, -0.95], [1.2, -0.95]])
    ax.add_patch(Polygon(car, facecolor="#c3cfdb", edgecolor=BACKGROUND, zorder=6))


def _draw_area(ax: Axes, cells: np.ndarray, colour: tuple[float, float, float, float], grid: GridLike) -> None:
    overlay = np.zeros((*cells.shape, 4))
    overlay[cells] = colour
    extent = (grid.x_min, grid.x_max, grid.y_min, grid.y_max)
    ax.imshow(overlay, extent=extent, origin="lower", interpolation="nearest", zorder=1)
    # imshow narrows the view to the image.
    ax.set_xlim(*view_of(grid)[:2])


def _draw_points(ax: Axes, points: np.ndarray, grid: GridLike, size: float) -> None:
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    x_min, x_max, y_min, y_max = view_of(grid)
    inside = (x > x_min) & (x < x_max) & (y > y_min) & (y < y_max)
    # High points last: a car's roof is not hidden below the road around it.
    order = np.flatnonzero(inside)[np.argsort(z[inside], kind="stable")]
    low, high = HEIGHT_RANGE
    ax.scatter(x[order], y[order], c=z[order], s=size, cmap=HEIGHTS, vmin=low, vmax=high, linewidths=0, zorder=3)


def colour_of(name: str) -> str:
    """Of a class's boxes."""
    return CLASSES[name].colour if name in CLASSES else UNKNOWN


def _draw_detections(ax: Axes, detections: Boxes, names: Sequence[str], grid: GridLike, scale: float) -> None:
    boxes, scores = np.asarray(detections.boxes, dtype=np.float64), detections.scores
    if not len(boxes):
        return
    corners = corners_bev(boxes)
    # Heading: from the centre through the front, a little beyond it.
    front = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1) * (boxes[:, 3:4] / 2 + 0.9)
    ticks = np.stack([boxes[:, :2], boxes[:, :2] + front], axis=1)
    colours = [colour_of(names[number]) for number in detections.classes]
    for lines in (list(_closed(corners)), list(ticks)):
        ax.add_collection(LineCollection(lines, colors=colours, linewidths=1.8 * scale, zorder=5))
    for corner, score, number, colour in zip(corners, scores, detections.classes, colours, strict=True):
        label = f"{names[number]} {score:.2f}" if len(names) > 1 else f"{score:.2f}"
        x, y = float(corner[:, 0].mean()), float(corner[:, 1].max() + 0.4)
        if grid.x_min <= x <= grid.x_max and grid.y_min <= y <= grid.y_max:
            _write(ax, x, y, label, colour, 8 * scale, centred=True)


def _draw_legend(ax: Axes, names: Sequence[str], with_truth: bool, with_road: bool, scale: float) -> None:
    """What each colour means, in one line below the picture."""
    shades = [HEIGHTS(level) for level in (0.0, 0.33, 0.66, 1.0)]
    dots = tuple(Line2D([], [], marker="o", linestyle="", markersize=5 * scale, color=shade) for shade in shades)
    low, high = HEIGHT_RANGE
    entries: dict[str, Artist | tuple[Artist, ...]] = {
        name: Line2D([], [], color=colour_of(name), linewidth=2.0) for name in names
    }
    if len(names) == 1:
        entries = {f"detected {names[0]}, heading, score": entries[names[0]]}
    if with_truth:
        entries["ground truth"] = Line2D([], [], color=TRUTH, linewidth=1.0, linestyle=(0, (4, 2)))
    if with_road:
        entries["road"] = Patch(facecolor=to_rgba(ROAD, 0.3))
    entries["computed by the network"] = Patch(facecolor=to_rgba(COMPUTED, 0.4))
    entries[f"points, {low:.0f} to {high:.0f} m high"] = dots
    ax.legend(
        list(entries.values()),
        list(entries),
        loc="upper left",
        bbox_to_anchor=(0.0, -0.005),
        ncols=len(entries),
        frameon=False,
        fontsize=9.5 * scale,
        labelcolor=TEXT,
        borderaxespad=0.3,
        handlelength=2.2,
        columnspacing=1.8,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
    )


def _write(ax: Axes, x: float, y: float, text: str, color: str, size: float, centred: bool = False) -> None:
    """Text that stays legible above points."""
    align = "center" if centred else "left"
    label = ax.text(x, y, text, color=color, fontsize=size, ha=align, va="bottom", zorder=6, clip_on=True)
    label.set_path_effects([withStroke(linewidth=2.2, foreground=BACKGROUND)])


def _closed(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners, corners[:, :1]], axis=1)
