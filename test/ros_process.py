"""The real node in a process of its own, and a peer node in the test that talks to it over DDS."""

from __future__ import annotations

import array
import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import OccupancyGrid
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2, PointField
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from sbnet_perception.desk.session import ChildProcess, Session
from sbnet_perception.detector.classes import ObjectClass
from sbnet_perception.detector.network import Detector, NetworkConfig
from sbnet_perception.detector.weights import save_weights
from sbnet_perception.node.spinner import Spinner

RELIABLE = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED, ROAD = (
    QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for depth in (50, 1)
)
SECOND = 1_000_000_000
PATIENCE_S = 60.0
"""How long anything that must come is waited for: far longer than it takes on a busy machine."""
START_NS = 1_700_000_000 * SECOND
TINY = NetworkConfig(
    initial_width=8,
    widths=(8, 8, 8, 8),
    units=(1, 1, 1, 1),
    top_width=8,
    upsample_widths=(8, 8),
    header_convolutions=1,
)


def tiny_weights(path: Path, classes: tuple[str, ...] = ("vehicle",), shape: NetworkConfig = TINY) -> Path:
    """Weights of an untrained network, a small one by default."""
    torch.manual_seed(0)
    entries = [ObjectClass(name, "#ffffff") for name in classes]
    save_weights(path, Detector(len(classes), shape), 0.2, entries, {"made by": "a test"})
    return path


def stamp(ns: int) -> Time:
    return Time(sec=ns // SECOND, nanosec=ns % SECOND)


def scene(count: int = 4000, seed: int = 0) -> np.ndarray:
    """float32 [P, 4]: flat ground and a box 20 m ahead, intensity 0-255."""
    rng = np.random.default_rng(seed)
    ground = np.stack([rng.uniform(1, 65, count), rng.uniform(-18, 18, count), rng.normal(0, 0.02, count)], 1)
    box = np.stack([rng.uniform(18, 22, 600), rng.uniform(-1, 1, 600), rng.uniform(0.4, 1.6, 600)], 1)
    xyz = np.concatenate([ground, box])
    return np.concatenate([xyz, rng.uniform(0, 255, (len(xyz), 1))], 1).astype(np.float32)


def cloud(points: np.ndarray, stamp_ns: int, frame_id: str = "base_link") -> PointCloud2:
    """A well-formed cloud; tests then spoil it."""
    msg = PointCloud2(height=1, width=len(points), point_step=16, row_step=16 * len(points), is_dense=True)
    msg.header.stamp, msg.header.frame_id = stamp(stamp_ns), frame_id
    msg.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(("x", "y", "z", "intensity"))
    ]
    msg.data = array.array("B", np.ascontiguousarray(points, np.float32).tobytes())
    return msg


def road_grid(
    cells: np.ndarray,
    resolution: float = 0.5,
    xy: tuple[float, float] = (0.0, -20.0),
    yaw: float = 0.0,
    frame_id: str = "base_link",
) -> OccupancyGrid:
    """cells: int8 [h, w]; xy and yaw: origin of cell (0, 0) in the frame."""
    msg = OccupancyGrid()
    msg.header.frame_id = frame_id
    msg.info.height, msg.info.width = cells.shape
    msg.info.resolution = resolution
    msg.info.origin.position.x, msg.info.origin.position.y = xy
    msg.info.origin.orientation.z, msg.info.origin.orientation.w = np.sin(yaw / 2), np.cos(yaw / 2)
    msg.data = array.array("b", cells.astype(np.int8).tobytes())
    return msg


def transform(
    parent: str, child: str, stamp_ns: int, x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0
) -> TransformStamped:
    msg = TransformStamped(child_frame_id=child)
    msg.header.frame_id, msg.header.stamp = parent, stamp(stamp_ns)
    move, turn = msg.transform.translation, msg.transform.rotation
    move.x, move.y, move.z = x, y, z
    turn.z, turn.w = np.sin(yaw / 2), np.cos(yaw / 2)
    return msg


@contextlib.contextmanager
def own_domain() -> Iterator[rclpy.Context]:
    """A context of a DDS domain that nobody else is in."""
    with Session() as session, session.applied():
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=session.domain_id)
        yield context
        rclpy.shutdown(context=context)


