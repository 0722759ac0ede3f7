"""Training scenes: simulated once in parallel, kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

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
        self._sensor_of = randomised_sensor if sensor is None else read_sensor(sensor)
        self.folder = folder / f"{_version(grid.bounds, sensor)}-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        shards = range(-(-count // SHARD))
        self._simulate([shard for shard in shards if not self._path(shard).exists()])
        self._scenes = [scene for shard in shards for scene in _read(self._path(shard))][:count]

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

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:05d}.npz"

    def _simulate(self, missing: list[int]) -> None:
        if not missing:
            return
        with Progress() as progress, ProcessPoolExecutor(os.cpu_count()) as pool:
            bar = progress.add_task(f"simulating {len(missing) * SHARD} scenes", total=len(missing))
            jobs = [
                pool.submit(_make_shard, self._path(s), self.grid, self.seed + s * SHARD, self._sensor_of)
                for s in missing
            ]
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
    partial = path.with_suffix(".partial.npz")
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
