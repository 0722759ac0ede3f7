"""sqlite3 recordings that rosbags refuses: for a definition that is not needed, or for their end, which is missing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path

from sbnet_perception.bags.storage import BagMessage, Topic, is_latched, kind_of, merged

_WHOLE = "SELECT topic_id, timestamp, data FROM messages ORDER BY timestamp, id"
_TORN = "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"


class SqliteStorage:
    """One sqlite3 file in the order of the stamps; one that is damaged up to the damage, in the order of writing.

    Message definitions are left alone.

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
            profiles = dict(execute("SELECT id, offered_qos_profiles FROM topics").fetchall())
        self._by_id = {}
        for topic_id, name, msgtype, encoding in execute("SELECT id, name, type, serialization_format FROM topics"):
            kind = kind_of(msgtype, encoding)
            self._by_id[topic_id] = name, kind, is_latched(profiles.get(topic_id, ""), name, kind)
        counts = dict.fromkeys(self._by_id, 0)
        try:
            execute("SELECT sum(length(data)) FROM messages").fetchone()
        except sqlite3.DatabaseError as error:
            self.damage = f"it is damaged ({error})"
        stamps = []
        for topic_id, stamp, _ in self._rows():
            counts[topic_id] = counts.get(topic_id, 0) + 1
            stamps.append(stamp)
        self.start_ns, self.end_ns = min(stamps, default=0), max(stamps, default=0)
        found = ((name, Topic(kind, counts[n], latched, "")) for n, (name, kind, latched) in self._by_id.items())
        self.topics = merged(found)
