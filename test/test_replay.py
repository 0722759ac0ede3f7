"""`sbnet replay`: the real node in its own process, over real DDS on a domain of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from recordings import START_NS, points, stamps, write_drive, write_sqlite3
from rich.console import Console
from ros_process import tiny_weights

from sbnet_perception import cli
from sbnet_perception.bags.messages import point_cloud2, shift, tf_message, transform
from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.recorded import Recording
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.desk import recorder
from sbnet_perception.desk.complaints import MOST, Complaints
from sbnet_perception.desk.convert import convert
from sbnet_perception.desk.playback import ReplayOptions, play
from sbnet_perception.desk.replay import parameters
from sbnet_perception.desk.report import ReplayReport
from sbnet_perception.errors import UserError
from sbnet_perception.fleet.one_bag import BagDetector
from sbnet_perception.fleet.settings import Settings, configuration
from sbnet_perception.learning.datasets.registry import open_data

FRAMES = 6
OUTPUTS = ("/detections", "/markers", "/computation_mask")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("drive") / "drive.mcap", FRAMES)


@pytest.fixture(scope="module")
def replayed(drive: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReplayReport, Path]:
    return replay(drive, weights, tmp_path_factory.mktemp("replayed") / "out.mcap")


def replay(bag: Path, weights: Path, out: Path | None, **options: Any) -> tuple[ReplayReport, Path | None]:
    """Every frame through the node; an untrained network at threshold 0 detects much."""
    parameters = {"weights": weights, "score_threshold": 0.0, "threads": 1} | options.pop("parameters", {})
    report = play(bag, ReplayOptions(every_frame=True, out=out, parameters=parameters, **options))
    return report, out


def decoded(path: Path) -> dict[str, list[Any]]:
    """topic -> messages, read by an independent reader."""
    found = defaultdict(list)
    with path.open("rb") as file:
        for _, channel, _, message in make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            found[channel.topic].append(message)
    return found


def stamps_of(messages: list[Any]) -> list[int]:
    return [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages]


def raw_messages(path: Path, topic: str) -> list[bytes]:
    with BagReader(path) as bag:
        return [bytes(message.raw) for message in bag.messages([topic])]


def test_a_list_of_numbers_reaches_ros_with_a_point_in_each() -> None:
    texts = ["region:=[-70.4, 70.4, -40, 40]", 'classes:=["vehicle"]', "grid_frame:=map", "threads:=2"]
    found = parameters(texts)
    assert found["region"] == "[-70.4, 70.4, -40.0, 40.0]"
    assert [f"{name}:={value}" for name, value in found.items()][1:] == texts[1:]


def test_every_frame_gives_one_detection_array_per_cloud_with_its_stamp(
    replayed: tuple[ReplayReport, Path],
) -> None:
    report, out = replayed
    assert (report.frames_in, report.frames_processed, report.dropped) == (FRAMES, FRAMES, 0)
    assert report.exit_code == 0
    assert not report.missing
    found = decoded(out)
    assert stamps_of(found["/detections"]) == stamps(FRAMES)
    assert report.detections == sum(len(message.detections) for message in found["/detections"]) > 0
    assert report.latency_p50_ms is not None
    assert 0 < report.latency_p50_ms <= report.latency_p95_ms


def test_two_lidars_named_in_a_parameter_file_are_played_into_one_frame_and_drawn_together(
    weights: Path, tmp_path: Path
) -> None:
    """The rear one is 20 ms later, its own transform away, and once missing."""
    bag, file = tmp_path / "two.mcap", tmp_path / "vehicle.yaml"
    with BagWriter(bag) as writer:
        for name, height in (("front", 1.8), ("rear", 2.3)):
            writer.write("/tf_static", tf_message([transform("base_link", name, shift(height), START_NS)]), START_NS)
        for index, at in enumerate(stamps(3)):
            writer.write("/front/points", point_cloud2(points(index), "front", at), at)
            if index != 1:
                late = at + 20_000_000
                writer.write("/rear/points", point_cloud2(points(index, 100), "rear", late), late)
    file.write_text("/**: {ros__parameters: {points: [front/points, /rear/points]}}")
    report, out = replay(bag, weights, tmp_path / "out.mcap", params_file=file)
    assert (report.frames_in, report.frames_processed, report.answers) == (5, 5, 3)
    assert (report.exit_code, report.grid_frame) == (0, "base_link")
    assert stamps_of(decoded(out)["/detections"]) == stamps(3)
    sizes = [len(frame.points) for frame in Recording(out).frames()]
    assert sizes == [3800 + 900, 3800, 3800 + 900]
    file.write_text("/**: {ros__parameters: {points: [/front/points, /none]}}")
    with pytest.raises(UserError, match=r"/none: the bag has no such .*\(points: .*vehicle.yaml\)"):
        replay(bag, weights, None, params_file=file)


def test_the_recording_holds_inputs_and_outputs_and_opens_with_an_independent_reader(
    drive: Path, replayed: tuple[ReplayReport, Path]
) -> None:
    report, out = replayed
    found = decoded(out)
    assert {topic: len(found[topic]) for topic in ("/points", "/tf", *OUTPUTS)} == dict.fromkeys(
        ("/points", "/tf", *OUTPUTS), FRAMES
    )
    assert len(found["/road_mask"]) == len(found["/tf_static"]) == 1
    assert raw_messages(out, "/points") == raw_messages(drive, "/lidar/points")
    computed = [sum(value == 100 for value in mask.data) / len(mask.data) for mask in found["/computation_mask"]]
    assert report.sparsity == pytest.approx(1 - sum(computed) / FRAMES)
    assert found["/detections"][0].header.frame_id == report.grid_frame == "base_link"
    with BagReader(out) as bag:
        assert bag.topics["/road_mask"].latched
        assert bag.topics["/tf_static"].latched


def test_two_every_frame_replays_detect_the_same_to_the_last_bit(
    drive: Path, weights: Path, replayed: tuple[ReplayReport, Path], tmp_path: Path
) -> None:
    _, again = replay(drive, weights, tmp_path / "again.mcap")
    assert again is not None
    for topic in OUTPUTS:
        assert raw_messages(again, topic) == raw_messages(replayed[1], topic)


def test_a_fleet_detects_in_a_bag_what_a_replay_of_every_frame_does_to_the_last_bit(
    drive: Path, weights: Path, replayed: tuple[ReplayReport, Path], tmp_path: Path
) -> None:
    settings = Settings(*configuration({"weights": weights, "score_threshold": "0.0", "threads": "1"}, None))
    facts = BagDetector(settings, settings.digest)((drive, tmp_path / "out.mcap"))
    assert (facts.frames, facts.detections) == (FRAMES, replayed[0].detections)
    for topic in ("/detections", "/computation_mask"):
        pairs = zip(raw_messages(tmp_path / "out.mcap", topic), raw_messages(replayed[1], topic), strict=True)
        # DDS fills a message up to whole words.
        assert all(theirs == ours + bytes(-len(ours) % 4) for ours, theirs in pairs)


def test_a_sqlite3_bag_without_transforms_or_map_plays_in_the_clouds_own_frame(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mcap"
    report, _ = replay(write_sqlite3(tmp_path / "bag", 3), weights, out)
    assert (report.frames_processed, report.grid_frame) == (3, "")
    found = decoded(out)
    assert stamps_of(found["/detections"]) == stamps(3)
    assert found["/detections"][0].header.frame_id == "sensor"


def test_a_cloud_the_node_rejects_is_named_and_the_rest_is_processed(weights: Path, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag.mcap") as writer:
        for index, stamp in enumerate(stamps(3)):
            cloud = point_cloud2(points(index), "lidar", stamp)
            if index == 1:
                cloud.data = cloud.data[:-100]
            writer.write("/points", cloud, stamp)
    console = Console(record=True, file=StringIO(), width=200)
    parameters = {"weights": weights, "score_threshold": 0.0}
    options = ReplayOptions(every_frame=True, frame_timeout=5.0, parameters=parameters)
    report = play(tmp_path / "bag.mcap", options, console)
    assert report.missing == ((1, START_NS + 100_000_000),)
    assert (report.frames_in, report.frames_processed, report.exit_code) == (3, 2, 1)
    assert (sum(report.not_processed.values()), report.unexplained) == (1, 0)
    assert all(reason.startswith("rejected: ") for reason in report.not_processed)
    said = console.export_text()
    assert "frame 1 (stamp 1700000000.100000000) had no result" in said
    assert "node WARN" in said
    assert any(re.match(r"\d+ x rejected", warning) for warning in report.warnings)
    assert dict(report.rows())["warnings"].splitlines() == list(report.warnings)
    assert "truncated" in said


def test_complaints_that_differ_in_figures_alone_are_told_once() -> None:
    complaints = Complaints()
    for text in ("12.5 m away", "no ground", "13 m away", *(f"{chr(97 + letter)}" for letter in range(12))):
        complaints.add(text)
    assert complaints.lines[:3] == ("2 x 12.5 m away", "1 x no ground", "1 x a")
    assert (len(complaints.lines), complaints.lines[-1]) == (MOST + 1, "and others, see above")


def test_a_node_that_cannot_start_ends_the_replay_with_its_last_words(drive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)node ended with exit code 1.*there is no file .*nowhere\.safetensors"):
        replay(drive, tmp_path / "nowhere.safetensors", None)


def test_ctrl_c_ends_node_and_recording_in_order(weights: Path, tmp_path: Path) -> None:
    bag, out = write_drive(tmp_path / "bag.mcap", 13), tmp_path / "out.mcap"
    command = [sys.executable, "-m", "sbnet_perception.cli", "replay", str(bag), "--loop", "--out", str(out)]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "-p", f"weights:={weights}"], stdout=file, stderr=file, start_new_session=True
        )
    deadline = time.monotonic() + 60
    while "processed" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    # The node's process and no other is a child of the replay.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130, log.read_text()
    assert "frames processed" in log.read_text()
    assert not Path(f"/proc/{children[0]}").exists()
    with BagReader(out) as bag_written:
        assert not bag_written.warnings
        assert bag_written.topics["/points"].count >= 10


@pytest.mark.fault(28)
def test_a_full_disk_ends_the_recording_with_one_warning_and_leaves_it_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    sink = recorder.Recorder(tmp_path / "out.mcap", said.append)
    sink.write("/a", "std_msgs/msg/Header", START_NS, bytes(16))
    monkeypatch.setattr(recorder, "RESERVE_BYTES", 2**62)
    for index in range(10):
        sink.write("/a", "std_msgs/msg/Header", START_NS + index, bytes(2**20))
    sink.close()
    assert not sink.complete
    assert len(said) == 1
    assert "disk" in said[0]
    with BagReader(tmp_path / "out.mcap") as bag:
        assert 1 <= bag.topics["/a"].count == sink.messages < 10


def test_a_write_error_of_the_system_ends_the_recording_and_what_was_written_is_read(tmp_path: Path) -> None:
    program = """
