"""``sbnet doctor --live`` and ``--bag``: why it runs and there are no boxes.

Live topics become a short recording first. A recording is then looked at, message by message, and played through a node
of its own in a session of its own, which nobody else hears: the node's own words are the answer.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.desk.findings import Finding
from sbnet_perception.desk.given import given
from sbnet_perception.desk.inspection import inspect
from sbnet_perception.desk.listen import listen
from sbnet_perception.desk.node_word import box_finding, reports_in, word_findings
from sbnet_perception.desk.playback import ReplayOptions, play
from sbnet_perception.desk.report import ReplayReport
from sbnet_perception.desk.running import ANSWER_S, Running
from sbnet_perception.desk.session import NODE
from sbnet_perception.desk.topics import Played, choose_topics
from sbnet_perception.errors import UserError
from sbnet_perception.node.params_file import parameters_in

SHARED = ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER")
"""By these variables the user's nodes meet: the doctor's own node must not be among them."""


@dataclass(frozen=True)
class Check:
    """What is to be looked at.

    Attributes:
        seconds: how much of it.
        points, road_mask: topics; without any those of the running node, else found by type and name.
        node: the running node that is meant, by full name or namespace; None = the only one.
        params_file, parameters: the node's; they win over what the running node has.
    """

    seconds: float = 10.0
    points: tuple[str, ...] = ()
    road_mask: str | None = None
    node: str | None = None
    params_file: Path | None = None
    parameters: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1.0 <= self.seconds <= 600.0:
            raise UserError(f"--seconds is {self.seconds:g}; it must be from 1 to 600")


def check_live(check: Check, console: Console) -> Iterator[Finding]:
    """Findings about the topics of the domain that the environment names."""
    with _scratch() as folder:
        file = folder / "live.mcap"
        heard = listen(file, check.seconds, check.points, check.road_mask, check.node, console)
        yield from heard.findings
        if heard.played is not None and any(map(heard.counts.get, heard.played.points)):
            with BagReader(file) as reader:
                reports = reports_in(reader, own=False)
            for name, its in reports.items():
                if heard.running is None or heard.running.name == f"/{name}":
                    yield from word_findings(f"/{name} as it runs", its)
            yield parameter_finding(check, heard.running)
            yield from _check(file, as_running(check, heard.running), heard.played, console, live=True)


def as_running(check: Check, running: Running | None) -> Check:
    """With the parameters of the running node, as far as the user has not given others."""
    given = set() if check.params_file is None else parameters_in(check.params_file, NODE).keys()
    texts = {} if running is None else running.texts(given)
    return replace(check, parameters={**texts, **check.parameters})


def parameter_finding(check: Check, running: Running | None) -> Finding:
    """Which parameters the clouds are judged with."""
    ours = "those given here" if check.params_file or check.parameters else "the defaults"
    if running is None or running.parameters is None:
        remedy = "give doctor the node's: --params-file, -p NAME:=VALUE"
        who = f"no node {NODE[1:]} runs" if running is None else f"{running.name} does not answer within {ANSWER_S:g} s"
        return Finding("WARN", "parameters", f"{ours}: {who}", remedy)
    judged = as_running(check, running).parameters.keys() - check.parameters.keys()
    shown = ", ".join(f"{name} {running.parameters[name]!r}" for name in sorted(judged))
    given_here = [*([str(check.params_file)] if check.params_file else []), *check.parameters]
    here = f"; given here instead: {', '.join(given_here)}" if given_here else ""
    return Finding("OK", "parameters", f"those of {running.name}: {shown or 'the defaults'}{here}")


def check_bag(bag: Path, check: Check, console: Console) -> Iterator[Finding]:
    """Findings about the first seconds of a recording."""
    with _scratch() as folder, BagReader(bag) as reader:
        yield from (Finding("WARN", "recording", warning) for warning in reader.warnings)
        try:
            played = choose_topics(reader.topics, check.points, check.road_mask)
        except UserError as error:
            yield Finding("FAIL", "topics", str(error))
            return
        file = folder / "beginning.mcap"
        with console.status("reading"), BagWriter(file, compression="none") as writer:
            for message in reader.messages(list(played.wire)):
                if message.stamp_ns > reader.start_ns + check.seconds * 1e9:
                    break
                writer.write(message.topic, message.raw, message.stamp_ns, msgtype=message.msgtype)
        yield from _check(file, check, played, console, live=False)


def _check(file: Path, check: Check, played: Played, console: Console, live: bool) -> Iterator[Finding]:
    road = played.road_mask or "none: the road counts as everywhere"
    yield Finding("OK", "topics", f"points {', '.join(played.points)}, road mask {road}")
    out = file.with_suffix(".out.mcap")
    try:
        with console.status(f"a node looks at {check.seconds:g} s of it"), _among_themselves():
            report: ReplayReport | None = play(file, _options(check, played, out))
    except UserError as error:
        report = None
        failure = Finding("FAIL", "node", str(error))
    with BagReader(file) as reader:
        window_s, _ = given("merge_window", check.parameters, check.params_file)
        yield from inspect(reader, played, "" if report is None else report.grid_frame, live, window_s)
    if report is None:
        yield failure
        return
    if report.recording is not None:
        with BagReader(out) as reader:
            for reports in reports_in(reader, own=True).values():
                yield from word_findings("detector", reports)
    yield box_finding(report.frames_in, report.frames_processed, report.detections, report.sparsity)


def _options(check: Check, played: Played, out: Path) -> ReplayOptions:
    return ReplayOptions(
        out=out,
        points_topics=played.points,
        road_mask_topic=played.road_mask,
        params_file=check.params_file,
        parameters=check.parameters,
    )


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sbnet-doctor-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _among_themselves() -> Iterator[None]:
    """Within it sessions get a domain of their own, on this machine alone."""
    before = {name: os.environ.pop(name) for name in SHARED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
