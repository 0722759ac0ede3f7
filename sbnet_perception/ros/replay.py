"""``sbnet replay``: plays any rosbag2 through the detector node over DDS and records what it says."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sbnet_perception.bags.reader import BagMessage, BagReader
from sbnet_perception.errors import UserError
from sbnet_perception.ros.player import Player
from sbnet_perception.ros.recorder import Recorder
from sbnet_perception.ros.report import Narrator, ReplayReport, make_report, show_table
from sbnet_perception.ros.results import stamp_of
from sbnet_perception.ros.session import ChildProcess, Session, start_node
from sbnet_perception.ros.topics import Played, choose_grid_frame, choose_topics

READY_S = 60.0
DRAIN_S = 2.0
GIVE_UP_AFTER = 3
"""Clouds without any result at all after which an every-frame replay ends."""


@dataclass(frozen=True)
class ReplayOptions:
    """How a bag is played.

    Attributes:
        rate: speed, 1 = as recorded.
        loop: begin again at the end until interrupted; only the first round is recorded.
        every_frame: as fast as the node goes, each cloud only after the result of the one before.
        frame_timeout: seconds to wait for one result then.
        out: the recording, or None for none.
        points_topic, road_mask_topic: names in the bag; None = found by type.
        params_file: a ROS parameter file for the node.
        grid_frame: the node's grid_frame; None = base_link where the bag has it, else the cloud's own ("").
        parameters: further node parameters by name; they win over the file.
        start_node: False where the user runs the node.
    """

    rate: float = 1.0
    loop: bool = False
    every_frame: bool = False
    frame_timeout: float = 10.0
    out: Path | None = None
    points_topic: str | None = None
    road_mask_topic: str | None = None
    params_file: Path | None = None
    grid_frame: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    start_node: bool = True

    def __post_init__(self) -> None:
        if not 0.0 < self.rate <= 100.0:
            raise UserError(f"--rate is {self.rate:g}; it must be above 0 and at most 100")
        if self.frame_timeout <= 0.0:
            raise UserError(f"--frame-timeout is {self.frame_timeout:g}; it must be above 0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``sbnet replay``."""
    parser.add_argument("bag", type=Path, help="rosbag2 recording: a folder, an .mcap or a .db3 file")
    parser.add_argument("--rate", type=float, default=1.0, help="speed, 1 = as recorded (default)")
    parser.add_argument(
        "--loop", action="store_true", help="begin again at the end, until Ctrl-C; records the first round"
    )
    parser.add_argument(
        "--every-frame",
        action="store_true",
        help="wait for each result before the next cloud (deterministic, as fast as the node)",
    )
    parser.add_argument(
        "--frame-timeout",
        type=float,
        default=10.0,
        metavar="S",
        help="with --every-frame: seconds to wait for one result (default 10)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="OUT.mcap",
        help="recording of inputs and outputs (default: BAG's name with .out.mcap, here)",
    )
    parser.add_argument("--no-record", action="store_true", help="record nothing")
    parser.add_argument(
        "--points-topic", metavar="TOPIC", help="the cloud's topic in the bag (default: found by type)"
    )
    parser.add_argument(
        "--road-mask-topic", metavar="TOPIC", help="the road mask's topic in the bag (default: found by type)"
    )
    parser.add_argument("--params-file", type=Path, metavar="YAML", help="ROS parameters of the node")
    parser.add_argument(
        "-p",
        "--param",
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="one parameter of the node; may be repeated",
    )
    parser.add_argument(
        "--grid-frame",
        metavar="FRAME",
        help="the node's grid_frame (default: base_link where the bag's TF has it, else the cloud's own)",
    )
    parser.add_argument(
        "--no-node", action="store_true", help="play only: the node runs elsewhere, with use_sim_time"
    )


def run(args: argparse.Namespace) -> int:
    """Plays the bag, prints the closing table; 0, 1 when frames had no result, 130 when interrupted."""
    console = Console()
    # `timeout` and launch end their children with SIGTERM: treat it as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = (
        None
        if args.no_record
        else args.out or Path(f"{args.bag.resolve().name.removesuffix(args.bag.suffix)}.out.mcap")
    )
    options = ReplayOptions(
        rate=args.rate,
        loop=args.loop,
        every_frame=args.every_frame,
        frame_timeout=args.frame_timeout,
        out=out,
        points_topic=args.points_topic,
        road_mask_topic=args.road_mask_topic,
        params_file=args.params_file,
        grid_frame=args.grid_frame,
        parameters=_parameters(args.param),
        start_node=not args.no_node,
    )
    report = play(args.bag, options, console)
    show_table(console, report.rows(), "replay")
    return report.exit_code


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
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(BagReader(bag))
        played = choose_topics(reader.topics, options.points_topic, options.road_mask_topic)
        if options.grid_frame is None:
            frame, reason = choose_grid_frame(reader, played)
        else:
            frame, reason = options.grid_frame, "as asked for"
        if options.out is not None and options.out.exists() and options.out.samefile(reader.path):
            raise UserError(f"--out {options.out} is the bag that is played; choose another name")
        mask = played.road_mask or "none in the bag: the road counts as everywhere"
        console.print(f"points: {escape(played.points)}, road mask: {escape(mask)}", highlight=False)
        console.print(f"grid frame: {escape(frame or 'the cloud’s own')} ({escape(reason)})", highlight=False)
        for warning in reader.warnings:
            _warn(console, warning)
        options = replace(options, grid_frame=frame)
        return _Replay(reader, played, options, console).run(stack)


