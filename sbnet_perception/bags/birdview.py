"""How one frame looks from above: points, boxes, and where the network computed."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Arc, Patch, Polygon
from matplotlib.patheffects import withStroke

BACKGROUND = "#0b0f15"
QUIET = "#66788c"
TEXT = "#dce6f0"
DETECTION = "#ffb224"
TRUTH = "#d4ff6a"
COMPUTED = "#19c796"
HEIGHTS = LinearSegmentedColormap.from_list(
    "heights", ["#3d5166", "#3f74b5", "#4aa3dd", "#7cc4ea", "#a9b8d6"]
)
HEIGHT_RANGE = (0.0, 3.0)
"""Metres above the ground plane that the colours of the points span."""


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


def draw_frame(
    ax: Axes,
    points: np.ndarray,
    detections: Boxes,
    mask: np.ndarray | None,
    grid: GridLike,
    truth: np.ndarray | None = None,
    *,
    title: str = "",
    legend: bool = True,
    point_size: float = 1.6,
) -> None:
    """Draws one frame from above: x (forward) to the right, y (left) up.

    Args:
        ax: axes to draw into; what was in them is removed.
        points: [P, 3] or [P, 4] in the grid frame, metres, z = 0 on the ground.
        detections: boxes [M, 7] (cx, cy, cz, length, width, height, yaw) and scores [M].
        mask: bool [h, w] over the grid's extent at any resolution, row 0 = y_min, True = computed;
            None = the whole grid was computed.
        grid: extent in metres.
        truth: boxes [K, 7], drawn as thin dashed outlines.
    """
    ax.clear()
    _prepare(ax, grid)
    extent = (grid.x_min, grid.x_max, grid.y_min, grid.y_max)
    overlay = np.zeros((*(mask.shape if mask is not None else (1, 1)), 4))
    overlay[...] = to_rgba(COMPUTED, 0.33)
    if mask is not None:
        overlay[~mask] = 0.0
    ax.imshow(overlay, extent=extent, origin="lower", interpolation="nearest", zorder=1)
    _draw_points(ax, points, grid, point_size)
    if truth is not None and len(truth):
        ax.add_collection(
            LineCollection(
                list(_closed(_corners(truth))), colors=TRUTH, linewidths=0.9, linestyles=(0, (4, 2)), zorder=4
            )
        )
    _draw_detections(ax, detections, grid)
    if title:
        ax.set_title(title, color=TEXT, fontsize=12, loc="left", pad=8)
    if legend:
        _draw_legend(ax, truth is not None)


def _prepare(ax: Axes, grid: GridLike) -> None:
    """Dark ground, the sensor at the origin, arcs of equal range with their distance."""
    ax.set_facecolor(BACKGROUND)
    ax.set_aspect("equal")
    ax.set_xlim(min(grid.x_min, -3.0), grid.x_max)
    ax.set_ylim(grid.y_min, grid.y_max)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    for distance in range(10, int(grid.x_max) + 1, 10):
        ax.add_patch(Arc((0, 0), 2 * distance, 2 * distance, color=QUIET, alpha=0.4, linewidth=0.7, zorder=2))
        text = ax.text(distance + 0.3, grid.y_min + 0.5, f"{distance} m", color=QUIET, fontsize=8.5, zorder=6)
        text.set_path_effects([withStroke(linewidth=2.0, foreground=BACKGROUND)])
        # The label stands where its arc meets the lower edge, or on the axis where the arc does not reach it.
        edge = distance**2 - (grid.y_min + 0.5) ** 2
        text.set_position((np.sqrt(edge) + 0.3, grid.y_min + 0.5) if edge > 0 else (distance + 0.3, 0.3))
    car = np.array([[2.2, 0.0], [1.2, 0.95], [-2.4, 0.95], [-2.4, -0.95], [1.2, -0.95]])
    ax.add_patch(Polygon(car, facecolor="#c3cfdb", edgecolor=BACKGROUND, zorder=6))


def _draw_points(ax: Axes, points: np.ndarray, grid: GridLike, size: float) -> None:
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    inside = (x > grid.x_min - 3.0) & (x < grid.x_max) & (y > grid.y_min) & (y < grid.y_max)
    # High points last: a car's roof is not hidden below the road around it.
    order = np.flatnonzero(inside)[np.argsort(z[inside], kind="stable")]
    ax.scatter(
        x[order], y[order], c=z[order], s=size, cmap=HEIGHTS, vmin=HEIGHT_RANGE[0], vmax=HEIGHT_RANGE[1],
        marker="o", linewidths=0, zorder=3,
    )  # fmt: skip


def _draw_detections(ax: Axes, detections: Boxes, grid: GridLike) -> None:
    boxes, scores = np.asarray(detections.boxes, dtype=np.float64), detections.scores
    if not len(boxes):
        return
    corners = _corners(boxes)
    ax.add_collection(LineCollection(list(_closed(corners)), colors=DETECTION, linewidths=1.8, zorder=5))
    # Heading: from the centre through the front, a little beyond it.
    front = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1) * (boxes[:, 3:4] / 2 + 0.9)
    ticks = np.stack([boxes[:, :2], boxes[:, :2] + front], axis=1)
    ax.add_collection(LineCollection(list(ticks), colors=DETECTION, linewidths=1.8, zorder=5))
    for corner, score in zip(corners, scores):
        x, y = float(corner[:, 0].mean()), float(corner[:, 1].max() + 0.4)
        if grid.x_min <= x <= grid.x_max and grid.y_min <= y <= grid.y_max:
            label = ax.text(
                x,
                y,
                f"{score:.2f}",
                color=DETECTION,
                fontsize=8,
                ha="center",
                va="bottom",
                zorder=6,
                clip_on=True,
            )
            label.set_path_effects([withStroke(linewidth=2.2, foreground=BACKGROUND)])


def _draw_legend(ax: Axes, with_truth: bool) -> None:
    """What each colour means, in one line below the picture."""
    handles: list[object] = [
        Line2D([], [], color=DETECTION, linewidth=2.0),
        Patch(facecolor=to_rgba(COMPUTED, 0.4)),
        tuple(
            Line2D([], [], marker="o", linestyle="", markersize=5, color=HEIGHTS(level))
            for level in (0.0, 0.33, 0.66, 1.0)
        ),
    ]
    labels = [
        "vehicle detected: heading, score",
        "computed by the network",
        f"LiDAR, {HEIGHT_RANGE[0]:.0f}–{HEIGHT_RANGE[1]:.0f} m high",
    ]
    if with_truth:
        handles.insert(1, Line2D([], [], color=TRUTH, linewidth=1.0, linestyle=(0, (4, 2))))
        labels.insert(1, "ground truth")
    box = ax.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0.0, -0.005), ncols=len(labels), frameon=False, fontsize=9,
        labelcolor=TEXT, borderaxespad=0.3, handlelength=2.2, columnspacing=2.2,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
    )  # fmt: skip
    box.set_zorder(7)


def _corners(boxes: np.ndarray) -> np.ndarray:
    """[M, 4, 2] corners seen from above."""
    boxes = np.asarray(boxes, dtype=np.float64)
    half = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2
    local = half[None] * boxes[:, None, 3:5]
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    rotation = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], axis=1)
    return np.einsum("mij,mkj->mki", rotation, local) + boxes[:, None, :2]


def _closed(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners, corners[:, :1]], axis=1)
