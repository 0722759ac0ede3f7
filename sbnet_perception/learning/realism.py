"""`sbnet compare`: real clouds beside simulated ones of the same sensor, in figures."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby, repeat
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sbnet_perception.bev.grid import Grid
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.registry import FORM, HELP, open_data
from sbnet_perception.learning.frames import LabelledFrame, simulated_frame
from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.simulator.sensors import SENSORS, SensorModel, randomised_sensor
from sbnet_perception.learning.statistics import Estimate, Quantity, estimates

SENSOR_OF = {"kitti": "hdl64", "vod": "hdl64", "pandaset": "pandar64", "nuscenes": "hdl32", "av2": "vlp32c"}
"""The sensor of a source, where it is known."""
RANDOM = "random"
"""Instead of a sensor: one of those of training in every scene."""
FIRST_SEED = 7_000_001
"""Scenes that neither training nor evaluation uses."""
FACTOR, STEP, ERRORS = 1.5, 0.2, 3.0
"""Marked are ratios beyond the factor, or differences in metres beyond the step, that are also larger than this many
standard errors. Frames of one drive are alike: their error is larger than their number tells."""
MOST_FRAMES = 500
"""Taken of a data set, evenly: more tell no more."""
LARGEST = 8
"""How many of a source's differences are named below its table."""


@dataclass(frozen=True)
class Difference:
    """A figure of real clouds beside that of simulated ones.

    Attributes:
        quantity: what the figure is.
        real, simulated: means over the frames, in its unit.
        size: 0 for no difference: the logarithm of real to simulated in terms of that of `FACTOR`, or their difference
            in terms of `STEP`; positive where the real one is larger. Infinite where one of them alone is 0.
        marked: it is larger than 1 and than chance.
    """

    quantity: Quantity
    real: float
    simulated: float
    size: float
    marked: bool


def differences(real: Mapping[Quantity, Estimate], simulated: Mapping[Quantity, Estimate]) -> list[Difference]:
    """The figures that both have, in their order."""
    pairs = [(quantity, real[quantity], simulated[quantity]) for quantity in real]
    return [_difference(quantity, a, b) for quantity, a, b in pairs if a.frames and b.frames]


def _difference(quantity: Quantity, real: Estimate, simulated: Estimate) -> Difference:
    if not quantity.by_ratio:
        size = (real.mean - simulated.mean) / STEP
    elif real.mean > 0 and simulated.mean > 0:
        size = math.log(real.mean / simulated.mean) / math.log(FACTOR)
    else:
        size = 0.0 if real.mean == simulated.mean else math.copysign(math.inf, real.mean - simulated.mean)
    # A few frames do not tell how much frames differ: where there are too few, the others say it.
    spread = float(np.fmax(real.spread, simulated.spread))
    chance = spread * math.sqrt(1 / real.frames + 1 / simulated.frames)
    beyond_chance = abs(real.mean - simulated.mean) > ERRORS * chance
    return Difference(quantity, real.mean, simulated.mean, size, abs(size) > 1 and beyond_chance)


def simulated_frames(
    sensor: SensorModel | None, count: int, grid: Grid, first_seed: int = FIRST_SEED
) -> Iterator[LabelledFrame]:
    """`count` independent scenes seen by a sensor, or, where it is None, each by a random one."""
    sensor_of: Callable[[np.random.Generator], SensorModel] = randomised_sensor if sensor is None else lambda _: sensor
    for seed in range(first_seed, first_seed + count):
        yield simulated_frame(*sample_scene(seed, grid.bounds, sensor_of), f"scene {seed}")


@dataclass(frozen=True)
class Comparison:
    """A source beside its simulation: the sensor's name, the numbers of frames and scenes, and the figures."""

    source: str
    sensor: str
    frames: int
    scenes: int
    differences: list[Difference]

    @property
    def largest(self) -> list[Difference]:
        """The marked differences, largest first."""
        return sorted((d for d in self.differences if d.marked), key=lambda d: -abs(d.size))