import os, resource, sys
from pathlib import Path
from sbnet_perception.desk.recorder import Recorder
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
sink = Recorder(Path(sys.argv[1]), print)
for index in range(20):
    sink.write("/a", "std_msgs/msg/Header", index, os.urandom(1_000_000))
sink.close()
assert not sink.complete
"""
    out = tmp_path / "out.mcap"
    done = subprocess.run([sys.executable, "-c", program, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("recording to") == 1
    with BagReader(out) as bag:
        assert bag.warnings
        assert bag.topics["/a"].count >= 3


@pytest.mark.fault(30)
def test_an_unreadable_bag_is_one_sentence_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"this is no recording")
    assert cli.main(["replay", str(broken)]) == 2
    said = capsys.readouterr().err
    assert "broken.mcap" in said
    assert "Traceback" not in said


def test_a_real_sweep_is_converted_and_replayed_with_its_map(real_data: Path, weights: Path, tmp_path: Path) -> None:
    log = next(path.parent.parent.parent for path in (real_data / "av2").rglob("sensors/lidar/*.feather"))
    with BagWriter(tmp_path / "av2.mcap") as writer:
        convert(open_data(str(log)), writer)
    out = tmp_path / "out.mcap"
    report, _ = replay(tmp_path / "av2.mcap", weights, out)
    assert (report.frames_in, report.frames_processed, report.grid_frame) == (1, 1, "base_link")
    assert report.sparsity is not None
    assert 0.3 < report.sparsity < 0.99
    assert stamps_of(decoded(out)["/detections"]) == [315973157959879000]
