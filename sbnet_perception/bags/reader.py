"""Reading rosbag2 recordings of any make: MCAP or sqlite3, a folder or a bare file.

Nothing in a bag is ever executed: metadata is plain YAML, and the message definitions that a bag carries
are handed on as text, never compiled; only the types of `typestore` can be decoded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from sbnet_perception.bags.storage import BagMessage, IndexedStorage, Storage, Topic, TornStorage
from sbnet_perception.bags.types import typestore
from sbnet_perception.errors import UserError

__all__ = ["BagMessage", "BagReader", "Topic", "deserialize"]


class BagReader:
    """Context manager over one recording.

    Args:
        path: a bag folder, or one ``.mcap`` or ``.db3`` file.

    Attributes:
        topics: name -> `Topic` (type, count, latched, definition).
        start_ns, end_ns: receive time of the first and the last message.
        warnings: what was wrong with the recording but did not stop it from being read.

    Raises:
        UserError: there is no such bag, it is damaged, of another format, or holds no message.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.warnings: tuple[str, ...] = ()
        if not self.path.exists():
            raise UserError(f"there is no bag at {self.path}")
        if self.path.is_dir() and not (self.path / "metadata.yaml").exists():
            self.path = self._only_file()
        self._storage = self._open()
        self.topics = self._storage.topics
        self.start_ns, self.end_ns = self._storage.start_ns, self._storage.end_ns
        if not any(topic.count for topic in self.topics.values()):
            self.close()
            raise UserError(f"the bag {self.path} holds no message; was the recording stopped too early?")

    def find_topic(self, msgtype: str, name: str | None = None, preferred: str = "") -> str:
        """The topic that carries `msgtype`.

        Args:
            msgtype: for example ``sensor_msgs/msg/PointCloud2``.
            name: the one the user asked for; it must be there and be of this type.
            preferred: the one to take where several carry the type.

        Raises:
            UserError: none or several fit; the message lists what the bag holds.
        """
        found = self.topics_of(msgtype)
        if name is not None:
            if name in found:
                return name
            raise UserError(f"{self.path} has no topic {name} of type {msgtype}; it holds: {self._listing()}")
        if len(found) == 1 or preferred in found:
            return preferred if preferred in found else found[0]
        if found:
            raise UserError(f"{self.path} has several topics of type {msgtype}, name one: {', '.join(found)}")
        raise UserError(f"{self.path} has no topic of type {msgtype}; it holds: {self._listing()}")

    def topics_of(self, msgtype: str) -> list[str]:
        """Names of the topics with at least one message of this type, sorted."""
        return sorted(n for n, topic in self.topics.items() if topic.msgtype == msgtype and topic.count)

    def messages(self, topics: Collection[str] | None = None) -> Iterator[BagMessage]:
        """Messages in the order of their stamps, of all topics or of those named.

        Raises:
            UserError: the bag turns out to be damaged.
        """
        iterator = self._storage.messages(self.topics if topics is None else topics)
        while True:
            # Only the reader runs inside the try: a caller's own error is not taken for damage.
            try:
                message = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                raise _damaged(self.path, error) from error
            yield message

    def close(self) -> None:
        self._storage.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Storage:
        # Parsers of damaged files fail in every way there is, so any exception counts as damage.
        try:
            return IndexedStorage(self.path)
        except Exception as error:
            if self.path.suffix != ".mcap":
                raise _damaged(self.path, error) from error
        try:
            torn = TornStorage(self.path)
        except Exception as error:
            raise _damaged(self.path, error) from error
        read = sum(topic.count for topic in torn.topics.values())
        self.warnings += (
            f"{self.path} ends too early: the {read} messages before the damage are read "
            "(`mcap recover` makes a whole file of them)",
        )
        return torn

    def _only_file(self) -> Path:
        """The recording in a folder that lost its metadata.yaml, which a crash of ros2 bag leaves."""
        files = sorted(p for p in self.path.iterdir() if p.suffix in (".mcap", ".db3"))
        if len(files) != 1:
            raise UserError(
                f"{self.path} is no bag: metadata.yaml is missing and there are {len(files)} .mcap or "
                ".db3 files; give one of those files, or run `ros2 bag reindex`"
            )
        self.warnings += (f"{self.path} has no metadata.yaml, reading {files[0].name} alone",)
        return files[0]

    def _listing(self) -> str:
        lines = [f"{name} ({topic.msgtype}, {topic.count})" for name, topic in sorted(self.topics.items())]
        return ", ".join(lines) or "nothing"


def deserialize(raw: bytes, msgtype: str) -> Any:
    """The rosbags message in CDR bytes.

    Raises:
        UserError: the type is unknown here, or the bytes are not of this type.
    """
    store = typestore()
    if msgtype not in store.types:
        raise UserError(f"messages of type {msgtype} cannot be decoded here")
    try:
        return store.deserialize_cdr(raw, msgtype)
    except Exception as error:
        raise UserError(f"a message is no valid {msgtype}: {error}") from error


def _damaged(path: Path, error: Exception) -> UserError:
    if path.suffix == ".bag":
        return UserError(
            f"{path} is a ROS 1 bag; convert it first: rosbags-convert --src {path} --dst FOLDER"
        )
    reason = str(error) or type(error).__name__
    return UserError(
        f"{path} cannot be read as a rosbag2 recording (MCAP or sqlite3): {reason}; "
        "try `mcap recover` or `ros2 bag reindex`, or record it again"
    )
