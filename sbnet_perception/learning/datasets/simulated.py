"""Simulated drives as a data set: measured by the rules of real frames, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from sbnet_perception.detector.classes import SIMULATOR, ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import Item, Objects, Reader, RealFrame, make_frame
from sbnet_perception.learning.evaluate import HELD_OUT, RATE_HZ, SECONDS, SENSORS, VALIDATION
from sbnet_perception.learning.frames import FULL_REFLECTANCE
from sbnet_perception.learning.simulator import Drive, SimulatedFrame
from sbnet_perception.masks.road import RoadMap, RoadView

DRIVES = {"validation": VALIDATION, "held-out": HELD_OUT}
"""The drives that may choose something, and those that may not."""


def items(place: Path, split: str = "") -> list[Item]:
    """The frames of the drives, or of those of one sensor, or of one by its number, as ``drive-7`` or ``7``.

    Raises:
        UserError: no drive has this sensor or number.
    """
    drives = [(seed, SENSORS[number % len(SENSORS)]) for number, seed in enumerate(DRIVES[str(place)])]
    chosen = [(seed, sensor) for seed, sensor in drives if split in ("", sensor, str(seed), _recording(seed))]
    if not chosen:
        numbers = ", ".join(str(seed) for seed, _ in drives)
        raise UserError(
            f"no drive of {place} has the sensor {split}; theirs are {', '.join(SENSORS)}, or name a drive: {numbers}"
        )
    return [
        Item(f"{SIMULATOR}_{seed}_{number}", SIMULATOR, _recording(seed), Path(), partial(_read, seed, sensor, number))
        for seed, sensor in chosen
        for number in range(int(SECONDS * RATE_HZ))
    ]


def _recording(seed: int) -> str:
    return f"drive-{seed}"


@lru_cache(maxsize=1)
def _drive(seed: int, sensor: str) -> tuple[list[SimulatedFrame], RoadMap]:
    """Frames are read drive by drive: one is held."""
    drive = Drive(seed, SECONDS, RATE_HZ, sensor)
    return list(drive.frames()), drive.road_map


def _read(seed: int, sensor: str, number: int, classes: Sequence[ObjectClass]) -> RealFrame:
    frames, road = _drive(seed, sensor)
    frame = frames[number]
    points = frame.points.copy()
    points[:, 3] /= FULL_REFLECTANCE
    objects = Objects(frame.boxes, frame.labels, frame.point_counts)
    view = RoadView(road, frame.map_from_base)
    made = make_frame(f"{SIMULATOR}_{seed}_{number}", SIMULATOR, points, view, objects, classes)
    return replace(made, stamp_ns=frame.stamp_ns, map_from_grid=frame.map_from_base.matrix())


SIMULATED = Reader(
    name=SIMULATOR,
    layout=f"no folder: {SIMULATOR}:{f' or {SIMULATOR}:'.join(DRIVES)}",
    frame_id="lidar",
    licence="made by this repository, Apache-2.0",
    recognizes=lambda path: False,
    items=items,
    places=tuple(DRIVES),
)
