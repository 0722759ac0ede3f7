"""The rest of a robot, for `sbnet soak`: publishes raw messages, takes the answers, asks for lifecycle transitions."""

from __future__ import annotations

import contextlib
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import OccupancyGrid
from rclpy.context import Context
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

from sbnet_perception.bags.messages import occupancy_grid, point_cloud2, shift, tf_message, transform
from sbnet_perception.bags.types import typestore
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.desk.results import stamp_of
from sbnet_perception.desk.session import Session
from sbnet_perception.masks.road import RoadMap
from sbnet_perception.node.spinner import Spinner

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
COUNTS = ("received", "processed", "failed", "dropped", "rejected")
STAMP = struct.Struct("<iI")
STAMP_AT = 4
"""Where the stamp of a header stands in little-endian CDR."""
HEIGHT = 1.8
"""Of the LiDAR above the ground, metres."""
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
}
ANSWER_S, SETTLE_S, TRANSITION_S = 5.0, 15.0, 60.0


class Peer(contextlib.AbstractContextManager["Peer"]):
    """One LiDAR, odometry, a map server and a listener.

    Attributes:
        node_rate: clouds per second that the node can process, as its last answers at the sensor's rate show.
    """

    def __init__(self, session: Session, points: int, seed: int) -> None:
        self.node_rate = 30.0
        self._cloud = bytearray(_bytes(point_cloud2(_scene(points, seed), "lidar", 1)))
        self._answers: dict[int, float] = {}
        self._sent: dict[int, float] = {}
        self._changed = threading.Condition()
        self._status: dict[str, str] = {}
        self._status_number = 0
        self._context = Context()
        with session.applied():
            rclpy.init(args=[], context=self._context, domain_id=session.domain_id,
                       signal_handler_options=SignalHandlerOptions.NO)  # fmt: skip
            self._node = rclpy.create_node("sbnet_soak", context=self._context, start_parameter_services=False)
        node = self._node
        self._points = node.create_publisher(PointCloud2, "/points", RELIABLE)
        self._road = node.create_publisher(OccupancyGrid, "/road_mask", LATCHED)
        self._tf = node.create_publisher(TFMessage, "/tf", RELIABLE)
        node.create_subscription(Detection3DArray, "/detections", self._take, RELIABLE, raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._note, RELIABLE)
        self._transitions = node.create_client(ChangeState, "/sbnet/change_state")
        self._spinner = Spinner(node)

    def __exit__(self, *exception: object) -> None:
        self._spinner.stop()
        self._node.destroy_node()
        self._context.try_shutdown()

    # Input

    def cloud(self, stamp_ns: int) -> bytes:
        """The sensor's cloud at a time."""
        STAMP.pack_into(self._cloud, STAMP_AT, *divmod(stamp_ns, 10**9))
        return bytes(self._cloud)

    def damaged(self, stamp_ns: int, chance: random.Random) -> bytes:
        """A cloud that no reader may trust: cut off, or with a wrong number among the fields."""
        raw = bytearray(self.cloud(stamp_ns))
        if chance.random() < 0.5:
            return bytes(raw[: chance.randrange(16, len(raw))])
        at = 4 * chance.randrange(5, 30)
        raw[at : at + 4] = chance.randbytes(4)
        return bytes(raw)

    def send(self, raw: bytes) -> None:
        with self._changed:
            self._sent[stamp_of(raw)] = time.monotonic()
        self._points.publish(raw)

    def send_pose(self, stamp_ns: int) -> None:
        """Where the LiDAR is at that time, base_link, and base_link in the map."""
        poses = [
            transform("base_link", "lidar", shift(HEIGHT), stamp_ns),
            transform("map", "base_link", np.eye(4), stamp_ns),
        ]
        self._tf.publish(_bytes(tf_message(poses)))

    def send_road(self, cells: int, broken: bool = False) -> None:
        """A square road mask around the vehicle, of so many cells of 1 m on a side."""
        road = RoadMap(torch.ones(cells, cells, dtype=torch.bool), 1.0, SE2(-cells / 2, -cells / 2, 0.0))
        message = occupancy_grid(road, "map", time.time_ns())
        if broken:
            message.data = message.data[:-1]
        self._road.publish(_bytes(message))

    # Output

    def is_answered(self) -> bool:
        return bool(self._answers)

    def forget_answers(self) -> None:
        """What comes now belongs to what is sent from now on."""
        with self._changed:
            self._sent, self._answers = {}, {}

    def wait_answers(self, count: int) -> None:
        """Returns when so many clouds are answered, or nothing more can be expected."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._answers) >= count, ANSWER_S)

    def latencies_ms(self) -> list[float]:
        """Of the clouds sent since `forget_answers`."""
        with self._changed:
            found = [1e3 * (at - self._sent[ns]) for ns, at in self._answers.items() if ns in self._sent]
        if found:
            self.node_rate = 1e3 / max(sorted(found)[len(found) // 2], 1.0)
        return found

    def settled_counts(self, check: Callable[[], None]) -> dict[str, int]:
        """Totals of the node once it has nothing more to do."""
        before: dict[str, int] = dict.fromkeys(COUNTS, 0)
        deadline = time.monotonic() + SETTLE_S
        for counts in self._statuses(deadline, check):
            rest = counts["received"] - sum(counts[name] for name in COUNTS[1:])
            if counts == before and rest == 0:
                break
            before = counts
        return before

    def change_state(self, name: str, check: Callable[[], None]) -> bool:
        """Asks for a lifecycle transition; False where the node refuses or does not answer."""
        deadline = time.monotonic() + TRANSITION_S
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        answer = self._spinner.call(lambda: self._transitions.call_async(request))
        while not answer.done() and time.monotonic() < deadline:
            check()
            time.sleep(0.01)
        return bool(answer.done() and answer.result().success)

    def _statuses(self, deadline: float, check: Callable[[], None]) -> Iterator[dict[str, int]]:
        """Counts of one /diagnostics after the other."""
        while time.monotonic() < deadline:
            check()
            with self._changed:
                number = self._status_number
                self._changed.wait_for(lambda seen=number: self._status_number > seen, 0.5)  # type: ignore[misc]
                values = {name: int(self._status.get(name, 0)) for name in COUNTS}
                # Masks are no clouds.
                values["rejected"] -= int(self._status.get("rejected: road mask malformed", 0))
                came = self._status_number > number
            if came:
                yield values

    def _take(self, raw: bytes) -> None:
        with self._changed:
            self._answers.setdefault(stamp_of(raw), time.monotonic())
            self._changed.notify_all()

    def _note(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.endswith(": detector"):
                with self._changed:
                    self._status = {item.key: item.value for item in status.values}
                    self._status_number += 1
                    self._changed.notify_all()


def _scene(count: int, seed: int) -> np.ndarray:
    """float32 [P, 4]: flat ground and some boxes, as a LiDAR on a roof sees them; intensity 0-1."""
    chance = np.random.default_rng(seed)
    xyz = np.stack([chance.uniform(1, 70, count), chance.uniform(-20, 20, count), chance.normal(0, 0.02, count)], 1)
    for x, y in ((12, 3), (25, -2), (40, 6), (55, 0)):
        box = np.stack(
            [chance.uniform(-2, 2, 300) + x, chance.uniform(-1, 1, 300) + y, chance.uniform(0.2, 1.6, 300)], 1
        )
        xyz = np.concatenate([xyz, box])
    xyz[:, 2] -= HEIGHT
    return np.concatenate([xyz, chance.uniform(0, 1, (len(xyz), 1))], 1).astype(np.float32)[-count:]


def _bytes(message: object) -> bytes:
    return bytes(typestore().serialize_cdr(message, message.__msgtype__))  # type: ignore[attr-defined]
