"""The data sets' own metrics: figures and tables of those whose frames say what they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from sbnet_perception.bev.grid import Grid
from sbnet_perception.desk.evaluation_tables import KittiFigures, kitti_table, shown
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.learning import av2_metric, nuscenes_metric
from sbnet_perception.learning.center_distance import THRESHOLDS, Counted
from sbnet_perception.learning.gathered import Gathered
from sbnet_perception.learning.kitti_labels import KittiFrame
from sbnet_perception.learning.kitti_metric import ALL_VEHICLES, average_precisions, numbers_asked

EVERYWHERE, IN_REGION = "everywhere", "in the region"
"""As the data set asks, and only what the detector looks at."""


def official_figures(gathered: Gathered, entry: ObjectClass, grid: Grid, console: Console) -> dict[str, Any]:
    """Prints and returns figures by data set, of what was gathered of a class with a detector of a grid."""
    return {
        **_kitti(gathered.kitti, entry, console),
        **_nuscenes(gathered.counted["nuscenes"], entry, grid, console),
        **_av2(gathered.counted["av2"], gathered.mapped, entry, grid, console),
    }


def _kitti(frames: list[KittiFrame], entry: ObjectClass, console: Console) -> dict[str, Any]:
    """KITTI's metric, where frames have KITTI's own labels and the class has its cars."""
    if not frames or "Car" not in entry.labels.get("kitti", ()):
        return {}
    figures = KittiFigures(
        frames=len(frames),
        cars=numbers_asked(frames),
        official=average_precisions(frames),
        all_vehicles=average_precisions(frames, ALL_VEHICLES),
    )
    console.print(kitti_table(figures))
    return {"kitti": figures}


def _nuscenes(frames: list[Counted], entry: ObjectClass, grid: Grid, console: Console) -> dict[str, Any]:
    if not frames:
        return {}
    parts = {EVERYWHERE: frames, IN_REGION: [frame.within(grid) for frame in frames]}
    figures = {name: nuscenes_metric.average_precisions(part) for name, part in parts.items()}
    title = f"nuScenes' metric, {entry.name}s within {nuscenes_metric.RANGE:g} m; {len(frames)} frames"
    table = _table(title, "mean AP")
    for name, part in parts.items():
        values = [*figures[name].values()]
        table.add_row(name, _objects(part), *(shown(value, ".3f") for value in (*values, sum(values) / len(values))))
    console.print(table)
    return {"nuscenes": {name: {f"{at:g}": ap for at, ap in of.items()} for name, of in figures.items()}}


def _av2(frames: list[Counted], mapped: bool, entry: ObjectClass, grid: Grid, console: Console) -> dict[str, Any]:
    if not frames:
        return {}
    parts = {EVERYWHERE: frames, IN_REGION: [frame.within(grid) for frame in frames]}
    figures = {name: av2_metric.figures(part) for name, part in parts.items()}
    where = "in the region of interest" if mapped else "no map: without the region of interest"
    title = f"Argoverse 2's metric, {entry.name}s within {av2_metric.RANGE:g} m, {where}; {len(frames)} frames"
    table = _table(title, "mean AP", "ATE, m", "ASE", "AOE, rad", "CDS")
    for name, part in parts.items():
        of = figures[name]
        values = [*of.average_precisions.values()]
        mean = sum(values) / len(values)
        errors = (of.place_error, of.size_error, of.heading_error, of.score)
        table.add_row(name, _objects(part), *(shown(value, ".3f") for value in (*values, mean, *errors)))
    console.print(table)
    return {"av2": {name: asdict(of) for name, of in figures.items()}}


def _table(title: str, *columns: str) -> Table:
    aps = (f"AP at {threshold:g} m" for threshold in THRESHOLDS)
    return Table("", "objects", *aps, *columns, title=title)


def _objects(part: Sequence[Any]) -> str:
    return str(sum(len(frame.objects) for frame in part))
