"""sqlite3 recordings, whole or without their end; nothing in them is parsed but rows.

rosbags would build the YAML of ``offered_qos_profiles``, a few lines of which may stand for billions, and compile every
message definition.
"""

from __future__ import annotations

import collections
import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path

from sbnet_perception.bags.storage import BagMessage, Topic, is_latched, kind_of, merged
from sbnet_perception.yaml_events import LARGEST_BYTES

_PROFILES = f"SELECT id, substr(offered_qos_profiles, 1, {LARGEST_BYTES}) FROM topics"
_WHOLE = "SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp, id"
_TORN = "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"


class SqliteStorage:
    """One sqlite3 file in the order of the stamps; one that is damaged up to the damage, in the order of writing.

    Attributes:
        damage: what ends the reading, or empty.

    Raises:
        sqlite3.Error: not even the topics can be read.
    """

    def __init__(self, path: Path) -> None:
        self.damage = ""
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?immutable=1", uri=True)
        try:
            # The way of SQLite's own tools to look into a file that is shorter than it says.
            self._database.execute("PRAGMA writable_schema = ON")
            self._read_topics()
        except BaseException:
            self._database.close()
            raise

    def messages(self, topics: Collection[str]) -> Iterator[BagMessage]:
        for topic_id, stamp, data in self._rows():
            name, kind, _ = self._by_id.get(topic_id, ("", "", False))
            if name in topics and kind == self.topics[name].msgtype:
                yield BagMessage(name, kind, stamp, data)

    def close(self) -> None:
        self._database.close()

    def _rows(self) -> Iterator[tuple[int, int, bytes]]:
        if not self.damage:
            yield from self._database.execute(_WHOLE)
            return
        with contextlib.suppress(sqlite3.DatabaseError):
            yield from self._database.execute(_TORN)

    def _read_topics(self) -> None:
        execute = self._database.execute
        profiles = {}
        with contextlib.suppress(sqlite3.OperationalError):  # the first versions of rosbag2 have none
            profiles = dict(execute(_PROFILES).fetchall())
        definitions = self._definitions()
        self._by_id = {}
        for topic_id, name, msgtype, encoding in execute("SELECT id, name, type, serialization_format FROM topics"):
            kind = kind_of(msgtype, encoding)
            self._by_id[topic_id] = name, kind, is_latched(profiles.get(topic_id, ""), name, kind)
        counts = collections.Counter[int]()
        try:
            execute("SELECT sum(length(data)) FROM messages").fetchone()
            found = execute("SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages GROUP BY topic_id")
            stamps = []
            for topic_id, count, first, last in found:
                counts[topic_id] = count
                stamps += [first, last]
        except sqlite3.DatabaseError as error:
            self.damage = f"it is damaged ({error})"
            rows = [(topic_id, stamp) for topic_id, stamp, _ in self._rows()]
            counts = collections.Counter(topic_id for topic_id, _ in rows)
            stamps = [stamp for _, stamp in rows]
        self.start_ns, self.end_ns = min(stamps, default=0), max(stamps, default=0)
        self.topics = merged(
            (name, Topic(kind, counts[topic_id], latched, definitions.get(kind, "")))
            for topic_id, (name, kind, latched) in self._by_id.items()
        )

    def _definitions(self) -> dict[str, str]:
        """Message definitions by type; there are none before Iron."""
        columns = "topic_type, encoded_message_definition"
        with contextlib.suppress(sqlite3.DatabaseError):
            found = self._database.execute(f"SELECT {columns} FROM message_definitions WHERE encoding = 'ros2msg'")
            return dict(found.fetchall())
        return {}
