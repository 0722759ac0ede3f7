"""`sbnet convert`: small logs written here in each data set's layout, and the real frames where they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import mcap.reader
import numpy as np
import pyarrow
import pyarrow.feather
import pytest
from mcap_ros2.decoder import DecoderFactory
from scipy.spatial.transform import Rotation

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.cli import main
from sbnet_perception.learning.datasets.npz import read_frame
from sbnet_perception.masks.road import RoadView
from sbnet_perception.messages.occupancy_grid import road_from_occupancy_grid
from sbnet_perception.messages.pointcloud2 import read_points

START = 315973157959879000
SWEEPS = [START, START + 100_000_000, START + 200_000_000]
CITY = (6000.0, 3000.0, 20.0)


def read(path: Path) -> dict[str, list[Any]]:
    """Topic -> messages, as the independent MCAP library decodes them."""
    found: dict[str, list[Any]] = {}
    with path.open("rb") as file:
        for item in mcap.reader.make_reader(
            file, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages():
            found.setdefault(item.channel.topic, []).append(item.decoded_message)
    return found


def stamp_of(header: Any) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def matrix_of(stamped: Any) -> np.ndarray:
    t, q = stamped.transform.translation, stamped.transform.rotation
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    matrix[:3, 3] = t.x, t.y, t.z
    return matrix


def write_av2(log: Path, sweeps: list[int]) -> None:
    """A vehicle at 10 m/s along the city's x, poses at 20 Hz that miss the sweeps, one road along x."""
    (log / "sensors" / "lidar").mkdir(parents=True)
    (log / "map").mkdir()
    for i, stamp in enumerate(sweeps):
        xyz = np.float16([[1 + i, 2, 0.5], [30, -4, 1.5]])
        columns = {**dict(zip("xyz", xyz.T, strict=True)), "intensity": np.uint8([0, 255])}
        columns |= {"laser_number": np.uint8([1, 2]), "offset_ns": np.int32([0, 9])}
        pyarrow.feather.write_feather(pyarrow.table(columns), log / "sensors" / "lidar" / f"{stamp}.feather")
    stamps = START - 1_000_000_007 + np.arange(50) * 50_000_000
    along = (stamps - START) * 1e-9 * 10.0
    poses = {"timestamp_ns": stamps, "qw": np.ones(50), **{f"q{axis}": np.zeros(50) for axis in "xyz"}}
    poses |= {"tx_m": CITY[0] + along, "ty_m": np.full(50, CITY[1]), "tz_m": np.full(50, CITY[2])}
    pyarrow.feather.write_feather(pyarrow.table(poses), log / "city_SE3_egovehicle.feather")

    def area(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        return {"area_boundary": [{"x": CITY[0] + x, "y": CITY[1] + y, "z": CITY[2]} for x, y in corners]}

    areas = {"1": area(-500, -3, 500, 9), "2": area(900, 900, 950, 950)}
    (log / "map" / "log_map_archive_test____XYZ_city_1.json").write_text(
        json.dumps({"drivable_areas": areas})
    )


def test_an_argoverse_log_becomes_clouds_transforms_and_a_latched_road_mask(tmp_path: Path) -> None:
    write_av2(tmp_path / "log", SWEEPS)
    assert main(["convert", str(tmp_path / "log"), str(tmp_path / "out.mcap")]) == 0
    topics = read(tmp_path / "out.mcap")
    assert set(topics) == {"/points", "/tf", "/tf_static", "/road_mask"}

    assert [stamp_of(cloud.header) for cloud in topics["/points"]] == SWEEPS
    for i, cloud in enumerate(topics["/points"]):
        assert (cloud.header.frame_id, cloud.point_step) == ("egovehicle", 16)
        expected = [[1 + i, 2, 0.5, 0], [30, -4, 1.5, 1]]
        np.testing.assert_allclose(read_points(cloud).points, expected)

    moving = {stamp_of(m.transforms[0].header): m.transforms[0] for m in topics["/tf"]}
    assert list(moving) == sorted(moving)
    assert {(t.header.frame_id, t.child_frame_id) for t in moving.values()} == {("map", "base_link")}
    for stamp in SWEEPS:
        x = CITY[0] + (stamp - START) * 1e-8
        np.testing.assert_allclose(matrix_of(moving[stamp])[:3, 3], (x, CITY[1], CITY[2] - 0.33), atol=1e-6)
    (static,) = topics["/tf_static"][0].transforms
    assert (static.header.frame_id, static.child_frame_id) == ("base_link", "egovehicle")
    np.testing.assert_allclose(matrix_of(static)[:3, 3], (0, 0, 0.33))


def test_the_road_mask_of_an_argoverse_log_lies_where_its_drivable_area_is(tmp_path: Path) -> None:
    write_av2(tmp_path / "log", SWEEPS[:1])
    assert main(["convert", str(tmp_path / "log"), str(tmp_path / "out.mcap")]) == 0
    (grid,) = read(tmp_path / "out.mcap")["/road_mask"]
    assert grid.header.frame_id == "map"
    assert grid.info.resolution == pytest.approx(0.2)
    assert grid.info.width < 1200
    road = road_from_occupancy_grid(grid, outside=True)

    # In the egovehicle frame the road covers y from -3 to 9 m, and all else within 100 m is known as none.
    around = Grid(-70.4, 70.4, -40.0, 40.0, resolution=0.2)
    for yaw in (0.0, 0.5, 1.6):
        mask = RoadView(road, SE2(CITY[0], CITY[1], yaw)).mask(around).numpy()
        y = np.sin(yaw) * around.x_centres + np.cos(yaw) * around.y_centres[:, None]
        assert mask[(y > -3) & (y < 9)].all()
        assert not mask[(y < -3.7) | (y > 9.7)].any()


def test_kitti_frames_become_a_bag_at_ten_hertz(tmp_path: Path) -> None:
    folder = tmp_path / "kitti" / "training" / "velodyne"
    folder.mkdir(parents=True)
    clouds = np.random.default_rng(0).uniform(0, 1, (3, 50, 4)).astype("<f4")
    for i, cloud in enumerate(clouds):
        cloud.tofile(folder / f"{7 * i:06d}.bin")
    assert main(["convert", str(tmp_path / "kitti"), str(tmp_path / "out.mcap")]) == 0
    topics = read(tmp_path / "out.mcap")
    assert set(topics) == {"/points", "/tf_static"}
    for cloud, expected in zip(topics["/points"], clouds, strict=True):
        assert cloud.header.frame_id == "velodyne"
        np.testing.assert_allclose(read_points(cloud).points, expected, atol=1e-6)
    assert set(np.diff([stamp_of(cloud.header) for cloud in topics["/points"]])) == {100_000_000}
    (static,) = topics["/tf_static"][0].transforms
    assert (static.header.frame_id, static.child_frame_id) == ("base_link", "velodyne")
    np.testing.assert_allclose(matrix_of(static)[:3, 3], (0, 0, 1.73))


def test_a_labelled_kitti_frame_has_its_ground_where_a_converted_one_has_it(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    point, box = np.array([[10.0, 0, -1.73, 1]]), np.array([[10.0, 0, -0.93, 4, 2, 1.6, 0]])
    np.savez(tmp_path / "frames" / "kitti_1.npz", points=point, boxes=box, labels=np.array(["Car"]))
    frame = read_frame(tmp_path / "frames" / "kitti_1.npz")
    np.testing.assert_allclose((frame.points[0, 2], frame.boxes[0, 2]), (0.0, 0.8), atol=1e-6)


def test_a_raw_kitti_drive_keeps_its_own_stamps(tmp_path: Path) -> None:
    data = tmp_path / "velodyne_points" / "data"
    data.mkdir(parents=True)
    for number in (0, 2):
        np.ones((5, 4), "<f4").tofile(data / f"{number:010d}.bin")
    lines = ["2011-09-26 13:02:25.594360375", "2011-09-26 13:02:25.7", "2011-09-26 13:02:25.801234567"]
    (data.parent / "timestamps.txt").write_text("\n".join(lines))
    assert main(["convert", str(tmp_path), str(tmp_path / "out.mcap")]) == 0
    stamps = [stamp_of(cloud.header) for cloud in read(tmp_path / "out.mcap")["/points"]]
    assert stamps == [1317042145_594360375, 1317042145_801234567]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-11])


