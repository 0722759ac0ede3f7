"""Writing rosbag2 recordings: one MCAP file that ros2 bag, RViz and Foxglove open as it is."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from sbnet_perception.bags.qos import Profile, describe_profile, profile_for
from sbnet_perception.bags.types import typestore
from sbnet_perception.errors import UserError


class BagWriter:
    """Context manager that writes messages to one ``.mcap`` file, message definitions included.

    Every full chunk (about 1 MiB) is handed to the system at once, so that after a crash only the last
    one is missing; `BagReader` reads such a file, and ``mcap recover`` repairs it.

    Args:
        path: the file; its folder is made where needed.
        compression: of the chunks. zstd is read by all of rosbag2, RViz, Foxglove and rosbags.
        overwrite: replace an existing file instead of refusing.

    Raises:
        UserError: the file exists, or cannot be made.
    """

    def __init__(
        self, path: str | Path, compression: Literal["zstd", "none"] = "zstd", overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        refuse_existing(self.path, overwrite)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        kind = CompressionType.ZSTD if compression == "zstd" else CompressionType.NONE
        self._writer = Writer(self._file, compression=kind)
        self._writer.start(profile="ros2", library="sbnet_perception")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, str]] = {}

    def add_topic(
        self, topic: str, msgtype: str, profile: Profile | None = None, definition: str | None = None
    ) -> None:
        """Declares a topic; known topics and types need no call.

        Args:
            topic: absolute name.
            msgtype: for example ``sensor_msgs/msg/PointCloud2``.
            profile: the quality of service; by default the customary one, see `profile_for`.
            definition: the text in rosbag2's ros2msg form, for a type that `typestore` does not know.
        """
        if topic in self._channels:
            if self._channels[topic][1] != msgtype:
                raise ValueError(f"{topic} carries {self._channels[topic][1]}, not {msgtype}")
            return
        if msgtype not in self._schemas:
            if definition is None:
                definition = typestore().generate_msgdef(msgtype, ros_version=2)[0]
            self._schemas[msgtype] = self._writer.register_schema(msgtype, "ros2msg", definition.encode())
        qos = describe_profile(profile or profile_for(topic, msgtype))
        channel = self._writer.register_channel(
            topic, "cdr", self._schemas[msgtype], {"offered_qos_profiles": qos}
        )
        self._channels[topic] = (channel, msgtype)

    def write(self, topic: str, message: Any, stamp_ns: int, msgtype: str | None = None) -> None:
        """Appends one message.

        Args:
            topic: absolute name.
            message: a rosbags message, or its CDR bytes.
            stamp_ns: when it was received, in nanoseconds.
            msgtype: needed with bytes on a topic that was not declared before.

        Raises:
            ValueError: bytes for a topic whose type is unknown.
            OSError: the disk is full or gone. The file is closed then, and what it has stays readable.
        """
        if isinstance(message, (bytes, bytearray, memoryview)):
            msgtype = msgtype or self._channels.get(topic, (0, None))[1]
            if msgtype is None:
                raise ValueError(f"the type of {topic} is not declared, so its bytes cannot be written")
            raw = bytes(message)
        else:
            msgtype = msgtype or str(message.__msgtype__)
            raw = bytes(typestore().serialize_cdr(message, msgtype))
        self.add_topic(topic, msgtype)
        try:
            self._writer.add_message(self._channels[topic][0], stamp_ns, raw, stamp_ns)
            self._file.flush()
        except OSError:
            # An index after half a chunk would hide that the file is torn: leave it as it is.
            with contextlib.suppress(OSError):
                self._file.close()
            raise

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Appends a named record of texts, which players leave alone."""
        self._writer.add_metadata(name, dict(values))

    def close(self) -> None:
        """Writes the index and closes the file; a second call does nothing."""
        if self._file.closed:
            return
        try:
            self._writer.finish()
        finally:
            self._file.close()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raises UserError where `path` exists and may not be replaced."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of the .mcap file to write")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already; choose another name or add --overwrite")


@contextlib.contextmanager
def whole_bag(path: str | Path, overwrite: bool = False) -> Iterator[BagWriter]:
    """A `BagWriter` whose file appears under its name only when the block ends without an error.

    Raises:
        UserError: the file exists and `overwrite` is false, its name does not end in ``.mcap``, or it
            cannot be written.
    """
    path = Path(path)
    if path.suffix != ".mcap":
        raise UserError(f"{path} must end in .mcap")
    refuse_existing(path, overwrite)
    # Two machines may write the same bag into a folder that they share.
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with BagWriter(partial, overwrite=True) as writer:
            yield writer
        partial.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_metadata(path: Path, name: str) -> dict[str, str]:
    """What `BagWriter.add_metadata` appended under a name; empty without it, and where the file is no whole MCAP."""
    try:
        with path.open("rb") as file:
            return next((record.metadata for record in make_reader(file).iter_metadata() if record.name == name), {})
    except (McapError, OSError, ValueError):
        return {}