class _Replay:
    """One run of `play`."""

    def __init__(self, reader: BagReader, played: Played, options: ReplayOptions, console: Console) -> None:
        self._reader = reader
        self._played = played
        self._options = options
        self._console = console
        self._missing: list[tuple[int, int]] = []
        self._node: ChildProcess | None = None

    def run(self, stack: contextlib.ExitStack) -> ReplayReport:
        options, reader = self._options, self._reader
        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        session = stack.enter_context(Session())
        if options.start_node:
            given = {"grid_frame": options.grid_frame} if options.grid_frame else {}
            self._node = start_node(session, {**given, **options.parameters}, options.params_file, self._hear)
            stack.callback(self._node.stop)
        recorder = None
        if options.out is not None:
            recorder = Recorder(options.out, lambda text: _warn(self._console, text))
            stack.callback(recorder.close)
        player = Player(session, self._played, recorder)
        stack.callback(player.close)
        # Nothing may break the orderly end, not a second Ctrl-C either: it takes seconds at most.
        stack.callback(_ignore_interrupts)

        interrupted = False
        begin = time.monotonic()
        try:
            with self._console.status("waiting for the node"):
                player.wait_until_ready(self._node, reader.start_ns, READY_S)
            begin = time.monotonic()
            with Narrator(self._console, reader.start_ns, reader.end_ns) as narrator:
                self._play_rounds(player, narrator)
                narrator.finish(player.results)
        except KeyboardInterrupt:
            interrupted = True
        if player.late_s > 0.2:
            _warn(
                self._console,
                f"the player could not keep --rate {options.rate:g}: it was {player.late_s:.1f} s late at worst",
            )
        wall = time.monotonic() - begin
        stack.close()
        return make_report(
            player.results,
            drive_s=(reader.end_ns - reader.start_ns) / 1e9,
            wall_s=wall,
            late_s=player.late_s,
            missing=tuple(self._missing),
            grid_frame=options.grid_frame,
            recording=options.out,
            recording_complete=recorder is None or recorder.complete,
            interrupted=interrupted,
        )

    def _play_rounds(self, player: Player, narrator: Narrator) -> None:
        while True:
            if self._options.every_frame:
                self._play_every_frame(player, narrator)
            else:
                self._play_paced(player, narrator)
            if not self._options.loop:
                return
            player.stop_recording()
            narrator.restart()

    def _messages(self) -> Iterator[BagMessage]:
        return self._reader.messages([*self._played.wire, *self._played.carried])

    def _play_paced(self, player: Player, narrator: Narrator) -> None:
        last = None
        for message in player.paced(self._messages(), self._reader.start_ns, self._options.rate):
            self._require_node()
            player.publish(message)
            narrator.at(message.stamp_ns, player.results, player.late_s)
            last = stamp_of(message.raw) if message.topic == self._played.points else last
        if last is not None:
            player.results.wait(last, DRAIN_S)

    def _play_every_frame(self, player: Player, narrator: Narrator) -> None:
        """Transforms between two clouds are played before the first is waited for: it may need them."""
        waiting: tuple[int, int] | None = None
        number = 0
        for message in player.unpaced(self._messages()):
            cloud = message.topic == self._played.points
            if cloud and waiting is not None:
                self._await(player, waiting)
            player.publish(message)
            narrator.at(message.stamp_ns, player.results, 0.0)
            if cloud:
                waiting = (number, stamp_of(message.raw))
                number += 1
            elif message.topic in self._played.wire and self._played.wire[message.topic][2]:
                player.settle(message.topic)
        if waiting is not None:
            self._await(player, waiting)

    def _await(self, player: Player, cloud: tuple[int, int]) -> None:
        number, stamp = cloud
        deadline = time.monotonic() + self._options.frame_timeout
        while not player.results.wait(stamp, min(0.5, max(0.0, deadline - time.monotonic()))):
            self._require_node()
            if time.monotonic() > deadline:
                break
        else:
            return
        self._missing.append(cloud)
        _warn(
            self._console,
            f"frame {number} (stamp {stamp / 1e9:.9f}) had no result within {self._options.frame_timeout:g} s",
        )
        if not player.results.total.processed and len(self._missing) >= GIVE_UP_AFTER:
            said = f"; the node said:\n{self._node.last_lines()}" if self._node else ""
            raise UserError(f"the first {GIVE_UP_AFTER} frames had no result{said}")

    def _require_node(self) -> None:
        if self._node is not None and self._node.exit_code is not None:
            raise UserError(
                f"the node ended with exit code {self._node.exit_code} during the replay; it said:\n{self._node.last_lines()}"
            )

    def _hear(self, line: str) -> None:
        """Warnings and errors of the node are the user's too."""
        if any(level in line for level in ("[WARN]", "[ERROR]", "[FATAL]")):
            _warn(self._console, f"node: {line}")


def _warn(console: Console, text: str) -> None:
    console.print(f"[yellow]{escape(text)}[/]", highlight=False)


def _ignore_interrupts() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _parameters(texts: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in texts:
        name, separator, value = text.partition(":=")
        if not (separator and name and value):
            raise UserError(f"--param {text}: write NAME:=VALUE, for example score_threshold:=0.5")
        found[name] = value
    return found
