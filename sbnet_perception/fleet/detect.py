"""``sbnet fleet detect``: the detector over many bags."""

from __future__ import annotations

import argparse
import collections
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.writer import refuse_existing
from sbnet_perception.desk.arguments import add_topic_arguments
from sbnet_perception.desk.replay import parameters
from sbnet_perception.errors import UserError
from sbnet_perception.fleet.one_bag import BagDetector, BagFacts, finished, identity, outputs
from sbnet_perception.fleet.settings import Settings, configuration
from sbnet_perception.text import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="rosbag2 folders, .mcap or .db3 files")
    out = "folder for BAG's name.mcap, seen by all machines under this name; finished bags are skipped on the next run"
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=out)
    overwrite = "replace files that were made of other bags, with other settings, or by others"
    parser.add_argument("--overwrite", action="store_true", help=overwrite)
    add_topic_arguments(parser, several=False)
    parser.add_argument("--params-file", type=Path, metavar="YAML", help="ROS parameters of the node")
    parameter = "a parameter of the node; device:=cuda gives each worker a GPU"
    parser.add_argument("-p", "--param", action="append", default=[], metavar="NAME:=VALUE", help=parameter)


def run(arguments: argparse.Namespace) -> int:
    """Detects and prints the table; 1 where a bag failed."""
    # Whoever lacks Ray is told so before anything is looked at.
    from sbnet_perception.fleet.pool import Needs, Pool

    given = parameters(arguments.param)
    if arguments.grid_frame is not None:
        given["grid_frame"] = arguments.grid_frame
    node, detector = configuration(given, arguments.params_file)
    needs = Needs(arguments.cpus, int(detector.device.startswith("cuda")), arguments.workers)
    topics = arguments.points_topic, arguments.road_mask_topic, arguments.tf_namespace
    settings = Settings(node, replace(detector, threads=arguments.cpus), *topics)
    files = {bag.absolute(): out.absolute() for bag, out in outputs(arguments.bags, arguments.out).items()}
    console, totals = Console(), Totals()
    left = _left(files, settings.digest, arguments.overwrite, totals)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if left:
        with Pool(arguments.address, partial(BagDetector, settings, settings.digest), needs) as pool:
            columns = TextColumn("bags"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
            with Progress(*columns, console=console) as progress:
                bar = progress.add_task("bags", total=len(left))
                begin = time.monotonic()
                for answer in pool.run([(bag, files[bag]) for bag in left]):
                    totals.add(answer.job[0], answer.worker, answer.value, answer.error)
                    if answer.error:
                        progress.console.print(f"[red]{escape(printable(answer.error))}[/]", highlight=False)
                    progress.advance(bar)
                totals.seconds = time.monotonic() - begin
    console.print(totals.table())
    return 1 if totals.failed else 0


def _left(files: dict[Path, Path], digest: str, overwrite: bool, totals: Totals) -> list[Path]:
    """The bags that are still to be done; those that are finished are counted as skipped.

    Raises:
        UserError: a file is there that was made otherwise or of another bag, and is not to be replaced.
    """
    left = []
    for bag, out in files.items():
        done = finished(out)
        if done is None:
            refuse_existing(out, overwrite)
            left.append(bag)
        elif other := _difference(done, bag, digest):
            if not overwrite:
                raise UserError(f"{out} was made {other}; choose another --out folder, or --overwrite replaces it")
            left.append(bag)
        else:
            totals.skipped.append(bag)
    return left


def _difference(done: BagFacts, bag: Path, digest: str) -> str:
    """What a finished file was made of or with, if not of this bag with these settings; otherwise empty."""
    try:
        with BagReader(bag) as reader:
            if identity(reader) != done.bag:
                return "of another bag"
    except UserError as error:
        return f"of a bag that cannot be read now ({error})"
    return "" if done.digest == digest else "with other settings"


@dataclass
class Totals:
    """What the workers have done so far.

    Attributes:
        seconds: from the first to the last bag.
        skipped: bags that were finished before.
        failed: bags without a file.
    """

    seconds: float = 0.0
    skipped: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)
    _of_worker: dict[str, list[BagFacts]] = field(default_factory=lambda: collections.defaultdict(list))

    def add(self, bag: Path, worker: str, facts: BagFacts | None, error: str) -> None:
        if facts is None or error:
            self.failed.append(bag)
        else:
            self._of_worker[worker].append(facts)

    def table(self) -> Table:
        """A row for each worker, and their sum."""
        skipped = f", {len(self.skipped)} finished before" if self.skipped else ""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        every = [facts for done in self._of_worker.values() for facts in done]
        table = Table(title=f"{len(every)} bags{skipped}{failed}")
        for column in ("worker", "bags", "clouds", "frames", "detections", "frames a second", "without an answer"):
            table.add_column(column)
        for worker, done in sorted(self._of_worker.items()):
            table.add_row(worker, *_row(done, sum(facts.seconds for facts in done)))
        table.add_section()
        table.add_row("together", *_row(every, self.seconds))
        return table


def _row(done: list[BagFacts], seconds: float) -> list[str]:
    sums = [sum(getattr(facts, name) for facts in done) for name in ("clouds", "frames", "detections")]
    refused = ", ".join(sorted({facts.refused for facts in done if facts.refused}))
    return [str(len(done)), *map(str, sums), f"{sums[1] / seconds:.1f}" if seconds else "", refused]
