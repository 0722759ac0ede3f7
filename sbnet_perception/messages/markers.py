"""visualization_msgs/MarkerArray: detections for people to see, as CDR bytes."""

from __future__ import annotations

import struct
from typing import Any

from sbnet_perception.detector.boxes import Detections
from sbnet_perception.messages.cdr import CdrWriter, Header, Stamp
from sbnet_perception.messages.detections import pose_of, rows

_IDS = struct.Struct("<3i")
_BODY = struct.Struct("<10d4fiI?")
_ARROW = struct.Struct("<6d")
_BOOL = struct.Struct("<?")
_NO_HEADER = Header(Stamp(0, 0), "")
_NOWHERE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
# visualization_msgs/Marker: types and actions.
_ARROW_TYPE, _CUBE, _TEXT_VIEW_FACING = 0, 1, 9
_ADD, _DELETEALL = 0, 3


def markers_message(header: Any, detections: Detections, classes: tuple[str, ...], lifetime_s: float) -> bytes:
    """visualization_msgs/MarkerArray: boxes, heading arrows and labels, gone after `lifetime_s` seconds.

    The first deletes those of the frame before.
    """
    markers = _Markers(header, 1 + 3 * len(detections), lifetime_s)
    markers.add(b"", 0, _ARROW_TYPE, _DELETEALL, _NOWHERE, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    for number, (box, score, label) in enumerate(rows(detections)):
        x, y, z, length, width, height, _ = box
        pose, top = pose_of(box), (x, y, z + height / 2 + 0.7, 0.0, 0.0, 0.0, 1.0)
        dim, bright = _color(score, 0.45), _color(score, 1.0)
        nose = (0.0, 0.0, 0.0, length / 2 + 1.0, 0.0, 0.0)
        text = f"{classes[label]} {score:.2f}".encode()
        markers.add(b"boxes", number, _CUBE, _ADD, pose, (length, width, height), dim)
        markers.add(b"heading", number, _ARROW_TYPE, _ADD, pose, (0.15, 0.4, 0.4), bright, points=nose)
        markers.add(b"labels", number, _TEXT_VIEW_FACING, _ADD, top, (0.0, 0.0, 0.9), bright, text=text)
    return markers.out.message()


class _Markers:
    """Writes visualization_msgs/Marker after Marker."""

    def __init__(self, header: Any, count: int, lifetime_s: float) -> None:
        self.out = CdrWriter()
        self.out.length(count)
        self._header = header
        self._lifetime = divmod(round(lifetime_s * 1e9), 10**9)

    def add(
        self,
        namespace: bytes,
        number: int,
        kind: int,
        action: int,
        pose: tuple[float, ...],
        scale: tuple[float, ...],
        color: tuple[float, ...],
        points: tuple[float, ...] = (),
        text: bytes = b"",
    ) -> None:
        out = self.out
        out.header(self._header)
        out.string(namespace)
        out.numbers(_IDS, 4, number, kind, action)
        # It stays where it is: it is not locked to its frame.
        out.numbers(_BODY, 8, *pose, *scale, *color, *self._lifetime, False)
        out.length(len(points) // 3)
        if points:
            out.numbers(_ARROW, 8, *points)
        # Colours of points, and the texture: resource, image (header, format, data), coordinates.
        out.length(0)
        out.string(b"")
        out.header(_NO_HEADER)
        out.string(b"")
        out.data(b"")
        out.length(0)
        out.string(text)
        # The mesh: resource, file (name, data), whether its own materials are used.
        out.string(b"")
        out.string(b"")
        out.data(b"")
        out.numbers(_BOOL, 1, False)


def _color(score: float, alpha: float) -> tuple[float, float, float, float]:
    """From orange (doubtful) to green (sure)."""
    sure = min(max(score, 0.0), 1.0)
    return 1.0 - 0.8 * sure, 0.45 + 0.4 * sure, 0.15, alpha
