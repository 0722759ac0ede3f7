"""The topics of masks: what arrives is checked, kept, counted and told."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from nav_msgs.msg import OccupancyGrid
from rclpy.node import Node

from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.node.frame_names import FrameNames
from sbnet_perception.node.mask_kinds import MASKS
from sbnet_perception.node.mask_layer import MaskLayer, mask_layers
from sbnet_perception.node.parameters import NodeConfig
from sbnet_perception.node.qos import OVERRIDABLE, latched, latest
from sbnet_perception.node.status import NotProcessed, Rejected, Status
from sbnet_perception.text import quoted


class Log(Protocol):
    """Where the node tells what messages gave rise to."""

    def say(self, severity: str, kind: str, text: str, burst: int = 1) -> None: ...

    def complain(self, error: NotProcessed, frame_id: str) -> None: ...


class MaskTopics:
    """Subscriptions of the masks.

    Attributes:
        layers: by the name in expressions, what each topic has delivered.
    """

    def __init__(
        self, node: Node, config: NodeConfig, pipeline: Pipeline, status: Status, names: FrameNames, log: Log
    ) -> None:
        self._node, self._status, self._names, self._log = node, status, names, log
        self.layers = mask_layers(config, pipeline)
        self._said = dict.fromkeys(MASKS, "")
        self._subscriptions = [
            node.create_subscription(
                OccupancyGrid,
                layer.kind.topic,
                partial(self._on_mask, layer),
                latest() if layer.kind.changes else latched(),
                qos_overriding_options=OVERRIDABLE,
            )
            for layer in self.layers.values()
        ]

    def clock_jumped(self) -> None:
        """The node's clock has jumped back."""
        for layer in self.layers.values():
            layer.clock_jumped()

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_mask(self, layer: MaskLayer, msg: OccupancyGrid) -> None:
        """Callback of the executor."""
        kind = layer.kind
        try:
            layer.receive(msg, self._node.get_clock().now().nanoseconds)
        except Rejected as error:
            self._status.mask(kind, error, msg.header.frame_id)
            self._log.complain(error, msg.header.frame_id)
            return
        self._status.mask(kind)
        frame_id = self._names(msg.header.frame_id)
        size = f"{msg.info.width} x {msg.info.height} cells of {msg.info.resolution:g} m"
        text = f"{kind.name}: {size} in {quoted(frame_id)}"
        if text != self._said[kind]:
            # A mask that moves with the robot may come many times a second.
            self._log.say("info", kind.name, text, burst=10)
            self._said[kind] = text
