"""What `sbnet fleet` does beside Ray: one bag, figures of parts, and what it refuses."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import SENSOR_HEIGHT, START_NS, points, write_drive
from ros_process import tiny_weights

from sbnet_perception import cli, fleet
from sbnet_perception.bags.messages import occupancy_grid, point_cloud2
from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.desk.topics import GRID
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.errors import UserError
from sbnet_perception.fleet.detect import Totals, _left
from sbnet_perception.fleet.evaluate import Judge
from sbnet_perception.fleet.one_bag import BagDetector, finished, outputs
from sbnet_perception.fleet.settings import Settings, configuration
from sbnet_perception.learning import evaluate
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.masks.road import RoadMap

FRAMES = 3


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    weights = tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
    return Settings(*configuration({"weights": weights, "score_threshold": "0.0"}, None))


def test_a_finished_bag_is_skipped_and_one_of_other_settings_is_only_replaced_when_asked(settings, tmp_path):
    bag, out = write_drive(tmp_path / "drive.mcap", FRAMES), tmp_path / "out" / "drive.mcap"
    out.parent.mkdir()
    # What a worker has left that was killed.
    (out.parent / "drive.mcap.01234567.partial").touch()
    others = out.parent / "drive.mcap.b.mcap.01234567.partial"
    others.touch()
    facts = BagDetector(settings, settings.digest)((bag, out))
    assert facts == finished(out)
    assert (facts.frames, {*out.parent.iterdir()}) == (FRAMES, {out, others})
    made = out.stat().st_mtime_ns
    assert BagDetector(settings, settings.digest)((bag, out)) == facts and out.stat().st_mtime_ns == made

    other = replace(settings, detector=replace(settings.detector, nms_iou=0.2)).digest
    on_gpu = replace(settings, detector=replace(settings.detector, threads=7, device="cuda"))
    alike = replace(on_gpu, detector=replace(on_gpu.detector, dtype="float32")).digest
    assert settings.digest == alike and len({settings.digest, on_gpu.digest, other}) == 3
    totals = Totals()
    assert _left({bag: out}, settings.digest, False, totals) == [] and totals.skipped == [bag]
    assert _left({bag: out}, other, True, totals) == [bag]
    with pytest.raises(UserError, match="other settings; choose another --out folder, or --overwrite replaces it"):
        _left({bag: out}, other, False, totals)


def test_a_file_of_another_bag_of_the_same_name_is_only_replaced_when_asked(settings, tmp_path):
    out = tmp_path / "out" / "drive.mcap"
    first, second = (write_drive(tmp_path / name / "drive.mcap", frames) for name, frames in (("a", 1), ("b", 2)))
    BagDetector(settings, settings.digest)((first, out))
    with pytest.raises(UserError, match=r"made of another bag; .*--overwrite replaces it"):
        _left({second: out}, settings.digest, False, Totals())
    assert _left({second: out}, settings.digest, True, Totals()) == [second]
    assert BagDetector(settings, settings.digest)((second, out)).frames == 2
    # Moved, it is the same.
    moved = second.rename(tmp_path / "drive.mcap")
    assert _left({moved: out}, settings.digest, False, Totals()) == []


@pytest.mark.parametrize("there", [b"", bytes(range(256)), b"\x89MCAP0\r\n" + bytes(99), "a drive", "cut"])
def test_what_no_fleet_made_is_replaced_when_asked_and_only_then(settings, tmp_path, there):
    bag, out = write_drive(tmp_path / "drive.mcap", 1), tmp_path / "out.mcap"
    raw = there if isinstance(there, bytes) else bag.read_bytes()
    out.write_bytes(raw[:-9] if there == "cut" else raw)
    with pytest.raises(UserError, match=r"exists already; .*--overwrite"):
        _left({bag: out}, settings.digest, False, Totals())
    assert _left({bag: out}, settings.digest, True, Totals()) == [bag]
    facts = BagDetector(settings, settings.digest)((bag, out))
    assert facts.frames == 1 and finished(out) == facts


def test_a_bag_without_a_usable_cloud_leaves_no_file_and_says_why(settings, tmp_path):
    bag, out = tmp_path / "bag.mcap", tmp_path / "out.mcap"
    with BagWriter(bag) as writer:
        for seed in range(2):
            writer.write("/points", point_cloud2(points(seed), "", START_NS + seed), START_NS + seed)
    with pytest.raises(UserError, match=r"none of 2 clouds can be used: frame_id empty \(2\)"):
        BagDetector(settings, settings.digest)((bag, out))
    assert not out.exists()


def test_an_external_mask_counts_beside_the_road_and_a_malformed_one_is_told(settings, tmp_path):
    mask = replace(settings.detector.mask, expression="road and external")
    named = replace(settings, detector=replace(settings.detector, mask=mask))
    half = torch.ones(80, 200, dtype=torch.bool)
    half[:40] = False
    grid = occupancy_grid(RoadMap(half, 0.5, SE2(-10.0, -20.0, 0.0)), "map", START_NS)

    def refused_and_computed(name: str, external: list[object]) -> tuple[str, int]:
        """What was refused, and the cells of the mask."""
        bag, out = tmp_path / f"{name}.mcap", tmp_path / f"{name}.out.mcap"
        with BagReader(write_drive(tmp_path / f"{name}.drive.mcap", 1)) as drive, BagWriter(bag) as writer:
            for message in external:
                writer.write("/external_mask", message, START_NS, GRID)
            for message in drive.messages():
                writer.write(message.topic, message.raw, message.stamp_ns, message.msgtype)
        facts = BagDetector(named, named.digest)((bag, out))
        with BagReader(out) as reader:
            (computed,) = [deserialize(message.raw, GRID) for message in reader.messages(["/computation_mask"])]
        return facts.refused, int((computed.data > 0).sum())

    nothing, everywhere = refused_and_computed("none", [])
    refused, computed = refused_and_computed("half", [grid, b"no"])
    assert (nothing, refused) == ("", "external mask malformed (1)")
    assert 0 < computed < 0.6 * everywhere


def test_a_worker_whose_weights_are_others_does_not_work(settings):
    with pytest.raises(UserError, match="other weights"):
        BagDetector(settings, "another")


def test_two_bags_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"a/drive.mcap and b/drive.mcap would both become out/drive.mcap"):
        outputs([Path("a/drive.mcap"), Path("b/drive.mcap")], Path("out"))


def test_parameters_are_those_of_the_node(tmp_path):
    file = tmp_path / "surround.yaml"
    file.write_text("/**:\n  ros__parameters:\n    region: [-70.4, 70.4, -40.0, 40.0]\n    mask: {dtype_is: 1}\n")
    with pytest.raises(UserError, match=r"mask.dtype_is.*not known"):
        configuration({}, file)
    file.write_text("/**:\n  ros__parameters:\n    region: [-70.4, 70.4, -40.0, 40.0]\n    nms_iou: 0.3\n")
    node, detector = configuration({"nms_iou": "0.2", "grid_frame": "map"}, file)
    assert (detector.region, detector.nms_iou, node.grid_frame) == ((-70.4, 70.4, -40.0, 40.0), 0.2, "map")
    with pytest.raises(UserError, match=r"score_threshold.*\[0, 1\]"):
        configuration({"score_threshold": "7"}, None)


def made_up_drive(seed, *_):
    """Two frames with three vehicles each."""
    rng = np.random.default_rng(seed)
    for number in range(2):
        cloud = points(seed + number)
        cloud[:, 2] += SENSOR_HEIGHT
        boxes = np.float32([[x, rng.uniform(-9, 9), 0.8, 4.5, 1.9, 1.6, 0.1] for x in (15, 32, 50)])
        yield LabelledFrame(f"{seed} {number}", cloud, None, boxes, np.array([9, 9, 2]), np.zeros(3, np.int64))


def test_figures_of_drives_measured_apart_are_those_of_all_together(settings, monkeypatch):
    monkeypatch.setattr(evaluate, "drive_frames", made_up_drive)
    detector, seeds = settings.detector, (11, 12)
    judge = Judge(detector, ("occupancy",))
    apart = [frame for job in enumerate(seeds) for frame in judge(job)[0]]
    merged = evaluate.figures_of("occupancy", apart, detector.objects, detector.thresholds)
    pipelines = {"occupancy": evaluate.pipeline_under(detector, "occupancy")}
    whole = evaluate.evaluate_simulated(pipelines, list(evaluate.frames_of_drives(seeds)), detector.thresholds)
    assert [replace(result, mask_ms=0) for result in merged] == [replace(result, mask_ms=0) for result in whole]
    assert whole[0].objects == 8 and whole[0].precision50 < 1


class RayOfTheDead(types.ModuleType):
    """As much of Ray as the pool asks for. Workers start or die as they are told, those that start work."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self, start: Iterator[bool]) -> None:
        super().__init__("ray")
        self.started = 0

        class Method:
            def __init__(self, method) -> None:
                self.remote = lambda *given: lambda: method(*given)

        def ready(worker):
            self.started += 1
            if not next(start):
                raise self.exceptions.RayError(f"no memory for worker {self.started}\nmore")
            return worker.ready()

        def actor(kind, make):
            worker = kind(make)
            return types.SimpleNamespace(ready=Method(lambda: ready(worker)), do=Method(worker.do))

        self.init = self.shutdown = self.kill = lambda *_, **__: None
        self.cluster_resources = lambda: {"CPU": 2}
        self.remote = lambda **_: lambda kind: types.SimpleNamespace(remote=lambda make: actor(kind, make))
        self.wait = lambda references, timeout: (references[:1], references[1:])
        self.get = lambda reference: reference()


