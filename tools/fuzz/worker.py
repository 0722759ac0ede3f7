"""One process that gives inputs to targets, one after the other, and prints a line of JSON for each finding."""

from __future__ import annotations

import argparse
import json
import mmap
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from draw import Draw

from sbnet_perception.extents import MOST_BYTES

SLOW_S = 60.0
"""Processor seconds for one input. Nearly all take hundredths; beside busy processes, under the sanitizers, a copy of
`MOST_BYTES` took 11 and the tiles of four stages of so large a mask 25, which take 1 otherwise."""
MEMORY_MB = 2000 + (MOST_BYTES >> 20)
"""By how much the process may grow over all inputs, one of which may have a result of the largest size."""
Target = Callable[[Draw], None]
POSITION = struct.Struct("<q")
CHUNK = 20_000
"""Inputs of one process."""


def all_targets() -> dict[str, Target]:
    """Name -> what takes one input."""
    import decoders
    import operations

    return decoders.TARGETS | {name: operations.target(name) for name in operations.ARGUMENTS}


def findings(
    targets: dict[str, Target], seed: int, numbers: range, note: Callable[[int], None]
) -> Iterator[dict[str, object]]:
    """Every target gets its share of the numbers in turn; an input follows from seed, target and number alone."""
    names = list(targets)
    for number in numbers:
        name = names[number % len(names)]
        note(number)
        started = time.process_time()
        problem = ""
        try:
            targets[name](Draw(f"{seed} {name} {number}"))
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error)[:300]}"
        if (took := time.process_time() - started) > SLOW_S:
            problem = f"{problem or 'answered'} after {took:.1f} s"
        if problem:
            yield {"target": name, "number": number, "problem": problem}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--end", type=int, required=True)
    parser.add_argument("--position", type=Path, required=True)
    parser.add_argument("--targets", nargs="+", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1 + arguments.first // CHUNK % 2)  # by turns one and two
    known = all_targets()
    targets = {name: known[name] for name in arguments.targets}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # What is under way stands in a file: a crash leaves nothing else.
    with arguments.position.open("r+b") as file, mmap.mmap(file.fileno(), POSITION.size) as position:

        def note(number: int) -> None:
            POSITION.pack_into(position, 0, number)

        for finding in findings(targets, arguments.seed, range(arguments.first, arguments.end), note):
            print(json.dumps(finding), flush=True)
        note(arguments.end)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > MEMORY_MB:
        problem = f"the process grew by {grown:.0f} MB over inputs {arguments.first} to {arguments.end}"
        print(json.dumps({"target": "all", "number": -1, "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
