"""`sbnet bench pipeline`: inputs, perturbed frames, rows for every stage, steadiness."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from bench_helpers import tiny_weights

from sbnet_perception.bags.writer import whole_bag
from sbnet_perception.bench import current, inputs, pipeline, steady
from sbnet_perception.bench.inputs import Input, Scene, perturbed, read_inputs
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.cli import main
from sbnet_perception.desk.simulate import write_drive
from sbnet_perception.errors import UserError
from sbnet_perception.learning.simulator import Drive
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.road import RoadMap

KEYS = {"input", "grid", "mask", "dtype", "stage", "dense_ms", "sparse_ms", "speedup", "p95_ms", "p50_ms", "p99_ms"}
KEYS |= {"dense_best", "frames", "dense_frames", "weights", "page_faults", "other_programs"}


@pytest.fixture
def in_this_process(monkeypatch):
    """Nothing is compiled, which takes seconds per stage."""
    monkeypatch.setattr(pipeline, "with_steady_memory", lambda: None)
    with torch.compiler.set_stance("force_eager"):
        yield


def landmark_scene() -> Scene:
    """Road cells of 0.5 m in a chequered pattern, and a point in the middle of every road cell before the vehicle."""
    rng = np.random.default_rng(0)
    cells = rng.random((200, 300)) < 0.2
    road = RoadMap(torch.from_numpy(cells), 0.5, SE2(-20.0, -50.0, 0.0))
    row, column = np.nonzero(cells)
    centres = np.stack([-20 + (column + 0.5) * 0.5, -50 + (row + 0.5) * 0.5], 1)
    points = np.concatenate([centres, rng.uniform(0, 1, (len(centres), 2))], 1).astype(np.float32)
    boxes = np.array([[30, 5, 1, 4, 2, 1.5, 0.2]], np.float32)
    return Scene(points, road, SE2(), boxes)


def road_on(scene, grid):
    """The road under the scene, bool [H, W]."""
    view = scene.view()
    assert view is not None
    return view.mask(grid)


@pytest.mark.parametrize("seed", range(5))
def test_points_and_road_move_together(seed):
    grid, scene = Grid.named("compact"), perturbed(landmark_scene(), np.random.default_rng(seed))
    road = road_on(scene, grid)
    row, column, _ = grid.cells(scene.points)
    assert len(row) > 1000 and road[row, column].all()
    elsewhere = road_on(perturbed(landmark_scene(), np.random.default_rng(seed + 100)), grid)
    assert not np.array_equal(elsewhere, road), "another pose sees another road"


def test_boxes_move_with_the_points():
    before = landmark_scene()
    after = perturbed(before, np.random.default_rng(0))
    assert before.boxes is not None and after.boxes is not None
    on_map = after.map_from_grid.apply(after.boxes[:, :2])
    assert before.map_from_grid.apply(before.boxes[:, :2]) == pytest.approx(on_map)
    assert after.boxes[0, 6] + after.map_from_grid.yaw == pytest.approx(before.boxes[0, 6], abs=1e-6)


def test_frames_are_seeded_and_none_is_like_another():
    source = Input("made", (landmark_scene(),))
    first, again = ([next(frames) for _ in range(3)] for frames in (source.frames(), source.frames()))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.points, b.points) and a.map_from_grid == b.map_from_grid
    assert len({frame.map_from_grid for frame in first}) == 3
    assert not np.array_equal(next(source.frames(seed=1)).points, first[0].points)
    assert np.array_equal(source.scenes[0].points, landmark_scene().points), "the scene itself was changed"


def test_a_bag_gives_clouds_on_the_ground_with_the_road_of_their_pose(tmp_path):
    drive = Drive(3, 0.2, 10.0, "hdl32")
    with whole_bag(tmp_path / "drive.mcap", overwrite=False) as writer:
        write_drive(drive, writer)
    (source,) = read_inputs(str(tmp_path / "drive.mcap"))
    assert source.name == "drive" and len(source.scenes) == len(drive)
    for scene, frame in zip(source.scenes, drive.frames(), strict=True):
        assert np.allclose(scene.points[:, :3], frame.points[:, :3], atol=1e-3)
        assert scene.points[:, 3].max() <= 1.0
        assert (scene.map_from_grid.x, scene.map_from_grid.y) == pytest.approx(
            (frame.map_from_base.x, frame.map_from_base.y), abs=1e-6
        )
        road = road_on(scene, Grid.named("compact"))
        assert road[100, :20].all(), "the vehicle drives on the road"


def test_stored_frames_are_an_input_each(tmp_path):
    (tmp_path / "frames").mkdir()
    points = np.random.default_rng(0).uniform(0, 20, (50, 4)).astype(np.float32)
    for name, more in (("kitti_1", {}), ("av2_1", {"road_mask": np.ones((400, 704), np.uint8)})):
        boxes, labels = np.zeros((1, 7), np.float32), np.array(["Car"])
        np.savez(tmp_path / "frames" / f"{name}.npz", points=points, boxes=boxes, labels=labels, **more)
    for text in (tmp_path, tmp_path / "frames"):
        assert [source.name for source in read_inputs(str(text))] == ["av2_1", "kitti_1"]
    (source,) = read_inputs(str(tmp_path / "frames" / "av2_1.npz"))
    for scene in (source.scenes[0], next(source.frames())):
        road = road_on(scene, Grid.named("paper"))
        assert road.all(), "road ends where the stored raster ends"


def test_an_input_that_cannot_be_read_names_the_remedy(tmp_path):
    (tmp_path / "empty").mkdir()
    for text in (tmp_path / "missing", tmp_path / "empty"):
        with pytest.raises(UserError, match=r"INPUT: .*give a bag, labelled frames \(\*.npz\)"):
            read_inputs(str(text))
    (tmp_path / "log" / "sensors" / "lidar").mkdir(parents=True)
    with pytest.raises(UserError, match="download at least one"):
        read_inputs(str(tmp_path / "log"))


def measured(tmp_path, monkeypatch, *options: str) -> list[dict]:
    monkeypatch.setattr(pipeline, "read_inputs", lambda text: [Input("made", (landmark_scene(),))])
    arguments = ["made", "--dtype", "float32", "--weights", str(tiny_weights(tmp_path))]
    assert main(["bench", "pipeline", *arguments, *options, "--json", str(tmp_path / "rows.json")]) == 0
    return json.loads((tmp_path / "rows.json").read_text())["rows"]


def test_every_mask_and_stage_has_a_row(in_this_process, tmp_path, monkeypatch, capsys):
    masks = (MaskConfig().settled, current.OCCUPANCY)
    options = [part for mask in masks for part in ("--mask", mask)]
    rows = measured(tmp_path, monkeypatch, *options, "--frames", "4", "--dense-every", "2")
    stages = [stage for stage in pipeline.STAGES if stage != "publish"]
    assert {(row["mask"], row["stage"]) for row in rows if row["stage"] != "publish"} == {
        (mask, stage) for mask in masks for stage in stages
    }
    for row in rows:
        assert row.keys() >= KEYS and row["frames"] == 4 and row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        if row["stage"] in ("decode", "voxelize", "conv-1", "network", "total"):
            assert row["dense_frames"] == 2 and row["speedup"] == pytest.approx(row["dense_ms"] / row["sparse_ms"])
        if row["stage"] in ("mask", "road"):
            assert row["dense_ms"] is None and row["speedup"] is None
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "target 10: " in printed and "4 frames" in printed and "medians of 2 frames" in printed


def test_a_steady_run_reports_memory_and_identical_results(in_this_process, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(steady, "REPEAT_EVERY", 5)
    first, second = (measured(tmp_path, monkeypatch, "--steady", "20")[0] for _ in range(2))
    assert first["fingerprint"] == second["fingerprint"] and first["identical"] and first["repeats"] == 4
    assert first["growth_mb"] == pytest.approx(first["resident_end_mb"] - first["resident_begin_mb"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 and "4 times: identical" in printed


def test_a_result_that_depends_on_the_frames_before_is_called_different(in_this_process, tmp_path, monkeypatch):
    monkeypatch.setattr(steady, "REPEAT_EVERY", 5)
    count = iter(range(1000))
    monkeypatch.setattr(steady, "_detections", lambda opened, scene: bytes([next(count) % 256]))
    assert measured(tmp_path, monkeypatch, "--steady", "20")[0]["identical"] is False


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--dense-every 0", "--dense-every is 0; it must be at least 1"),
        ("--steady 0", "--steady is 0"),
        ("--mask moon", "--mask is 'moon'"),
        ("--grid huge", "--grid is 'huge'"),
        ("--weights none.safetensors", "there is no file none.safetensors"),
    ],
)
def test_an_impossible_option_is_named(in_this_process, capsys, monkeypatch, options, says):
    monkeypatch.setattr(pipeline, "read_inputs", lambda text: [Input("made", (landmark_scene(),))])
    assert main(["bench", "pipeline", inputs.SIMULATED, *options.split()]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
