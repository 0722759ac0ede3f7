"""What the node says of its input, from the /diagnostics in a recording."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.desk.findings import Finding, State

DIAGNOSTICS = "/diagnostics"
STATES: dict[int, State] = {0: "OK", 1: "WARN", 2: "FAIL"}
SHOWN = ("points", "points in range", "ground z m", "intensity scale", "road mask", "road mask age s", "latency ms")
_DETECTOR = ": detector"
# The beginning and the end of a recording say nothing about its middle.
_EDGES = re.compile(r"no cloud (received yet|for )")


@dataclass(frozen=True)
class Report:
    """One diagnostic_msgs/DiagnosticStatus of a node's detector."""

    level: int
    message: str
    values: dict[str, str]


def reports_in(reader: BagReader, own: bool) -> dict[str, list[Report]]:
    """The reports of a recording by the name of their node.

    Args:
        own: of /diagnostics as the node itself published it; False: as heard among those of a whole robot.
    """
    found: dict[str, list[Report]] = collections.defaultdict(list)
    for message in reader.messages([DIAGNOSTICS] if DIAGNOSTICS in reader.topics else []):
        for status in deserialize(message.raw, message.msgtype).status:
            if own or status.name.endswith(_DETECTOR):
                found[status.name.removesuffix(_DETECTOR)].append(report_of(status))
    return found


def report_of(status: Any) -> Report:
    level = status.level[0] if isinstance(status.level, bytes) else int(status.level)
    return Report(level, status.message, {item.key: item.value for item in status.values})


def word_findings(name: str, reports: Iterable[Report]) -> Iterator[Finding]:
    """Each complaint once, with how often it came; then the figures of the last cloud.

    A report has one level for all its complaints: what also comes in a milder one is no worse than that.
    """
    reports = [report for report in reports if report.values.get("state", "active") == "active"]
    texts: dict[str, tuple[int, str]] = {}
    counts: collections.Counter[str] = collections.Counter()
    for report in reports:
        for text in report.message.split("; ") if report.level else []:
            kind = re.sub(r"[\d.]+", "#", text)
            if not _EDGES.match(text):
                counts[kind] += 1
                texts[kind] = (min(report.level, texts.get(kind, (report.level, ""))[0]), text)
    for kind, (level, text) in sorted(texts.items(), key=lambda item: -item[1][0]):
        yield Finding(STATES.get(level, "FAIL"), name, f"{text} (in {counts[kind]} of {len(reports)} reports)")
    if not reports:
        yield Finding("WARN", name, "it did not report as an active node", "look at its log")
        return
    values = reports[-1].values
    shown = ", ".join(f"{key} {values[key]}" for key in SHOWN if key in values)
    yield Finding("OK" if "points" in values else "WARN", name, shown or "no cloud was processed")


def box_finding(frames: int, processed: int, boxes: int, sparsity: float | None) -> Finding:
    """How many clouds had an answer, and boxes in it."""
    share = "" if sparsity is None else f", {100 * (1 - sparsity):.0f} % of the grid computed"
    found = f"{boxes} in {processed} of {frames} clouds{share}"
    if not processed:
        return Finding("FAIL", "boxes", f"no cloud of {frames} had an answer", "the lines above say why")
    if not boxes:
        remedy = "see the lines above; then try -p mask.expression:=everywhere (does the mask hide them?), "
        remedy += (
            "-p score_threshold:=0.2 (are they there, but doubtful?), sbnet adapt (another LiDAR than the weights know)"
        )
        return Finding("WARN", "boxes", found, remedy)
    if processed < frames / 2:
        return Finding("WARN", "boxes", found, "the node is slower than the sensor, or drops clouds: see above")
    return Finding("OK", "boxes", found)
