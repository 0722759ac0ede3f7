"""What the detections mean, latched beside them: vision_msgs/VisionInfo and LabelInfo."""

from __future__ import annotations

from rclpy.lifecycle import LifecycleNode
from vision_msgs.msg import LabelInfo, VisionClass, VisionInfo

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.node.qos import OVERRIDABLE, latched


class Labels:
    """Tells once, and again whenever it changes, which classes there are and from which score on they are reported.

    `vision_info` names the weights and the parameter with the classes, `label_info` numbers the classes in the order of
    that parameter. In detections the class_id is the class's name.

    Args:
        weights: name of the weights file.
        version: another number whenever the classes may be others than before.
    """

    def __init__(self, node: LifecycleNode, weights: str, version: int) -> None:
        self._node = node
        self._vision = VisionInfo(
            method=f"SBNet, weights {weights}",
            database_location=f"{node.get_fully_qualified_name()}/classes",
            database_version=version,
        )
        self._publishers = [
            node.create_lifecycle_publisher(kind, topic, latched(), qos_overriding_options=OVERRIDABLE)
            for kind, topic in ((VisionInfo, "vision_info"), (LabelInfo, "label_info"))
        ]

    def publish(self, detector: DetectorConfig) -> None:
        """Tells it; the threshold is the lowest of the classes."""
        label = LabelInfo(
            class_map=[VisionClass(class_id=n, class_name=name) for n, name in enumerate(detector.classes)],
            threshold=min(detector.thresholds),
        )
        for publisher, message in zip(self._publishers, (self._vision, label), strict=True):
            message.header.stamp = self._node.get_clock().now().to_msg()
            publisher.publish(message)

    def destroy(self) -> None:
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
