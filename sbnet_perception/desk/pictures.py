"""Bird's-eye-view pictures and an animation of a recorded replay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from sbnet_perception.bags.recorded import RecordedFrame, Recording
from sbnet_perception.bev.grid import Grid
from sbnet_perception.desk.birdview import BACKGROUND, DETECTION, TEXT, TRUTH, draw_frame, view_of
from sbnet_perception.detector.config import DetectorConfig

__all__ = ["draw_frame", "draw_pictures", "picture"]

PICTURE_WIDTH = 1280
ANIMATION_WIDTH = 760
TITLE, LEGEND, SIDES = 36, 34, 0.008
"""Pixels above and below the view, and the part of the width on either side of it."""
FLATTEST, TALLEST = 0.4, 0.9
"""Height of a picture over its width."""
ANIMATION_FRAMES = 100
ANIMATION_POINTS = 14_000
ANIMATION_COLOURS = 40
MAX_ANIMATION_BYTES = 4_000_000
LINES = (DETECTION, TRUTH, TEXT)
_DPI = 100


def draw_pictures(recording: Path, folder: Path, stills: int = 4, console: Console | None = None) -> list[Path]:
    """Draws key frames (``drive_1.png`` ...) and ``drive.gif`` of a recording into a folder.

    The key frames are those with the most detections in each of `stills` equal parts of the drive.

    Returns:
        The files, the animation last.

    Raises:
        UserError: the recording cannot be read or holds no detections.
    """
    console = console or Console(quiet=True)
    folder.mkdir(parents=True, exist_ok=True)
    source = Recording(recording)
    for warning in source.warnings:
        console.print(f"[yellow]{escape(warning)}[/]", highlight=False)
    names = source.classes
    chosen = _key_frames(source, stills)
    step = -(-len(source.stamps) // ANIMATION_FRAMES)
    moving = source.stamps[::step]
    period_ms = _period_ms(moving)

    canvas: _Canvas | None = None
    files: list[Path] = []
    images: list[Image.Image] = []
    wanted = sorted({*chosen, *moving})
    frames: Iterable[RecordedFrame] = source.frames(wanted)
    for frame in track(frames, "drawing  ", total=len(wanted), console=console):
        if frame.stamp_ns in chosen:
            files.append(folder / f"drive_{chosen.index(frame.stamp_ns) + 1}.png")
            picture(frame, names).save(files[-1])
        if frame.stamp_ns in moving:
            canvas = canvas or _Canvas(_size(ANIMATION_WIDTH, frame.grid), 1.3, names)
            images.append(canvas.draw(_thinned(frame)))
    files.append(folder / "drive.gif")
    files[-1].write_bytes(_animation(images, period_ms))
    return files


def picture(frame: RecordedFrame, names: Sequence[str] = DetectorConfig.classes) -> Image.Image:
    """One frame as an RGB image whose height follows from the region; ``names`` of the classes, by number."""
    return _Canvas(_size(PICTURE_WIDTH, frame.grid), 1.8, names).draw(frame)


def _size(width: int, grid: Grid) -> tuple[int, int]:
    """Width and height in pixels of a picture whose view fills it, as far as that is a handy picture."""
    x_min, x_max, y_min, y_max = view_of(grid)
    height = TITLE + LEGEND + width * (1 - 2 * SIDES) * (y_max - y_min) / (x_max - x_min)
    return width, 2 * round(min(max(height, FLATTEST * width), TALLEST * width) / 2)


class _Canvas:
    """A figure that is drawn again and again."""

    def __init__(self, size: tuple[int, int], point_size: float, names: Sequence[str]) -> None:
        width, height = size
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=BACKGROUND)
        self._canvas = FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_axes((SIDES, LEGEND / height, 1 - 2 * SIDES, 1 - (TITLE + LEGEND) / height))
        self._scale = min(1.0, width / PICTURE_WIDTH + 0.16)
        self._point_size, self._names = point_size, names

    def draw(self, frame: RecordedFrame) -> Image.Image:
        draw_frame(
            self._axes,
            frame.points,
            frame.detections,
            frame.mask,
            frame.grid,
            None if frame.truth is None else frame.truth.boxes,
            self._names,
            road=frame.road,
            title=title_of(frame, self._names),
            point_size=self._point_size,
            scale=self._scale,
        )
        self._canvas.draw()
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3].copy())


def title_of(frame: RecordedFrame, names: Sequence[str]) -> str:
    """Time, detections of each class and how much was computed."""
    counts = np.bincount(frame.detections.classes, minlength=len(names))
    found = ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for n, name in zip(counts, names, strict=True))
    computed = 1.0 if frame.mask is None else float(frame.mask.mean())
    return f"t = {frame.time_s:.1f} s     {found}     {computed:.0%} of the grid computed"


def _key_frames(source: Recording, parts: int) -> list[int]:
    pieces = np.array_split(np.arange(len(source.stamps)), min(parts, len(source.stamps)))
    return [source.stamps[max(piece, key=lambda position: source.counts[position])] for piece in pieces]


def _period_ms(stamps: list[int]) -> int:
    """Real time between two pictures, as far as viewers follow (they ignore less than 20 ms)."""
    if len(stamps) < 2:
        return 1000
    return max(50, round((stamps[-1] - stamps[0]) / (len(stamps) - 1) / 1e6))


def _thinned(frame: RecordedFrame) -> RecordedFrame:
    """At most ANIMATION_POINTS points inside the view: small dots would only make the file larger."""
    x, y = frame.points[:, 0], frame.points[:, 1]
    x_min, x_max, y_min, y_max = view_of(frame.grid)
    inside = np.flatnonzero((x > x_min) & (x < x_max) & (y > y_min) & (y < y_max))
    step = -(-len(inside) // ANIMATION_POINTS) or 1
    return RecordedFrame(**{**vars(frame), "points": frame.points[inside[::step]]})


def _animation(images: list[Image.Image], period_ms: int) -> bytes:
    """The images as a GIF of one palette; every second one is left out while it is too large."""
    # Thin lines of few pixels must keep their colours: swatches make them count.
    sample = [np.asarray(image) for image in images[:: len(images) // 5 + 1]]
    shape = (20, images[0].width, 3)
    sample += [np.full(shape, [round(255 * part) for part in to_rgb(color)], np.uint8) for color in LINES]
    palette = Image.fromarray(np.concatenate(sample)).quantize(ANIMATION_COLOURS)
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    while True:
        out = BytesIO()
        flat[0].save(out, "GIF", save_all=True, append_images=flat[1:], duration=period_ms, loop=0, optimize=False)
        if out.tell() <= MAX_ANIMATION_BYTES or len(flat) < 4:
            return out.getvalue()
        flat, period_ms = flat[::2], 2 * period_ms
