"""Data sets: every reader gives the same scene from its own layout, and says in one sentence what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_files import (
    CAR,
    EGO,
    HEADING,
    PERSON,
    POINTS,
    STAMP,
    DataFrame,
    write_av2,
    write_kitti,
    write_nuscenes,
    write_pandaset,
    write_pickle,
)

from sbnet_perception.bags.messages import labels_message, point_cloud2
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.bev.grid import Grid
from sbnet_perception.cli import main
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import NOTHING
from sbnet_perception.learning.datasets.npz import read_frame
from sbnet_perception.learning.datasets.nuscenes_splits import SPLITS
from sbnet_perception.learning.datasets.registry import READERS, open_data
from sbnet_perception.learning.sweeps import sweep_of


def write_npz(root: Path) -> None:
    root.mkdir()
    arrays = {"points": POINTS[:, :3], "intensity": POINTS[:, 3], "boxes": np.float32([CAR, PERSON])}
    np.savez(root / "mine_1.npz", labels=np.array(["car", "person"]), label_fov="full", **arrays)


WRITERS: dict[str, Callable[[Path], None]] = {
    "av2": lambda root: write_av2(root / "sensor" / "val" / "0a1b2c3d-log"),
    "nuscenes": write_nuscenes,
    "kitti": write_kitti,
    "npz": write_npz,
    "pandaset": write_pandaset,
}


def written(name: str, root: Path) -> Path:
    if name == "bag":
        write_av2(root / "log")
        assert main(["convert", str(root / "log"), str(root / "drive.mcap")]) == 0
        return root / "drive.mcap"
    WRITERS[name](root / "set")
    return root / "set"


@pytest.mark.parametrize("name", [*WRITERS, "bag"])
def test_each_layout_is_recognised_and_gives_the_same_scene_in_the_grid_frame(name: str, tmp_path: Path):
    data = open_data(str(written(name, tmp_path)))
    assert data.reader is READERS[name]
    frame = data.items[0].read()
    assert frame.source == {"npz": "mine"}.get(name, name)
    ground = 0.02 if name == "pandaset" else 0.0
    np.testing.assert_allclose(frame.points[: len(POINTS)], POINTS, atol=0.003 + ground)
    np.testing.assert_allclose(frame.boxes, [CAR, CAR + np.eye(7)[1] * 40][: len(frame.boxes)], atol=1e-4 + ground)
    assert frame.point_counts[0] == 2 and frame.boxes.dtype == np.float32
    if name != "bag":
        np.testing.assert_allclose(frame.other_boxes[0], PERSON, atol=1e-4 + ground)
    if name in ("av2", "nuscenes", "bag"):
        assert frame.stamp_ns == STAMP
        np.testing.assert_allclose(frame.map_from_grid[:3, 3], EGO, atol=1e-6)
        assert np.arctan2(frame.map_from_grid[1, 0], frame.map_from_grid[0, 0]) == pytest.approx(HEADING)


@pytest.mark.parametrize(("name", "half_width"), [("av2", 4.0), ("nuscenes", 10.0), ("bag", 4.0)])
def test_the_road_of_a_map_lies_beneath_the_frame(name: str, half_width: float, tmp_path: Path):
    frame = open_data(str(written(name, tmp_path))).items[0].read()
    grid = Grid.named("compact")
    mask = frame.road.mask(grid).numpy()[:, :40]
    y = grid.y_centres
    assert mask[np.abs(y) < half_width].all() and not mask[np.abs(y) > half_width + 1.0].any()


def test_what_lies_beyond_argoverses_region_of_interest_is_not_judged_or_learnt(tmp_path: Path):
    frame = open_data(str(written("av2", tmp_path))).items[0].read()
    assert frame.labels.tolist() == ["REGULAR_VEHICLE", "BUS"] and frame.asked.tolist() == [True, True]
    sides = np.array([[20.0, 8.9], [20.0, 9.1], [-34.9, 0.0], [-35.1, 0.0]])
    assert frame.is_labelled_at(sides).tolist() == [True, False, True, False]
    assert len(sweep_of(frame).frame.points) == len(POINTS)


def test_kittis_dont_care_regions_and_what_its_camera_misses_are_no_background(tmp_path: Path):
    data = open_data(f"kitti:{written('kitti', tmp_path)}:val")
    assert [item.name for item in data.items] == ["kitti_000002"]
    frame = data.items[0].read()
    # The first point projects into the region, the last lies behind the camera.
    assert frame.doubtful.tolist() == [True, False, False, True]
    assert len(sweep_of(frame).frame.points) == 2


def test_nuscenes_asks_for_objects_with_a_point_and_knows_its_official_splits(tmp_path: Path):
    frame = open_data(f"{written('nuscenes', tmp_path)}:mini_val").items[0].read()
    assert frame.labels.tolist() == ["car"] and frame.asked.tolist() == [True]
    assert frame.other_labels.tolist() == ["pedestrian"]
    assert frame.eye == pytest.approx((0.94, 0.0, 1.84))
    assert {name: len(scenes) for name, scenes in SPLITS.items()} == {
        "train": 700, "val": 150, "test": 150, "mini_train": 8, "mini_val": 2,
    }  # fmt: skip
    assert not SPLITS["train"] & SPLITS["val"] and {"scene-0103", "scene-0916"} == SPLITS["mini_val"] < SPLITS["val"]


def test_a_converted_drive_measures_as_its_data_set_does(tmp_path: Path):
    bag = open_data(str(written("bag", tmp_path))).items[0].read()
    log = open_data(str(tmp_path / "log")).items[0].read()
    np.testing.assert_allclose(bag.points, log.points, atol=1e-5)
    np.testing.assert_allclose(bag.boxes, log.boxes, atol=1e-5)
    assert bag.labels.tolist() == ["vehicle", "vehicle"], "the classes of the table, as sbnet simulate writes them"


def test_a_converted_drive_is_labelled_where_its_data_set_is(tmp_path: Path, capsys):
    sides = np.array([[20.0, 8.9], [20.0, 9.1], [-34.9, 0.0], [-35.1, 0.0]])
    assert written("bag", tmp_path).is_file()
    assert "are not marked in the bag" not in capsys.readouterr().out
    frame = open_data(str(tmp_path / "drive.mcap")).items[0].read()
    assert frame.is_labelled_at(sides).tolist() == [True, False, True, False]
    kitti = written("kitti", tmp_path)
    assert main(["convert", f"{kitti}:val", str(tmp_path / "kitti.mcap")]) == 0
    assert "DontCare regions" in capsys.readouterr().out
    half_views = [open_data(str(place)).items[0].read().half_view for place in (kitti, tmp_path / "kitti.mcap")]
    assert half_views[0] == half_views[1] == pytest.approx(0.71, abs=0.01)


def test_clouds_that_vehicles_are_cut_out_of_become_no_bag(tmp_path: Path, capsys):
    arrays = {"points": POINTS[:, :3], "intensity": POINTS[:, 3], "classes": np.zeros(len(POINTS), np.uint8)}
    np.savez(tmp_path / "ika_1.npz", **arrays)
    assert main(["convert", str(tmp_path), str(tmp_path / "out.mcap")]) == 2
    assert "ika_1.npz has classified points, of which those of vehicles are left out" in capsys.readouterr().err
    assert not (tmp_path / "out.mcap").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-11])


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "an argoverse log without poses": (
        "av2", lambda root: next(root.glob("**/city*")).unlink(), "", "city_SE3_egovehicle.feather is missing; the log"
    ),
    "a split that argoverse has not": ("av2", lambda root: None, ":train", "has no split or log train; it has val"),
    "torn annotations": ("av2", lambda root: _cut(next(root.glob("**/ann*"))), "", "cannot be read as feather"),
    "half of nuscenes' tables": (
        "nuscenes", lambda root: (root / "v1.0-mini/ego_pose.json").unlink(), "", "ego_pose.json is missing; the tables"
    ),
    "a torn table": ("nuscenes", lambda root: _cut(root / "v1.0-mini/sample.json"), "", "is no whole JSON list"),
    "nuscenes without its sweeps": (
        "nuscenes", lambda root: shutil.rmtree(root / "samples"), "", "1 sweeps are missing: complete the download"
    ),
    "a split of another version": (
        "nuscenes", lambda root: None, ":val", "of v1.0-trainval, of which val is a split; it has v1.0-mini"
    ),
    "a scene that is not there": ("nuscenes", lambda root: None, ":scene-0916", "has no scene of 'scene-0916'"),
    "a torn sweep": (
        "nuscenes", lambda root: _cut(next(root.glob("samples/*/*.bin"))), "", "69 bytes are not a number of 20-byte"
    ),
    "a label that is missing": (
        "kitti", lambda root: (root / "training/label_2/000001.txt").unlink(), "", "is missing, but its cloud is there"
    ),
    "a list that is not there": ("kitti", lambda root: None, ":train", "has no list ImageSets/train.txt"),
    "a list of other frames": (
        "kitti", lambda root: (root / "training/velodyne/000002.bin").unlink(), ":val", "000002.bin and 0 more of its 1"
    ),
    "a source that is not there": ("npz", lambda root: None, ":yours", "source yours; its sources: mine"),
    "a sweep that pandaset lacks": (
        "pandaset", lambda root: next(root.glob("001/lidar/*.gz")).unlink(), "", "has 0 sweeps, 1 poses and 1 stamps"
    ),
    "a torn pickle": ("pandaset", lambda root: _cut(next(root.glob("001/lidar/*.gz"))), "", "00.pkl.gz is no table"),
    "a raw drive with a split": (
        "kitti", lambda root: _raw_drive(root), ":val", "is a raw drive of KITTI, which has no split val"
    ),
    "another layout": ("kitti", lambda root: shutil.rmtree(root / "training"), "", "holds no data set that is known"),
}  # fmt: skip


def _raw_drive(root: Path) -> None:
    (root / "velodyne_points").mkdir()
    (root / "training" / "velodyne").rename(root / "velodyne_points" / "data")


def test_kittis_testing_frames_alone_are_read_without_labels(tmp_path: Path):
    write_kitti(tmp_path)
    (tmp_path / "testing").mkdir()
    (tmp_path / "training" / "velodyne").rename(tmp_path / "testing" / "velodyne")
    shutil.rmtree(tmp_path / "training")
    frames = [item.read() for item in open_data(str(tmp_path)).items]
    assert [frame.labelled for frame in frames] == [NOTHING] * 2


def read_all(text: str) -> None:
    for item in open_data(text).items:
        item.read()


@pytest.mark.parametrize("case", DAMAGE)
def test_half_a_download_or_a_wrong_split_is_answered_in_one_sentence(case: str, tmp_path: Path, capsys):
    name, damage, split, says = DAMAGE[case]
    root = written(name, tmp_path)
    damage(root)
    with pytest.raises(UserError) as raised:
        read_all(f"{root}{split}")
    assert says in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere", "there is no nowhere; name a data set as [NAME:]FOLDER[:SPLIT], NAME one of"),
        ("kitti:nowhere:val", "there is no nowhere; name"),
        ("simulator:mars", "simulator:mars is not known; there is validation, held-out"),
        ("simulator:validation:mars", "no drive of validation has the sensor mars"),
    ],
)
def test_a_place_that_is_not_there_is_named(text: str, says: str):
    with pytest.raises(UserError) as raised:
        open_data(text)
    assert says in str(raised.value)


def test_frames_without_labels_are_converted_but_neither_measured_nor_learnt(tmp_path: Path, capsys):
    write_av2(tmp_path / "log")
    (tmp_path / "log" / "annotations.feather").unlink()
    frame = open_data(str(tmp_path / "log")).items[0].read()
    assert frame.labelled == NOTHING
    with pytest.raises(UserError, match="has no labels: whatever vehicles it shows would be taught as background"):
        sweep_of(frame)
    assert main(["evaluate", "--data", str(tmp_path / "log")]) == 2
    assert "has no labelled boxes to measure on" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "log"), str(tmp_path / "out.mcap")]) == 0
    assert "the bag has no /ground_truth" in " ".join(capsys.readouterr().out.split())


class Trap:
    """Unpickled, it would call a function."""

    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (Trap(), "it names builtins.exec, which is no part of a table"),
        (DataFrame({"x": np.zeros(3, "M8[s]")}), "it has an array of 'M8'"),
        (DataFrame({"x": np.zeros(3)}), "no table with columns x, y, z, i, d: 'y'"),
        ([1, 2], "no table that can be read"),
    ],
)
def test_a_pickle_is_read_as_a_table_or_not_at_all(thing: object, says: str, tmp_path: Path):
    write_pandaset(tmp_path)
    write_pickle(tmp_path / "001" / "lidar" / "00.pkl.gz", thing)
    with pytest.raises(UserError) as raised:
        read_all(str(tmp_path))
    assert says in str(raised.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_file_is_refused_in_one_line_or_read(save: Callable, tmp_path: Path):
    write_npz(tmp_path / "set")
    file = tmp_path / "set" / "mine_1.npz"
    with np.load(file) as arrays:
        save(file, **dict(arrays))
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    said: list[str] = []
    for number in range(150):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            read_frame(file)
        except UserError as error:
            said.append(str(error))
    assert len(said) > 75 and all(str(file) in text and "\n" not in text for text in said)


def test_frames_are_taken_evenly_and_it_is_said_of_how_many():
    data = open_data("simulator:validation:hdl64")
    drive = data.items[0].recording
    assert [item.name for item in open_data(f"simulator:validation:{drive}").items] == [
        item.name for item in data.items if item.recording == drive
    ]
    few = data.evenly(3)
    assert [item.name for item in few.items] == [data.items[i].name for i in (0, 10, 19)]
    assert str(few).endswith("evenly taken of 20") and len(data.evenly(99).items) == 20


def test_the_real_argoverse_and_kitti_frames_are_those_of_the_files_made_of_them(real_data: Path):
    log = "adcf7d18-0510-35b0-a2fa-b4cea13a6d76"
    for text, file in ((f"av2:{real_data}/av2:{log}", "av2_adcf7d18"), (f"{real_data}/kitti", "kitti_000001")):
        mine, theirs = open_data(text).items[0].read(), read_frame(real_data / "frames" / f"{file}.npz")
        np.testing.assert_allclose(mine.points, theirs.points, atol=1e-5)
        near = np.hypot(*theirs.boxes[:, :2].T) < 75
        apart = np.linalg.norm(theirs.boxes[near, None, :3] - mine.boxes[None, :, :3], axis=2)
        assert len(apart) and (apart.min(1) < 0.1).all()
        turn = mine.boxes[apart.argmin(1), 6] - theirs.boxes[near, 6]
        assert (np.abs(np.sin(turn)) < 0.05).all() and (np.cos(turn) > 0).all()


def test_a_bag_whose_labels_fit_no_cloud_or_are_on_several_topics_says_so(tmp_path: Path):
    bags = {"late": (("/labels",), 7, "base_link"), "several": (("/labels", "/more"), 0, "base_link")}
    # What a node in a namespace found is no label.
    bags["own"] = (("/labels", "/robot1/detections"), 0, "base_link")
    for name, (topics, late, frame_id) in (bags | {"high": (("/labels",), 0, "lidar")}).items():
        with BagWriter(tmp_path / f"{name}.mcap") as writer:
            writer.write("/points", point_cloud2(POINTS, frame_id, STAMP), STAMP)
            for topic in topics:
                labels = labels_message(CAR[None], ["truck"], frame_id, STAMP + late)
                writer.write(topic, labels, STAMP + late)
    with pytest.raises(UserError, match="no message on /labels has the stamp of a cloud on /points"):
        open_data(str(tmp_path / "late.mcap"))
    with pytest.raises(UserError, match=r"several topics of boxes, name one: .*:TOPIC of /labels, /more"):
        open_data(str(tmp_path / "several.mcap"))
    assert open_data(f"{tmp_path}/several.mcap:/more").items[0].read().labels.tolist() == ["truck"]
    own = open_data(str(tmp_path / "own.mcap"))
    assert own.items[0].read().labels.tolist() == ["truck"] and str(own).endswith("labels on /labels")
    with pytest.raises(UserError, match=r"no ground is found in the cloud .* no transform leads from lidar to"):
        read_all(str(tmp_path / "high.mcap"))
