"""What the node costs around the detector: a cloud over DDS to the real node, its detections back, one at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message

from sbnet_perception.bags.reader import BagMessage
from sbnet_perception.desk.interruption import Interrupted, Interruption
from sbnet_perception.desk.player import NotReady, Player
from sbnet_perception.desk.results import stamp_of
from sbnet_perception.desk.session import ChildProcess, Session, start_node
from sbnet_perception.desk.topics import CLOUD, GRID, TRANSFORMS, Played
from sbnet_perception.errors import UserError

READY_S = 60.0
ANSWER_S = 5.0
AHEAD_S = 0.005
"""A pose is sent this long before its cloud, as odometry is on a vehicle: taking it in is not the cloud's cost."""
FIGURES = "/sbnet/debug/frame"
PLAYED = Played(
    points=("/points",),
    road_mask="/road_mask",
    wire={
        "/points": ("/points", CLOUD, False),
        "/road_mask": ("/road_mask", GRID, True),
        "/tf": ("/tf", TRANSFORMS, False),
        "/tf_static": ("/tf_static", TRANSFORMS, True),
    },
    carried={},
)


@dataclass(frozen=True)
class Answer:
    """One cloud that was answered; milliseconds.

    Attributes:
        latency_ms: just before the cloud is published, to the detections taken in, by the clock of this process.
        pipeline_ms: the detector's part of it, as the node tells on ``~/debug/frame``.
        steps_ms: step -> time of the node's other figures.
    """

    latency_ms: float
    pipeline_ms: float
    steps_ms: Mapping[str, float]

    @property
    def overhead_ms(self) -> float:
        """Everything but the detector: DDS, decoding, transforms, placing the road, messages, threads."""
        return self.latency_ms - self.pipeline_ms


def answers(messages: Iterable[BagMessage], parameters: Mapping[str, object]) -> Iterator[Answer | None]:
    """Starts the node with somebody to read each of its topics; yields for each cloud its answer, None if lost.

    Args:
        messages: clouds on /points, and what the node needs beside them on the other topics of `PLAYED`.
        parameters: of the node, by name.

    Raises:
        UserError: the node does not start, or ends early.
    """
    with contextlib.ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        session = stack.enter_context(Session())
        node = start_node(session, {"use_sim_time": False, **parameters})
        stack.callback(node.stop)
        player = Player(session, PLAYED)
        stack.callback(player.close)
        figures = _Figures()
        player.listen(FIGURES, "diagnostic_msgs/msg/DiagnosticStatus", figures.take)
        check = _checker(interruption, node)
        try:
            player.wait_until_ready(check, 0, READY_S, lifecycle=True)
            for message in messages:
                check()
                player.publish(message)
                if message.topic in PLAYED.points:
                    yield _answer(player, figures, message.topic, stamp_of(message.raw))
                elif message.topic == "/tf":
                    time.sleep(AHEAD_S)
                else:
                    player.settle(message.topic)
        except NotReady as error:
            raise UserError(f"{error}; the node's last lines:\n{node.last_lines()}") from error
        except Interrupted:
            raise KeyboardInterrupt from None


def _answer(player: Player, figures: _Figures, topic: str, stamp_ns: int) -> Answer | None:
    if not player.results.wait([(topic, stamp_ns)], ANSWER_S):
        return None
    values = figures.of(stamp_ns, ANSWER_S)
    if values is None:
        return None
    steps = {name.removeprefix("ms "): float(text) for name, text in values.items() if name.startswith("ms ")}
    return Answer(player.results.total.latencies_ms[-1], float(values["pipeline ms"]), steps)


def _checker(interruption: Interruption, node: ChildProcess) -> Callable[[], None]:
    def check() -> None:
        interruption.check()
        if node.exit_code is not None:
            raise UserError(f"the node ended with exit code {node.exit_code}; its last lines:\n{node.last_lines()}")

    return check


class _Figures:
    """The newest of the node's messages about single frames."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()

    def take(self, raw: bytes) -> None:
        with self._changed:
            self._values = {item.key: item.value for item in deserialize_message(raw, DiagnosticStatus).values}
            self._changed.notify_all()

    def of(self, stamp_ns: int, seconds: float) -> dict[str, str] | None:
        """Those of the cloud of this stamp, if they come in time."""
        stamp = f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d}"
        with self._changed:
            came = self._changed.wait_for(lambda: self._values.get("stamp") == stamp, timeout=seconds)
            return self._values if came else None
