"""Bags: written for every tool, read from every tool, damaged or not; road masks in OccupancyGrid."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import mcap.reader
import numpy as np
import pytest
import rosbags.rosbag2
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap_ros2.decoder import DecoderFactory

from sbnet_perception.bags.messages import occupancy_grid, point_cloud2, shift, tf_message, transform
from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bags.types import typestore
from sbnet_perception.bags.writer import BagWriter, whole_bag
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.desk.simulate import write_drive as simulate_drive
from sbnet_perception.errors import UserError
from sbnet_perception.learning.simulator import Drive
from sbnet_perception.masks.road import RoadMap
from sbnet_perception.messages.occupancy_grid import MaskError, road_from_occupancy_grid
from sbnet_perception.messages.pointcloud2 import read_points

CLOUD = "sensor_msgs/msg/PointCloud2"
SECOND = 10**9


def points(frame: int) -> np.ndarray:
    return np.random.default_rng(frame).uniform(0, 1, (20_000, 4)).astype(np.float32)


def write_drive(path: Path, frames: int = 20) -> Path:
    """A bag of 320 kB clouds with static and moving transforms and a road mask."""
    with BagWriter(path) as writer:
        static = transform("base_link", "lidar", shift(1.7), SECOND)
        writer.write("/tf_static", tf_message([static]), SECOND)
        road = RoadMap(torch.eye(30, 40).bool(), 0.5, SE2(1, 2, 0.3))
        writer.write("/road_mask", occupancy_grid(road, "map", SECOND), SECOND)
        for i in range(frames):
            stamp = SECOND + i * SECOND // 10
            writer.write("/tf", tf_message([transform("map", "base_link", shift(i), stamp)]), stamp)
            writer.write("/points", point_cloud2(points(i), "lidar", stamp), stamp)
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("bag") / "drive.mcap")


def test_the_types_are_wire_compatible_with_the_released_messages() -> None:
    store = typestore()
    assert store.hash_rihs01("vision_msgs/msg/Detection3DArray") == (
        "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018"
    )
    assert store.hash_rihs01("tf2_msgs/msg/TFMessage") == (
        "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
    )


def test_a_written_bag_is_read_back_message_by_message(bag: Path) -> None:
    with BagReader(bag) as reader:
        assert {name: topic.count for name, topic in reader.topics.items()} == {
            "/tf_static": 1, "/road_mask": 1, "/tf": 20, "/points": 20,
        }  # fmt: skip
        assert (reader.start_ns, reader.end_ns, reader.warnings) == (SECOND, SECOND + 19 * SECOND // 10, ())
        messages = list(reader.messages())
        assert [m.stamp_ns for m in messages] == sorted(m.stamp_ns for m in messages)
        clouds = list(reader.messages(["/points"]))
    for i, message in enumerate(clouds):
        np.testing.assert_allclose(read_points(message.raw).points, points(i), rtol=1e-6)


def test_an_independent_reader_finds_definitions_messages_and_quality_of_service(bag: Path) -> None:
    with bag.open("rb") as file:
        reader = mcap.reader.make_reader(file, decoder_factories=[DecoderFactory()])
        assert reader.get_header().profile == "ros2"
        channels = {c.topic: c for c in reader.get_summary().channels.values()}
        qos = {t: yaml.safe_load(c.metadata["offered_qos_profiles"])[0] for t, c in channels.items()}
        decoded = list(reader.iter_decoded_messages(topics=["/points"]))
    # rmw's numbers: durability 1 = transient local, 2 = volatile; reliability 1 = reliable, 2 = best effort.
    assert {t: (q["durability"], q["reliability"]) for t, q in qos.items()} == {
        "/tf_static": (1, 1), "/road_mask": (1, 1), "/tf": (2, 1), "/points": (2, 2),
    }  # fmt: skip
    assert len(decoded) == 20
    np.testing.assert_allclose(read_points(decoded[3].decoded_message).points, points(3), rtol=1e-6)


def test_rosbags_reads_the_same_file_and_its_latched_topics(bag: Path) -> None:
    with rosbags.rosbag2.Reader(bag) as reader:
        assert reader.message_count == 42
    with BagReader(bag) as reader:
        assert {name for name, topic in reader.topics.items() if topic.latched} == {
            "/tf_static",
            "/road_mask",
        }


@pytest.mark.parametrize("plugin", ["MCAP", "SQLITE3"])
@pytest.mark.parametrize("compression", ["NONE", "MESSAGE", "FILE"])
def test_bags_of_other_recorders_are_read_as_folder_or_file(tmp_path: Path, plugin: str, compression: str) -> None:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    folder = tmp_path / "other"
    writer = Writer(folder, version=8, storage_plugin=StoragePlugin[plugin])
    writer.set_compression(CompressionMode[compression], CompressionFormat.ZSTD)
    store = typestore()
    with writer:
        connection = writer.add_connection("/lidar/cloud", CLOUD, typestore=store)
        for i in range(5):
            writer.write(connection, SECOND + i, store.serialize_cdr(point_cloud2(points(i), "lidar", i), CLOUD))
    if compression == "NONE":
        (folder / "metadata.yaml").unlink()
    with BagReader(folder) as reader:
        assert reader.find_topic(CLOUD) == "/lidar/cloud"
        assert bool(reader.warnings) == (compression == "NONE")
        raw = [message.raw for message in reader.messages()]
    assert len(raw) == 5
    np.testing.assert_allclose(read_points(raw[4]).points, points(4), rtol=1e-6)


def test_find_topic_prefers_then_insists_then_lists_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "two.mcap"
    with BagWriter(path) as writer:
        for topic in ("/left", "/right"):
            writer.write(topic, point_cloud2(points(0), "lidar", 1), 1)
    with BagReader(path) as reader:
        assert reader.find_topic(CLOUD, preferred="/right") == "/right"
        assert reader.find_topic(CLOUD, name="/left", preferred="/right") == "/left"
        with pytest.raises(UserError, match=r"several topics of type .*: /left, /right"):
            reader.find_topic(CLOUD)
        with pytest.raises(UserError, match=r"no topic /front of type .*; it holds: /left \(sensor_msgs"):
            reader.find_topic(CLOUD, name="/front")
        with pytest.raises(UserError, match="no topic of type nav_msgs/msg/OccupancyGrid"):
            reader.find_topic("nav_msgs/msg/OccupancyGrid")


def test_raw_bytes_and_foreign_types_pass_through_unchanged(bag: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mcap"
    with BagReader(bag) as reader, BagWriter(copy) as writer:
        writer.add_topic("/odd", "acme_msgs/msg/Odd", definition="uint32 value")
        writer.write("/odd", b"\0\1\0\0\7\0\0\0", SECOND)
        for message in reader.messages():
            writer.write(message.topic, message.raw, message.stamp_ns, message.msgtype)
        with pytest.raises(ValueError, match="type of /new is not declared"):
            writer.write("/new", b"", SECOND)
        with pytest.raises(ValueError, match="/points carries sensor_msgs/msg/PointCloud2, not"):
            writer.write("/points", b"", SECOND, "std_msgs/msg/String")
    with BagReader(bag) as before, BagReader(copy) as after:
        assert list(after.messages(before.topics)) == list(before.messages())
        assert after.topics["/odd"].definition == "uint32 value"
        with pytest.raises(UserError, match="acme_msgs/msg/Odd cannot be decoded"):
            deserialize(b"", after.topics["/odd"].msgtype)


KILLED = "test_bags.BagWriter.close = lambda self: os._exit(9)"
FULL_DISK = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))"


@pytest.mark.parametrize(("accident", "exit_code", "at_least"), [(KILLED, 9, 16), (FULL_DISK, 1, 12)])
def test_a_killed_recorder_or_a_full_disk_leaves_all_but_the_last_chunk(
    accident: str, exit_code: int, at_least: int, tmp_path: Path
) -> None:
    path = tmp_path / "torn.mcap"
    program = (
        "import os, sys; sys.path.insert(0, 'test'); import test_bags; from pathlib import Path\n"
        f"{accident}\ntest_bags.write_drive(Path({str(path)!r}), frames=20)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, check=False, capture_output=True, text=True)
    assert done.returncode == exit_code, done.stderr
    assert "write to closed file" not in done.stderr
    with BagReader(path) as reader:
        assert "ends too early" in reader.warnings[0]
        frames = list(reader.messages([reader.find_topic(CLOUD)]))
        assert reader.topics["/road_mask"].latched
    assert at_least <= len(frames) <= 20
    for i, message in enumerate(frames):
        np.testing.assert_allclose(read_points(message.raw).points, points(i), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_bag_gives_its_messages_or_a_user_error(
    bag: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(bag.read_bytes())
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content)), label="length") :]
    for _ in range(data.draw(st.integers(0, 5), label="flips")):
        if content:
            # Half of the damage goes where the index is.
            low = data.draw(st.sampled_from([0, max(0, len(content) - 4000)]))
            content[data.draw(st.integers(low, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "bag.mcap"
    path.write_bytes(content)
    with contextlib.suppress(UserError), BagReader(path) as reader:
        for message in reader.messages():
            deserialize(message.raw, message.msgtype)


def test_what_is_no_bag_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "ros1.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "text.mcap").write_text("hello")
    (tmp_path / "text.db3").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "metadata.yaml").write_text("!!python/object/apply:os.mkdir [owned]")
    with BagWriter(tmp_path / "nothing.mcap") as writer:
        writer.add_topic("/points", CLOUD)
    for name, reason in {
        "none.mcap": "there is no bag", "empty.mcap": "is empty", "ros1.bag": "rosbags-convert",
        "text.mcap": "not an MCAP file", "text.db3": "cannot be read", "folder": "metadata.yaml is missing",
        "hostile": "cannot be read", "nothing.mcap": "holds no message",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=reason):
            BagReader(tmp_path / name)
    assert not (tmp_path / "owned").exists()
    assert not Path("owned").exists()


def test_an_existing_bag_is_refused_and_an_unfinished_one_never_appears(bag: Path, tmp_path: Path) -> None:
    for make in (BagWriter, lambda path: whole_bag(path).__enter__()):
        with pytest.raises(UserError, match=r"exists already; .* --overwrite"):
            make(bag)
    with pytest.raises(UserError, match="is a folder"):
        BagWriter(tmp_path)
    with pytest.raises(UserError, match=r"must end in \.mcap"), whole_bag(tmp_path / "bag.db3"):
        pass
    with pytest.raises(ValueError, match="/points carries"), whole_bag(tmp_path / "new.mcap") as writer:
        [writer.write("/points", b"", 1, kind) for kind in (CLOUD, "std_msgs/msg/String")]
    assert list(tmp_path.iterdir()) == []


@given(
    st.integers(1, 12), st.integers(1, 12), st.floats(0.01, 5), st.floats(-1e5, 1e5), st.floats(-3.1, 3.1),
    st.integers(0, 999),
)  # fmt: skip
def test_a_road_map_survives_the_way_through_an_occupancy_grid(
    height: int, width: int, resolution: float, x: float, yaw: float, seed: int
) -> None:
    cells = np.random.default_rng(seed).random((height, width)) < 0.5
    road = RoadMap(torch.from_numpy(cells), resolution, SE2(x, -x, yaw))
    store, kind = typestore(), "nav_msgs/msg/OccupancyGrid"
    raw = store.serialize_cdr(occupancy_grid(road, "map", 5), kind)
    back = road_from_occupancy_grid(store.deserialize_cdr(raw, kind))
    np.testing.assert_array_equal(back.cells, cells)
    assert back.resolution == pytest.approx(resolution)
    assert (back.origin.x, back.origin.y, back.origin.yaw) == pytest.approx((x, -x, yaw))


def test_unknown_and_half_occupied_cells_are_road() -> None:
    msg = occupancy_grid(RoadMap(torch.zeros(1, 6, dtype=torch.bool), 1.0, SE2()), "map", 1)
    msg.data = np.array([-1, 0, 49, 50, 100, 127], np.int8)
    assert road_from_occupancy_grid(msg).cells.tolist() == [[True, False, False, True, True, True]]


@pytest.mark.parametrize(("part", "values", "reason"), [
    ("info", {"width": 5}, "data holds 12 cells, info.width 5 x info.height 3 = 15"),
    ("info", {"height": 0}, "has no cell"),
    ("info", {"resolution": 0.0}, "road resolution must be from 0.001 to 1000 m"),
    ("info", {"resolution": -1.0}, "road resolution must be from 0.001 to 1000 m"),
    ("info", {"resolution": math.nan}, "road resolution must be from 0.001 to 1000 m"),
    ("info", {"resolution": 1e-9}, "resolution"),
    ("position", {"x": math.nan}, "info.origin has a component that is not finite"),
    ("orientation", {"z": math.inf}, "info.origin has a component that is not finite"),
    ("orientation", {"w": 0.0}, "zero quaternion"),
    ("orientation", {"x": 0.2}, "tilted by 22.6 degrees"),
    ("orientation", {"x": 1.0, "w": 0.0}, "tilted by 180.0 degrees"),
])  # fmt: skip
def test_a_malformed_road_mask_is_refused_with_the_reason(part: str, values: dict[str, Any], reason: str) -> None:
    msg = occupancy_grid(RoadMap(torch.ones(3, 4, dtype=torch.bool), 1.0, SE2()), "map", 1)
    parts: dict[str, Any] = {"info": msg.info, "position": msg.info.origin.position,
                             "orientation": msg.info.origin.orientation}  # fmt: skip
    for name, value in values.items():
        setattr(parts[part], name, value)
    with pytest.raises(MaskError, match=reason):
        road_from_occupancy_grid(msg)


def test_a_simulated_drive_is_deterministic_and_its_labels_hold_their_points(tmp_path: Path) -> None:
    drive = Drive(seed=5, seconds=0.2, sensor="hdl32")
    for name in ("first.mcap", "second.mcap"):
        with BagWriter(tmp_path / name) as writer:
            simulate_drive(drive, writer)
    assert (tmp_path / "first.mcap").read_bytes() == (tmp_path / "second.mcap").read_bytes()

    with BagReader(tmp_path / "first.mcap") as reader:
        recorded: dict[str, list[Any]] = {name: [] for name in reader.topics}
        for message in reader.messages():
            recorded[message.topic].append(deserialize(message.raw, message.msgtype))
    assert {t: len(m) for t, m in recorded.items()} == {
        "/tf_static": 1, "/road_mask": 1, "/tf": 2, "/points": 2, "/ground_truth": 2,
    }  # fmt: skip
    np.testing.assert_array_equal(road_from_occupancy_grid(recorded["/road_mask"][0]).cells, drive.road_map.cells)
    for i, frame in enumerate(drive.frames()):
        cloud, truth, tf = (recorded[topic][i] for topic in ("/points", "/ground_truth", "/tf"))
        assert cloud.header.stamp == truth.header.stamp == tf.transforms[0].header.stamp
        assert (cloud.header.frame_id, truth.header.frame_id) == ("lidar", "base_link")
        in_base = read_points(cloud).points * (1, 1, 1, 255) + (*drive.base_from_lidar[:3, 3], 0)
        np.testing.assert_allclose(in_base, frame.points, atol=1e-4)
        assert [d.id for d in truth.detections] == [str(track) for track in frame.track_ids]
        centres = [d.bbox.center.position for d in truth.detections]
        np.testing.assert_allclose([(c.x, c.y, c.z) for c in centres], frame.boxes[:, :3], rtol=1e-6)
