"""``sbnet fleet evaluate``: the figures of ``sbnet evaluate`` on simulated drives, each drive by one worker."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import track

from sbnet_perception.desk import evaluate
from sbnet_perception.desk.evaluation_tables import simulated_tables
from sbnet_perception.desk.outputs import check_writable
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.errors import UserError
from sbnet_perception.learning.evaluate import (
    HELD_OUT,
    VALIDATION,
    MeasuredFrame,
    figures_of,
    frames_of_drive,
    measured_under,
    own_masks,
    pipeline_under,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    evaluate.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints the table.

    Raises:
        UserError: an option is of 'sbnet evaluate' alone, or a drive could not be measured: figures of the others
            would be of something else.
    """
    for option in ("data", "frames", "simulated", "worst", "curves"):
        given = getattr(arguments, option)
        if given is not None and given is not False:
            raise UserError(f"--{option} is for 'sbnet evaluate': a fleet measures on simulated drives alone")
    from sbnet_perception.fleet.pool import Needs, Pool

    config = evaluate.configuration(arguments)
    check_writable("--json", arguments.json)
    masks, console = tuple(arguments.mask or own_masks(config)), Console()
    seeds, kind = (VALIDATION, "validation") if arguments.validation else (HELD_OUT, "held-out")
    needs = Needs(arguments.cpus, 0, arguments.workers)
    found: dict[int, list[list[MeasuredFrame]]] = {}
    with Pool(arguments.address, partial(Judge, config, masks), needs) as pool:
        jobs = list(enumerate(seeds))
        for answer in track(pool.run(jobs), f"{kind} drives", len(jobs), console=Console(stderr=True)):
            if answer.error:
                raise UserError(f"drive {answer.job[1]} could not be measured: {answer.error}")
            found[answer.job[0]] = answer.value
    results = []
    for number, mask in enumerate(masks):
        # In the order of the drives, whoever was first.
        frames = [frame for drive in range(len(jobs)) for frame in found[drive][number]]
        results += figures_of(mask, frames, config.objects, config.thresholds)
    console.print(simulated_tables(results, config, kind))
    if arguments.json:
        figures = {"simulated": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(evaluate.plain(figures), indent=1) + "\n")
    return 0


class Judge:
    """Measures drives, each under several masks, with networks that are loaded once."""

    def __init__(self, config: DetectorConfig, masks: tuple[str, ...]) -> None:
        self._pipelines = [pipeline_under(config, mask) for mask in masks]
        self._config = config

    def __call__(self, job: tuple[Any, int]) -> list[list[MeasuredFrame]]:
        """For each mask the frames of a drive; (number of the drive, its seed)."""
        number, seed = job
        return measured_under(self._pipelines, frames_of_drive(number, seed, self._config.objects))
