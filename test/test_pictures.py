"""Pictures of recordings: they show what was recorded, where it was."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image
from recordings import SENSOR_HEIGHT, START_NS, points, stamps, write_drive, write_replay
from rich.console import Console

from sbnet_perception.bags.messages import occupancy_grid, tf_message, transform
from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.recorded import Recording
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.desk import birdview
from sbnet_perception.desk.pictures import MAX_ANIMATION_BYTES, PICTURE_WIDTH, draw_pictures, picture, title_of
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.classes import CLASSES, ObjectClass
from sbnet_perception.errors import UserError
from sbnet_perception.masks.road import RoadMap

FRAMES = 9
BOX = np.array([[50.0, 12.0, 0.8, 4.5, 2.0, 1.6, 0.6], [17.0, 2.0, 0.8, 4.5, 2.0, 1.6, 3.0]], np.float32)


@pytest.fixture
def computed() -> np.ndarray:
    """bool [50, 88]: only y < 0 and x < 35.2 m."""
    mask = np.zeros((50, 88), bool)
    mask[:25, :44] = True
    return mask


@pytest.fixture
def recording(computed: np.ndarray, tmp_path: Path) -> Path:
    return write_replay(tmp_path / "out.mcap", FRAMES, BOX, computed)


def centre_of(image: Image.Image, color: str, tolerance: int = 30) -> tuple[float, float, int]:
    """Mean column and row of the pixels near a colour, as fractions of the image, and their number."""
    pixels = np.asarray(image, np.int32)
    near = np.abs(pixels - np.round(np.array(to_rgb(color)) * 255)).max(axis=2) <= tolerance
    rows, columns = np.nonzero(near)
    return float(columns.mean()) / pixels.shape[1], float(rows.mean()) / pixels.shape[0], len(rows)


def test_a_recording_gives_its_key_frames_and_one_small_moving_picture(recording: Path, tmp_path: Path) -> None:
    files = draw_pictures(recording, tmp_path / "pictures", stills=3)
    assert [file.name for file in files] == ["drive_1.png", "drive_2.png", "drive_3.png", "drive.gif"]
    for file in files[:-1]:
        with Image.open(file) as image:
            assert image.size == (PICTURE_WIDTH, 756)
            assert len(image.getcolors(1_000_000)) > 200
    with Image.open(files[-1]) as moving:
        assert moving.n_frames == FRAMES
        assert moving.info["duration"] == 100
    assert files[-1].stat().st_size < MAX_ANIMATION_BYTES


def test_the_road_is_brighter_than_what_is_none_and_lies_where_its_map_and_the_transforms_say(tmp_path: Path) -> None:
    # The map's own x points left of the vehicle; its road lies to the vehicle's left, from 10 to 20 m.
    cells = torch.zeros(200, 40, dtype=torch.bool)
    cells[:, 20:] = True
    road = RoadMap(cells, 0.5, SE2(0.0, -70.0, 0.0))
    path = write_replay(tmp_path / "out.mcap", 2, BOX, np.zeros((50, 88), bool))
    with BagReader(path) as bag, BagWriter(tmp_path / "road.mcap") as writer:
        turn = SE2(0.0, 0.0, -math.pi / 2).matrix()
        writer.write("/tf", tf_message([transform("city", "base_link", turn, START_NS)]), START_NS)
        writer.write("/road_mask", occupancy_grid(road, "city", START_NS), START_NS)
        for message in bag.messages():
            writer.write(message.topic, message.raw, message.stamp_ns, message.msgtype)
    frame = next(Recording(tmp_path / "road.mcap").frames())
    assert frame.road is not None and frame.road.shape == (50, 88)
    assert frame.road[39:].all() and not frame.road[:36].any()
    image = picture(replace(frame, points=frame.points[:0], detections=frame.detections[:0], truth=None))
    columns = np.asarray(image.crop((200, 36, 1000, 722)), int).sum(axis=(1, 2))
    upper, lower = columns[20:150].mean(), columns[500:600].mean()
    assert upper > 1.5 * lower


def test_forward_is_right_left_is_up_and_only_the_computed_part_is_tinted(recording: Path) -> None:
    frame = next(Recording(recording).frames())
    one = frame.detections[:1]
    assert np.allclose(one.boxes, BOX[:1], atol=1e-5)
    clean = type(frame)(**{**vars(frame), "detections": one, "points": frame.points[:0], "truth": None})
    image = picture(clean).crop((0, 36, PICTURE_WIDTH, 722))
    column, row, count = centre_of(image, birdview.DETECTION)
    assert count > 200
    assert column == pytest.approx((50 + 3) / 73.4, abs=0.03)
    assert row == pytest.approx((20 - 12) / 40, abs=0.05)
    tint = np.asarray(image.crop((200, 480, 400, 560)), int).reshape(-1, 3).mean(axis=0)
    bare = np.asarray(image.crop((900, 480, 1100, 560)), int).reshape(-1, 3).mean(axis=0)
    assert tint[1] > bare[1] + 30
    assert np.abs(bare - 255 * np.array(to_rgb(birdview.BACKGROUND))).max() < 12


def test_a_frame_has_cloud_mask_and_truth_in_the_frame_of_its_detections(recording: Path, computed: np.ndarray) -> None:
    source = Recording(recording)
    assert source.stamps == stamps(FRAMES)
    assert source.counts == [len(BOX)] * FRAMES
    frames = list(source.frames())
    assert [frame.time_s for frame in frames] == pytest.approx([0.1 * index for index in range(FRAMES)])
    for index, frame in enumerate(frames):
        raised = points(index) + np.array([0, 0, SENSOR_HEIGHT, 0], np.float32)
        assert np.allclose(frame.points, raised, atol=1e-3)
        assert frame.mask is not None
        assert np.array_equal(frame.mask, computed)
        assert (frame.grid.x_max, frame.grid.y_min) == (70.4, -20.0)
        assert frame.truth is not None
        assert np.allclose(frame.truth.boxes, frame.detections.boxes)
    assert [frame.stamp_ns for frame in source.frames([START_NS])] == [START_NS]


def test_heights_are_above_the_ground_that_the_node_was_told(computed: np.ndarray, tmp_path: Path) -> None:
    low, high = (write_replay(tmp_path / f"{z}.mcap", 1, BOX, computed, ground_z=z) for z in (0.0, -1.5))
    below, above = (next(Recording(path).frames()) for path in (low, high))
    assert below.truth is not None
    assert above.truth is not None
    assert np.allclose(above.points[:, 2] - below.points[:, 2], 1.5, atol=1e-5)
    assert np.allclose(above.detections.boxes[:, 2] - below.detections.boxes[:, 2], 1.5, atol=1e-5)
    assert np.allclose(above.truth.boxes[:, 2] - below.truth.boxes[:, 2], 1.5, atol=1e-5)


def test_detections_keep_their_class_and_unknown_names_follow_the_known_ones(tmp_path: Path) -> None:
    path = write_replay(tmp_path / "out.mcap", 1, BOX[:1], None, found=BOX, names=("tram", "vehicle"))
    recording = Recording(path)
    frame = next(recording.frames())
    assert [recording.classes[label] for label in frame.detections.classes] == ["tram", "vehicle"]
    assert recording.classes.index("vehicle") == 0
    assert frame.truth is not None
    assert frame.truth.classes.tolist() == [0]


def test_ground_truth_of_another_frame_is_placed_in_that_of_the_detections(tmp_path: Path) -> None:
    # The recording mounts the lidar upright; the front camera is turned to the left and 1 m ahead of it.
    path = write_replay(tmp_path / "drive.mcap", 1, BOX, None, truth_frame="camera")
    turned = SE2(1.0, 0.0, np.pi / 2).matrix()
    with BagWriter(tmp_path / "out.mcap") as writer, BagReader(path) as bag:
        writer.write("/tf_static", tf_message([transform("lidar", "camera", turned, START_NS)]), START_NS)
        for message in bag.messages():
            writer.write(message.topic, message.raw, message.stamp_ns, message.msgtype)
    recording = Recording(tmp_path / "out.mcap")
    truth = next(recording.frames()).truth
    assert truth is not None
    x, y, z, *size, yaw = BOX.T
    expected = np.stack([1.0 - y, x, z + SENSOR_HEIGHT, *size, yaw + np.pi / 2], 1)
    assert np.allclose(truth.boxes, expected, atol=1e-4)
    assert recording.warnings == ()


def test_ground_truth_of_a_frame_that_no_transform_knows_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write_replay(tmp_path / "out.mcap", 2, BOX, None, truth_frame="nowhere")
    recording = Recording(path)
    assert [frame.truth for frame in recording.frames()] == [None, None]
    (warning,) = recording.warnings
    assert warning == "/ground_truth is left out: the recording has no transform from nowhere to base_link"
    console = Console(record=True, file=StringIO(), width=200)
    draw_pictures(path, tmp_path, console=console)
    assert warning in console.export_text()


def test_without_a_mask_the_region_holds_the_cloud_and_every_box(tmp_path: Path) -> None:
    behind = np.concatenate([BOX, BOX[:1] - np.array([90, 0, 0, 0, 0, 0, 0])])
    frame = next(Recording(write_replay(tmp_path / "out.mcap", 1, behind, None)).frames())
    # The clouds reach from 1 to 69 m ahead and 19 m to either side.
    assert frame.mask is None
    assert frame.grid.bounds == (-40.0, 70.0, -20.0, 20.0)


def test_a_recording_without_detections_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no /detections: record it with `sbnet replay`"):
        draw_pictures(write_drive(tmp_path / "drive.mcap", 2), tmp_path)


def test_a_region_that_reaches_behind_has_the_car_inside_and_full_rings(recording: Path) -> None:
    frame = next(Recording(recording).frames())
    found = Detections(np.float32([[-40.0, 25.0, 0.8, 4.5, 2.0, 1.6, 0.0]]), np.float32([0.8]), np.array([0]))
    grid = Grid(-70.4, 70.4, -40.0, 40.0, 0.2)
    around = replace(frame, detections=found, grid=grid, mask=None, points=frame.points[:0], truth=None)
    image = picture(around)
    view = image.crop((10, 36, PICTURE_WIDTH - 10, image.height - 34))
    column, row, count = centre_of(view, birdview.DETECTION)
    assert count > 100
    assert (column, row) == (pytest.approx(30.4 / 140.8, abs=0.02), pytest.approx(15 / 80, abs=0.03))
    column, row, _ = centre_of(view, "#c3cfdb", tolerance=10)
    assert (column, row) == (pytest.approx(0.5, abs=0.02), pytest.approx(0.5, abs=0.02))


def test_each_class_has_its_colour_and_its_name_beside_the_score(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLASSES, "cyclist", ObjectClass("cyclist", "#3cff00"))
    frame = next(Recording(recording).frames())
    both = replace(frame, detections=replace(frame.detections, classes=np.array([1, 0])), points=frame.points[:0])
    names = ("vehicle", "cyclist")
    assert "1 vehicle, 1 cyclist " in title_of(both, names)
    view = picture(replace(both, truth=None), names).crop((0, 36, PICTURE_WIDTH, 722))
    for name, box in (("cyclist", BOX[0]), ("vehicle", BOX[1])):
        column, row, count = centre_of(view, birdview.colour_of(name))
        assert count > 200
        assert column == pytest.approx((box[0] + 3) / 73.4, abs=0.03)
        assert row == pytest.approx((20 - box[1]) / 40, abs=0.05)