DAMAGE = {
    "no sweep": (lambda log: (log / f"sensors/lidar/{START}.feather").unlink(), "has no LiDAR sweep"),
    "torn sweep": (lambda log: _cut(log / f"sensors/lidar/{START}.feather"), "cannot be read as feather"),
    "no poses": (lambda log: (log / "city_SE3_egovehicle.feather").unlink(), "is missing"),
    "other sweep": (
        lambda log: (log / f"sensors/lidar/{START}.feather").rename(log / "sensors/lidar/5.feather"),
        "not within the poses",
    ),
    "bad name": (
        lambda log: (log / "sensors/lidar/old.feather").touch(),
        "old.feather of .* is not named by its",
    ),
    "torn map": (lambda log: _cut(next((log / "map").iterdir())), "no readable drivable_areas"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_argoverse_log_is_refused_in_one_sentence_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_av2(tmp_path / "log", SWEEPS[:1])
    damage, reason = DAMAGE[name]
    damage(tmp_path / "log")
    assert main(["convert", str(tmp_path / "log"), str(tmp_path / "out.mcap")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("sbnet convert: ")
    assert re.search(reason, message)
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


def test_a_log_without_a_map_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_av2(tmp_path / "log", SWEEPS[:1])
    next((tmp_path / "log" / "map").iterdir()).unlink()
    assert main(["convert", str(tmp_path / "log"), str(tmp_path / "out.mcap")]) == 0
    assert "the bag has no /road_mask" in " ".join(capsys.readouterr().out.split())
    assert "/road_mask" not in read(tmp_path / "out.mcap")


def test_an_existing_bag_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write_av2(tmp_path / "log", SWEEPS[:1])
    command = ["convert", str(tmp_path / "log"), str(tmp_path / "out.mcap")]
    (tmp_path / "out.mcap").write_text("precious")
    assert main(command) == 2
    assert (tmp_path / "out.mcap").read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0
    first = (tmp_path / "out.mcap").read_bytes()
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "out.mcap").read_bytes() == first


def test_a_kitti_folder_without_clouds_or_with_a_torn_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", f"kitti:{tmp_path}", str(tmp_path / "out.mcap")]
    assert main(command) == 2
    assert "does not hold KITTI" in capsys.readouterr().err
    (tmp_path / "training" / "velodyne").mkdir(parents=True)
    (tmp_path / "training" / "velodyne" / "000000.bin").write_bytes(bytes(17))
    assert main(command) == 2
    assert "17 bytes are not a number of 16-byte points" in capsys.readouterr().err


def test_the_real_argoverse_log_gives_the_road_and_the_points_of_its_frame(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = sorted((real_data / "av2" / "sensor" / "val").iterdir())
    log = next(path for path in logs if path.name.startswith("adcf7d18"))
    assert main(["convert", str(log), str(tmp_path / "out.mcap")]) == 0
    topics = read(tmp_path / "out.mcap")
    frame = np.load(real_data / "frames" / "av2_adcf7d18.npz")
    (cloud,) = topics["/points"]
    np.testing.assert_allclose(read_points(cloud).points * (1, 1, 1, 255), frame["points"], rtol=1e-5, atol=1e-6)

    pose = next(
        m.transforms[0] for m in topics["/tf"] if stamp_of(m.transforms[0].header) == stamp_of(cloud.header)
    )
    road = road_from_occupancy_grid(topics["/road_mask"][0], outside=False)
    view = RoadView(road, SE2.from_matrix(matrix_of(pose)))
    mask = view.mask(Grid(0.0, 70.4, -20.0, 20.0, 0.1)).numpy()
    assert mask[frame["road_mask"] > 0].all()
    assert mask[frame["road_mask"] == 0].mean() < 0.05

    without_sweep = next(path for path in logs if path.name.startswith("3b3570b4"))
    assert main(["convert", str(without_sweep), str(tmp_path / "none.mcap")]) == 2
    assert "has no LiDAR sweep" in capsys.readouterr().err


def test_the_real_kitti_frame_gives_its_points(real_data: Path, tmp_path: Path) -> None:
    assert main(["convert", str(real_data / "kitti"), str(tmp_path / "out.mcap")]) == 0
    (cloud,) = read(tmp_path / "out.mcap")["/points"]
    expected = np.load(real_data / "frames" / "kitti_000001.npz")["points"]
    np.testing.assert_allclose(read_points(cloud).points, expected, rtol=1e-5, atol=1e-6)
