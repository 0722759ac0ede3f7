"""Frames on a GPU: buffers of a fixed size, one graph for all clouds and masks, the boxes of the CPU.

On the device ``shim`` nothing is recorded: the function that a graph is made of runs each time, with the same buffers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from devices import DEVICES, operations_on

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.detector import gpu as gpu_frames
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.road import RoadMap, RoadView

REGION = (0.0, 12.8, -6.4, 6.4)


def config(device="cpu", dtype="bfloat16"):
    mask = MaskConfig("dilate(occupancy, 0.5) and dilate(road, 0.5)")
    return DetectorConfig(region=REGION, device=device, dtype=dtype, mask=mask, score_threshold=0.03)


def cars(seed, count):
    """Boxes of points on a plane."""
    rng = np.random.default_rng(seed)
    ground = rng.uniform([0, -6.4, -0.02, 0], [12.8, 6.4, 0.02, 1], (1000, 4))
    parts = [ground]
    for x, y in rng.uniform([1, -6], [9, 5], (count, 2)):
        parts.append(rng.uniform([x, y, 0.2, 0], [x + 4, y + 1.8, 1.6, 1], (200, 4)))
    return np.concatenate(parts).astype(np.float32)


def road(yaw):
    cells = torch.zeros(100, 100, dtype=torch.bool)
    cells[40:70, 20:90] = True
    return RoadView(RoadMap(cells, 0.2, SE2(-5.0, -10.0, 0.0)), SE2(0.0, 0.0, yaw))


def assert_same_result(found, expected, close=0.05):
    """Boxes and scores are ``close``: sums of 16 bits are rounded in other places."""
    assert found.points_in_range == expected.points_in_range and found.dense == expected.dense
    assert torch.equal(found.mask.cpu(), expected.mask) and torch.equal(found.computed.cpu(), expected.computed)
    assert found.sparsity == expected.sparsity
    assert len(found.detections) == len(expected.detections)
    np.testing.assert_allclose(found.detections.boxes, expected.detections.boxes, atol=close)
    np.testing.assert_allclose(found.detections.scores, expected.detections.scores, atol=close / 10)


def frames():
    some = torch.rand(config().raster.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    where = [road(0.0), road(0.4), road(0.4), None, some, some]
    counts, most = (2, 6, 1, 3, 5, 5), (None, None, 50, None, None, 0)
    return [(cars(seed, count)[:m], r) for seed, (count, m, r) in enumerate(zip(counts, most, where, strict=True))]


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    """A point more is a thread more."""
    monkeypatch.setattr(gpu_frames, "FEWEST_POINTS", 1024)


@pytest.fixture(scope="module")
def on_cpu():
    """What the CPU makes of these frames, and of the one of all the region in float32."""
    pipeline, exact = Pipeline(config()), Pipeline(config(dtype="float32"))
    return [*(pipeline(*frame) for frame in frames()), exact(*frames()[3])]


@pytest.fixture(scope="module", params=[name for name in DEVICES if name != "cpu"])
def gpu(request, on_cpu):
    with operations_on(request.param) as device:
        yield device


def test_frames_of_any_cloud_and_road_have_the_boxes_of_the_cpu(gpu, on_cpu):
    pipeline = Pipeline(config(str(gpu)))
    # All at first: what comes back belongs to the caller.
    found = [pipeline(*frame) for frame in frames()]
    for one, expected in zip(found, on_cpu, strict=False):
        assert_same_result(one, expected)
    assert sum(len(one.detections) for one in on_cpu) > 5


def test_a_frame_that_needs_more_room_is_computed_in_a_larger_graph_and_room_is_given_back(gpu, on_cpu, monkeypatch):
    monkeypatch.setattr("sbnet_perception.detector.pipeline.TRUSTED", ())
    pipeline, wide, narrow = Pipeline(config(str(gpu))), (frames()[3], on_cpu[3]), (frames()[5], on_cpu[5])
    pipeline.use(pipeline.config)  # the proof before the first frame asks for room too
    for (frame, expected), times in ((wide, 2), (wide, 1), (narrow, 1), (narrow, 1), (wide, 2)):
        result = pipeline(*frame)
        assert_same_result(result, expected)
        assert result.times_computed == times
    pipeline.release()
    assert_same_result(pipeline(*narrow[0]), narrow[1])


def test_a_change_of_the_configuration_reaches_graphs_that_are_recorded_already(gpu, on_cpu):
    pipeline, (frame, expected) = Pipeline(config(str(gpu))), (frames()[1], on_cpu[1])
    pipeline(*frame)
    pipeline.use(replace(pipeline.config, mask=MaskConfig("everywhere"), max_detections=1))
    changed = pipeline(*frame)
    assert changed.dense and len(changed.detections) == 1 < len(expected.detections)
    pipeline.use(config(str(gpu)))
    assert_same_result(pipeline(*frame), expected)


@pytest.mark.parametrize(
    ("points", "road", "says"),
    [
        (torch.zeros(5, 1), None, r"points must be float32 \[P, 4\], got torch.float32 \[5, 1\]"),
        (torch.zeros(5, 4, dtype=torch.float64), None, r"points must be float32 .* got torch.float64"),
        (torch.zeros(5, 4), torch.ones(1, 64, dtype=torch.bool), r"road must be bool \[64, 64\], got .*\[1, 64\]"),
        (torch.zeros(5, 4), torch.ones(64, 64), r"road must be bool \[64, 64\], got torch.float32"),
    ],
)
def test_what_a_buffer_would_make_fit_is_refused(gpu, points, road, says):
    pipeline = Pipeline(config(str(gpu)))
    pipeline(*frames()[4])
    with pytest.raises(ValueError, match=says):
        pipeline(points, road)


def test_float32_is_computed_in_the_plain_form_with_the_same_buffers(gpu, on_cpu):
    assert_same_result(Pipeline(config(str(gpu), "float32"))(*frames()[3]), on_cpu[-1], 1e-3)
