"""Training scenes: simulated once in parallel, kept on disk."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from sbnet_perception import processes
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.classes import SIMULATOR, VEHICLE, ObjectClass, numbered
from sbnet_perception.learning.frames import LabelledFrame, simulated_frame
from sbnet_perception.learning.sensor import read_sensor
from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.simulator.scene import Bounds, SensorOf
from sbnet_perception.learning.simulator.sensors import randomised_sensor
from sbnet_perception.masks.road import RoadMap, RoadView

SHARD = 50
"""Scenes per file."""
_CENTIMETRE = np.float32(0.01)
_PACKAGE = Path(__file__).resolve().parent.parent
_MAKERS = [_PACKAGE / "learning" / "simulator", _PACKAGE / "bev", _PACKAGE / "masks"]
_MAKERS += [_PACKAGE / "learning" / "frames.py", _PACKAGE / "learning" / "scenes.py"]
_KNOWN = _PACKAGE / "learning" / "sensor" / "known.py"


@dataclass(frozen=True)
class _Packed:
    """A scene in a quarter of the memory: centimetres, 8-bit intensity, and the road's cells as bits.

    ``road_place`` holds the rows, columns and resolution of the road map and the poses of its corner and of the grid.
    """

    xyz: NDArray[np.int16]
    intensity: NDArray[np.uint8]
    road: NDArray[np.uint8]
    road_place: NDArray[np.float64]
    boxes: NDArray[np.float32]
    point_counts: NDArray[np.int64]
    labels: NDArray[np.str_]


@dataclass(frozen=True)
class Shards:
    """Files of `SHARD` simulated scenes each, the ``i``-th scene made from seed ``seed + i``.

    Attributes:
        root: the folder that holds those of all regions, sensors and seeds.
        sensor: the file of a known sensor (`learning.sensor`); without it sensors are random.
    """

    root: Path
    grid: Grid
    count: int
    seed: int
    sensor: Path | None = None

    @property
    def folder(self) -> Path:
        """Where they are: another one whenever something changes that they are made with."""
        return self.root / f"{_version(self.grid.bounds, self.sensor)}-{self.seed}"

    @property
    def numbers(self) -> range:
        return range(-(-self.count // SHARD))

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def missing(self) -> list[int]:
        return [number for number in self.numbers if not self.path(number).exists()]

    def make(self, number: int) -> None:
        """Simulates one file, which appears under its name when it is whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sensor_of = randomised_sensor if self.sensor is None else read_sensor(self.sensor)
        _make_shard(self.path(number), self.grid, self.seed + number * SHARD, sensor_of)


class Scenes:
    """``count`` independent simulated scenes, the ``i``-th made from seed ``seed + i``."""

    def __init__(
        self,
        folder: Path,
        grid: Grid,
        count: int,
        seed: int,
        classes: Sequence[ObjectClass] = (VEHICLE,),
        sensor: Path | None = None,
    ) -> None:
        """Load the scenes from ``folder``, simulating those that are not there yet (progress bar).

        ``sensor`` is the file of a known sensor (`learning.sensor`); without it sensors are random.
        """
        self.grid, self.seed, self.classes = grid, seed, classes
        shards = Shards(folder, grid, count, seed, sensor)
        self.folder = shards.folder
        # Processes that train together simulate a share each; and what a folder that is not one of all machines still
        # lacks after that, those of its machine. A share is one of the numbers: others may be written meanwhile.
        for share, parts in ((processes.rank(), processes.count()), processes.on_this_machine()):
            _simulate(shards, [number for number in shards.missing() if number % parts == share])
            processes.wait()
        self._scenes = [scene for number in shards.numbers for scene in _read(shards.path(number))][:count]

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> LabelledFrame:
        scene = self._scenes[index]
        points = np.empty((len(scene.xyz), 4), np.float32)
        points[:, :3] = scene.xyz * _CENTIMETRE
        points[:, 3] = scene.intensity / np.float32(255)
        road = _unpacked(scene.road, scene.road_place)
        kept, numbers = numbered(scene.labels, SIMULATOR, self.classes)
        name = f"scene {self.seed + index}"
        return LabelledFrame(name, points, road, scene.boxes[kept], scene.point_counts[kept], numbers)


def _simulate(shards: Shards, missing: list[int]) -> None:
    if not missing:
        return
    workers = max(1, (os.cpu_count() or 1) // processes.on_this_machine()[1])
    with Progress(disable=processes.rank() > 0) as progress, ProcessPoolExecutor(workers) as pool:
        bar = progress.add_task(f"simulating {len(missing) * SHARD} scenes", total=len(missing))
        jobs = [pool.submit(shards.make, number) for number in missing]
        try:
            for job in jobs:
                job.result()
                progress.advance(bar)
        except BaseException:
            # Leaving the pool waits for its jobs: drop those that have not begun (Ctrl-C, a full disk).
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _make_shard(path: Path, grid: Grid, first_seed: int, sensor_of: SensorOf) -> None:
    arrays: dict[str, NDArray] = {}
    for index in range(SHARD):
        scan, road = sample_scene(first_seed + index, grid.bounds, sensor_of)
        frame = simulated_frame(scan, road, "")
        points = frame.points[grid.cells(frame.points)[2]]
        arrays[f"{index}.xyz"] = np.round(points[:, :3] / _CENTIMETRE).clip(-32768, 32767).astype(np.int16)
        arrays[f"{index}.intensity"] = np.round(points[:, 3] * 255).clip(0, 255).astype(np.uint8)
        arrays[f"{index}.road"], arrays[f"{index}.road_place"] = _packed(RoadView(road, scan.map_from_base))
        for name in ("boxes", "point_counts", "labels"):
            arrays[f"{index}.{name}"] = getattr(scan, name)
    partial = path.with_suffix(f".{uuid.uuid4().hex[:8]}.partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def _read(path: Path) -> Iterator[_Packed]:
    with np.load(path, allow_pickle=False) as data:
        for index in range(SHARD):
            yield _Packed(**{name: data[f"{index}.{name}"] for name in _Packed.__dataclass_fields__})


def _packed(view: RoadView) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """`_Packed.road` and `_Packed.road_place` of a view; the simulator's maps end little beyond what a grid sees."""
    road, poses = view.road, [(pose.x, pose.y, pose.yaw) for pose in (view.road.origin, view.map_from_grid)]
    return np.packbits(road.cells.numpy()), np.array([*road.cells.shape, road.resolution, *poses[0], *poses[1]])


def _unpacked(bits: NDArray[np.uint8], place: NDArray[np.float64]) -> RoadView:
    """The view that `_packed` packed, bit for bit."""
    rows, columns = int(place[0]), int(place[1])
    cells = np.unpackbits(bits, count=rows * columns).view(bool).reshape(rows, columns)
    resolution, *poses = place[2:].tolist()
    return RoadView(RoadMap(torch.from_numpy(cells), resolution, SE2(*poses[:3])), SE2(*poses[3:]))


def _version(bounds: Bounds, sensor: Path | None = None) -> str:
    """Changes whenever region, sensor or a source that has a part in the scenes do, so that none is used stale."""
    digest = hashlib.sha256(repr(bounds).encode())
    for maker in _MAKERS:
        for source in sorted(maker.glob("**/*.py")) if maker.is_dir() else [maker]:
            digest.update(source.read_bytes())
    if sensor is not None:
        digest.update(_KNOWN.read_bytes() + sensor.read_bytes())
    return digest.hexdigest()[:12]