def pool_on(monkeypatch: pytest.MonkeyPatch, ray: types.ModuleType) -> types.ModuleType:
    """The module, apart from the one that others import."""
    monkeypatch.setitem(sys.modules, "ray", ray)
    spec = importlib.util.spec_from_file_location("pool_on_a_stub", Path(fleet.__path__[0]) / "pool.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_workers_that_die_as_they_start_are_given_up_after_some_tries(monkeypatch):
    ray = RayOfTheDead(itertools.repeat(False))
    pool = pool_on(monkeypatch, ray)
    with pytest.raises(UserError, match=r"6 workers in a row died as they started, the first: no memory for worker 1$"):
        list(pool.Pool(None, lambda: abs, pool.Needs(workers=2)).run([-1, -2, -3]))
    assert ray.started == 6
    # One that starts does the work, however many die beside it.
    ray = RayOfTheDead(itertools.chain(5 * [False], [True], itertools.repeat(False)))
    pool = pool_on(monkeypatch, ray)
    answers = pool.Pool(None, lambda: abs, pool.Needs(workers=2)).run([-1, -2, -3])
    assert sorted(answer.value for answer in answers) == [1, 2, 3]


@pytest.mark.parametrize("words", ["--data kitti:x", "--frames 0", "--simulated", "--worst x", "--curves x.png"])
def test_options_of_evaluate_that_a_fleet_does_not_have_are_refused(capsys, words):
    assert cli.main(["fleet", "evaluate", *words.split()]) == 2
    error = capsys.readouterr().err
    assert f"{words.split()[0]} is for 'sbnet evaluate'" in error and error.count("\n") == 1


@pytest.mark.parametrize("line", ["detect a.mcap --out out", "simulate", "evaluate"])
def test_without_ray_one_line_says_what_to_install(monkeypatch, capsys, line):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "sbnet_perception.fleet.pool", raising=False)
    assert cli.main(["fleet", *line.split()]) == 2
    error = capsys.readouterr().err
    assert "pip install 'sbnet-perception[fleet]'" in error and error.count("\n") == 1


def test_the_shipped_weights_identify_the_settings():
    node, detector = configuration({}, None)
    assert detector == DetectorConfig() and len(Settings(node, detector).digest) == 16
