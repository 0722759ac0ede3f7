"""Errors on real frames, sorted by kind: made-up frames in which each kind occurs."""

from __future__ import annotations

import numpy as np
import pytest

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.learning.background import KINDS, shape_under
from sbnet_perception.learning.datasets.frame import RealFrame
from sbnet_perception.learning.kitti_labels import KittiFrame
from sbnet_perception.learning.mistakes import DONT_CARE, deviations, false_positives, misses, traits
from sbnet_perception.learning.real import judge

GRID = Grid.named("compact")
CAR = [20.0, 0.0, 0.8, 4.0, 2.0, 1.6, 0.0]


def frame_of(boxes, points=(), others=()) -> RealFrame:
    boxes = np.float32(boxes).reshape(-1, 7)
    cloud = np.pad(np.float32(points).reshape(-1, 3), ((0, 0), (0, 1)))
    count = len(boxes)
    return RealFrame(
        "mine_1", cloud, None, boxes, np.full(count, 80), np.zeros(count, np.int64), np.pi, "mine",
        np.full(count, "car"), np.float32(others).reshape(-1, 7), np.full(len(others), "person"),
    )  # fmt: skip


def judged(found, scores, frame: RealFrame):
    boxes = np.float32(found).reshape(-1, 7)
    return judge(Detections(boxes, np.float32(scores), np.zeros(len(scores), np.int64)), frame, GRID)


def changed(box, **changes) -> list[float]:
    names = ("x", "y", "z", "length", "width", "height", "yaw")
    return [changes.get(name, value) for name, value in zip(names, box, strict=True)]


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ([changed(CAR, x=21.9)], "on a missed vehicle, wrong place"),
        ([changed(CAR, length=9.0)], "on a missed vehicle, wrong size"),
        ([changed(CAR, yaw=np.pi / 2)], "on a missed vehicle, wrong heading"),
        ([changed(CAR, x=21.5, length=9.0, yaw=1.2)], "on a missed vehicle, wrong in several ways"),
        ([CAR, changed(CAR, x=22.5)], "second box on a vehicle that was found"),
        ([changed(CAR, y=10.0)], "on another labelled object"),
        ([changed(CAR, y=-10.0)], "background, hardly any points"),
    ],
)
def test_a_false_positive_is_told_by_what_it_stands_on(found, kind):
    person = [21.0, 10.0, 0.9, 0.5, 0.5, 1.8, 0.0]
    one = judged(found, [0.9, 0.8][: len(found)], frame_of([CAR], others=[person]))
    assert [error.kind for error in false_positives(one, 0.5, None)] == [kind]
    assert not list(false_positives(one, 0.95, None))


def test_a_false_positive_on_nothing_else_is_in_a_dont_care_region_where_kitti_says_so():
    one = judged([changed(CAR, y=-10.0), changed(CAR, y=10.0)], [0.9, 0.8], frame_of([CAR]))
    nothing = np.zeros(0)
    kitti = KittiFrame(
        np.zeros(0, np.str_), nothing, np.zeros(0, int), np.zeros((0, 4)), np.zeros((0, 7)),
        dont_care=np.array([[100.0, 100, 200, 200]]), found=np.array([1]), scores=np.array([0.8]),
        found_boxes=np.zeros((1, 7)), found_image_boxes=np.array([[110.0, 90, 190, 190]]),
    )  # fmt: skip
    assert [error.kind == DONT_CARE for error in false_positives(one, 0.5, kitti)] == [False, True]


def plane(length: float, height: float, y: float = 0.0) -> np.ndarray:
    x, z = np.meshgrid(np.arange(-length / 2, length / 2, 0.15), np.arange(0.05, height, 0.15))
    return np.column_stack([20 + x.ravel(), np.full(x.size, y), z.ravel()])


RNG = np.random.default_rng(0)
FLOOR = np.column_stack([RNG.uniform(14, 26, 400), RNG.uniform(-6, 6, 400), RNG.normal(0, 0.02, 400)])
BUSH = np.column_stack([RNG.uniform(18, 22, 500), RNG.uniform(-1, 1, 500), RNG.uniform(0, 1.8, 500)])


@pytest.mark.parametrize(
    ("things", "kind"),
    [
        ([], "hardly any points"),
        ([plane(4, 0.6)], "low: kerb, slope or ground"),
        ([plane(0.3, 3.0), plane(0.3, 3.0, 0.2)], "pole or other small thing"),
        ([BUSH], "vegetation: scattered"),
        ([plane(11, 1.6)], "surface longer or higher than a car: wall, facade, fence"),
        ([plane(4, 3.0)], "surface longer or higher than a car: wall, facade, fence"),
        ([plane(4, 1.5), plane(4, 1.5, 0.4)], "surface of a car's size"),
    ],
)
def test_background_is_told_by_its_shape(things, kind):
    assert kind in KINDS
    points = np.concatenate([FLOOR, *things])
    for lift in (0.0, 1.5):
        assert shape_under(np.array(CAR), points + np.array([0, 0, lift])).kind == kind


def test_a_miss_is_told_by_the_best_box_that_is_no_other_vehicles():
    boxes = [CAR, changed(CAR, y=6.0), changed(CAR, y=-6.0), changed(CAR, x=40.0)]
    found = [boxes[0], boxes[1], changed(boxes[2], x=21.9)]
    missed = list(misses(judged(found, [0.9, 0.3, 0.8], frame_of(boxes)), 0.5))
    assert [(miss.index, miss.kind) for miss in missed] == [
        (1, "found below the threshold"),
        (2, "a box on it that fits badly"),
        (3, "nothing there"),
    ]
    assert [miss.score for miss in missed] == pytest.approx([0.3, 0.8, 0.0])


def test_traits_say_which_objects_are_missed():
    row = [changed(CAR, yaw=0.6, y=5.0), changed(CAR, yaw=0.6, y=8.0)]
    at_border = changed(CAR, x=69.5, length=8.0)
    one = judged([row[0]], [0.9], frame_of([*row, at_border]))
    by_name = {(trait.group, trait.name): (trait.objects, trait.missed) for trait in traits([one, one], 0.5, GRID)}
    assert by_name["place", "beside another vehicle (parked row)"] == (4, 2)
    assert by_name["place", "cut by the border of the grid or view"] == (2, 2)
    assert by_name["place", "neither"] == (0, 0)
    assert by_name["heading", "turned by 20 to 70 degrees"] == (4, 2)
    assert by_name["size", "longer than 5.5 m"] == by_name["distance", "40-70 m"] == (2, 2)
    assert by_name["points", "50-199"] == (6, 4)


def test_deviations_are_along_and_across_the_vehicle_with_front_and_rear_the_same():
    turned = changed(CAR, yaw=np.pi / 2)
    found = changed(turned, y=0.3, x=19.9, length=4.4, yaw=-np.pi / 2 + np.radians(4))
    by_name = {one.name: one for one in deviations([judged([found], [0.9], frame_of([turned]))], 0.5)}
    assert by_name["place along the vehicle"].median == pytest.approx(0.3, abs=1e-5)
    assert by_name["place across it"].median == pytest.approx(0.1, abs=1e-5)
    assert by_name["length"].median == pytest.approx(0.4, abs=1e-5)
    assert by_name["heading"].absolute_90 == pytest.approx(4.0, abs=1e-3)