def compare(source: str, frames: Sequence[LabelledFrame], sensor: str, scenes: int, grid: Grid) -> Comparison:
    """Simulate `scenes` scenes with a sensor of `SENSORS`, or `RANDOM`, labelled in the view in which the frames are;
    progress bar."""
    model = None if sensor == RANDOM else SENSORS[sensor]
    made = track(
        simulated_frames(model, scenes, grid),
        f"scenes for {source}", total=scenes, console=Console(stderr=True),
    )  # fmt: skip
    view = frames[0].half_view
    simulated = estimates((replace(frame, half_view=view) for frame in made), grid)
    return Comparison(source, sensor, len(frames), scenes, differences(estimates(frames, grid), simulated))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar=FORM, help=HELP)
    known = ", ".join(f"{source} {sensor}" for source, sensor in SENSOR_OF.items())
    parser.add_argument(
        "--sensor",
        choices=(*sorted(SENSORS), RANDOM),
        help=f"simulate this sensor (default: the source's: {known}; for others, {RANDOM}: those of training)",
    )
    parser.add_argument("--scenes", type=int, default=40, help="simulated scenes a source (default 40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")


def run(arguments: argparse.Namespace) -> int:
    if arguments.scenes < 2:
        raise UserError(f"--scenes is {arguments.scenes}; chance needs at least 2 to be told from a difference")
    grid = Grid.named("compact")
    console = Console()
    comparisons = []
    data = open_data(arguments.data).evenly(MOST_FRAMES)
    console.print(str(data))
    for source, frames in _by_source(item.read() for item in data.items):
        sensor = arguments.sensor or SENSOR_OF.get(source, RANDOM)
        comparisons.append(compare(source, frames, sensor, arguments.scenes, grid))
        console.print(_table(comparisons[-1]))
    if arguments.json:
        arguments.json.write_text(json.dumps([_plain(c) for c in comparisons], indent=1, allow_nan=False))
    return 0


def _by_source(frames: Iterable[LabelledFrame]) -> Iterator[tuple[str, list[LabelledFrame]]]:
    """Frames of one source, the first word of their names, after another."""
    ordered = sorted(frames, key=lambda frame: frame.name.split("_")[0])
    for source, group in groupby(ordered, key=lambda frame: frame.name.split("_")[0]):
        yield source, list(group)


def _plain(comparison: Comparison) -> dict[str, object]:
    """What `--json` writes: a size that is infinite as null."""
    plain = asdict(comparison)
    for difference in plain["differences"]:
        difference["size"] = difference["size"] if math.isfinite(difference["size"]) else None
    return plain


def _table(comparison: Comparison) -> Table:
    """Real beside simulated figures; `!` marks a difference, and the largest are named below."""
    c = comparison
    frames = "1 frame" if c.frames == 1 else f"{c.frames} frames"
    table = Table(title=f"{c.source}: {frames} beside {c.scenes} simulated scenes, sensor {c.sensor}")
    table.add_column("figure", no_wrap=True)
    for column in ("", "real", "simulated", "real to simulated", ""):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for group, members in groupby(c.differences, key=lambda d: d.quantity.group):
        table.add_section()
        for title, d in zip(chain((group,), repeat("")), members, strict=False):
            cells = (d.quantity.name, _number(d.real), _number(d.simulated), _against(d), "!" if d.marked else "")
            table.add_row(title, *cells, style="bold" if d.marked else None)
    names = [f"{d.quantity.group} {d.quantity.name} {_against(d)}" for d in c.largest[:LARGEST]]
    table.caption = f"Largest differences: {'; '.join(names) or 'none beyond chance'}."
    return table


def _against(difference: Difference) -> str:
    """The ratio of real to simulated, or what the real one is more."""
    d = difference
    if not d.quantity.by_ratio:
        return f"{d.real - d.simulated:+.2f}"
    if d.simulated == 0:
        return "-" if d.real == 0 else "only real"
    return f"x {d.real / d.simulated:.2f}"


def _number(value: float) -> str:
    """Three digits at least, none of them idle."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
