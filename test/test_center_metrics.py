"""The metrics of nuScenes and Argoverse 2: cases counted by hand, and what must hold for any detections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.learning import av2_metric, nuscenes_metric
from sbnet_perception.learning.center_distance import THRESHOLDS, Counted
from sbnet_perception.learning.datasets.frame import LabelledArea, RealFrame

CAR = np.array([20.0, 1.0, 0.8, 4.0, 2.0, 1.5, 0.5])


def moved(box: np.ndarray, x: float, y: float = 0.0) -> np.ndarray:
    return box + np.array([x, y, 0, 0, 0, 0, 0])


def frame_of(boxes: list[np.ndarray], scores: list[float], objects: list[np.ndarray]) -> Counted:
    return Counted(np.reshape(boxes, (-1, 7)), np.array(scores), np.reshape(objects, (-1, 7)).astype(float))


def labelled(objects: list[np.ndarray], **more) -> RealFrame:
    boxes = np.float32(objects).reshape(-1, 7)
    asked = np.ones(len(boxes), bool)
    nothing = np.zeros((0, 4), np.float32), None
    frame = RealFrame("f", *nothing, boxes, np.ones(len(boxes), int), np.zeros(len(boxes), int), asked=asked)
    return replace(frame, **more)


def found(boxes: list[np.ndarray], scores: list[float]) -> Detections:
    return Detections(np.float32(boxes).reshape(-1, 7), np.float32(scores), np.zeros(len(scores), np.int64))


def test_nuscenes_precision_counts_above_a_tenth_and_at_recalls_above_a_tenth():
    # Of two objects one is found first, 0.7 m beside it; then comes a false detection.
    frame = frame_of([moved(CAR, 0.7), moved(CAR, 30)], [0.9, 0.8], [CAR, moved(CAR, 0, 10)])
    made = nuscenes_metric.average_precisions([frame])
    # Precision 1 up to a recall of 0.5 (where np.interp meets the false detection: 1/2 there), 0 beyond.
    assert made[0.5] == 0.0
    assert made[1.0] == made[4.0] == pytest.approx((39 * 0.9 + 0.4) / 90 / 0.9)
    perfect = frame_of([CAR], [0.1], [CAR])
    assert nuscenes_metric.average_precisions([perfect]) == pytest.approx(dict.fromkeys(THRESHOLDS, 1.0))


def test_nuscenes_takes_the_nearest_free_object_and_argoverse_the_nearest_alone():
    # Both detections are nearest to the first object; the second would find the other one if it could.
    frame = frame_of([moved(CAR, 0.1), moved(CAR, 0.9)], [0.9, 0.8], [CAR, moved(CAR, 2.5)])
    assert nuscenes_metric.average_precisions([frame])[2.0] == pytest.approx(1.0)
    # 51 recalls up to 0.5, the last of which has the precision after the false detection.
    assert av2_metric.figures([frame]).average_precisions[2.0] == pytest.approx((50 + 0.5) / 101)


def test_argoverse_lets_the_best_detection_of_an_object_stand_for_it_even_if_it_is_too_far():
    frame = frame_of([moved(CAR, 0.9), CAR], [0.9, 0.8], [CAR])
    made = av2_metric.figures([frame]).average_precisions
    assert made[0.5] == 0.0 and made[1.0] == pytest.approx((100 + 0.5) / 101)


def test_argoverses_score_is_the_precision_less_the_errors_of_place_size_and_heading():
    turned = moved(CAR, 0.3, 0.4)
    turned[3:6], turned[6] = (2.0, 2.0, 1.5), 0.5 + np.pi / 2
    made = av2_metric.figures([frame_of([turned], [0.9], [CAR])])
    assert (made.place_error, made.size_error, made.heading_error) == pytest.approx((0.5, 0.5, np.pi / 2))
    # 0.5 m is not below 0.5 m: three of four thresholds are met.
    assert made.score == pytest.approx(0.75 * (0.75 + 0.5 + 0.5) / 3)
    nothing = av2_metric.figures([frame_of([moved(CAR, 50)], [0.9], [CAR])])
    assert nothing.score == 0.0 and nothing.place_error == 2.0 and nothing.heading_error == pytest.approx(np.pi)


def test_only_what_each_data_set_asks_for_counts():
    far, farther = moved(CAR, 31), moved(CAR, 135)
    frame = labelled([CAR, far, farther, moved(CAR, 1)], asked=np.array([True, True, True, False]))
    everything = found([CAR, far, farther], [0.9, 0.8, 0.7])
    assert [len(part) for part in vars(nuscenes_metric.counted(everything, frame, 0)).values()] == [1, 1, 1]
    assert [len(part) for part in vars(av2_metric.counted(everything, frame, 0)).values()] == [2, 2, 2]
    # A corner in the region of interest is enough.
    strip = LabelledArea(shapely.box(0.0, 2.4, 30.0, 9.0), SE2())
    inside = av2_metric.counted(everything, replace(frame, area=strip), 0)
    assert [len(part) for part in vars(inside).values()] == [1, 1, 1]
    many = found([moved(CAR, 0.01 * i) for i in range(120)], list(np.linspace(0.1, 0.9, 120)))
    kept = av2_metric.counted(many, frame, 0)
    assert len(kept.scores) == 100 and kept.scores.min() == pytest.approx(0.2345, abs=1e-3)
    grid = Grid.named("compact")
    assert len(av2_metric.counted(everything, frame, 0).within(grid).objects) == 2


@st.composite
def counted_frames(draw) -> list[Counted]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames = []
    for _ in range(draw(st.integers(1, 3))):
        objects = rng.uniform(-6, 6, (draw(st.integers(0, 4)), 7)) * (1, 1, 0.1, 0, 0, 0, 1) + (0, 0, 0, 4, 2, 1.5, 0)
        boxes = rng.uniform(-6, 6, (draw(st.integers(0, 6)), 7)) * (1, 1, 0.1, 0, 0, 0, 1) + (0, 0, 0, 4, 2, 1.5, 0)
        frames.append(Counted(boxes, rng.permutation(100)[: len(boxes)] / 100, objects))
    return frames


def _figures(frames: list[Counted]) -> list[list[float]]:
    return [
        [*nuscenes_metric.average_precisions(frames).values()],
        [*av2_metric.figures(frames).average_precisions.values()],
    ]


@settings(max_examples=60, deadline=None)
@given(counted_frames())
def test_a_wider_threshold_finds_no_less_and_order_and_scale_of_scores_do_not_matter(frames):
    made = _figures(frames)
    if not sum(len(frame.objects) for frame in frames):
        assert np.isnan(made).all()
        return
    # Argoverse 2 assigns before it compares with a threshold; nuScenes' greedy choice may lose an object to another.
    assert (np.diff(made[1]) >= -1e-12).all()
    assert (np.array(made) >= 0).all() and (np.array(made) <= 1 + 1e-12).all()
    other = [replace(frame, scores=frame.scores**3 / 2) for frame in reversed(frames)]
    np.testing.assert_allclose(_figures(other), made) if _distinct(frames) else None
    perfect = [Counted(frame.objects, np.linspace(0.1, 0.9, len(frame.objects)), frame.objects) for frame in frames]
    np.testing.assert_allclose(_figures(perfect), 1.0)
    assert av2_metric.figures(perfect).score == pytest.approx(1.0)


def _distinct(frames: list[Counted]) -> bool:
    scores = np.concatenate([frame.scores for frame in frames])
    return len(np.unique(scores)) == len(scores)
