"""``sbnet fleet simulate``: the scenes of a training, made on many machines; bit for bit those that it would make."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track

from sbnet_perception.errors import UserError
from sbnet_perception.learning.scenes import SHARD, Shards
from sbnet_perception.learning.train import add_field_arguments
from sbnet_perception.learning.train_config import TrainConfig

FIELDS = ("grid", "region", "scenes", "scene_seed", "sensor")
"""Of `TrainConfig`: what the scenes depend on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_field_arguments(parser, FIELDS)
    work = "the --work folder of the training, seen by all machines under this name (default build/train)"
    parser.add_argument("--work", type=Path, default=Path("build/train"), help=work)


def run(arguments: argparse.Namespace) -> int:
    """Makes the scenes that are not there yet; 1 where some could not be made."""
    from sbnet_perception.fleet.pool import Needs, Pool

    given = {name: getattr(arguments, name) for name in FIELDS}
    config = TrainConfig(**{**given, "region": tuple(given["region"])})
    sensor = Path(config.sensor).absolute() if config.sensor else None
    root = (arguments.work / "scenes").absolute()
    shards = Shards(root, config.detector.raster, config.scenes, config.scene_seed, sensor)
    needs = Needs(arguments.cpus, 0, arguments.workers)
    missing, console = shards.missing(), Console()
    if missing:
        shards.folder.mkdir(parents=True, exist_ok=True)
        with Pool(arguments.address, Maker, needs) as pool:
            jobs = [(shards, shards.folder, number) for number in missing]
            what = f"simulating {len(missing) * SHARD} scenes"
            for answer in track(pool.run(jobs), what, len(jobs), console=console):
                if answer.error:
                    console.print(f"[red]scenes {answer.job[2]}: {answer.error}[/]", highlight=False)
    lacking = len(shards.missing())
    console.print(f"{len(shards.numbers) - lacking} of {len(shards.numbers)} files in {shards.folder}", highlight=False)
    return 1 if lacking else 0


class Maker:
    """Makes files of scenes."""

    def __call__(self, job: tuple[Shards, Path, int]) -> None:
        """Of these shards, in this folder, the one of this number.

        Raises:
            UserError: the simulator of this machine is another, or the folder is not that of the other machines.
        """
        shards, folder, number = job
        if shards.folder != folder:
            raise UserError("this machine has another version of sbnet: install the same on all")
        if not folder.is_dir():
            raise UserError(f"there is no {folder} on this machine: name a --work folder that all machines see")
        if not shards.path(number).exists():
            shards.make(number)
