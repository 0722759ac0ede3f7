"""Gives random and hostile inputs to the decoders and to every operation: tools/fuzz/fuzz.py [--count N] [--seed S].

Operations run on every instruction set that this machine has, decoders once. An input follows from the seed, its target
and its number alone: --seed S --target NAME --number N repeats it. An error that is no refusal of an argument, a crash,
more than a minute for one input, and a process that grows are findings. Exit code 1 where there are any. Under the
sanitizers: make fuzz.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from worker import CHUNK, POSITION, all_targets

HERE = Path(__file__).resolve().parent
CHUNK_S = 1800.0


def main() -> int:
    arguments = _arguments()
    known = all_targets()
    if arguments.target and arguments.target not in known:
        print(f"fuzz: there is no target {arguments.target!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    import decoders

    names = [arguments.target] if arguments.target else list(known)
    sets = instruction_sets()
    # Operations on each instruction set, decoders on the first: all get the same number of inputs there.
    rounds = [(isa, [name for name in names if isa == sets[0] or name not in decoders.TARGETS]) for isa in sets]
    rounds = [(isa, targets) for isa, targets in rounds if targets]
    each = arguments.count // sum(len(targets) for _, targets in rounds)
    if arguments.number is not None:
        ranges = [(isa, targets, arguments.number, arguments.number + 1) for isa, targets in rounds]
    else:
        ranges = [(isa, targets, 0, each * len(targets)) for isa, targets in rounds]
    found, done, started = [], 0, time.monotonic()
    for isa, targets, first, end in ranges:
        for begin in range(first, end, CHUNK):
            stop = min(begin + CHUNK, end)
            for finding in run(isa, targets, arguments.seed, begin, stop):
                found.append(finding | {"isa": isa})
                print(f"FINDING {json.dumps(found[-1])}", flush=True)
            done += stop - begin
            print(f"{time.monotonic() - started:6.0f} s  {done} inputs, now {isa}: {len(found)} findings", flush=True)
    print(f"{done} inputs, seed {arguments.seed}, {', '.join(sets)}, {os.environ.get('SBNET_OPS') or 'plain build'}: "
          f"{len(found)} findings")  # fmt: skip
    return 1 if found else 0


def run(isa: str, targets: list[str], seed: int, first: int, end: int) -> list[dict[str, object]]:
    """The findings of a range of numbers; where the process dies, the next one goes on behind its last input."""
    found: list[dict[str, object]] = []
    while first < end:
        with tempfile.NamedTemporaryFile() as position:
            position.write(POSITION.pack(first))
            position.flush()
            command = [sys.executable, "-W", "ignore", str(HERE / "worker.py"), "--seed", str(seed), "--first"]
            command += [str(first), "--end", str(end), "--position", position.name, "--targets", *targets]
            problem = ""
            try:
                done = subprocess.run(
                    command, env=os.environ | {"SBNET_ISA": isa}, capture_output=True, text=True, errors="replace",
                    timeout=CHUNK_S, check=False,
                )  # fmt: skip
                output = done.stdout
                if done.returncode:
                    problem = f"exit code {done.returncode}: {done.stderr[-1500:]}"
            except subprocess.TimeoutExpired as late:
                output = (late.stdout or b"").decode(errors="replace")
                problem = "it did not end"
            found += [json.loads(line) for line in output.splitlines() if line.startswith("{")]
            at = POSITION.unpack(Path(position.name).read_bytes())[0]
        if not problem:
            break
        found.append({"target": targets[at % len(targets)], "number": at, "problem": problem})
        first = at + 1
    return found


def instruction_sets() -> list[str]:
    """Those that the compiled kernels have and this machine runs, best first."""
    command = [sys.executable, "-c", "import sbnet_perception.blocks"]
    done = subprocess.run(command, env=os.environ | {"SBNET_ISA": "?"}, capture_output=True, text=True, check=False)
    runs = re.search(r"this machine runs ([\w, ]+)", done.stderr)
    if runs is None:
        raise SystemExit(f"fuzz: the compiled operations are missing: {done.stderr.strip().splitlines()[-1:]}")
    return runs[1].split(", ")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what they follow from (%(default)s)")
    parser.add_argument("--target", help="a decoder or an operation alone")
    parser.add_argument("--number", type=int, help="one input alone, by its number in a finding")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
