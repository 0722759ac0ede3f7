"""The shipped weights of both grids, on a real frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.learning.datasets.npz import read_frame
from sbnet_perception.learning.real import judge


@pytest.fixture(scope="module", params=[("compact", "float32"), ("compact", "bfloat16"), ("paper", "bfloat16")])
def pipeline(request):
    grid, dtype = request.param
    return Pipeline(DetectorConfig(grid=grid, dtype=dtype))


@pytest.fixture(scope="module")
def frame(real_data: Path):
    return read_frame(real_data / "frames" / "av2_adcf7d18.npz")


def test_the_shipped_weights_find_most_vehicles_of_a_real_sweep(pipeline, frame):
    judged = judge(pipeline(frame.points, frame.road).detections, frame, pipeline.grid)
    found, false = judged.hits[0.5] >= 0, judged.held[0.5] & (judged.hits[0.5] < 0)
    assert (judged.counted & (judged.point_counts >= 50)).sum() == 9
    assert found.sum() >= 6 and false.sum() <= 2


def test_the_same_sweep_gives_the_same_detections_whatever_came_between(pipeline, frame):
    first = pipeline(frame.points, frame.road)
    for count in (0, 1, 5000, len(frame.points) // 2):
        pipeline(frame.points[:count], None)
    again = pipeline(frame.points.copy(order="C"), frame.road)
    assert len(first.detections) > 0
    assert np.array_equal(first.detections.boxes, again.detections.boxes)
    assert np.array_equal(first.detections.scores, again.detections.scores)


def test_only_a_few_percent_of_the_paper_grid_are_computed(real_data: Path):
    pipeline = Pipeline(DetectorConfig(grid="paper"))
    assert Grid.named("paper").shape == (800, 1408)
    frame = read_frame(real_data / "frames" / "av2_adcf7d18.npz")
    sparsity = pipeline(frame.points, frame.road).sparsity
    assert all(share > 0.85 for share in sparsity.values()), sparsity
