"""`sbnet soak`: the node under load for hours, with faults mixed in; says what it cost and what each cloud became."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from sbnet_perception.desk.interruption import Interrupted, Interruption
from sbnet_perception.desk.session import ChildProcess, Session
from sbnet_perception.desk.soak_checks import Limits, Sample, problems
from sbnet_perception.desk.soak_peer import Peer
from sbnet_perception.desk.soak_phases import PHASES, Load, churn
from sbnet_perception.errors import UserError

CHURN_PROGRAM = (
    "import sys; sys.setswitchinterval(1e-6); from sbnet_perception.node import start; sys.exit(start.main())"
)
READY_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the load lasts (%(default)g)")
    parser.add_argument("--phase", type=float, default=10.0, help="seconds of each kind of trouble (%(default)g)")
    parser.add_argument("--rate", type=float, default=10.0, help="clouds per second of the sensor (%(default)g)")
    parser.add_argument("--points", type=int, default=30_000, help="points of a cloud (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what the faults follow from (%(default)s)")
    parser.add_argument("--churn", type=int, default=20, help="lifecycle cycles under load before it (%(default)s)")
    latency = "ms that 99 %% of the answers at the sensor's rate keep (%(default)g)"
    parser.add_argument("--latency", type=float, default=500.0, help=latency)
    parser.add_argument("--memory", type=float, default=64.0, help="MB that the node may grow by (%(default)g)")
    parser.add_argument(
        "-p", "--param", action="append", default=[], metavar="NAME:=VALUE", help="parameter of the node"
    )


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where something leaked, was lost, came late or did not recover."""
    if not (args.minutes > 0 and args.phase > 0 and args.rate > 0 and args.points > 0 and args.churn >= 0):
        raise UserError("--minutes, --phase, --rate and --points must be positive, --churn not negative")
    parameters = {"use_sim_time": "false", "tf_timeout": "0.1", "grid_frame": "base_link"}
    for text in args.param:
        name, sign, value = text.partition(":=")
        if not (name and sign):
            raise UserError(f"-p {text}: write NAME:=VALUE")
        parameters[name] = value
    console = Console(highlight=False)
    limits = Limits(args.latency, args.memory)
    found: list[str] = []
    try:
        with Interruption() as interruption:
            if args.churn:
                with _robot(("-c", CHURN_PROGRAM), parameters, args, interruption) as (peer, node, check):
                    console.print(f"{args.churn} lifecycle cycles under load, threads switched every microsecond")
                    found += churn(Load(peer, args.rate, args.seed), args.churn, check)
                    found += _end(node)
            with _robot(("-m", "sbnet_perception.node.node"), parameters, args, interruption) as (peer, node, check):
                samples = _soak(peer, node, args, check, console)
                found += problems(samples, limits)
                found += _end(node)
    except Interrupted:
        raise KeyboardInterrupt from None
    for problem in found:
        console.print(f"PROBLEM: {problem}", markup=False, soft_wrap=True)
    console.print(f"{len(found)} problems" if found else "sound: nothing leaked, every cloud is accounted for")
    return 1 if found else 0


@contextlib.contextmanager
def _robot(
    program: tuple[str, ...], parameters: dict[str, str], args: argparse.Namespace, interruption: Interruption
) -> Iterator[tuple[Peer, ChildProcess, Callable[[], None]]]:
    """The node and the rest of the robot, which have found each other."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(Session())
        settings = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        node = ChildProcess([*program, "--ros-args", *settings], session.environment)
        stack.callback(node.stop)
        peer = stack.enter_context(Peer(session, args.points, args.seed))

        def check() -> None:
            interruption.check()
            if node.exit_code is not None:
                raise UserError(f"the node ended with exit code {node.exit_code}; its last lines:\n{node.last_lines()}")

        deadline = time.monotonic() + READY_S
        while not peer.is_answered():
            check()
            if time.monotonic() > deadline:
                raise UserError(f"the node does not answer; its last lines:\n{node.last_lines()}")
            now_ns = time.time_ns()
            peer.send_pose(now_ns)
            peer.send(peer.cloud(now_ns))
            time.sleep(0.3)
        yield peer, node, check


def _soak(
    peer: Peer, node: ChildProcess, args: argparse.Namespace, check: Callable[[], None], console: Console
) -> list[Sample]:
    """Goes through the phases until time is up, each followed by a calm one; prints a row for each."""
    load, samples = Load(peer, args.rate, args.seed), []
    end = time.monotonic() + 60 * args.minutes
    started, number = time.monotonic(), 0
    while time.monotonic() < end or number == 0:
        name, phase = list(PHASES.items())[number % len(PHASES)]
        number += 1
        phase(load, args.phase, check)
        calm = load.calm(max(args.phase / 2, 1.0), check)
        counts = peer.settled_counts(check)
        samples.append(Sample.of(node.pid, name, time.monotonic() - started, calm, counts))
        if number % 20 == 1:
            console.print(Sample.HEADER, markup=False, soft_wrap=True)
        console.print(samples[-1].row(), markup=False, soft_wrap=True)
    console.print(_totals(samples))
    sent, answered = (sum(getattr(sample.calm, name) for sample in samples) for name in ("sent", "answered"))
    console.print(f"{answered} of {sent} clouds were answered that came at the sensor's rate and without faults")
    return samples


def _totals(samples: list[Sample]) -> Table:
    table = Table("clouds", "number")
    for name, count in samples[-1].counts.items():
        table.add_row(name, str(count))
    return table


def _end(node: ChildProcess) -> list[str]:
    """What is wrong with how the node ends on SIGINT."""
    started = time.monotonic()
    code = node.stop(patience=10.0)
    took = time.monotonic() - started
    return [] if code == 0 else [f"the node ended with exit code {code} after {took:.1f} s of patience"]
