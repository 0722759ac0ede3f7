"""Recordings read by the libraries of their formats: rosbags refuses them for parts that are not needed.

A recorder that did not find a type's ``.msg`` leaves its definition empty, other programs write topics of protobuf or
JSON beside ROS's, and a message may be empty. None of this keeps the rest of the recording from being read. Nor is the
YAML that a channel carries ever built: in rosbags' hands a few lines of it may stand for billions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import zstandard
from mcap.reader import make_reader

from sbnet_perception.bags.sqlite import SqliteStorage
from sbnet_perception.bags.storage import (
    BagMessage,
    Storage,
    Topic,
    TornStorage,
    is_latched,
    kind_of,
    merged,
)


class McapStorage:
    """One MCAP file with its index, whatever its profile and its schemas.

    A topic of another encoding than CDR has it in its type, ``foxglove.Grid (protobuf)``, so it is never taken for
    ROS's.

    Raises:
        ValueError: the file has no index with counts.
    """

    damage = ""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._reader = make_reader(self._file)
            summary = self._reader.get_summary()
            if summary is None or summary.statistics is None or not summary.chunk_indexes:
                raise ValueError("it has no index")
        except BaseException:
            self._file.close()
            raise
        found = []
        for channel in summary.channels.values():
            schema = summary.schemas.get(channel.schema_id)
            kind = kind_of("unknown" if schema is None else schema.name, channel.message_encoding)
            latched = is_latched(channel.metadata.get("offered_qos_profiles", ""), channel.topic, kind)
            count = summary.statistics.channel_message_counts.get(channel.id, 0)
            definition = schema.data.decode() if schema is not None and schema.encoding == "ros2msg" else ""
            found.append((channel.topic, Topic(kind, count, latched, definition)))
        self.topics = merged(found)
        self.start_ns, self.end_ns = summary.statistics.message_start_time, summary.statistics.message_end_time

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        for schema, channel, message in self._reader.iter_messages(list(topics)):
            kind = kind_of("unknown" if schema is None else schema.name, channel.message_encoding)
            if kind == self.topics[channel.topic].msgtype:
                yield BagMessage(channel.topic, kind, message.log_time, message.data)

    def close(self) -> None:
        self._file.close()


class PackedStorage:
    """A file that was compressed as a whole, in a temporary folder until it is closed.

    Raises:
        Exception: the file is damaged, or what was in it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sbnet-bag-")
        plain = Path(self._folder.name, path.stem)
        try:
            with path.open("rb") as packed, plain.open("wb") as unpacked:
                zstandard.ZstdDecompressor().copy_stream(packed, unpacked)
            self._storage = STORAGES[plain.suffix][0](plain)
        except BaseException:
            self._folder.cleanup()
            raise
        self.topics, self.damage = self._storage.topics, self._storage.damage
        self.start_ns, self.end_ns = self._storage.start_ns, self._storage.end_ns

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        return self._storage.messages(topics)

    def close(self) -> None:
        self._storage.close()
        self._folder.cleanup()


class SeveralStorages:
    """The parts of one split recording, in the order of their first messages."""

    damage = ""

    def __init__(self, parts: list[Storage]) -> None:
        self._parts = sorted(parts, key=lambda part: part.start_ns)
        self.topics = merged([item for part in self._parts for item in part.topics.items()])
        filled = [part for part in self._parts if any(topic.count for topic in part.topics.values())]
        self.start_ns = min((part.start_ns for part in filled), default=0)
        self.end_ns = max((part.end_ns for part in filled), default=0)

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        for part in self._parts:
            yield from part.messages(topics)

    def close(self) -> None:
        for part in self._parts:
            part.close()


STORAGES: dict[str, tuple[Callable[[Path], Storage], ...]] = {
    ".mcap": (McapStorage, TornStorage),
    ".db3": (SqliteStorage,),
    ".zstd": (PackedStorage,),
}
"""What reads a file, in this order: with its index, then without. A packed file is one of a folder with metadata."""
