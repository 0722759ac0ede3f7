"""What tests and sanitizers print, in figures; it may end in the middle."""

from __future__ import annotations

import re
import statistics
from typing import Any

Rows = list[dict[str, Any]]

_PLAIN = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)\b", re.MULTILINE)
_PARALLEL = re.compile(r"^\[gw\d+\] \[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED) (\S+::.+?) *$", re.MULTILINE)
_COLLECTED = re.compile(r"^ERROR (\S+\.py)(?: - .*)?$", re.MULTILINE)
_REASON = re.compile(r"^(?:FAILED|ERROR) (\S+\.py(?:::.+?)?) - (.*)$", re.MULTILINE)
_HAZARDS = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)s?")


def tests(said: str) -> dict[str, Any]:
    """How many tests ended how, and why those that failed did, of what ``pytest -v`` prints; with workers or not."""
    ended = dict(_PLAIN.findall(said))
    ended |= {name: state for state, name in _PARALLEL.findall(said)}
    ended |= dict.fromkeys(_COLLECTED.findall(said), "ERROR")  # files that cannot be imported
    counts = {state.lower(): list(ended.values()).count(state) for state in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    reasons = dict(_REASON.findall(said))
    failures = {name: reasons.get(name, "") for name, state in ended.items() if state in ("FAILED", "ERROR")}
    return {**counts, "failures": failures}


def sanitizer(said: str) -> dict[str, Any]:
    """How many errors a tool of compute-sanitizer has found, and the first of them; None where it did not say."""
    found = _HAZARDS.search(said)
    lines = [line.removeprefix("=========").strip() for line in said.splitlines() if line.startswith("=========")]
    lines = [line for line in lines if line and "SUMMARY" not in line and line != "COMPUTE-SANITIZER"]
    return {"errors": int(found[1]) if found else None, "first": lines[:12] if not found or int(found[1]) else []}


def parts(said: str) -> dict[str, str]:
    """Part -> number for its results, of the output of ``kernels``."""
    return dict(re.findall(r"^(\w+) ([0-9a-f]{16})$", said, re.MULTILINE))


def measured(part: str, rows: Rows) -> str:
    """What matters most of the rows of a part of `sbnet bench gpu`."""
    return {"units": _units, "network": _network, "frame": _frame, "kernels": _kernels}[part](rows)


def _units(rows: Rows) -> str:
    most = max(row["pixel_sparsity"] for row in rows)
    times = [f"{row['layer']} {row['unit_speedup']:.2f}" for row in rows if row["pixel_sparsity"] == most]
    return f"times as fast as dense at {100 * most:.0f} %: {', '.join(times)}"


def _network(rows: Rows) -> str:
    masks, ways = dict.fromkeys(row["mask"] for row in rows), sorted({row["dense_best"] for row in rows})
    means = [f"{mask} {statistics.fmean(row['speedup'] for row in rows if row['mask'] == mask):.2f}" for mask in masks]
    return f"times as fast as dense ({', '.join(ways)}): {', '.join(means)}"


def _frame(rows: Rows) -> str:
    steps = ("all on the device", "seen by the host")
    on_device, by_host = (statistics.fmean(row["ms"] for row in rows if row["step"] == step) for step in steps)
    found, same = (sum(row[key] for row in rows if row["step"] == "boxes") for key in ("found_by_cpu", "same"))
    return f"{on_device:.3f} ms on the device, {by_host:.3f} ms seen by the host; {same} of the CPU's {found} boxes"


def _kernels(rows: Rows) -> str:
    return f"{sum(row['launches'] for row in rows):.0f} launches of {len(rows)} kernels"
