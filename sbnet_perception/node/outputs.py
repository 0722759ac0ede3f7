"""The node's publishers."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from sbnet_perception.bev.grid import Grid
from sbnet_perception.messages.cdr import Header
from sbnet_perception.messages.detections import detections_message
from sbnet_perception.messages.markers import markers_message
from sbnet_perception.messages.occupancy_grid import computation_mask_message
from sbnet_perception.node.diagnostics import frame_message
from sbnet_perception.node.processor import Processed

LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


class Outputs:
    """Publishes what came of a cloud; each topic is built and sent only where somebody listens."""

    def __init__(self, node: LifecycleNode, classes: tuple[str, ...], grid: Grid) -> None:
        self._node = node
        self._classes = classes
        self._grid = grid
        self._detections = node.create_lifecycle_publisher(Detection3DArray, "detections", LATEST)
        self._markers = node.create_lifecycle_publisher(MarkerArray, "markers", LATEST)
        self._mask = node.create_lifecycle_publisher(OccupancyGrid, "computation_mask", LATEST)
        self._frame = node.create_lifecycle_publisher(DiagnosticStatus, "~/debug/frame", LATEST)

    def publish(self, frame: Processed) -> None:
        """Detections first, since a vehicle waits for them; the rest is for people."""
        header = Header(frame.stamp, frame.frame_id)
        if self._detections.get_subscription_count():
            self._detections.publish(detections_message(header, frame.detections, self._classes))
        if self._markers.get_subscription_count():
            self._markers.publish(markers_message(header, frame.detections, self._classes))
        if self._mask.get_subscription_count():
            computed = frame.result.computed.cpu().numpy()
            self._mask.publish(computation_mask_message(header, computed, self._grid, frame.ground_z))
        if self._frame.get_subscription_count():
            self._frame.publish(frame_message(self._node.get_fully_qualified_name(), frame.facts))

    def destroy(self) -> None:
        for publisher in (self._detections, self._markers, self._mask, self._frame):
            self._node.destroy_lifecycle_publisher(publisher)
