"""From the network's outputs to boxes: decoding, classes, suppression; the kernel against its plain form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from devices import operations_on
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.grid import Grid
from sbnet_perception.blocks import Pixels
from sbnet_perception.detector.boxes import corners_bev, detect, on_host, plain_detect, plain_iou
from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.network import Prediction
from sbnet_perception.learning.metrics import bev_iou
from sbnet_perception.learning.targets import make_targets

GRID = Grid.named("compact")
STEP = 0.8
boxes_around = st.tuples(
    *[st.floats(-5, 5)] * 2, st.just(0.0), st.floats(0.3, 12), st.floats(0.3, 4), st.just(1.5), st.floats(-7, 7)
)


def prediction_of(boxes, scores, classes=None, count=1):
    """A prediction whose pixels, in raster order from the first on, say these boxes [M, 7]."""
    boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 7), np.asarray(scores, np.float64)
    flat = torch.arange(len(boxes))
    rows = torch.full((len(boxes), count + 8), -20.0)
    label = torch.zeros(len(boxes), dtype=torch.int64) if classes is None else torch.tensor(classes, dtype=torch.int64)
    rows[flat, label] = torch.from_numpy(np.log(scores / (1 - scores))).float()
    centre = np.stack([(flat % 88 + 0.5) * STEP, GRID.y_min + (flat // 88 + 0.5) * STEP], 1)
    values = [np.log(boxes[:, 3:6]), boxes[:, :2] - centre, boxes[:, 2:3], np.cos(boxes[:, 6:]), np.sin(boxes[:, 6:])]
    rows[:, count:] = torch.from_numpy(np.concatenate(values, 1)).float()
    return Prediction(rows, Pixels.from_flat(flat, (1, 50, 88)), {})


def found_in(prediction, device, thresholds=(0.01,), groups=(0,), iou=0.1, limit=100):
    there = Prediction(prediction.rows.to(device), prediction.pixels.to(device), {})
    return on_host(detect(there, GRID, thresholds, groups, iou, limit))


def plainly(prediction, thresholds=(0.01,), groups=(0,), iou=0.1, limit=100):
    place = (GRID.x_min, GRID.y_min, STEP)
    return on_host(plain_detect(prediction.rows, prediction.pixels.flat, 88, place, thresholds, groups, iou, limit))


def test_a_box_overlaps_itself_fully_even_far_from_the_origin():
    boxes = np.array([[5e4, -3e4, 0, 4.5, 1.9, 1.6, yaw] for yaw in (0.0, 0.3, np.pi / 2, 3.0)])
    assert np.diag(bev_iou(boxes, boxes)) == pytest.approx(1.0)
    assert [float(plain_iou(b, b[None])) for b in torch.from_numpy(boxes)] == pytest.approx([1.0] * 4)
    assert bev_iou(np.zeros((0, 7)), boxes).shape == (0, 4)


@settings(deadline=None, max_examples=200)
@given(boxes_around, st.lists(boxes_around, min_size=1, max_size=3))
@example((-3.0, 0.0, 0.0, 9.0, 1.0, 1.5, 3.140625), [(-3 + 2**-22, 0.0, 0.0, 0.375, 1.0, 1.5, 3.140625)])
def test_the_plain_overlap_equals_that_of_polygons(first, others):
    a, b = np.array([first]), np.array([first, *others])
    assert plain_iou(torch.from_numpy(a[0]), torch.from_numpy(b)).numpy() == pytest.approx(bev_iou(a, b)[0], abs=1e-6)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(boxes_around, st.floats(0.05, 0.95), st.integers(0, 2)), max_size=12),
    st.floats(0, 0.9),
    st.sampled_from([(0, 0, 0), (0, 1, 0), (0, 1, 2)]),
)
def test_the_kernel_finds_what_its_plain_form_finds(device, found, iou, groups):
    boxes, scores, classes = (list(part) for part in zip(*found, strict=True)) if found else ([], [], [])
    overlaps = bev_iou(np.array(boxes).reshape(-1, 7), np.array(boxes).reshape(-1, 7))
    assume(not (np.abs(overlaps - iou) < 1e-5)[~np.eye(len(boxes), dtype=bool)].any())
    assume(not any(abs(score - limit) < 1e-5 for score in scores for limit in (0.3, 0.5)))
    prediction = prediction_of(boxes, scores, classes, 3)
    options = {"thresholds": (0.3, 0.0, 0.5), "groups": groups, "iou": iou, "limit": 7}
    ours, plain = found_in(prediction, device, **options), plainly(prediction, **options)
    assert ours.classes.tolist() == plain.classes.tolist()
    assert ours.boxes == pytest.approx(plain.boxes, abs=1e-5) and ours.scores == pytest.approx(plain.scores, abs=1e-6)


@pytest.mark.parametrize("limit", [40, 500])
def test_more_boxes_than_are_decided_at_a_time_are_what_the_plain_form_finds(device, limit):
    rng = np.random.default_rng(5)
    low, high = [0, -20, 0, 3, 1, 1, -4], [30, 20, 1, 6, 2, 2, 4]
    prediction = prediction_of(rng.uniform(low, high, (900, 7)), rng.uniform(0.1, 0.9, 900))
    ours, plain = (find(prediction, *on, limit=limit) for find, on in ((found_in, (device,)), (plainly, ())))
    assert len(ours) == len(plain) == min(limit, len(plain)) > 30
    assert ours.boxes == pytest.approx(plain.boxes, abs=1e-4) and ours.scores == pytest.approx(plain.scores, abs=1e-6)


def test_boxes_that_go_say_together_with_the_one_that_stays_what_it_is(device):
    # three of one car, of which one sees it from behind, and a neighbour that touches
    boxes = np.array([[10, 0, 0, 4, 2, 1, 3.1], [10.2, 0, 0.4, 4.4, 2, 1, -0.05], [10.2, 0, 0.4, 4.4, 2, 1, -0.05]])
    scores = np.array([0.9, 0.8, 0.8])
    weights = scores * np.array([1, *[bev_iou(boxes[:1], boxes[1:])[0, 0] ** 4] * 2])
    found = found_in(prediction_of(boxes, scores), device)
    assert found.boxes[0, :6] == pytest.approx(weights @ boxes[:, :6] / weights.sum(), abs=1e-4)
    assert abs(found.boxes[0, 6]) < 0.06 and found.scores.tolist() == pytest.approx([0.9])
    spoilt = prediction_of(boxes, scores)
    spoilt.rows[1, 6] = torch.nan
    for found in (found_in(spoilt, device), plainly(spoilt)):
        assert np.isfinite(found.boxes).all() and len(found) == 1
    neighbour = found_in(prediction_of([boxes[0], [10, 1.5, 0, 4, 2, 1, 3.1]], [0.9, 0.8]), device)
    assert neighbour.boxes == pytest.approx(boxes[:1], abs=1e-2)


def test_where_headings_across_each_other_cancel_the_best_box_keeps_its_own(device):
    square = [[10, 0, 0, 3, 3, 1, yaw] for yaw in (0.2, 0.2 + np.pi / 2)]
    prediction = prediction_of(square, [0.9, 0.9])
    for found in (found_in(prediction, device), plainly(prediction)):
        assert found.boxes == pytest.approx(np.array(square[:1]), abs=1e-5)


def test_a_row_that_is_no_pixel_has_no_effect_whatever_it_holds(device):
    boxes = [[10, 0, 0, 4, 2, 1, 0.3], [10.1, 0, 0, 4, 2, 1, 0.3], [20, 0, 0, 4, 2, 1, 0.3]]
    prediction = prediction_of(boxes, [0.9, 0.8, 0.7])
    # what fills a map of fixed capacity: another box there, or anything
    rows = torch.cat([prediction.rows, prediction.rows[1:2], torch.full((3, 9), torch.nan)])
    rows[3, 0], rows[5:] = 5.0, torch.inf
    flat = torch.cat([prediction.pixels.flat, torch.full((4,), -1)])
    padded = Prediction(rows, replace(prediction.pixels, flat=flat), {})
    expected = found_in(prediction, device)
    for found in (found_in(padded, device), plainly(padded)):
        assert found.boxes == pytest.approx(expected.boxes, abs=1e-5) and len(found) == 2
        assert found.scores == pytest.approx(expected.scores) and np.isfinite(found.boxes).all()


def test_suppression_keeps_the_better_of_two_overlapping_boxes_and_the_limit(device):
    boxes = [[0, 0, 0, 4, 2, 1, 0], [0.5, 0, 0, 4, 2, 1, 0.1], [20, 0, 0, 4, 2, 1, 0], [40, 0, 0, 4, 2, 1, 0]]
    prediction = prediction_of(boxes, [0.9, 0.8, 0.7, 0.6])
    assert found_in(prediction, device).scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert len(found_in(prediction, device, limit=2)) == 2 and len(found_in(prediction, device, limit=0)) == 0
    assert len(found_in(prediction_of([], []), device)) == 0


def test_only_classes_of_one_group_suppress_each_other(device):
    prediction = prediction_of([[10, 0, 0, 4, 2, 1, 0]] * 3, [0.9, 0.8, 0.7], [0, 1, 2], 3)
    assert found_in(prediction, device, (0.1,) * 3, (0, 0, 0)).classes.tolist() == [0]
    assert found_in(prediction, device, (0.1,) * 3, (0, 1, 0)).classes.tolist() == [0, 1]


def test_a_pixel_below_the_threshold_of_its_best_class_is_of_the_best_that_reaches_its_own(device):
    prediction = prediction_of([[10, 0, 0, 4, 2, 1, 0]], [0.6], [0], 2)
    prediction.rows[0, 1] = 0.0  # a score of 0.5
    assert found_in(prediction, device, (0.55, 0.1), (0, 1)).classes.tolist() == [0]
    assert found_in(prediction, device, (0.65, 0.1), (0, 1)).classes.tolist() == [1]
    assert len(found_in(prediction, device, (0.65, 0.55), (0, 1))) == 0


def test_every_car_of_a_full_car_park_is_found(device):
    # 21 x 26 cars, every pixel of which says its car: the best 512 pixels would hold only some of them
    x, y = np.meshgrid(np.arange(21) * 3.2 + 1.6, np.arange(26) * 1.5 - 19)
    cars = np.stack([x, y, 0 * x, 0 * x + 3.0, 0 * x + 1.3, 0 * x + 1.5, 0 * x], -1).reshape(-1, 7)
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(len(cars)), 8)
    scores = 0.5 + 0.4 * rng.random(len(owner))
    prediction = prediction_of(cars[owner], scores)
    found = found_in(prediction, device, limit=1000)
    assert len(found) == len(cars)
    best = np.array([scores[owner == car].max() for car in range(len(cars))])
    assert sorted(found.scores) == pytest.approx(sorted(best), abs=1e-6)


def test_slivers_on_one_line_are_compared_without_harm(device):
    # so thin that rounding alone says on which side of an edge their corners lie
    rng = np.random.default_rng(0)
    boxes = np.zeros((2000, 7))
    along = rng.uniform(-4, 4, 2000)
    boxes[:, 0], boxes[:, 1] = along * np.cos(0.1967), along * np.sin(0.1967)
    boxes[:, 3], boxes[:, 4], boxes[:, 5] = rng.uniform(1, 8, 2000), np.exp(rng.uniform(-40, -30, 2000)), 1
    boxes[:, 6] = 0.1967
    assert 0 < len(found_in(prediction_of(boxes, np.linspace(0.9, 0.5, 2000)), device, limit=2000)) <= 2000


def test_suppression_follows_its_definition_pair_by_pair(device):
    rng = np.random.default_rng(0)
    boxes = rng.uniform([0, -10, 0, 3, 1.5, 1, -3], [30, 10, 1, 8, 2.5, 2, 3], (80, 7))
    scores = np.linspace(0.95, 0.5, 80)
    overlaps = bev_iou(boxes, boxes)
    kept: list[int] = []
    for index in range(80):
        if (overlaps[kept, index] <= 0.1).all():
            kept.append(index)
    assert 5 < len(kept) < 75
    prediction = prediction_of(boxes, scores)
    assert found_in(prediction, device).scores.tolist() == pytest.approx(scores[kept].tolist())
    assert found_in(prediction, device, limit=7).scores.tolist() == pytest.approx(scores[kept[:7]].tolist())


def test_decoding_puts_a_box_where_its_targets_say(device):
    truth = np.array([[23.4, -3.1, 0.9, 4.6, 1.9, 1.5, 0.4], [60.0, 12.0, 1.2, 9.0, 2.5, 3.0, -2.8]], np.float32)
    targets = make_targets(truth, np.array([50, 50]), np.array([0, 0]), (VEHICLE,), GRID)
    pixels = Pixels.from_mask(torch.from_numpy(targets.label == 1)[None])
    values = torch.from_numpy(targets.regression).permute(1, 2, 0).reshape(-1, 8)[pixels.flat]
    rows = torch.cat([torch.full((len(pixels), 1), 5.0), values], 1)
    found = found_in(Prediction(rows, pixels, {}), device, (0.5,))
    assert found.boxes[np.argsort(found.boxes[:, 0])] == pytest.approx(truth, abs=1e-4)


def test_outputs_that_are_not_finite_become_no_box_or_one_that_is_not_finite(device):
    prediction = prediction_of([[10, 0, 0, 4, 2, 1, 0]] * 3, [0.9, 0.8, 0.7])
    prediction.rows[0, 0], prediction.rows[1, 1] = torch.nan, torch.inf
    found = found_in(prediction, device)
    assert found.scores.tolist() == pytest.approx([0.8, 0.7]) and not np.isfinite(found.boxes[0]).all()


def test_a_gpu_refuses_more_classes_than_it_has_room_for():
    many = (torch.zeros(1, 41), torch.zeros(1, dtype=torch.int64), 88, (0.0, -20.0, STEP), (0.5,) * 33, (0,) * 33)
    with operations_on("shim"), pytest.raises(RuntimeError, match="detect: a GPU takes at most 32 classes, got 33"):
        torch.ops.sbnet.detect(*many, 0.1, 5)


def test_corners_are_counter_clockwise_from_the_front_left():
    corners = corners_bev(np.array([[10.0, 5.0, 0, 4, 2, 1, np.pi / 2]]))[0]
    assert corners == pytest.approx(np.array([[9, 7], [9, 3], [11, 3], [11, 7]]))


def test_the_operation_passes_opcheck_and_names_wrong_arguments(device):
    prediction = prediction_of([[10, 0, 0, 4, 2, 1, 0]] * 3, [0.9, 0.8, 0.7])
    rows, flat = prediction.rows.to(device), prediction.pixels.flat.to(device)
    arguments = (rows, flat, 88, (0.0, -20.0, STEP), (0.5,), (0,), 0.1, 5)
    torch.library.opcheck(torch.ops.sbnet.detect.default, arguments)
    for position, wrong, named in ((0, rows[:, 1:], "rows"), (1, flat[1:], "flat")):
        with pytest.raises(RuntimeError, match=f"detect: {named} must be"):
            torch.ops.sbnet.detect(*arguments[:position], wrong, *arguments[position + 1 :])
    with pytest.raises(RuntimeError, match="groups must be 1"):
        torch.ops.sbnet.detect(*arguments[:5], (0, 1), *arguments[6:])
