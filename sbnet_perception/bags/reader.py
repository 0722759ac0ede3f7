"""Reading rosbag2 recordings of any make: MCAP or sqlite3, a folder or a bare file.

Nothing in a bag is ever executed: metadata is plain YAML, and the message definitions that a bag carries
are handed on as text, never compiled; only the types of `typestore` can be decoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
import zstandard

from sbnet_perception.bags import refusals
from sbnet_perception.bags.by_format import STORAGES, SeveralStorages
from sbnet_perception.bags.storage import BagMessage, Storage, Topic, TornStorage
from sbnet_perception.bags.types import typestore
from sbnet_perception.errors import UserError
from sbnet_perception.yaml_events import YamlError, events

__all__ = ["BagMessage", "BagReader", "Topic", "deserialize"]

METADATA = "metadata.yaml"
PACKED = ".zstd"
ZSTD = b"\x28\xb5\x2f\xfd"
LARGEST_MESSAGE = 2**30


class _Gone(Exception):
    """Files that a recording's metadata lists and its folder lacks."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))


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
        try:
            if not self.path.exists():
                raise refusals.missing(self.path)
            self._storage = self._open_folder() if self.path.is_dir() else self._open_file(self.path)
        except OSError as error:
            raise refusals.damaged(self.path, error) from error
        self.topics = self._storage.topics
        self.start_ns, self.end_ns = self._storage.start_ns, self._storage.end_ns
        filled = [topic for topic in self.topics.values() if topic.count]
        encodings = {topic.msgtype.partition(" (")[2].rstrip(")") for topic in filled}
        if not filled or encodings == {"ros1"}:
            self.close()
            raise refusals.empty(self.path, encodings)

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
                message = unpacked(next(iterator))
            except StopIteration:
                return
            except Exception as error:
                raise refusals.damaged(self.path, error) from error
            yield message

    def close(self) -> None:
        self._storage.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_folder(self) -> Storage:
        """By its metadata.yaml; where that is missing or of no use, the recording beside it."""
        try:
            for _ in events(self.path / METADATA):
                pass
            files = sorted(self.path / name for name in _listed_in(self.path / METADATA))
            if gone := [file.name for file in files if not file.exists()]:
                raise _Gone(gone)
            if not files:
                raise ValueError("it lists no file")
            return SeveralStorages([self._open_file(file, packed=True) for file in files])
        except PermissionError:
            raise
        except _Gone as error:
            reason = f"{METADATA} lists {error}, which is not there"
        except FileNotFoundError:
            reason = f"{METADATA} is missing"
        # Parsers of damaged files fail in every way there is.
        except Exception as error:
            reason = (
                f"by its {METADATA} it cannot be read ({' '.join(str(error).split())[:200] or type(error).__name__})"
            )
        files = sorted(path for path in self.path.iterdir() if path.suffix in refusals.SUFFIXES)
        whole = _listed_in(self.path / METADATA) == {file.name for file in files}
        if not files or not (whole or len(files) == 1):
            raise refusals.no_file(self.path, reason)
        self.warnings += (f"{self.path}: {reason}; reading {', '.join(file.name for file in files)}",)
        if len(files) == 1:
            self.path = files[0]
            return self._open_file(files[0])
        return SeveralStorages([self._open_file(file) for file in files])

    def _open_file(self, path: Path, packed: bool = False) -> Storage:
        """The recording in a file; with `packed` also in one that was compressed as a whole."""
        # Whole with its index; whole, but with something that rosbags does not take; without its end.
        with path.open("rb"):
            pass  # a file that may not be read is not a damaged one
        self.warnings += refusals.left_in_journal(path)
        last = Exception()
        for storage in STORAGES.get(path.suffix, ()) if packed or path.suffix != PACKED else ():
            try:
                return self._told(path, storage(path))
            except Exception as error:
                last = error
        raise refusals.damaged(path, last) from last

    def _told(self, path: Path, storage: Storage) -> Storage:
        """The storage; what it lacks is added to the warnings."""
        read = sum(topic.count for topic in storage.topics.values())
        if storage.damage:
            self.warnings += (f"{path} ends too early: {storage.damage}; the {read} messages before that are read",)
        elif isinstance(storage, TornStorage):
            self.warnings += (f"{path} has no index; its {read} messages are read in the order of the file",)
        return storage

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


def unpacked(message: BagMessage) -> BagMessage:
    """The message as it was before ``ros2 bag record --compression-mode message``.

    rosbags does so where metadata.yaml tells it. Without it the bytes tell: they begin with zstd's magic number (RFC
    8878), which is no encapsulation of CDR.

    Raises:
        ValueError: the compressed bytes are damaged, or stand for more than `LARGEST_MESSAGE`.
    """
    if not message.raw.startswith(ZSTD):
        return message
    try:
        size = zstandard.get_frame_parameters(message.raw).content_size
        if LARGEST_MESSAGE < size < zstandard.CONTENTSIZE_UNKNOWN:
            raise ValueError(f"a compressed message of {message.topic} would have {size} bytes")
        plain = zstandard.ZstdDecompressor().decompress(message.raw, max_output_size=LARGEST_MESSAGE)
    except zstandard.ZstdError as error:
        raise ValueError(f"a compressed message of {message.topic} is damaged: {error}") from error
    return message._replace(raw=plain)


def _listed_in(metadata: Path) -> set[str]:
    """The names under relative_file_paths; none where the file cannot be read."""
    found: set[str] = set()
    listed = False
    with contextlib.suppress(OSError, YamlError):
        for event in events(metadata):
            if isinstance(event, yaml.ScalarEvent):
                if listed:
                    found.add(Path(event.value).name)
                listed = listed or event.value == "relative_file_paths"
            elif isinstance(event, yaml.SequenceEndEvent):
                if listed:
                    break
    return found
