"""The tables of nuScenes: what its LiDAR's key frames need of them, read row by row.

A table of the whole data set is a gigabyte of JSON: rows that are not needed are dropped as they are read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.poses import Matrices, matrices

LIDAR = "LIDAR_TOP"
_CHUNK, _LONGEST_ROW = 1 << 20, 1 << 24


@dataclass(frozen=True)
class Sweep:
    """A key frame of the LiDAR: its sample's token, scene, place, file, stamp and poses (float64 [4, 4])."""

    sample: str
    scene: str
    location: str
    file: str
    stamp_ns: int
    ego_from_lidar: Matrices
    map_from_ego: Matrices


@dataclass(frozen=True)
class Tables:
    """Sweeps by scene and stamp, and the annotations of each sample: category, translation, size, rotation, points."""

    sweeps: list[Sweep]
    annotations: dict[str, list[dict[str, Any]]]

    def path(self, scene: str) -> NDArray[np.float64]:
        """Where the vehicle was in a scene [N, 2], in the map frame."""
        return np.array([sweep.map_from_ego[:2, 3] for sweep in self.sweeps if sweep.scene == scene])


def read_tables(folder: Path, scenes: Collection[str] | None) -> Tables:
    """What the scenes of these names, or all, need.

    Raises:
        UserError: a table is missing, ends too early, or refers to a row that is not there.
    """
    try:
        with Console(stderr=True).status(f"reading the tables of {folder.name}"):
            sweeps = _sweeps(folder, scenes)
            return Tables(sweeps, _annotations(folder, {sweep.sample for sweep in sweeps}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"the tables of {folder} do not fit together: {error!r}; download them anew") from error


def _sweeps(folder: Path, scenes: Collection[str] | None) -> list[Sweep]:
    locations = {row["token"]: row["location"] for row in rows(folder / "log.json")}
    of_scene = {
        row["token"]: (row["name"], locations[row["log_token"]])
        for row in rows(folder / "scene.json")
        if scenes is None or row["name"] in scenes
    }
    samples = {
        row["token"]: of_scene[row["scene_token"]]
        for row in rows(folder / "sample.json")
        if row["scene_token"] in of_scene
    }
    lidars = {row["token"] for row in rows(folder / "sensor.json") if row["channel"] == LIDAR}
    mounts = {
        row["token"]: matrices(row["rotation"], row["translation"])
        for row in rows(folder / "calibrated_sensor.json")
        if row["sensor_token"] in lidars
    }
    clouds = [
        row
        for row in rows(folder / "sample_data.json")
        if row["is_key_frame"] and row["sample_token"] in samples and row["calibrated_sensor_token"] in mounts
    ]
    wanted = {row["ego_pose_token"] for row in clouds}
    poses = {
        row["token"]: matrices(row["rotation"], row["translation"])
        for row in rows(folder / "ego_pose.json")
        if row["token"] in wanted
    }
    found = [
        Sweep(
            row["sample_token"],
            *samples[row["sample_token"]],
            row["filename"],
            int(row["timestamp"]) * 1000,
            mounts[row["calibrated_sensor_token"]],
            poses[row["ego_pose_token"]],
        )
        for row in clouds
    ]
    return sorted(found, key=lambda sweep: (sweep.scene, sweep.stamp_ns))


def _annotations(folder: Path, samples: set[str]) -> dict[str, list[dict[str, Any]]]:
    names = {row["token"]: row["name"] for row in rows(folder / "category.json")}
    categories = {row["token"]: names[row["category_token"]] for row in rows(folder / "instance.json")}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(folder / "sample_annotation.json"):
        if row["sample_token"] in samples:
            kept = {name: row[name] for name in ("translation", "size", "rotation")}
            kept |= {"category": categories[row["instance_token"]]}
            found[row["sample_token"]].append(kept | {"points": row["num_lidar_pts"] + row["num_radar_pts"]})
    return dict(found)


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, one after the other.

    Raises:
        UserError: the file is missing, or ends too early.
    """
    decoder, text = json.JSONDecoder(), ""
    try:
        with file.open(encoding="utf-8") as stream:
            for chunk in iter(lambda: stream.read(_CHUNK), ""):
                text += chunk
                place = 0
                while (start := text.find("{", place)) >= 0:
                    try:
                        row, place = decoder.raw_decode(text, start)
                    except json.JSONDecodeError:
                        place = start
                        break
                    yield row
                text = text[place:]
                if len(text) > _LONGEST_ROW:
                    break
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing; the tables (metadata) of nuScenes are not complete") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if text.strip(" \r\n\t,[") != "]":
        raise UserError(f"{file} is no whole JSON list; download it anew")
