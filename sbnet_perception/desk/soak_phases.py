"""Kinds of trouble that a node has to stand, each for some seconds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from sbnet_perception.desk.soak_checks import Calm
from sbnet_perception.desk.soak_peer import Peer

Check = Callable[[], None]
BACK_NS, FORWARD_NS = 5 * 10**9, 60 * 10**9
OVERLOADS = (2, 10)


class Load:
    """Clouds at a rate, with the poses and masks that belong to them."""

    def __init__(self, peer: Peer, rate: float, seed: int) -> None:
        self.peer, self.rate = peer, rate
        self.random = random.Random(seed)
        self.ahead_ns = 0
        """How far the stamps are from the clock of this machine."""

    def send(self, seconds: float, check: Check, each: Callable[[int, int], None], rate: float | None = None) -> int:
        """Calls ``each`` with number and stamp, as often as the rate says; returns how often."""
        period, started = 1.0 / (rate or self.rate), time.monotonic()
        number = 0
        while (now := time.monotonic()) < started + seconds:
            check()
            if (wait := started + number * period - now) > 0:
                time.sleep(min(wait, 0.1))
                continue
            each(number, time.time_ns() + self.ahead_ns)
            number += 1
        return number

    def sound(self, number: int, stamp_ns: int) -> None:
        """One good cloud and its pose."""
        self.peer.send_pose(stamp_ns)
        self.peer.send(self.peer.cloud(stamp_ns))

    def calm(self, seconds: float, check: Check) -> Calm:
        """Nothing but good clouds: what was answered."""
        self.peer.forget_answers()
        sent = self.send(seconds, check, self.sound)
        self.peer.wait_answers(sent)
        latencies = self.peer.latencies_ms()
        return Calm(sent, len(latencies), tuple(latencies))


def steady(load: Load, seconds: float, check: Check) -> None:
    """The sensor as it should be."""
    load.send(seconds, check, load.sound)


def malformed(load: Load, seconds: float, check: Check) -> None:
    """Every second cloud is damaged."""

    def each(number: int, stamp_ns: int) -> None:
        load.sound(number, stamp_ns)
        load.peer.send(load.peer.damaged(stamp_ns + 1, load.random))

    load.send(seconds, check, each)


def no_transforms(load: Load, seconds: float, check: Check) -> None:
    """Nobody publishes poses."""
    load.send(seconds, check, lambda _, stamp_ns: load.peer.send(load.peer.cloud(stamp_ns)))


def masks(load: Load, seconds: float, check: Check) -> None:
    """A road mask of another size with each cloud, some of them malformed."""

    def each(number: int, stamp_ns: int) -> None:
        load.peer.send_road(load.random.randint(40, 200), broken=number % 5 == 0)
        load.sound(number, stamp_ns)

    load.send(seconds, check, each)
    load.peer.send_road(100)


def time_jumps(load: Load, seconds: float, check: Check) -> None:
    """Stamps go back and forth, as two clocks on one topic do."""

    def each(number: int, stamp_ns: int) -> None:
        if number % 10 == 9:
            load.ahead_ns += load.random.choice((-BACK_NS, FORWARD_NS))
        load.sound(number, stamp_ns + (BACK_NS if number % 30 > 20 and number % 2 else 0))

    load.send(seconds, check, each)


def overload(times: int) -> Callable[[Load, float, Check], None]:
    """More clouds than the node can process."""

    def phase(load: Load, seconds: float, check: Check) -> None:
        load.send(seconds, check, load.sound, rate=times * load.peer.node_rate)

    return phase


PHASES: dict[str, Callable[[Load, float, Check], None]] = {
    "steady": steady, "malformed": malformed, "no transforms": no_transforms, "masks": masks, "time jumps": time_jumps,
    **{f"overload {times}x": overload(times) for times in OVERLOADS},
}  # fmt: skip


def churn(load: Load, cycles: int, check: Check) -> list[str]:
    """Deactivate, clean up, configure, activate, while clouds come; what went wrong."""
    found = []
    for cycle in range(cycles):
        for name in ("deactivate", "cleanup", "configure", "activate"):
            load.send(load.random.uniform(0.0, 0.2), check, load.sound, rate=50.0)
            if not load.peer.change_state(name, check):
                found.append(f"{name} failed in cycle {cycle}")
                return found
    calm = load.calm(3.0, check)
    return found if calm.answered else [f"no cloud of {calm.sent} is answered after {cycles} lifecycle cycles"]
