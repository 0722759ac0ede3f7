"""The network against its oracle, its weights and configuration, and the pipeline from points to detections."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks.sparse_map import rows_of
from sbnet_perception.detector.classes import CLASSES, VEHICLE, ObjectClass
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import STRIDES, Detector, NetworkConfig, initialize
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.weights import WeightsError, read_metadata, save_weights
from sbnet_perception.masks.config import MaskConfig

SMALL = NetworkConfig(8, (8, 8, 12, 16), (2, 2, 2, 2), 12, (8, 8), 2)


@pytest.fixture(scope="module")
def network():
    return initialize(Detector(config=SMALL), 0).eval()


@pytest.fixture
def weights(tmp_path, network):
    path = tmp_path / "small.safetensors"
    save_weights(path, network, 0.2, (VEHICLE,), {"data": "none, random"})
    return path


def test_the_network_has_the_size_the_paper_states():
    parameters = sum(p.numel() for p in Detector().parameters())
    assert 1.8e6 < parameters < 2.2e6


@torch.no_grad()
def test_an_all_ones_mask_gives_exactly_the_dense_network(network):
    bev = torch.rand(1, 33, 200, 352)
    dense, sparse = network(bev), network(bev, torch.ones(1, 200, 352, dtype=torch.bool))
    torch.testing.assert_close(sparse.rows, dense.rows, rtol=1e-4, atol=1e-4)
    assert torch.equal(sparse.pixels.flat, torch.arange(50 * 88)) and torch.equal(dense.pixels.flat, sparse.pixels.flat)


@torch.no_grad()
@pytest.mark.parametrize("tiles", [(8, 8, 4, 4, 2), (2, 2, 2, 2, 1), (2, 4, 6, 2, 3)])
def test_voxels_give_the_same_prediction_as_the_dense_map_that_they_are(tiles):
    network = initialize(Detector(config=replace(SMALL, tiles=tiles)), 0).eval()
    grid = Grid.named("compact")
    seen = voxels(torch.from_numpy(cloud()), grid)
    mask = torch.zeros(1, *grid.shape, dtype=torch.bool)
    mask[0, 80:110, 90:130] = mask[0, 3:5, 340:] = True
    expected, found = network(seen.dense(), mask), network(seen, mask)
    assert torch.equal(found.pixels.flat, expected.pixels.flat)
    torch.testing.assert_close(found.rows, expected.rows, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_sparse_network_equals_dense_layers_zeroed_outside_active_tiles(network):
    bev = torch.rand(2, 33, 100, 112)
    mask = torch.zeros(2, 100, 112, dtype=torch.bool)
    mask[0, 30:45, 20:90] = mask[1, :9, :5] = mask[1, 95:, 70:] = True
    prediction = network(bev, mask)
    # The oracle: each layer densely on the previous sparse result, then zero (x for plain units) where inactive.
    active = {}
    for stage, stride in STRIDES.items():
        side = SMALL.tile(stage)[0] * stride
        coarse = torch.nn.functional.max_pool2d(mask[:, None].float(), side, ceil_mode=True)
        fine = coarse.repeat_interleave(side // stride, 2).repeat_interleave(side // stride, 3)
        active[stage] = fine[:, :, : -(-100 // stride), : -(-112 // stride)] > 0
    x = bev
    for layer in network.conv1:
        x = layer(x) * active["conv-1"]
    features = {}
    for stage in ("conv-2", "conv-3", "conv-4", "conv-5"):
        for unit in getattr(network, stage.replace("-", "")).units:
            x = torch.where(active[stage], unit(x), x if unit.keeps_shape else 0)
        features[stage] = x
    x = network.top(x) * active["conv-5"]
    x = network.up4(x, features["conv-4"]) * active["conv-4"]
    x = network.up3(x, features["conv-3"]) * active["conv-3"]
    for layer in network.header:
        x = layer(x) * active["conv-3"]
    expected = torch.cat([network.logits(x), network.size(x), network.orientation(x)], 1) * active["conv-3"]
    computed = active["conv-3"][:, 0]
    assert torch.equal(prediction.pixels.mask(), computed)
    torch.testing.assert_close(prediction.rows, rows_of(expected)[computed.flatten()], rtol=1e-4, atol=1e-4)
    assert 0 < float(active["conv-3"].float().mean()) < 0.6


def cloud(seed=0, count=5000):
    rng = np.random.default_rng(seed)
    points = rng.uniform([0, -20, 0, 0], [70, 20, 0.05, 1], (count, 4)).astype(np.float32)
    points[:500] = rng.uniform([20, -2, 0.1, 0], [24, 0, 1.5, 1], (500, 4))
    return points


@pytest.mark.parametrize("mask", ["everywhere", "road", "occupancy", "road and occupancy"])
def test_the_pipeline_computes_where_the_configured_mask_says(weights, mask):
    pipeline = Pipeline(DetectorConfig(weights=str(weights), mask=MaskConfig(mask), score_threshold=0.0))
    road = np.zeros((200, 352), bool)
    road[90:110] = True
    result = pipeline(cloud(), road)
    assert result.dense == (mask == "everywhere") and not result.missing
    assert result.computed.shape == (50, 88)
    if mask != "everywhere":
        assert result.mask.any() and 0 < result.computed.float().mean() < 1
        assert 0 < result.sparsity["conv-3"] < 1
    without = pipeline(cloud())
    assert without.missing == (("road",) if "road" in mask else ())
    assert without.dense == (mask in ("everywhere", "road"))


def test_a_frame_without_anything_above_the_road_costs_nothing_and_finds_nothing(weights):
    result = Pipeline(DetectorConfig(weights=str(weights)))(np.zeros((0, 4), np.float32), np.ones((200, 352), bool))
    assert len(result.detections) == 0 and not result.dense and not result.computed.any()


def test_a_road_of_any_memory_layout_is_a_mask(weights):
    pipeline = Pipeline(DetectorConfig(weights=str(weights), mask=MaskConfig("road")))
    road = np.zeros((200, 352), bool)
    road[:40, 20:90] = True
    flipped, copied = pipeline(cloud(), road[::-1, ::-1]), pipeline(cloud(), road[::-1, ::-1].copy())
    assert flipped.computed.any() and torch.equal(flipped.computed, copied.computed)


def test_the_same_frame_gives_the_same_detections_again(weights):
    pipeline = Pipeline(DetectorConfig(weights=str(weights), score_threshold=0.001))
    first, _, third = pipeline(cloud(1)), pipeline(cloud(2)), pipeline(cloud(1))
    assert len(first.detections) > 0
    assert np.array_equal(first.detections.boxes, third.detections.boxes)


def damaged(path, kind, network):
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "pickle":
        torch.save(network.state_dict(), path)
    elif kind == "no metadata":
        save_file(network.state_dict(), path)
    elif kind in ("other cells", "another class list"):
        size, entry = (0.05, VEHICLE) if "cells" in kind else (0.2, replace(VEHICLE, name="car"))
        save_weights(path, network, size, (entry,), {})
    else:
        state = dict(network.state_dict())
        name = "header.0.conv.weight"
        state[name] = state[name].new_full((3, 3), 1.0) if kind == "another shape" else state[name] * torch.nan
        about = read_metadata(path)
        save_file(state, path, metadata={"sbnet_perception": json.dumps(about)})


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no file"),
        ("truncated", "not a readable safetensors"),
        ("pickle", "not a readable safetensors"),
        ("no metadata", "does not say"),
        ("other cells", "cells of 0.05 m.*0.2 m; choose the grid"),
        ("another class list", r"\['car'\].*\['vehicle'\]; set the parameter classes"),
        ("another shape", r"'header.0.conv.weight' is floating point \[3, 3\], expected floating point \[8, 8, 3, 3\]"),
        ("NaN", "NaN"),
    ],
)
def test_unusable_weights_are_refused_naming_the_file_and_both_sides(weights, network, kind, says):
    damaged(weights, kind, network)
    with pytest.raises(WeightsError, match=says) as caught:
        Pipeline(DetectorConfig(weights=str(weights)))
    assert str(weights) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("units", [2, 2]),
        ("widths", [-8, 8, 12, 16]),
        ("widths", [8, 8, 12, 160_000]),
        ("initial_width", "8"),
        ("tiles", [0, 8, 4, 4, 2]),
    ],
)
def test_weights_that_describe_an_impossible_network_are_refused_before_it_is_built(weights, network, field, value):
    about = read_metadata(weights)
    about["network"][field] = value
    save_file(network.state_dict(), weights, metadata={"sbnet_perception": json.dumps(about)})
    with pytest.raises(WeightsError, match=f"does not know.*{field} is"):
        Pipeline(DetectorConfig(weights=str(weights)))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"grid": "huge"}, "compact, paper"),
        ({"score_threshold": 1.5}, r"\[0, 1\]"),
        ({"max_detections": 0}, r"\[1, 10000\]"),
        ({"classes": ()}, "at least one of vehicle"),
        ({"classes": ("vehicle", "unicorn")}, "unicorn.*give at least one of vehicle"),
        ({"classes": ("vehicle", "vehicle")}, "none of them twice"),
        ({"region": (0.0, 70.4, -20.0)}, "give x_min, x_max, y_min, y_max"),
        ({"region": (0.0, 70.5, -20.0, 20.0)}, r"x range \[0.0, 70.5\) m must hold a whole number of cells of 0.2 m"),
        ({"region": (0.0, -70.4, -20.0, 20.0)}, "x range"),
        ({"region": (0.0, float("inf"), -20.0, 20.0)}, "finite"),
        ({"region": (-1000.0, 1000.0, -1000.0, 1000.0)}, "10000 x 10000 cells.*smaller"),
    ],
)
def test_a_configuration_out_of_range_names_the_field_and_what_is_allowed(values, says):
    with pytest.raises(ValueError, match=f"^{next(iter(values))} is .*{says}"):
        DetectorConfig(**values)


@pytest.mark.parametrize("values", [{"colour": "red"}, {"core": 0.0}, {"least_points": 0}, {"score_threshold": 2}])
def test_an_entry_of_the_table_of_classes_out_of_range_names_the_field(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        replace(VEHICLE, **values)


def test_classes_have_their_own_thresholds_and_suppress_each_other_within_a_group(monkeypatch):
    table = (("car", None, "large"), ("person", 0.3, ""), ("truck", 0.6, "large"), ("dog", 0.0, ""))
    for name, threshold, group in table:
        monkeypatch.setitem(CLASSES, name, ObjectClass(name, "#123456", score_threshold=threshold, nms_group=group))
    config = DetectorConfig(classes=("car", "person", "truck", "dog"), score_threshold=0.5)
    assert config.thresholds == (0.5, 0.3, 0.6, 0.0)
    own = replace(config, score_threshold=(0.1, 0.2, 0.3, 0.4))
    assert own.thresholds == (0.1, 0.2, 0.3, 0.4)
    for few in ((0.1,), (0.1, 0.2, 0.3, 1.4)):
        with pytest.raises(ValueError, match="score_threshold is"):
            replace(config, score_threshold=few)
    car, person, truck, dog = config.nms_groups
    assert car == truck and len({car, person, dog}) == 3


def test_weights_work_in_any_region_and_find_behind_what_is_in_front(weights):
    around = (-35.2, 35.2, -20.0, 20.0)
    everywhere = MaskConfig("everywhere")
    front, both = (
        Pipeline(DetectorConfig(weights=str(weights), mask=everywhere, score_threshold=0.0, nms_iou=0.0, region=region))
        for region in (DetectorConfig.region, around)
    )
    moved = cloud() - np.float32([35.2, 0, 0, 0])
    assert both.grid.bounds == around and both(moved).points_in_range == front(cloud()).points_in_range
    expected, found = front(cloud()).detections, both(moved).detections
    assert len(found) > 0 and found.boxes[:, 0].min() < 0
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)
    assert found.boxes + np.float32([35.2, 0, 0, 0, 0, 0, 0]) == pytest.approx(expected.boxes, abs=1e-3)


def test_a_pipeline_takes_other_thresholds_and_masks_but_no_other_network(weights):
    usual = DetectorConfig(weights=str(weights), score_threshold=0.0)
    pipeline, points = Pipeline(usual), cloud()
    before = pipeline(points)
    other = replace(usual, mask=MaskConfig("everywhere"), max_detections=3)
    pipeline.use(other)
    changed = pipeline(points)
    assert changed.dense and not before.dense and len(changed.detections) == 3 < len(before.detections)
    with pytest.raises(ValueError, match="only mask, score_threshold"):
        pipeline.use(replace(usual, grid="paper"))
    assert pipeline.config is other
