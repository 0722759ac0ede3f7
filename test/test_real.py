"""Labelled real frames: the files, and what detections in them are worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sbnet_perception.bev.grid import Grid
from sbnet_perception.cli import main
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import RealFrame
from sbnet_perception.learning.datasets.npz import items, read_frame
from sbnet_perception.learning.real import Tally, judge, parts

GRID = Grid.named("compact")
CAR = [20.0, 1.0, 0.8, 4.5, 1.9, 1.6, 0.5]
FAR = [50.0, -5.0, 0.8, 4.5, 1.9, 1.6, 0.0]
ARRAYS = {
    "xyz_cm": np.array([[2000, 100, 80], [2050, 110, 90], [100, 0, 0]], np.int16),
    "intensity": np.array([0, 255, 51], np.uint8),
    "boxes": np.float32([CAR, FAR]),
    "labels": np.array(["Van", "Pedestrian"]),
    "label_fov": np.array("camera"),
}


def write(folder: Path, name: str, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {key: value for key, value in {**ARRAYS, **changes}.items() if value is not None}
    np.savez(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


def frame_of(boxes, counts, half_view=np.pi, source="mine") -> RealFrame:
    boxes = np.float32(boxes).reshape(-1, 7)
    points = np.zeros((0, 4), np.float32)
    classes, labels = np.zeros(len(boxes), np.int64), np.full(len(boxes), "car")
    return RealFrame("mine_1", points, None, boxes, np.array(counts), classes, half_view, source, labels)


def detections(boxes, scores) -> Detections:
    return Detections(np.float32(boxes).reshape(-1, 7), np.float32(scores), np.zeros(len(scores), np.int64))


def shifted(box, along: float) -> list[float]:
    return [box[0] + along * np.cos(box[6]), box[1] + along * np.sin(box[6]), *box[2:]]


def test_a_file_of_labelled_frames_is_read_in_metres_with_intensity_from_0_to_1(tmp_path):
    frame = read_frame(write(tmp_path, "mine_7"))
    np.testing.assert_allclose(frame.points, [[20, 1, 0.8, 0], [20.5, 1.1, 0.9, 1], [1, 0, 0, 0.2]], rtol=1e-6)
    assert (frame.source, frame.labels.tolist(), frame.other_labels.tolist()) == ("mine", ["Van"], ["Pedestrian"])
    assert frame.point_counts.tolist() == [2], "points inside are counted where the file does not say"
    assert frame.half_view == pytest.approx(0.71, abs=0.001)
    floats = {"xyz_cm": None, "points": frame.points[:, :3], "intensity": frame.points[:, 3], "label_fov": "0.5"}
    again = read_frame(write(tmp_path, "mine_8", points_inside=np.array([30, 1]), **floats))
    assert np.array_equal(again.points, frame.points)
    assert again.half_view == 0.5 and again.point_counts.tolist() == [30]


def test_frames_lie_in_the_folder_itself_or_in_real_or_frames_below_it(tmp_path):
    for place in ("", "real", "frames"):
        write(tmp_path / place, "mine_1")
    for place in ("", "real", "frames"):
        assert [item.file for item in items(tmp_path)] == [tmp_path / place / "mine_1.npz"]
        (tmp_path / place / "mine_1.npz").unlink()
    with pytest.raises(UserError, match="no frames"):
        items(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"boxes": np.zeros((2, 6))}, r"boxes have the shape \(2, 6\)"),
        ({"labels": np.array(["car"])}, r"2 boxes, but labels of the shape \(1,\)"),
        ({"labels": None}, "no array labels"),
        ({"label_fov": "left"}, "label_fov is 'left'"),
        ({"label_fov": None}, "no label_fov"),
        ({"intensity": None}, "no array intensity"),
        ({"intensity": np.zeros(3, np.uint16)}, "intensity is uint16; it must be uint8"),
        ({"xyz_cm": np.zeros(6, np.int16)}, r"points have the shape \(6,\)"),
    ],
)
def test_a_file_that_does_not_fit_the_format_is_named_with_what_is_wrong(tmp_path, changes, says):
    with pytest.raises(UserError, match=f"mine_1.npz: .*{says}.*docs/frames.md"):
        read_frame(write(tmp_path, "mine_1", **changes))
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"torn.npz cannot be read"):
        read_frame(tmp_path / "torn.npz")


def test_real_frames_come_into_the_grid_frame(real_data: Path):
    frames = {item.name: item.read() for item in items(real_data / "frames")}
    assert len(frames) == 4
    for frame in frames.values():
        near = frame.points[np.hypot(frame.points[:, 0], frame.points[:, 1]) < 15]
        assert abs(np.percentile(near[:, 2], 20)) < 0.4, f"{frame.name}: the ground must be near z = 0"
        assert frame.points[:, 3].min() >= 0 and np.percentile(frame.points[:, 3], 99) <= 1
    assert frames["av2_adcf7d18"].road is not None and frames["kitti_000001"].road is None
    assert sum((frame.point_counts >= 50).sum() for frame in frames.values()) > 10


def test_a_frame_of_a_data_set_is_the_same_as_delivered_and_in_the_general_format(real_data: Path):
    delivered, general = (read_frame(real_data / folder / "kitti_000008.npz") for folder in ("frames", "real"))
    np.testing.assert_allclose(delivered.boxes, general.boxes, atol=0.02)
    assert delivered.half_view == general.half_view and delivered.labels.tolist() == general.labels.tolist()


def test_what_nobody_can_judge_is_neither_a_hit_nor_false():
    hardly_seen, outside = [40.0, 5.0, 0.8, 4.5, 1.9, 1.6, 0.0], [5.0, 9.0, 0.8, 4.5, 1.9, 1.6, 0.0]
    frame = frame_of([CAR, hardly_seen], [80, 19], half_view=0.7)
    found = detections([CAR, CAR, shifted(hardly_seen, 2.0), outside, FAR], [0.9, 0.8, 0.7, 0.6, 0.5])
    judged = judge(found, frame, GRID)
    assert judged.hits[0.5].tolist() == [0, -1, -1, -1, -1]
    assert judged.held[0.5].tolist() == [True, True, False, False, True]


def test_a_labelled_object_outside_the_nominal_view_is_asked_for_and_a_hit():
    outside = [5.0, 9.0, 0.8, 4.5, 1.9, 1.6, 0.0]
    judged = judge(detections([outside], [0.9]), frame_of([outside], [80], half_view=0.7), GRID)
    assert judged.counted.all() and judged.hits[0.5].tolist() == [0] and judged.held[0.5].all()


def test_figures_of_a_part_have_its_objects_its_hits_and_the_false_positives_there():
    turned = [*FAR[:6], 3.1]
    found = detections([CAR, turned, [60, 0, 1, 4, 2, 1.5, 0]], [0.9, 0.6, 0.7])
    one = judge(found, frame_of([CAR, FAR], [80, 30]), GRID)
    two = judge(detections([FAR], [0.3]), frame_of([CAR], [300], source="yours"), GRID)
    by_name = {part.name: part.figures for part in parts([one, two], Tally([one, two], 0.5))}
    every = by_name["all"]
    assert (every.frames, every.objects, every.found) == (2, 3, 2)
    # Precision 1 at the first third of recall, 2/3 at the second.
    assert every.ap50 == pytest.approx((1 + 2 / 3) / 3)
    assert every.false_positives == 0.5 and every.turned == 0.5
    assert every.best_recall == 0.5 and np.isnan(every.false_positives_at_recall), "one of two with 50 points"
    assert by_name["mine"].ap50 == pytest.approx((1 + 2 / 3) / 2) and by_name["yours"].ap50 == 0.0
    assert (by_name["0-20 m"].objects, by_name["20-40 m"].ap50, by_name["40-70 m"].ap50) == (0, 0.5, 0.5)
    assert [by_name[name].objects for name in ("20-49", "50-199", "200+")] == [1, 1, 1]


def test_false_positives_are_counted_where_four_fifths_of_the_well_seen_are_found():
    boxes = [[10.0 + 10 * i, 0, 0.8, 4, 2, 1.5, 0] for i in range(5)]
    wrong = [[10.0 + 10 * i, 10, 0.8, 4, 2, 1.5, 0] for i in range(3)]
    found = detections([*boxes, *wrong], [0.9, 0.8, 0.7, 0.6, 0.2, 0.85, 0.65, 0.5])
    judged = judge(found, frame_of(boxes, [50] * 5), GRID)
    figures = parts([judged], Tally([judged], 0.55))[0].figures
    assert figures.score_at_recall == pytest.approx(0.6)
    assert (figures.false_positives_at_recall, figures.false_positives, figures.recall) == (2.0, 2.0, 0.8)


@pytest.fixture(scope="module")
def evaluated(real_data: Path, tmp_path_factory):
    """`sbnet evaluate` on a few frames: the folder of what it wrote."""
    folder = tmp_path_factory.mktemp("evaluated")
    for file in (real_data / "real").glob("*.npz"):
        if file.name.startswith(("sustech", "pandaset_w", "kitti_000008", "kitti_000010")):
            (folder / file.name).symlink_to(file)
    (folder / "kitti_labels").symlink_to(real_data / "real" / "kitti_labels")
    written = [("--json", "out.json"), ("--worst", "worst"), ("--curves", "curves.png")]
    options = [part for option, name in written for part in (option, str(folder / name))]
    assert main(["evaluate", "--data", str(folder), *options]) == 0
    return folder


def test_the_shipped_weights_reach_their_figures_on_real_frames(evaluated: Path):
    figures = json.loads((evaluated / "out.json").read_text())
    assert "simulated" not in figures
    vehicle = figures["data"]["vehicle"]
    by_name = {part["name"]: part["figures"] for part in vehicle["parts"]}
    assert {name: by_name[name]["objects"] for name in ("sustech", "pandaset", "kitti")} == {
        "sustech": 9,
        "pandaset": 9,
        "kitti": 14,
    }
    assert by_name["all"]["ap50"] > 0.5
    assert vehicle["kitti"]["frames"] == 2 and vehicle["kitti"]["cars"]["hard"] > 5
    false, missed = (len(vehicle[name]) for name in ("false_positives", "misses"))
    assert false == pytest.approx(by_name["all"]["false_positives"] * 5)
    assert missed == by_name["all"]["objects"] - by_name["all"]["found"]


def test_the_worst_errors_and_the_curves_are_drawn(evaluated: Path):
    for name in ("curves.png", "worst/false_positives_1.png", "worst/misses_1.png"):
        picture = np.asarray(Image.open(evaluated / name).convert("L"))
        assert picture.shape[0] > 500 and picture.std() > 10, name
