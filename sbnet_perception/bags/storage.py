"""What a recording is to its readers, and MCAP record by record."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, Protocol

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import get_chunk_data_stream

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
    """An open recording; `messages` may raise anything where the file is damaged.

    `damage` is empty, or what ends the reading before the end of the recording.
    """

    topics: dict[str, Topic]
    damage: str
    start_ns: int
    end_ns: int

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]: ...
    def close(self) -> None: ...


class TornStorage:
    """An MCAP file without its end, as a crash or a full disk leaves it: what lies before the damage.

    Messages come in the order of the file, which is that in which they were written.

    Attributes:
        damage: what ends the reading, or empty where only the index is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.topics: dict[str, Topic] = {}
        self.damage = ""
        stamps = []
        for channel, qos, definition, message in self._records():
            count = self.topics[message.topic].count + 1 if message.topic in self.topics else 1
            latched = is_latched(qos, channel.topic, message.msgtype)
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
        except EOFError:
            self.damage = "it ends in the middle"
        except Exception as error:
            if not self.topics:
                raise
            self.damage = f"it is damaged ({str(error).splitlines()[0][:100] if str(error) else type(error).__name__})"

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
                schema = schemas.get(channel.schema_id, Schema(0, b"", "", "unknown"))
                definition = schema.data.decode() if schema.encoding == "ros2msg" else ""
                qos = channel.metadata.get("offered_qos_profiles", "")
                kind = kind_of(schema.name, channel.message_encoding)
                message = BagMessage(channel.topic, kind, record.log_time, record.data)
                yield channel, qos, definition, message


def merged(found: Iterable[tuple[str, Topic]]) -> dict[str, Topic]:
    """Topics by name; several publishers of one are counted together, those of a type unlike the first left out."""
    topics: dict[str, Topic] = {}
    for name, topic in found:
        before = topics.setdefault(name, topic)
        if before is not topic and before.msgtype == topic.msgtype:
            topics[name] = replace(before, count=before.count + topic.count, latched=before.latched and topic.latched)
    return topics


def kind_of(msgtype: str, encoding: str) -> str:
    """The type, and where it is not in CDR its encoding too, so that it is never taken for ROS's."""
    return msgtype if encoding == "cdr" else f"{msgtype} ({encoding or 'no encoding'})"


def is_latched(profiles: str, topic: str, msgtype: str) -> bool:
    """Whether all publishers are transient local by the text of what they offered, or a topic by custom without one.

    The text is YAML, which is not built: in a few lines it may stand for billions.
    """
    if offered := re.findall(r"durability\W+(\w+)", profiles):
        return all(word.lower() in ("1", "transient_local") for word in offered)
    return profile_for(topic, msgtype) == "latched"


def _whole_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(opcode, body) of the data section, those inside chunks included.

    Raises:
        EOFError: the file ends before its data section does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it is not an MCAP file")
        while len(head := file.read(9)) == 9:
            opcode, length = head[0], int.from_bytes(head[1:], "little")
            if opcode == Opcode.DATA_END:
                return
            if length > size - file.tell():
                break
            body = file.read(length)
            if opcode != Opcode.CHUNK:
                yield opcode, body
                continue
            chunk = Chunk.read(ReadDataStream(BytesIO(body)))
            stream, total = get_chunk_data_stream(chunk, validate_crc=True)
            while stream.count < total:
                inner, inner_length = stream.read1(), stream.read8()
                yield inner, stream.read(inner_length)
        raise EOFError