class Robot:
    """The node's process and the rest of the robot: publishes inputs, collects outputs.

    Attributes:
        lines: everything that the node's process has printed.
    """

    def __init__(
        self,
        parameters: Mapping[str, object],
        arguments: tuple[str, ...] = (),
        program: tuple[str, ...] = ("-m", "sbnet_perception.node.node"),
    ) -> None:
        self.session = Session()
        self.lines: list[str] = []
        self._changed = threading.Condition()
        command = [*program, "--ros-args"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={str(value).lower() if isinstance(value, bool) else value}"]
        self.process = ChildProcess([*command, *arguments], self.session.environment, self._on_line)
        self.now_ns = START_NS
        with self.session.applied():
            self._context = rclpy.Context()
            rclpy.init(context=self._context, domain_id=self.session.domain_id)
            self.node = rclpy.create_node("robot", context=self._context)
        self.detections: dict[int, Detection3DArray] = {}
        self.markers: dict[int, MarkerArray] = {}
        self.masks: dict[int, OccupancyGrid] = {}
        self.frames: list[DiagnosticStatus] = []
        self.diagnostics: list[tuple[int, DiagnosticStatus]] = []
        self._points = self.node.create_publisher(PointCloud2, "points", RELIABLE)
        self._road = self.node.create_publisher(OccupancyGrid, "road_mask", ROAD)
        self._tf = self.node.create_publisher(TFMessage, "/tf", RELIABLE)
        self._tf_static = self.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        self._clock = self.node.create_publisher(Clock, "/clock", RELIABLE)
        self._listen(Detection3DArray, "detections", lambda m: self.detections.update({ns_of(m): m}))
        self._listen(MarkerArray, "markers", lambda m: self.markers.update({ns_of(m.markers[0]): m}))
        self._listen(OccupancyGrid, "computation_mask", lambda m: self.masks.update({ns_of(m): m}))
        self._listen(DiagnosticStatus, "sbnet/debug/frame", self.frames.append)
        self._listen(
            DiagnosticArray, "/diagnostics", lambda m: self.diagnostics.append((ns_of(m), m.status[0]))
        )
        self._spinner = Spinner(self.node)

    def ready(self) -> Robot:
        """Waits until the node is active and hears this side, and this side the node."""
        self.wait_printed("active: waiting")
        sides = [self._points, self._road, self._tf]
        self.wait(lambda: all(side.get_subscription_count() for side in sides), "the node hears us")

        # Discovery ends at different times on the two sides: clouds count from the first answer on.
        def answered() -> bool:
            self.send(cloud(scene(), self.tick()))
            time.sleep(0.2)
            return bool(self.detections)

        self.wait(answered, "a first answer")
        return self

    # Input -------------------------------------------------------------------------------------------------

    def tick(self, ns: int = SECOND // 10) -> int:
        """The next stamp."""
        self.now_ns += ns
        return self.now_ns

    def send(self, msg: PointCloud2 | bytes) -> None:
        self._points.publish(msg)

    def send_road(self, msg: OccupancyGrid, heard: bool = True) -> None:
        """Publishes a road mask and, where wanted, waits until the node has said what it thinks of it."""
        before = len(self.lines)
        self._road.publish(msg)
        if heard:
            self.wait(lambda: any("road mask" in line for line in self.lines[before:]), "a line about it")

    def new_road_publisher(self) -> None:
        """A map server that has not published anything yet."""

        def replace() -> None:
            self.node.destroy_publisher(self._road)
            self._road = self.node.create_publisher(OccupancyGrid, "road_mask", ROAD)

        self._spinner.call(replace)

    def publisher(self, kind: Any, topic: str, profile: QoSProfile = RELIABLE) -> Any:
        """Another publisher, once the node hears it."""
        made = self._spinner.call(lambda: self.node.create_publisher(kind, topic, profile))
        self.wait(made.get_subscription_count, f"the node hears {topic}")
        return made

    def withdraw(self, publisher: Any) -> None:
        """It and what it has latched are no more."""
        self._spinner.call(lambda: self.node.destroy_publisher(publisher))

    def send_tf(self, *transforms: TransformStamped, static: bool = False) -> None:
        (self._tf_static if static else self._tf).publish(TFMessage(transforms=list(transforms)))

    def send_clock(self, ns: int) -> None:
        self._clock.publish(Clock(clock=stamp(ns)))

    # Output ------------------------------------------------------------------------------------------------

    def detect(self, msg: PointCloud2 | None = None) -> Detection3DArray:
        """Sends a cloud (a good one by default) and waits for the detections that carry its stamp."""
        msg = cloud(scene(), self.tick()) if msg is None else msg
        ns = ns_of(msg)
        self.send(msg)
        self.wait(lambda: ns in self.detections, f"detections of the cloud of {ns / SECOND:.3f} s")
        return self.detections[ns]

    def printed(self, pattern: str) -> bool:
        return any(re.search(pattern, line) for line in list(self.lines))

    def wait_printed(self, pattern: str) -> None:
        self.wait(lambda: self.printed(pattern), f"the node logs {pattern!r}")

    def status(self) -> DiagnosticStatus:
        """The next message on /diagnostics that was made after this call (on wall time)."""
        now_ns = time.time_ns()
        self.wait(lambda: self.diagnostics and self.diagnostics[-1][0] > now_ns, "/diagnostics")
        return self.diagnostics[-1][1]

    def counter(self, name: str) -> int:
        return int(values(self.status()).get(name, "0"))

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Returns once the condition holds; fails when the node or this side's executor has ended, or time is over."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self._spinner.check()
            code = self.process.exit_code
            assert code is None, f"the node ended with {code}:\n{self.log()}"
            assert time.monotonic() < deadline, f"it did not come: {what}. The node's output:\n{self.log()}"
            with self._changed:
                self._changed.wait(0.02)

    def log(self) -> str:
        return "\n".join(self.lines[-40:])

    # Services ----------------------------------------------------------------------------------------------

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self._spinner.call(lambda: self.node.create_client(kind, f"sbnet/{name}"))
        try:
            self.wait(client.service_is_ready, f"the service {name}")
            future = client.call_async(request)
            self.wait(future.done, f"answer of {name}")
            return future.result()
        finally:
            self._spinner.call(lambda: self.node.destroy_client(client))

    def transition(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        done = bool(self.call(ChangeState, "change_state", request).success)
        # A cloud that leaves before this side knows of the new subscription is lost.
        readers = {"cleanup": 0, "configure": 1}.get(label)
        if done and readers is not None:
            self.wait(lambda: self._points.get_subscription_count() == readers, f"{readers} readers of clouds")
        return done

    def reconfigure(self, **parameters: Any) -> None:
        """Down to unconfigured, other parameters, up again."""
        for label in ("deactivate", "cleanup"):
            assert self.transition(label), self.log()
        for name, value in parameters.items():
            result = self.set(**{name: value})
            assert result.successful, result.reason
        for label in ("configure", "activate"):
            assert self.transition(label), self.log()

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def set(self, **parameters: Any) -> SetParametersResult:
        """Sets one parameter; double underscores stand for dots."""
        ((name, value),) = parameters.items()
        request = SetParameters.Request(
            parameters=[Parameter(name.replace("__", "."), value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, "set_parameters", request).results[0]

    # Inside ------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process._process.send_signal(signal.SIGINT)

    def close(self) -> int:
        """Ends both sides; the exit code of the node."""
        code = self.process.stop(20.0)
        self._spinner.stop()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)
        self.session.close()
        if self._spinner.failure is not None:
            raise self._spinner.failure
        return code

    def _on_line(self, line: str) -> None:
        self.lines.append(line)
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _listen(self, kind: Any, topic: str, take: Callable[[Any], Any]) -> None:
        def callback(msg: Any) -> None:
            take(msg)
            self._tell()

        self.node.create_subscription(kind, topic, callback, RELIABLE)


def ends(robot: Robot) -> None:
    """Waits until the node's process has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while robot.process.exit_code is None:
        assert time.monotonic() < deadline, robot.log()
        time.sleep(0.01)


def ns_of(msg: Any) -> int:
    return int(msg.header.stamp.sec) * SECOND + int(msg.header.stamp.nanosec)


def values(status: DiagnosticStatus) -> dict[str, str]:
    return {item.key: item.value for item in status.values}


def shown(collected: dict[int, Any], robot: Robot, msg: Any) -> Any:
    """The node's other message of the same cloud."""
    robot.wait(lambda: ns_of(msg) in collected, "the other message of the cloud")
    return collected[ns_of(msg)]


def boxes(answer: Detection3DArray) -> np.ndarray:
    rows = []
    for item in answer.detections:
        at, turn, size = item.bbox.center.position, item.bbox.center.orientation, item.bbox.size
        rows.append((at.x, at.y, at.z, size.x, size.y, size.z, turn.z, turn.w))
    return np.array(rows)


def same_answer(robot: Robot, msg: PointCloud2, reference: PointCloud2) -> None:
    reference.header.stamp = stamp(robot.tick())
    expected = boxes(robot.detect(reference))
    msg.header.stamp = stamp(robot.tick())
    assert len(expected) > 0
    np.testing.assert_allclose(boxes(robot.detect(msg)), expected, rtol=1e-4, atol=1e-4)
