"""Recordings as recorders, copies and crashes leave them: read where they can be, else refused with what helps."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import ruamel.yaml
import yaml
import zstandard
from mcap.reader import make_reader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from recordings import points, stamps, write_drive, write_sqlite3
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from sbnet_perception.bags.messages import point_cloud2
from sbnet_perception.bags.reader import ZSTD, BagMessage, BagReader, unpacked
from sbnet_perception.bags.types import typestore
from sbnet_perception.errors import UserError

CLOUD = "sensor_msgs/msg/PointCloud2"
FRAMES = 3


def cloud(number: int) -> bytes:
    return bytes(typestore().serialize_cdr(point_cloud2(points(number), "lidar", stamps(9)[number]), CLOUD))


def is_read(path: Path, warning: str = "", frames: int = FRAMES) -> tuple[str, ...]:
    """The clouds come back to the last byte and in order; what was said about it."""
    with BagReader(path) as bag:
        assert [message.raw for message in bag.messages(bag.topics_of(CLOUD))] == [cloud(n) for n in range(frames)]
        assert sum(bag.topics[name].count for name in bag.topics_of(CLOUD)) == frames
        assert warning in " ".join(bag.warnings)
        assert bool(bag.warnings) == bool(warning)
        return bag.warnings


def is_refused(path: Path, reason: str) -> str:
    with pytest.raises(UserError, match=reason) as refused, BagReader(path) as bag:
        list(bag.messages())
    assert "\n" not in str(refused.value)
    return str(refused.value)


def write_folder(folder: Path, plugin: str, mode: str = "NONE") -> Path:
    writer = Writer(folder, version=9, storage_plugin=StoragePlugin[plugin])
    writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/points", CLOUD, typestore=typestore())
        for number in range(FRAMES):
            writer.write(connection, stamps(FRAMES)[number], cloud(number))
    return folder


def write_mcap(
    path: Path, schema: tuple[str, str, bytes], encoding: str = "cdr", profile: str = "ros2", cloud_schema: bytes = b"x"
) -> Path:
    """Clouds, and beside each a message of another schema; the last cloud is written first."""
    with path.open("wb") as file:
        writer = McapWriter(file, compression=CompressionType.ZSTD, chunk_size=1000)
        writer.start(profile=profile, library="test")
        other = writer.register_channel("/other", encoding, writer.register_schema(*schema) if schema[0] else 0)
        mine = writer.register_channel("/points", "cdr", writer.register_schema(CLOUD, "ros2msg", cloud_schema))
        for number in (2, 0, 1):
            writer.add_message(other, stamps(FRAMES)[number], b"\0\1\0\0\1\0\0\0", 0)
            writer.add_message(mine, stamps(FRAMES)[number], cloud(number), 0)
        writer.finish()
    return path


@pytest.mark.parametrize("plugin", ["MCAP", "SQLITE3"])
def test_messages_compressed_one_by_one_are_unpacked_without_metadata(tmp_path: Path, plugin: str) -> None:
    folder = write_folder(tmp_path / "bag", plugin, "MESSAGE")
    (folder / "metadata.yaml").unlink()
    is_read(folder, "metadata.yaml is missing")
    is_read(next(folder.iterdir()))


def test_a_compressed_message_that_is_damaged_or_a_bomb_is_refused() -> None:
    for raw, reason in (
        (ZSTD + bytes(20), "damaged"),
        (zstandard.compress(cloud(0))[:-50], "damaged"),
        (ZSTD + b"\xe0" + (2**40).to_bytes(8, "little") + bytes(20), "would have 1099511627776 bytes"),
    ):
        with pytest.raises(ValueError, match=reason):
            unpacked(BagMessage("/points", CLOUD, 0, raw))


@pytest.mark.parametrize("plugin", ["MCAP", "SQLITE3"])
def test_files_compressed_as_a_whole_are_refused_with_the_command_that_unpacks_them(
    tmp_path: Path, plugin: str
) -> None:
    folder = write_folder(tmp_path / "my bag", plugin, "FILE")
    is_read(folder)
    (folder / "metadata.yaml").unlink()
    packed = next(folder.iterdir())
    for path in (folder, packed):
        said = is_refused(path, "zstd -d '.*' unpacks it")
    if shutil.which("zstd"):
        command = re.search(r"zstd -d '.*?'", said)
        assert command is not None
        subprocess.run(command[0], shell=True, check=True, capture_output=True)
        is_read(packed.with_suffix(""))


@pytest.mark.parametrize(
    "schema",
    [("my_msgs/msg/Own", "", b""), ("foxglove.Grid", "protobuf", b"\xff\xfe"), ("Own", "ros2idl", b"?"), ("", "", b"")],
)
def test_an_empty_or_foreign_schema_does_not_keep_the_other_topics_from_being_read(
    tmp_path: Path, schema: tuple[str, str, bytes]
) -> None:
    encoding = "protobuf" if schema[1] == "protobuf" else "cdr"
    path = write_mcap(tmp_path / "bag.mcap", schema, encoding)
    is_read(path)
    is_read(write_mcap(tmp_path / "plain.mcap", schema, encoding, profile="", cloud_schema=b""))
    with BagReader(path) as bag:
        assert bag.topics["/other"].count == FRAMES
        assert ("protobuf" in bag.topics["/other"].msgtype) == (encoding == "protobuf")


def test_a_cloud_in_another_encoding_is_never_taken_for_one_of_ros(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", (CLOUD, "jsonschema", b"{}"), "json")
    with BagReader(path) as bag:
        assert bag.topics_of(CLOUD) == ["/points"]
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros1", library="test")
        channel = writer.register_channel(
            "/p", "ros1", writer.register_schema("sensor_msgs/PointCloud2", "ros1msg", b"")
        )
        writer.add_message(channel, 1, b"1", 1)
        writer.finish()
    is_refused(path, "recording of ROS 1; convert it first: rosbags-convert")


def test_a_recording_without_its_end_or_index_says_what_it_lacks(tmp_path: Path) -> None:
    path = write_drive(tmp_path / "bag.mcap", 30, "/points")
    content = path.read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(content[: len(content) * 3 // 4])
    with BagReader(cut) as bag:
        assert "ends too early: it ends in the middle" in bag.warnings[0]
        assert 0 < bag.topics["/points"].count < 30
    # Its data section alone: the end of the data is there, an index is not.
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    last = summary.chunk_indexes[-1]
    whole = content[: last.chunk_start_offset + last.chunk_length + last.message_index_length]
    unindexed = tmp_path / "unindexed.mcap"
    unindexed.write_bytes(whole + b"\x0f" + (4).to_bytes(8, "little") + bytes(4))
    with BagReader(unindexed) as bag:
        assert "has no index" in bag.warnings[0]
        assert bag.topics["/points"].count == 30
    middle = bytearray(content)
    start = summary.chunk_indexes[0].chunk_start_offset
    middle[start + 60 : start + 100] = b"\xff" * 40
    (tmp_path / "middle.mcap").write_bytes(middle)
    said = is_refused(tmp_path / "middle.mcap", "cannot be read as an MCAP recording")
    assert "reindex" not in said


@pytest.mark.parametrize("share", [0.4, 0.99])
def test_a_sqlite3_file_that_was_not_copied_whole_is_read_up_to_there(tmp_path: Path, share: float) -> None:
    path = write_sqlite3(tmp_path / "bag", 12) / "bag.db3"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for given in (path, path.parent):
        with BagReader(given) as bag:
            assert "ends too early: it is damaged" in bag.warnings[-1]
            read = [message.stamp_ns for message in bag.messages(["/sensors/front"])]
            assert read == stamps(12)[: len(read)]
            assert 12 * share - 3 < len(read) == bag.topics["/sensors/front"].count < 12
    path.write_bytes(path.read_bytes()[:5000])
    is_refused(path, "cannot be read")


def test_a_sqlite3_file_without_index_or_with_a_foreign_type_is_read(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "bag", "SQLITE3") / "bag.db3"
    with sqlite3.connect(path) as database:
        database.execute("DROP INDEX timestamp_idx")
    is_read(path)
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO message_definitions VALUES (9, 'my_msgs/msg/Own', 'unknown', '', '')")
        database.execute("INSERT INTO topics VALUES (9, '/own', 'my_msgs/msg/Own', 'cdr', '[]', '')")
        database.execute("INSERT INTO messages VALUES (99, 9, 1, x'00010000')")
    is_read(path)
    is_read(path.parent)


def test_what_a_killed_recorder_left_in_sqlites_journal_is_told_with_the_command_that_takes_it_in(
    tmp_path: Path,
) -> None:
    whole = write_folder(tmp_path / "whole", "SQLITE3") / "whole.db3"
    killed = tmp_path / "my bag.db3"
    with sqlite3.connect(whole) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        rows = database.execute("SELECT * FROM messages").fetchall()
        database.execute("DELETE FROM messages WHERE id > 1")
        database.commit()
        database.execute("PRAGMA wal_checkpoint")
        database.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows[1:])
        database.commit()
        for end in ("", "-wal"):
            shutil.copy(f"{whole}{end}", f"{killed}{end}")
    database.close()
    (said,) = is_read(killed, "has messages that are not read", frames=1)
    command = re.search(r"sqlite3 '.*' 'PRAGMA wal_checkpoint'", said)
    assert command is not None
    if shutil.which("sqlite3"):
        subprocess.run(command[0], shell=True, check=True, capture_output=True)
        is_read(killed)


@pytest.mark.parametrize("content", ["", "a: [", "version: 3\n", "[1]", "a: &a [1]\nb: [*a, *a]\n", "[" * 100_000])
def test_a_folder_whose_metadata_is_of_no_use_is_read_by_its_file(tmp_path: Path, content: str) -> None:
    folder = write_folder(tmp_path / "bag", "MCAP")
    (folder / "metadata.yaml").write_text(content)
    is_read(folder, "by its metadata.yaml it cannot be read")


def test_a_missing_part_is_named_and_each_part_that_is_there_can_be_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bag", "SQLITE3")
    shutil.copy(folder / "bag.db3", folder / "second.db3")
    metadata = (folder / "metadata.yaml").read_text()
    three = metadata.replace("- bag.db3", "- bag.db3\n  - second.db3\n  - third.db3", 1)
    (folder / "metadata.yaml").write_text(three)
    said = is_refused(folder, "metadata.yaml lists third.db3, which is not there; give one of its files alone")
    for name in said.rsplit(": ", 1)[1].split(", "):
        is_read(Path(name))
    (folder / "second.db3").rename(tmp_path / "second.db3")
    is_read(folder, "metadata.yaml lists second.db3, third.db3, which is not there; reading bag.db3")
    (tmp_path / "second.db3").rename(folder / "second.db3")
    # All parts are there, and only the metadata is of another version.
    (folder / "third.db3").unlink(missing_ok=True)
    (folder / "metadata.yaml").write_text(three.replace("\n  - third.db3", "").replace("version: 9", "version: 99"))
    with BagReader(folder) as bag:
        assert bag.topics["/points"].count == 2 * FRAMES
        assert len(list(bag.messages(["/points"]))) == 2 * FRAMES


def test_a_folder_whose_only_file_is_gone_says_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bag", "MCAP")
    next(folder.glob("*.mcap")).unlink()
    is_refused(folder, r"is no bag: metadata.yaml lists \w+.mcap, which is not there, and it holds metadata.yaml")


def _link(tmp_path: Path) -> Path:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    return tmp_path / "link"


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


def _file(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(tmp_path: Path) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_link, "is a link to .*gone, which is not there"),
        (_folder, "metadata.yaml is missing, and it holds nothing"),
        (_file("tiny.mcap", b"\x89MCAP0\r\n\x01"), "holds no message"),
        (_file("empty.db3", b""), "is empty: its recorder ended"),
        (_file("text.db3", b"hello" * 100), "is no SQLite file"),
        (_file("some.csv", b"a,b"), "neither a folder of ros2 bag nor a file that ends in"),
        (lambda path: path / ("n" * 300), "cannot be read: File name too long"),
        (lambda path: path / "none.mcap", "there is no bag at"),
    ],
)
def test_each_cause_has_its_own_sentence(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    is_refused(make(tmp_path), reason)


def test_no_permission_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mcap(tmp_path / "bag.mcap", ("", "", b""))

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", forbidden)  # tests may run as root, who may read everything
        is_refused(path, "permission denied; chmod a\\+r")
    is_read(path)


@pytest.mark.parametrize("plugin", ["MCAP", "SQLITE3"])
def test_a_name_with_a_space_an_umlaut_or_behind_a_link_is_a_name(tmp_path: Path, plugin: str) -> None:
    folder = write_folder(tmp_path / "Straße 1", plugin)
    (tmp_path / "link").symlink_to(folder)
    is_read(folder)
    is_read(tmp_path / "link")
    odd = tmp_path / "50% #1?"
    shutil.copytree(folder, odd)
    is_read(odd)
    is_read(next(path for path in odd.iterdir() if path.suffix != ".yaml"))


LAUGHS = "\n".join(
    ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12))]
)
HOSTILE = {"laughs": LAUGHS, "deep": "[" * 100_000, "large": "- durability: 1\n" * 200_000, "broken": "a: ["}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_the_yaml_within_a_sqlite3_bag_is_never_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """In the column of the quality of service, in the table of metadata, and as a text within metadata.yaml."""
    folder = write_folder(tmp_path / "bag", "SQLITE3")
    with sqlite3.connect(folder / "bag.db3") as database:
        database.execute("UPDATE topics SET offered_qos_profiles = ?", (text,))
        database.execute("UPDATE metadata SET metadata = ?", (text,))
    metadata = (folder / "metadata.yaml").read_text()
    hostile = f"offered_qos_profiles: {json.dumps(text[:100_000])}"
    within = re.sub(r"offered_qos_profiles: .*", lambda _: hostile, metadata)
    assert within != metadata
    (folder / "metadata.yaml").write_text(within)
    for loader in (ruamel.yaml.YAML, yaml.SafeLoader, yaml.CSafeLoader):
        for name in ("load", "get_single_data"):
            monkeypatch.setattr(loader, name, None, raising=False)
    is_read(folder / "bag.db3")
    is_read(folder)
    with BagReader(folder) as bag:
        assert bag.topics["/points"].latched == (text == HOSTILE["large"])
        assert "float32" in bag.topics["/points"].definition or "PointField" in bag.topics["/points"].definition


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_metadata_yaml_is_refused_in_one_line_and_the_recording_beside_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = write_folder(tmp_path / "bag", "SQLITE3")
    (folder / "metadata.yaml").write_text(HOSTILE[name])
    monkeypatch.setattr(ruamel.yaml.YAML, "load", None)
    (warning,) = is_read(folder, "by its metadata.yaml it cannot be read")
    reasons = {"laughs": "has the alias", "deep": "nested more than 32", "large": "larger than 1024 KiB", "broken": ""}
    assert reasons[name] in warning and "\n" not in warning


def test_an_empty_message_ends_no_reading_and_what_a_channel_says_of_its_publisher_is_not_built(tmp_path):
    path = tmp_path / "odd.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file)
        writer.start()
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channel = writer.register_channel("/said", "cdr", schema, {"offered_qos_profiles": LAUGHS})
        for stamp, raw in enumerate((b"one", b"", b"three")):
            writer.add_message(channel, stamp, raw, stamp)
        writer.finish()
    with BagReader(path) as bag:
        assert [message.raw for message in bag.messages()] == [b"one", b"", b"three"]
        assert bag.topics["/said"].definition == "string data" and not bag.warnings
