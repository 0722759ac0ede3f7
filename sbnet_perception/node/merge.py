"""Clouds of several LiDARs, gathered into frames: one cloud of each, whose stamps lie close together."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sbnet_perception.messages.raw_cloud import RawCloud
from sbnet_perception.node.gate import JUMP_BACK_NS, stamp_ns
from sbnet_perception.node.status import Dropped

PATIENCE = 2.0
"""Windows that the first cloud of a frame waits for the others: stamps apart by one of them come later than that."""
SILENT = 5
"""Frames in a row without a topic after which it is not waited for any more, until it is heard again."""


@dataclass(frozen=True, eq=False)
class Arrived:
    """A cloud, the topic that it came on, and when it came (time.monotonic seconds)."""

    msg: RawCloud
    at: float
    topic: str = ""

    @property
    def stamp_ns(self) -> int:
        return stamp_ns(self.msg.header.stamp)

    @property
    def source(self) -> tuple[str, str]:
        """What tells one LiDAR from another."""
        return self.topic, self.msg.header.frame_id


@dataclass(frozen=True, eq=False)
class Frame:
    """What is answered together.

    Attributes:
        clouds: one or more, in the order of the topics.
        missing: the topics of which there is none, each with a sentence that says why.
        era: how often time had jumped before.
    """

    clouds: tuple[Arrived, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    era: int = 0

    @property
    def oldest(self) -> Arrived:
        """The cloud that the frame has its stamp from, as Autoware does it.

        https://docs.ros.org/en/jazzy/p/autoware_sensing_msgs/msg/ConcatenatedPointCloudInfo.html
        """
        return min(self.clouds, key=lambda cloud: cloud.stamp_ns)

    @property
    def stamp(self) -> Any:
        """builtin_interfaces/Time of the oldest cloud."""
        return self.oldest.msg.header.stamp

    @property
    def stamp_ns(self) -> int:
        return self.oldest.stamp_ns

    @property
    def first_at(self) -> float:
        """When the first of the clouds came."""
        return min(cloud.at for cloud in self.clouds)

    @property
    def last_at(self) -> float:
        """When the last of the clouds came."""
        return max(cloud.at for cloud in self.clouds)

    @property
    def names(self) -> str:
        """The frame_ids, each once."""
        return ", ".join(dict.fromkeys(cloud.msg.header.frame_id for cloud in self.clouds))


def apart(stamp_ns: int, others: Iterable[int], window_s: float) -> bool:
    """Whether a stamp lies too far from one of a frame's stamps (ns) to be of this frame."""
    return any(abs(stamp_ns - other) > window_s * 1e9 for other in others)


class Merge:
    """Gathers frames; not thread-safe.

    Args:
        topics: a frame has a cloud of each. With one topic each cloud is a frame.
        window_s: how far the stamps of a frame may lie apart. Its first cloud waits `PATIENCE` times as long for the
            others, but not for one that has been missing in the last `SILENT` frames.
    """

    def __init__(self, topics: Sequence[str], window_s: float) -> None:
        self._topics = topics
        self._window_s = window_s
        self._open: dict[str, Arrived] = {}
        self._last: dict[str, Arrived] = {}
        self._heard_ns: dict[str, int] = {}
        self._absent = collections.Counter[str]()

    @property
    def due(self) -> float | None:
        """When the frame that is being gathered goes as it is (time.monotonic seconds); None where there is none."""
        if not self._open:
            return None
        return min(cloud.at for cloud in self._open.values()) + PATIENCE * self._window_s

    def put(self, cloud: Arrived, era: int = 0) -> list[Frame]:
        """Takes a cloud; the frames that are whole now, or to which it does not belong.

        Raises:
            Dropped: the frame of this cloud has gone without it.
        """
        self._heard_ns[cloud.topic] = cloud.stamp_ns
        self._absent[cloud.topic] = 0
        done = []
        if cloud.topic in self._open or self._apart(cloud, self._open):
            if self._late(cloud, self._open) or self._late(cloud, self._last):
                text = f"the others of its time went without {cloud.topic}: raise merge_window"
                raise Dropped("too late to be merged", text)
            if self._open:
                done.append(self.close(era))
        self._open[cloud.topic] = cloud
        if all(topic in self._open or self._absent[topic] >= SILENT for topic in self._topics):
            done.append(self.close(era))
        return done

    def close(self, era: int = 0) -> Frame:
        """The frame that is being gathered, with what there is of it; not to be called where `due` is None."""
        clouds = tuple(self._open[topic] for topic in self._topics if topic in self._open)
        absent = [topic for topic in self._topics if topic not in self._open]
        self._absent.update(absent)
        self._open, self._last = {}, self._open
        return Frame(clouds, {topic: self._why(topic, clouds[0]) for topic in absent}, era)

    def clear(self) -> int:
        """Forgets what waits, and what has gone; how many clouds waited."""
        count = len(self._open)
        self._open, self._last = {}, {}
        return count

    def _late(self, cloud: Arrived, frame: Mapping[str, Arrived]) -> bool:
        """It belongs to this frame, or to one a little before: farther away it is of another clock."""
        if not frame or cloud.topic in frame:
            return False
        ahead_ns = cloud.stamp_ns - min(other.stamp_ns for other in frame.values())
        return not self._apart(cloud, frame) or -JUMP_BACK_NS <= ahead_ns < 0

    def _apart(self, cloud: Arrived, frame: Mapping[str, Arrived]) -> bool:
        """Its stamp lies too far from one of the frame's; true where there is none."""
        return not frame or apart(cloud.stamp_ns, (other.stamp_ns for other in frame.values()), self._window_s)

    def _why(self, topic: str, first: Arrived) -> str:
        text = f"no cloud of {topic} within merge_window {self._window_s:g} s"
        if topic not in self._heard_ns:
            return f"{text}: none has come yet"
        apart_s = (self._heard_ns[topic] - first.stamp_ns) / 1e9
        return f"{text}: the stamp of its last one lies {apart_s:+.3f} s from that of {first.topic}"
