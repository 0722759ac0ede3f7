"""Checks the project on a machine with an NVIDIA GPU, and measures it there: python3 tools/gpu_check [--out FOLDER].

Every step has a limit of its own, and the next one follows whatever came of it. What was found so far is in the folder
at any time: gpu_check.json, gpu_check.txt and a log for each step. Exit code: 0, 1 where a step failed or was late, 2
where nothing can be checked. --dry-run does what can be done without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import report
from check import Check
from steps import FAILED, LATE, Outcome, Step, perform

ROOT = Path(__file__).resolve().parent.parent.parent
TOTAL_S = 525.0
"""All steps together: below nine minutes."""
STEPS = ("build", "wrappers", "tests", "sanitizer", "frame", "units", "network", "kernels", "autotune")


@dataclass(frozen=True)
class Planned:
    """A step, what it does, and its limit in seconds."""

    name: str
    body: Callable[[Step], str]
    limit: float


def planned(check: Check) -> list[Planned]:
    """In order: what later steps stand on, then what says most, then what takes longest."""
    return [
        Planned("build", check.build, 150),
        Planned("wrappers", check.wrappers, 60),
        Planned("tests", check.tests, 150),
        Planned("sanitizer", check.sanitizer, 75),
        Planned("frame", check.measured("frame"), 90),
        Planned("units", check.measured("units"), 120),
        Planned("network", check.measured("network"), 120),
        Planned("kernels", check.measured("kernels"), 45),
        Planned("autotune", check.measured("network", *check.last_ways()), 240),
    ]


def main() -> int:
    arguments = _arguments()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob("*.log"):
        left.unlink()
    end = time.monotonic() + TOTAL_S
    about = Step("environment", out, ROOT, time.monotonic() + 60)
    try:
        said = about.run([sys.executable, Path(__file__).with_name("environment.py")])
        environment = json.loads(said.splitlines()[-1])
    except Exception as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    if not arguments.dry_run and (why := environment.get("why_not")):
        print(f"gpu_check: {why}", file=sys.stderr)
        return 2
    check = Check(ROOT, out, environment, arguments.dry_run)
    outcomes: list[Outcome] = []
    for step in planned(check):
        if arguments.only and step.name not in arguments.only:
            continue
        limit = min(time.monotonic() + step.limit, end)
        print(f"gpu_check: {step.name} (up to {max(limit - time.monotonic(), 0):.0f} s)", flush=True)
        outcomes.append(perform(Step(step.name, out, ROOT, limit), step.body))
        shown = report.write(out, environment, outcomes)
    print(shown, end="")
    return int(any(outcome.state in (FAILED, LATE) for outcome in outcomes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu_check" / "found", metavar="FOLDER")
    parser.add_argument("--dry-run", action="store_true", help="what can be done without a GPU")
    only = f"this step; may be given several times ({', '.join(STEPS)})"
    parser.add_argument("--only", action="append", choices=STEPS, metavar="STEP", help=only)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
