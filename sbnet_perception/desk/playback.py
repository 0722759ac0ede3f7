"""One replay from end to end: the node's process, the player, the recording, the report."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sbnet_perception.bags.reader import BagMessage, BagReader
from sbnet_perception.desk.complaints import Complaints
from sbnet_perception.desk.given import given
from sbnet_perception.desk.grid_frame import choose_grid_frame
from sbnet_perception.desk.interruption import Interrupted, Interruption
from sbnet_perception.desk.player import NotReady, Player
from sbnet_perception.desk.recorder import Recorder
from sbnet_perception.desk.report import Narrator, ReplayReport, make_report
from sbnet_perception.desk.results import stamp_of
from sbnet_perception.desk.session import ChildProcess, Session, start_node
from sbnet_perception.desk.timeline import Timeline
from sbnet_perception.desk.topics import Played, choose_topics
from sbnet_perception.errors import UserError
from sbnet_perception.node.merge import apart
from sbnet_perception.node.parameters import SPECIFICATIONS
from sbnet_perception.text import printable

READY_S = 60.0
DRAIN_S = 2.0
RESEND_S = 2.0
EXPLANATION_S = 3.0
"""How long the node, which tells its counts once a second, is waited for where clouds have no result."""
GIVE_UP_AFTER = 3
"""First clouds without a result after which an every-frame replay ends."""
LATE_S = 0.2
"""A player that is later than this says so."""
_LOG_LINE = re.compile(r"^\[(WARN|ERROR|FATAL)\] \[[\d.]+\] \[[^\]]*\]: (.*)")
_FOUND_LINE = re.compile(r"^\[INFO\] \[[\d.]+\] \[[^\]]*\]: (found: .*)")


@dataclass(frozen=True)
class ReplayOptions:
    """How a bag is played.

    Attributes:
        rate: speed, 1 = as recorded.
        loop: begin again at the end until interrupted; only the first round is recorded.
        every_frame: as fast as the node goes, each cloud only after the result of the one before.
        frame_timeout: seconds to wait for one result then.
        out: the recording, or None for none.
        points_topics: names in the bag, several become one cloud; none = those of the parameter `points` where it is
            given, else found by type and name.
        road_mask_topic: name in the bag; None = found by type and name.
        tf_namespace: where in the bag tf and tf_static are; None = the cloud's, or the only one.
        params_file: a ROS parameter file for the node.
        grid_frame: the node's grid_frame; None = base_link where the bag's TF leads there, else the cloud's own ("").
        parameters: further node parameters by name; they win over the file.
        start_node: False where the user runs the node.
    """

    rate: float = 1.0
    loop: bool = False
    every_frame: bool = False
    frame_timeout: float = 10.0
    out: Path | None = None
    points_topics: Sequence[str] = ()
    road_mask_topic: str | None = None
    tf_namespace: str | None = None
    params_file: Path | None = None
    grid_frame: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    start_node: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 100.0:
            raise UserError(f"--rate is {self.rate:g}; it must be above 0 and at most 100")
        if self.frame_timeout <= 0.0:
            raise UserError(f"--frame-timeout is {self.frame_timeout:g}; it must be above 0")


def play(bag: Path, options: ReplayOptions, console: Console | None = None) -> ReplayReport:
    """Plays a bag into a detector node of its own process over DDS.

    Args:
        bag: rosbag2 folder, MCAP or sqlite3 file.
        console: where progress goes; None = nowhere.

    Raises:
        UserError: the bag cannot be read or has no cloud, the node does not start or ends early, or an
            option does not fit the bag.
    """
    console = console or Console(quiet=True)
    with BagReader(bag) as reader:
        played = _played(reader, options)
        if options.out is not None and options.out.exists() and options.out.samefile(reader.path):
            raise UserError(f"--out {options.out} is the bag that is played; choose another name")
        frame, reason = _grid_frame(reader, played, options)
        for line in played.said:
            _say(console, line)
        if options.start_node:
            _say(console, f"grid frame {frame or 'of the cloud itself'}: {reason}")
        for warning in reader.warnings:
            _warn(console, warning)
        return _Replay(reader, played, replace(options, grid_frame=frame), console).run()


class _Replay:
    """One run of `play`."""

    def __init__(self, reader: BagReader, played: Played, options: ReplayOptions, console: Console) -> None:
        self._reader = reader
        self._played = played
        self._options = options
        self._console = console
        self._merge_window_s, _ = given("merge_window", options.parameters, options.params_file)
        self._drive_ns = 0
        self._missing: list[tuple[int, int]] = []
        self._node: ChildProcess | None = None
        self._interruption = Interruption()
        self._complaints = Complaints()

    def run(self) -> ReplayReport:
        options, reader, console = self._options, self._reader, self._console
        interrupted = False
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._interruption)
            session = stack.enter_context(_session(options))
            _say(console, f"ROS_DOMAIN_ID {session.domain_id}: RViz sees the replay with the same")
            if options.start_node:
                self._node = self._start_node(session)
                stack.callback(self._node.stop)
            recorder = None
            player = Player(session, self._played, self._merge_window_s)
            stack.callback(player.close)

            begin = time.monotonic()
            try:
                with console.status("waiting for the node"):
                    start_ns = self._timeline().start_ns
                    player.wait_until_ready(self._check, start_ns, READY_S, self._node is not None)
                # Only now, so that a node that does not start costs no earlier recording.
                if options.out is not None:
                    recorder = Recorder(options.out, lambda text: _warn(console, text))
                    stack.callback(recorder.close)
                    player.record(recorder)
                begin = time.monotonic()
                with Narrator(console, reader.end_ns - start_ns) as narrator:
                    self._play_rounds(player, narrator)
                    narrator.finish(player.results)
            except Interrupted:
                interrupted = True
            except NotReady as error:
                raise UserError(f"{error}{self._said()}") from error
            wall = time.monotonic() - begin
        if player.late_s > LATE_S:
            late = f"it was {player.late_s:.1f} s late at worst"
            _warn(console, f"the player could not keep --rate {options.rate:g}: {late}")
        return make_report(
            player.results,
            drive_s=self._drive_ns / 1e9,
            wall_s=wall,
            late_s=player.late_s,
            missing=tuple(self._missing),
            grid_frame=options.grid_frame,
            recording=None if recorder is None else options.out,
            recording_complete=recorder is None or recorder.complete,
            interrupted=interrupted,
            warnings=self._complaints.lines,
        )

    def _start_node(self, session: Session) -> ChildProcess:
        frame = {"grid_frame": self._options.grid_frame} if self._options.grid_frame else {}
        parameters = {**frame, **self._options.parameters, "points": self._played.heard}
        return start_node(session, parameters, self._options.params_file, self._hear)

    def _play_rounds(self, player: Player, narrator: Narrator) -> None:
        while True:
            timeline = self._timeline(None if self._options.loop and self._drive_ns else self._warn)
            if self._options.every_frame:
                self._play_every_frame(player, narrator, timeline)
            else:
                self._play_paced(player, narrator, timeline)
            player.drain()
            player.results.wait_for_explanations(EXPLANATION_S)
            if not self._options.loop:
                return
            player.stop_recording()
            narrator.restart()

    def _timeline(self, say: Callable[[str], None] | None = None) -> Timeline:
        messages = self._reader.messages([*self._played.wire, *self._played.carried])
        return Timeline(messages, self._played.points, say or (lambda _: None))

    def _warn(self, text: str) -> None:
        _warn(self._console, text)

    def _at(self, narrator: Narrator, timeline: Timeline, message: BagMessage, player: Player) -> None:
        """The drive has come to a message."""
        self._drive_ns = max(self._drive_ns, timeline.played_ns(message.stamp_ns))
        narrator.at(timeline.played_ns(message.stamp_ns), player.results, player.late_now_s)

    def _play_paced(self, player: Player, narrator: Narrator, timeline: Timeline) -> None:
        last = None
        for message in player.paced(timeline, self._options.rate, self._check):
            player.publish(message)
            self._at(narrator, timeline, message, player)
            last = (message.topic, stamp_of(message.raw)) if message.topic in self._played.points else last
        if last is not None:
            player.results.wait([last], DRAIN_S)

    def _play_every_frame(self, player: Player, narrator: Narrator, timeline: Timeline) -> None:
        """Transforms between two frames are played before the first is waited for: it may need them."""
        frame: dict[str, tuple[int, BagMessage]] = {}
        number = 0
        for message in player.unpaced(timeline):
            self._check()
            cloud = message.topic in self._played.points
            if cloud and not self._completes(frame, message):
                self._await(player, frame)
                frame = {}
            player.publish(message)
            self._at(narrator, timeline, message, player)
            if cloud:
                frame[message.topic] = number, message
                number += 1
            elif message.topic in self._played.masks:
                player.settle(message.topic)
        self._await(player, frame)

    def _completes(self, frame: Mapping[str, tuple[int, BagMessage]], cloud: BagMessage) -> bool:
        """Whether the node makes one frame of these clouds and another one."""
        stamps = (stamp_of(other.raw) for _, other in frame.values())
        return cloud.topic not in frame and not apart(stamp_of(cloud.raw), stamps, self._merge_window_s)

    def _await(self, player: Player, frame: Mapping[str, tuple[int, BagMessage]]) -> None:
        """Waits for the answer to the clouds of a frame, (number, message) by topic."""
        results = player.results
        waited = {(topic, stamp_of(cloud.raw)): (number, cloud) for topic, (number, cloud) in frame.items()}
        deadline = time.monotonic() + self._options.frame_timeout
        again = time.monotonic() + RESEND_S
        while not results.wait(waited, min(0.2, max(0.0, deadline - time.monotonic()))):
            self._check()
            if time.monotonic() >= deadline:
                break
            # On a busy machine the node may match this publisher only after the first cloud, and lose it. One that has
            # arrived would count as a duplicate.
            if not results.total.processed and results.none_received and time.monotonic() >= again:
                for _, cloud in waited.values():
                    player.send_again(cloud)
                again += RESEND_S
        else:
            return
        for (topic, stamp), (number, _) in waited.items():
            if not results.wait([(topic, stamp)], 0.0):
                self._missing.append((number, stamp))
                timeout, when = f"{self._options.frame_timeout:g} s", f"{stamp // 10**9}.{stamp % 10**9:09d}"
                _warn(self._console, f"frame {number} (stamp {when}) had no result within {timeout}")
        if not results.total.processed and len(self._missing) >= GIVE_UP_AFTER:
            raise UserError(f"the first {GIVE_UP_AFTER} frames had no result{self._said()}")

    def _check(self) -> None:
        """Raises when the replay cannot or shall not go on."""
        self._interruption.check()
        if self._node is not None and self._node.exit_code is not None:
            raise UserError(f"the node ended with exit code {self._node.exit_code}{self._said()}")

    def _said(self) -> str:
        return "" if self._node is None else f"; its last lines:\n{self._node.last_lines()}"

    def _hear(self, line: str) -> None:
        """Warnings and errors of the node are the user's too, and what it found by itself."""
        if complaint := _LOG_LINE.match(line):
            _warn(self._console, f"node {complaint[1]}: {complaint[2]}")
            self._complaints.add(complaint[2])
        elif found := _FOUND_LINE.match(line):
            _say(self._console, f"node {found[1]}")


