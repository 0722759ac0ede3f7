"""`sbnet fleet` on a Ray cluster of two nodes on this machine, one of which is killed half-way: `make test-fleet`."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import recordings
from recordings import points, stamps, write_drive
from ros_process import tiny_weights
from test_fleet import made_up_drive

from sbnet_perception import cli
from sbnet_perception.bags.messages import point_cloud2
from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.bev.grid import Grid
from sbnet_perception.fleet.evaluate import Judge
from sbnet_perception.fleet.one_bag import BagDetector, finished
from sbnet_perception.fleet.settings import Settings, configuration
from sbnet_perception.learning import evaluate, scenes
from sbnet_perception.learning.train_config import TrainConfig

ray = pytest.importorskip("ray", reason="Ray is not installed: make test-fleet installs it")
cluster_utils = pytest.importorskip("ray.cluster_utils")
BAGS, FRAMES = 8, 12
GIVEN = ["score_threshold:=0.0", "threads:=1"]


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Beside a busy machine the workers would hardly run otherwise.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    about = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=about)
    cluster.workers = [cluster.add_node(num_cpus=1, object_store_memory=80 << 20) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tiny_weights(tmp_path / "tiny.safetensors")


def detect(cluster, weights: Path, bags: list[Path], out: Path) -> int:
    given = [word for parameter in (f"weights:={weights}", "score_threshold:=0.0") for word in ("-p", parameter)]
    return cli.main(["fleet", "detect", *map(str, bags), "--out", str(out), "--address", cluster.address, *given])


def long_drive(path: Path, number: int) -> Path:
    with BagWriter(path) as writer:
        for index, stamp in enumerate(stamps(FRAMES)):
            writer.write("/points", point_cloud2(points(100 * number + index), "lidar", stamp), stamp)
    return path


def messages(path: Path) -> list[tuple[str, int, bytes]]:
    with BagReader(path) as bag:
        return [(message.topic, message.stamp_ns, bytes(message.raw)) for message in bag.messages()]


def test_of_a_killed_machine_no_bag_is_lost_and_none_is_done_twice(cluster, weights, tmp_path, capsys):
    bags = [long_drive(tmp_path / f"bag{number}.mcap", number) for number in range(BAGS)]
    broken = tmp_path / "broken.mcap"
    broken.write_bytes(b"no bag")
    out = tmp_path / "out"

    def kill_one_at_work() -> None:
        # Half-way: some bags are done, others under way.
        while len(list(out.glob("*.mcap"))) < 2 or not list(out.glob("*.partial")):
            time.sleep(0.02)
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    killer = threading.Thread(target=kill_one_at_work, daemon=True)
    killer.start()
    assert detect(cluster, weights, [*bags, broken], out) == 1, "the broken bag is told"
    killer.join(30)
    assert not killer.is_alive()
    said = capsys.readouterr().out
    assert "8 bags, 1 failed" in " ".join(said.split()) and "broken.mcap" in said
    assert sorted(path.name for path in out.iterdir()) == sorted(bag.name for bag in bags)

    # Each file is what a single process makes of the bag: nothing is missing in it, nothing there twice.
    settings = Settings(*configuration(dict(word.split(":=") for word in (*GIVEN, f"weights:={weights}")), None))
    detector = BagDetector(settings, settings.digest)
    for bag in bags:
        detector((bag, tmp_path / "alone" / bag.name))
        assert messages(out / bag.name) == messages(tmp_path / "alone" / bag.name)
        assert Counter(topic for topic, _, _ in messages(out / bag.name))["/detections"] == FRAMES

    # The next run has nothing to do but what failed.
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    write_drive(tmp_path / "new.mcap", 2)
    assert detect(cluster, weights, [*bags, tmp_path / "new.mcap"], out) == 0
    assert "1 bags, 8 finished before" in " ".join(capsys.readouterr().out.split())
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert finished(out / "new.mcap").frames == 2


def test_scenes_of_a_fleet_are_those_of_one_process_bit_for_bit(cluster, tmp_path):
    count = scenes.SHARD + 1
    there = ["--work", str(tmp_path / "fleet"), "--address", cluster.address]
    made = ["fleet", "simulate", "--scenes", str(count), *there]
    assert cli.main(made) == 0
    fleet, alone = (
        scenes.Shards(tmp_path / where, Grid.named("compact"), count, TrainConfig.scene_seed)
        for where in ("fleet/scenes", "alone")
    )
    assert fleet.missing() == []
    alone.make(1)
    with np.load(fleet.path(1)) as ours, np.load(alone.path(1)) as theirs:
        assert ours.files == theirs.files and all(np.array_equal(ours[name], theirs[name]) for name in ours.files)


def judge_of_made_up_drives(*arguments):
    """Runs in the workers, which know nothing of this process's patches."""
    evaluate.drive_frames = made_up_drive
    return Judge(*arguments)


def test_figures_of_a_fleet_are_those_of_one_process(cluster, weights, tmp_path, monkeypatch):
    for module in (sys.modules[__name__], sys.modules[made_up_drive.__module__], recordings):
        ray.cloudpickle.register_pickle_by_value(module)
    monkeypatch.setattr("sbnet_perception.fleet.evaluate.Judge", judge_of_made_up_drives)
    monkeypatch.setattr(evaluate, "drive_frames", made_up_drive)
    figures = []
    for words in (["fleet", "evaluate", "--address", cluster.address], ["evaluate"]):
        file = tmp_path / f"{words[0]}.json"
        assert cli.main([*words, "--weights", str(weights), "--mask", "occupancy", "road", "--json", str(file)]) == 0
        figures.append([{**result, "mask_ms": 0} for result in json.loads(file.read_text())["simulated"]])
    assert figures[0] == figures[1] and len(figures[0]) == 3
