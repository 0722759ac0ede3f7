"""The two ways to get messages out of a recording: through its index, or record by record."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import get_chunk_data_stream
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat, QosDurability
from rosbags.rosbag2 import Reader

from sbnet_perception.bags.qos import profile_for

MAGIC = b"\x89MCAP0\r\n"


@dataclass(frozen=True)
class Topic:
    """What a bag holds of one topic; `definition` is text in rosbag2's ros2msg form, or empty."""

    msgtype: str
    count: int
    latched: bool
    definition: str


class BagMessage(NamedTuple):
    """One recorded message: topic, type, receive time in ns, CDR bytes."""

    topic: str
    msgtype: str
    stamp_ns: int
    raw: bytes


class Storage(Protocol):
    """An open recording; `messages` may raise anything where the file is damaged."""

    topics: dict[str, Topic]
    start_ns: int
    end_ns: int

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]: ...
    def close(self) -> None: ...


class IndexedStorage:
    """MCAP or sqlite3, folder or file, in the order of the stamps; read by rosbags."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)
        self._reader.open()
        self.topics = {c.topic: _topic(c) for c in self._reader.connections}
        filled = self._reader.message_count > 0
        self.start_ns = self._reader.start_time if filled else 0
        self.end_ns = self._reader.end_time - 1 if filled else 0

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        chosen = [c for c in self._reader.connections if c.topic in topics]
        if chosen:
            for connection, stamp, raw in self._reader.messages(chosen):
                yield BagMessage(connection.topic, connection.msgtype, stamp, bytes(raw))

    def close(self) -> None:
        self._reader.close()


class TornStorage:
    """An MCAP file without its end, as a crash or a full disk leaves it: what lies before the damage.

    Messages come in the order of the file, which is that in which they were written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.topics: dict[str, Topic] = {}
        stamps = []
        for channel, qos, definition, message in self._records():
            count = self.topics[message.topic].count + 1 if message.topic in self.topics else 1
            latched = "durability: 1" in qos or profile_for(channel.topic, message.msgtype) == "latched"
            self.topics[message.topic] = Topic(message.msgtype, count, latched, definition)
            stamps.append(message.stamp_ns)
        self.start_ns, self.end_ns = min(stamps, default=0), max(stamps, default=0)

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        return (message for *_, message in self._records() if message.topic in topics)

    def close(self) -> None:
        """Nothing stays open between two calls of `messages`."""

    def _records(self) -> Iterator[tuple[Channel, str, str, BagMessage]]:
        # Whatever a parser raises, the damage begins there; with nothing before it there is no bag.
        try:
            yield from self._parsed()
        except Exception:
            if not self.topics:
                raise

    def _parsed(self) -> Iterator[tuple[Channel, str, str, BagMessage]]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        for opcode, body in _whole_records(self._path):
            stream = ReadDataStream(BytesIO(body))
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream)
                schemas[schema.id] = schema
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(stream)
                channels[channel.id] = channel
            elif opcode == Opcode.MESSAGE:
                record = Message.read(stream, len(body))
                channel = channels[record.channel_id]
                schema = schemas[channel.schema_id]
                definition = schema.data.decode() if schema.encoding == "ros2msg" else ""
                qos = channel.metadata.get("offered_qos_profiles", "")
                message = BagMessage(channel.topic, schema.name, record.log_time, record.data)
                yield channel, qos, definition, message


def _topic(connection: Connection) -> Topic:
    profiles = cast(ConnectionExtRosbag2, connection.ext).offered_qos_profiles
    if profiles:
        latched = all(p.durability == QosDurability.TRANSIENT_LOCAL for p in profiles)
    else:
        latched = profile_for(connection.topic, connection.msgtype) == "latched"
    readable = connection.msgdef.format == MessageDefinitionFormat.MSG
    return Topic(connection.msgtype, connection.msgcount, latched, connection.msgdef.data if readable else "")


def _whole_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(opcode, body) of the data section, those inside chunks included, up to the first incomplete one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it is not an MCAP file")
        while len(head := file.read(9)) == 9:
            opcode, length = head[0], int.from_bytes(head[1:], "little")
            if opcode == Opcode.DATA_END or length > size - file.tell():
                return
            body = file.read(length)
            if opcode != Opcode.CHUNK:
                yield opcode, body
                continue
            chunk = Chunk.read(ReadDataStream(BytesIO(body)))
            stream, total = get_chunk_data_stream(chunk, validate_crc=True)
            while stream.count < total:
                inner, inner_length = stream.read1(), stream.read8()
                yield inner, stream.read(inner_length)
