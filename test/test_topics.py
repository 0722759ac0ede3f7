"""What `sbnet replay` chooses from a bag by itself, what it says of it, and what it leaves to the user."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recordings import START_NS, mount, points, write_drive

from sbnet_perception.bags.messages import point_cloud2, shift, tf_message, transform
from sbnet_perception.bags.reader import BagReader, Topic
from sbnet_perception.bags.writer import BagWriter
from sbnet_perception.desk.grid_frame import choose_grid_frame
from sbnet_perception.desk.topics import CLOUD, GRID, TRANSFORMS, Played, choose_topics
from sbnet_perception.errors import UserError


def choose(names: str, points: str = "", road: str | None = None, space: str | None = None) -> Played:
    """The choice among topics that are named with the first letter of their type: ``c/points g/map t/tf``."""
    kinds = {"c": CLOUD, "g": GRID, "t": TRANSFORMS}
    topics = {text[1:]: Topic(kinds[text[0]], 1, False, "") for text in names.split()}
    return choose_topics(topics, points.split(), road, space)


@pytest.mark.parametrize(
    ("clouds", "chosen"),
    [
        ("c/front", "/front"),
        ("c/radar", "/radar"),
        ("c/radar c/lidar_top", "/lidar_top"),
        ("c/radar/points c/sensing/front/points c/camera/depth/points", "/sensing/front/points"),
        ("c/velodyne_points c/velodyne_points_filtered c/zed/cloud", "/velodyne_points"),
        ("c/lidarTop/points c/lidarTop/groundPoints c/global_map", "/lidarTop/points"),
        ("c/ars408/radar_points c/obstacles", "/obstacles"),
        ("c/rslidar_points c/points_cropped", "/rslidar_points"),
    ],
)
def test_of_several_clouds_the_one_that_names_tell_apart_is_chosen_and_the_rest_is_said(
    clouds: str, chosen: str
) -> None:
    played = choose(clouds)
    assert played.points == (chosen,)
    assert played.wire[chosen][0] == "/points"
    for name in clouds.replace("c/", "/").split():
        assert name in played.said[0]


@pytest.mark.parametrize(
    "clouds", ["c/left c/right", "c/lidar_left/points c/lidar_right/points c/radar", "c/robot1/points c/robot2/points"]
)
def test_clouds_that_names_do_not_tell_apart_are_refused_with_the_option(clouds: str) -> None:
    with pytest.raises(UserError, match=r"several topics .*; choose one with --points-topic"):
        choose(clouds)
    assert choose(clouds, points=clouds.split()[1][2:]).points == (clouds.split()[1][1:],)


def test_an_external_mask_is_played_by_its_name_and_is_never_the_road() -> None:
    played = choose("c/robot1/points g/robot1/external_mask g/robot2/external_mask g/map")
    assert played.wire["/robot1/external_mask"] == ("/external_mask", GRID, False)
    assert (played.road_mask, played.masks) == (None, {"/robot1/external_mask"})
    assert played.said[3] == "external mask /robot1/external_mask: by its name"
    played = choose("c/points g/left/external_mask g/right/external_mask")
    assert "/left/external_mask" not in played.wire
    assert played.said[3].startswith(
        "external mask none, so it counts as everywhere: /left/external_mask, /right/external_mask are as near"
    )


@pytest.mark.parametrize(
    ("grids", "road"),
    [
        ("g/map", None),
        ("g/local_costmap/costmap g/global_costmap/costmap g/map", None),
        ("g/broadcast g/inroads", None),
        ("g/road_costmap g/non_drivable_area g/road/obstacles g/lane_cost", None),
        ("g/road_mask g/costmap g/map", "/road_mask"),
        ("g/map/road", "/map/road"),
        ("g/perception/drivable_area g/map", "/perception/drivable_area"),
        ("g/hd/lanes", "/hd/lanes"),
        ("g/vectorMap/roadMask", "/vectorMap/roadMask"),
        ("g/road_mask g/road", "/road_mask"),
    ],
)
def test_only_a_grid_that_is_named_as_a_road_is_the_road_by_itself(grids: str, road: str | None) -> None:
    played = choose(f"c/points {grids}")
    assert played.road_mask == road
    assert ("named as a road" in played.said[1]) == (road is not None) or "not named as a road" in played.said[1]
    if road is None:
        assert "--road-mask-topic" in played.said[1]
        first = grids.split()[0][1:]
        assert choose(f"c/points {grids}", road=first).road_mask == first


def test_two_roads_and_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="/hd/lanes, /roads; choose one with --road-mask-topic"):
        choose("c/points g/hd/lanes g/roads")
    with pytest.raises(UserError, match=r"--points-topic /nothing: the bag has no such .* /front"):
        choose("c/front", points="/nothing")
    with pytest.raises(UserError, match=r"--road-mask-topic /front: the bag has no such .* it has none"):
        choose("c/front", road="/front")
    with pytest.raises(UserError, match=r"--tf-namespace /r: .* there; it has /tf"):
        choose("c/front t/tf", space="/r")
    with pytest.raises(UserError, match="no sensor_msgs/msg/PointCloud2"):
        choose("g/costmap")


TWO = "c/robot1/points g/robot1/road_mask t/robot1/tf t/robot1/tf_static g/robot2/road_mask t/robot2/tf"


@pytest.mark.parametrize(
    ("names", "options", "chosen"),
    [
        (TWO, {}, "/robot1/tf /robot1/tf_static /robot1/road_mask"),
        (f"{TWO} c/robot2/points", {"points": "robot2/points"}, "/robot2/tf /robot2/road_mask"),
        ("c/r1/lidar/points t/r1/tf t/tf t/tf_static", {}, "/r1/tf /tf_static"),
        ("c/points t/tf t/robot2/tf", {}, "/tf"),
        ("c/points t/tf t/robot2/tf", {"space": "robot2"}, "/robot2/tf"),
        ("c/r1/points t/r1/tf t/tf", {"space": "/"}, "/tf"),
        ("c/points t/vehicle/tf t/vehicle/tf_static", {}, "/vehicle/tf /vehicle/tf_static"),
        ("c/robot1/points t/robot2/tf g/robot2/road_mask", {}, ""),
        ("c/robot2/points t/robot2/tf t/robot1/tf_static", {}, "/robot2/tf"),
    ],
)
def test_transforms_and_road_are_those_of_the_clouds_own_namespace(
    names: str, options: dict[str, str], chosen: str
) -> None:
    played = choose(names, **options)
    assert set(played.wire) == {*played.points, *chosen.split()}
    targets = [target for target, _, _ in played.wire.values()]
    assert len(set(targets)) == len(targets)
    for name in (text[1:] for text in names.split() if text[0] == "t"):
        assert name in played.said[2]


def test_transforms_of_two_robots_beside_a_cloud_of_none_are_refused_with_the_option() -> None:
    names = "c/points t/robot1/tf t/robot2/tf"
    with pytest.raises(UserError, match=r"/robot1/tf, /robot2/tf.*choose one with --tf-namespace /robot1"):
        choose(names)
    assert set(choose(names, space="/robot1").wire) == {"/points", "/robot1/tf"}


TWO_LIDARS = "c/robot1/front/points c/robot1/rear/points c/robot2/front/points"


def test_several_lidars_are_played_under_their_own_names_with_what_belongs_to_all_of_them() -> None:
    around = "t/robot1/tf t/robot2/tf t/robot1/front/tf g/robot1/road_mask g/robot2/road_mask"
    played = choose(f"{TWO_LIDARS} {around}", points="/robot1/front/points robot1/rear/points")
    assert played.points == ("/robot1/front/points", "/robot1/rear/points")
    assert played.heard == list(played.points)
    assert set(played.wire) == {*played.points, "/robot1/tf", "/robot1/road_mask"}
    assert "they become one" in played.said[0]
    assert choose(TWO_LIDARS, points="/robot1/rear/points").heard == ["/points"]
    with pytest.raises(UserError, match="name each topic once"):
        choose(TWO_LIDARS, points="/robot1/rear/points robot1/rear/points")


def frame_of(path: Path, *clouds: str) -> tuple[str, str]:
    with BagReader(path) as bag:
        return choose_grid_frame(bag, choose_topics(bag.topics, clouds, None))


def write(path: Path, frame: str, *links: tuple[str, str, str], other: str = "") -> Path:
    """One cloud, another one in a frame of its own where that is named, and a transform (topic, parent, child) each."""
    with BagWriter(path, overwrite=True) as writer:
        for topic, parent, child in links:
            writer.write(topic, tf_message([transform(parent, child, shift(1.0), START_NS)]), START_NS)
        writer.write("/points", point_cloud2(points(0, 10), frame, START_NS), START_NS)
        if other:
            writer.write("/other", point_cloud2(points(0, 10), other, START_NS), START_NS)
    return path


@pytest.mark.parametrize(
    ("frame", "links", "chosen", "why"),
    [
        ("lidar", [("/tf", "map", "base_link"), ("/tf_static", "base_link", "lidar")], "base_link", "lead there"),
        ("ego", [("/tf_static", "ego", "base_link")], "base_link", "lead there"),
        ("/lidar", [("/tf_static", "/base_link", "roof"), ("/tf", "roof", "lidar")], "base_link", "lead there"),
        ("lidar", [("/tf", "map", "base_link")], "", "do not lead from it to base_link .*map -> base_link.*ground_z"),
        ("lidar", [("/tf", "map", "odom")], "", "do not lead from it to base_link"),
        ("lidar", [], "", "the bag has no transforms; ground_z"),
        ("base_link", [("/tf", "map", "base_link")], "", "base_link"),
        ("r1/lidar", [("/tf_static", "r1/base_link", "r1/lidar")], "r1/base_link", "lead there"),
        ("r1/lidar", [("/tf", "map", "r1/lidar"), ("/tf", "map", "r2/base_link")], "", "do not lead"),
    ],
)
def test_base_link_is_the_grid_frame_only_where_transforms_lead_there(
    tmp_path: Path, frame: str, links: list[tuple[str, str, str]], chosen: str, why: str
) -> None:
    found, said = frame_of(write(tmp_path / "bag.mcap", frame, *links))
    assert found == chosen
    assert re.search(why, said)


@pytest.mark.parametrize(
    ("links", "chosen", "why"),
    [
        ([("base_link", "front"), ("base_link", "rear")], "base_link", "lead there from .*'front' and 'rear'"),
        ([("roof", "front"), ("roof", "rear")], "front", "that of the first LiDAR"),
    ],
)
def test_several_lidars_get_a_frame_that_all_of_them_lead_to(
    tmp_path: Path, links: list[tuple[str, str]], chosen: str, why: str
) -> None:
    path = write(tmp_path / "bag.mcap", "front", *[("/tf_static", *link) for link in links], other="rear")
    found, said = frame_of(path, "/points", "/other")
    assert found == chosen and re.search(why, said)


def test_several_lidars_that_transforms_do_not_connect_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bag.mcap", "front", ("/tf_static", "base_link", "front"), other="rear")
    with pytest.raises(UserError, match=r"do not lead from 'front' to 'rear': record the transforms"):
        frame_of(path, "/points", "/other")


def test_the_second_part_of_a_split_bag_and_damaged_transforms_end_in_no_traceback(tmp_path: Path) -> None:
    assert frame_of(write_drive(tmp_path / "first.mcap", 2))[0] == "base_link"
    path = tmp_path / "damaged.mcap"
    with BagWriter(path) as writer:
        for raw in (b"\0", b"\0\1\0\0\xff\xff\xff\x7f", b"\x28\xb5\x2f"):
            writer.write("/tf", raw, START_NS, TRANSFORMS)
        writer.write("/tf_static", mount(), START_NS)
        writer.write("/points", b"\0\1\0\0", START_NS, CLOUD)
        writer.write("/points", point_cloud2(points(0, 10), "lidar", START_NS), START_NS)
    assert frame_of(path)[0] == "base_link"
