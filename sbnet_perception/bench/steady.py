"""`sbnet bench pipeline --steady`: memory over many frames, and whether the same input gives the same detections."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from sbnet_perception.bench import current
from sbnet_perception.bench.inputs import Input, Scene
from sbnet_perception.bench.measure import Row
from sbnet_perception.bench.screen import table_of
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.messages.pointcloud2 import read_points

SETTLE, REPEAT_EVERY = 100, 50
"""Frames before memory is first read (a tenth of the run at most), and between two looks at the same frame."""
ALLOWED_MB = 16.0
"""Growth of resident memory over the run, in MiB, that is still none: the allocator's own unrest."""


def measure(
    source: Input, config: DetectorConfig, mask: str, frames: int, advance: Callable[[], object]
) -> Row:
    """Runs ``frames`` perturbed frames through the pipeline; memory at begin, middle and end, in MiB.

    One frame comes again and again in between; its detections must stay the same to the last bit. The fingerprint
    covers the detections of all frames: two runs of this program on one machine must agree in it.
    """
    pipeline, origin = current.open_pipeline(config)
    reference = next(source.frames())
    expected, fingerprint = _detections(pipeline, reference), hashlib.sha256()
    identical, repeats = True, 0
    resident: dict[int, float] = {}
    marks = {min(SETTLE, frames // 10): "begin", frames // 2: "middle", frames - 1: "end"}
    for number, scene in zip(range(frames), source.frames(), strict=False):
        fingerprint.update(_detections(pipeline, scene))
        if number % REPEAT_EVERY == 0:
            identical, repeats = identical and _detections(pipeline, reference) == expected, repeats + 1
        if number in marks:
            gc.collect()
            resident[number] = _resident_mb()
        advance()
    at = {name: resident[number] for number, name in marks.items()}
    begin, end = resident[min(marks)], resident[max(marks)]
    return {
        "input": source.name,
        "grid": current.grid_of(config),
        "mask": mask,
        "dtype": config.dtype,
        "frames": frames,
        **{f"resident_{name}_mb": at.get(name) for name in ("begin", "middle", "end")},
        "growth_mb": end - begin,
        "steady": end - begin <= ALLOWED_MB,
        "repeats": repeats,
        "identical": identical,
        "fingerprint": fingerprint.hexdigest()[:16],
        "weights": origin,
    }


def _detections(pipeline: Pipeline, scene: Scene) -> bytes:
    found = pipeline(read_points(scene.message()).points, scene.view()).detections
    return found.boxes.tobytes() + found.scores.tobytes() + found.classes.tobytes()


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


def show(row: Row, console: Console) -> None:
    """Resident memory and repeatability."""
    title = f"{row['input']}, {row['grid']} grid, {row['dtype']}: {row['frames']} frames in a row"
    table = table_of(title, "resident memory", ("begin", "middle", "end", "growth"))
    memory = [f"{float(row[f'resident_{name}_mb'] or 0):.0f}" for name in ("begin", "middle", "end")]
    table.add_row("MiB", *memory, f"{float(row['growth_mb'] or 0):.1f}")
    console.print(table, highlight=False)
    same = "identical" if row["identical"] else "DIFFERENT"
    console.print(f"the same frame again, {row['repeats']} times: {same}", highlight=False)
    console.print(f"fingerprint of all detections: {row['fingerprint']}", highlight=False)
    console.print(f"mask: {row['mask']}; weights: {row['weights']}", "", highlight=False)
