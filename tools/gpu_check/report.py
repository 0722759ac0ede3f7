"""What the check leaves: one JSON file, and a table that is read first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steps import Outcome

NAME = "gpu_check"


def write(folder: Path, environment: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """Writes both; returns the table. Called after each step: what was found stays, whatever comes."""
    text = {"environment": environment, "steps": [asdict(outcome) for outcome in outcomes]}
    (folder / f"{NAME}.json").write_text(json.dumps(text, indent=1) + "\n")
    said = table(environment, outcomes)
    (folder / f"{NAME}.txt").write_text(said)
    return said


def table(environment: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The machine, then a line for each step, then the tables of what was measured."""
    lines = [", ".join(f"{name} {value}" for name, value in environment.items() if value), ""]
    width = max((len(outcome.name) for outcome in outcomes), default=0)
    for outcome in outcomes:
        lines.append(f"{outcome.name:{width}}  {outcome.seconds:6.1f} s  {outcome.state}: {outcome.summary}")
    for outcome in outcomes:
        if shown := outcome.found.get("table"):
            lines += ["", f"{outcome.name} (model: on paper, measured is all else)", shown]
    return "\n".join(lines) + "\n"