def _played(reader: BagReader, options: ReplayOptions) -> Played:
    """What is played: of the clouds those that are asked for, by option or by the parameter `points`."""
    points, where = options.points_topics, ""
    if not points:
        points, where = given("points", options.parameters, options.params_file)
        # Written down or not, the default says nothing of the bag.
        points = () if tuple(points) == SPECIFICATIONS["points"].default else points
    try:
        return choose_topics(reader.topics, points, options.road_mask_topic, options.tf_namespace)
    except UserError as error:
        asked = f" (points: {where})" if points and where else ""
        raise UserError(f"{error}{asked}") from error


def _grid_frame(reader: BagReader, played: Played, options: ReplayOptions) -> tuple[str, str]:
    """The node's grid_frame ("" = each cloud's own) and why."""
    if options.grid_frame is not None:
        return options.grid_frame, "as asked for"
    named, where = given("grid_frame", options.parameters, options.params_file)
    if where.startswith("-p") or named:
        return named, "as asked for" if where.startswith("-p") else f"from {where}"
    return choose_grid_frame(reader, played)


def _session(options: ReplayOptions) -> Session:
    """A domain of its own; the user's where the user runs the node."""
    if options.start_node or os.environ.get("ROS_DOMAIN_ID"):
        return Session()
    return Session(0)


def _say(console: Console, text: str) -> None:
    console.print(escape(printable(text)), highlight=False)


def _warn(console: Console, text: str) -> None:
    console.print(f"[yellow]{escape(printable(text))}[/]", highlight=False)
