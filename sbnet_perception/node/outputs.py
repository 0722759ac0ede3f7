"""The node's publishers."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from std_msgs.msg import Float64, Float64MultiArray, MultiArrayDimension
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.messages.cdr import Header
from sbnet_perception.messages.detections import detections_message
from sbnet_perception.messages.markers import markers_message
from sbnet_perception.messages.occupancy_grid import computation_mask_message
from sbnet_perception.node.diagnostics import frame_message
from sbnet_perception.node.processor import Processed
from sbnet_perception.node.qos import OVERRIDABLE, latest
from sbnet_perception.node.status import FrameFacts


class Outputs:
    """Publishes what came of a cloud; each topic is built and sent only where somebody listens.

    Attributes:
        marker_lifetime_s: seconds after which markers disappear where no newer ones come.
    """

    def __init__(self, node: LifecycleNode, classes: tuple[str, ...], grid: Grid, marker_lifetime_s: float) -> None:
        self._node = node
        self._classes = classes
        self._grid = grid
        self.marker_lifetime_s = marker_lifetime_s
        self._shown: Header | None = None
        self._publishers: list[LifecyclePublisher] = []
        self._detections = self._publisher(Detection3DArray, "detections")
        self._markers = self._publisher(MarkerArray, "markers")
        self._mask = self._publisher(OccupancyGrid, "computation_mask")
        self._frame = self._publisher(DiagnosticStatus, "~/debug/frame")
        self._latency = self._publisher(Float64, "~/debug/latency_ms")
        self._processing = self._publisher(Float64, "~/debug/processing_time_ms")
        self._stages = self._publisher(Float64MultiArray, "~/debug/stage_times_ms")

    def publish(self, frame: Processed) -> None:
        """Detections first, since a vehicle waits for them; the rest is for people."""
        header = Header(frame.stamp, frame.frame_id)
        if self._detections.get_subscription_count():
            self._detections.publish(detections_message(header, frame.detections, self._classes))
        if self._markers.get_subscription_count():
            self._shown = header
            self._markers.publish(
                markers_message(header, frame.detections, self._classes, self.marker_lifetime_s)
            )
        if self._mask.get_subscription_count():
            computed = frame.result.computed.cpu().numpy()
            self._mask.publish(computation_mask_message(header, computed, self._grid, frame.ground_z))
        if self._frame.get_subscription_count():
            self._frame.publish(frame_message(self._node.get_fully_qualified_name(), frame.facts))
        if self._latency.get_subscription_count():
            self._latency.publish(Float64(data=frame.facts.latency_ms))
        if self._processing.get_subscription_count():
            self._processing.publish(Float64(data=sum(frame.facts.timings_ms.values())))
        if self._stages.get_subscription_count():
            self._stages.publish(stage_times_message(frame.facts))

    def clear(self) -> None:
        """Deletes the markers that were published: of what is not looked for any more nothing stays on screen."""
        if self._shown is not None:
            self._markers.publish(
                markers_message(self._shown, Detections.empty(), self._classes, self.marker_lifetime_s)
            )
            self._shown = None

    def destroy(self) -> None:
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def _publisher(self, kind: type, topic: str) -> LifecyclePublisher:
        publisher = self._node.create_lifecycle_publisher(
            kind, topic, latest(), qos_overriding_options=OVERRIDABLE
        )
        self._publishers.append(publisher)
        return publisher


def stage_times_message(facts: FrameFacts) -> Float64MultiArray:
    """std_msgs/Float64MultiArray: milliseconds of each step; the label of its one dimension has their names."""
    count, names = len(facts.timings_ms), ",".join(facts.timings_ms)
    message = Float64MultiArray(data=list(facts.timings_ms.values()))
    message.layout.dim = [MultiArrayDimension(label=names, size=count, stride=count)]
    return message
