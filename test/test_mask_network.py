"""The mask network: what it sees, what it is taught, its weights and the mask it makes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.density import FEATURES, FULL, LAYERS, density
from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_network import PARTS, MaskNetwork, MaskNetworkConfig, seen, stride_on
from sbnet_perception.detector.mask_weights import load_mask_network, save_mask_weights
from sbnet_perception.detector.network import Detector
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.detector.weights import WeightsError, save_weights
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.mask_threshold import RECALL, chosen_threshold
from sbnet_perception.learning.targets import IGNORED, make_targets, vehicles_near
from sbnet_perception.learning.train import hand_out
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer
from sbnet_perception.masks.config import MaskConfig

GRID = Grid(0.0, 10.0, -3.0, 3.2, 0.2)
COMPACT = Grid.named("compact")
SMALL = MaskNetworkConfig((4, 4, 4, 8), (1, 1, 1, 1), head_width=4)


def cloud(count: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    points = rng.uniform((-1, -4, -3, 0), (11, 4, 5, 1), (count, 4)).astype(np.float32)
    points[rng.random(count) < 0.05, 2] = np.nan
    return torch.from_numpy(points)


@pytest.mark.parametrize(("stride", "parts"), [(1, 1), (8, 1), (8, 4), (6, 2)])
def test_the_density_counts_the_points_of_each_part_and_layer_in_any_order(stride: int, parts: int) -> None:
    points = cloud(3000)
    found = density(points, GRID, stride, parts)
    rows, columns = -(-GRID.height // stride), -(-GRID.width // stride)
    assert found.shape == (parts * parts * FEATURES, rows, columns)
    raster, side = (rows * parts, columns * parts), 0.2 * stride / parts
    counts, bright = np.zeros((FEATURES - 1, *raster)), np.zeros((2, *raster))
    for x, y, z, intensity in points.double().tolist():
        if not (0 <= x < 10 and -3 <= y < 3.2 and math.isfinite(z)):
            continue
        row, column, layer = int((y + 3) / side), int(x / side), math.floor((z + 2) / 0.4)
        counts[LAYERS if layer < 0 else LAYERS + 1 if layer >= LAYERS else layer, row, column] += 1
        bright[:, row, column] += intensity, 1
    # As one raster of parts.
    whole = torch.nn.functional.pixel_shuffle(
        found.view(parts * parts, FEATURES, rows, columns).transpose(0, 1).flatten(0, 1)[None], parts
    )[0].numpy()
    # A point on the border of two places may be in either, by rounding.
    assert np.isclose(whole[:-1], np.log1p(counts) / np.log1p(FULL)).mean() > 0.999
    assert (np.abs(whole[-1] - bright[0] / np.maximum(bright[1], 1)) < 0.005).mean() > 0.999
    assert torch.equal(found, density(points.flip(0), GRID, stride, parts))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 10), st.floats(-3, 3), st.floats(1, 12), st.floats(0.5, 3), st.floats(-4, 4), st.integers(4, 6)
)
def test_the_label_of_a_mask_covers_the_box_and_half_a_metre_around_it(
    x: float, y: float, length: float, width: float, yaw: float, count: int
) -> None:
    box = np.float32([[x, y, 0.8, length, width, 1.6, yaw]])
    near = vehicles_near(box, np.array([count]), np.array([0]), (VEHICLE,), GRID, stride_on(GRID))
    along, across = (np.linspace(-0.5, 0.5, 25) * (side + 0.99) for side in (length, width))
    for a, b in itertools.product(along, across):
        px, py = x + a * math.cos(yaw) - b * math.sin(yaw), y + a * math.sin(yaw) + b * math.cos(yaw)
        if 0 <= px < 10 and -3 <= py < 3.2:
            cell = near[int((py + 3) / 1.6), int(px / 1.6)]
            assert cell == (1 if count >= VEHICLE.least_points else IGNORED)


def test_the_mask_is_what_the_network_says_of_whole_pixels_whatever_the_grid() -> None:
    torch.manual_seed(0)
    network = MaskNetwork(SMALL).train()
    for _ in range(3):
        network(torch.rand(2, PARTS * PARTS * FEATURES, 8, 8))
    points = cloud(2000)
    probability = network.eval()(seen(points, GRID))[0].sigmoid().detach()
    threshold = float(probability.median()) + 1e-4
    with torch.inference_mode():
        mask = network.prepare(threshold)(points, GRID)
    assert mask.shape == GRID.shape and mask.dtype == torch.bool and mask.any() and not mask.all()
    for row, column in itertools.product(range(GRID.height), range(GRID.width)):
        assert mask[row, column] == (probability[row // 8, column // 8] > threshold)
    with torch.inference_mode():
        fine = network.prepare(threshold)(points, replace(GRID, resolution=0.05))
    assert torch.equal(fine, mask.repeat_interleave(4, 0).repeat_interleave(4, 1))
    with pytest.raises(ValueError, match=r"pixels of 1\.6 m, which cells of 0\.3 m do not fill"):
        network.prepare(threshold)(points, Grid(0.0, 9.0, -3.0, 3.0, 0.3))


def test_a_mask_network_comes_back_from_its_file_and_other_files_are_refused(tmp_path: Path) -> None:
    network = MaskNetwork(SMALL).eval()
    save_mask_weights(tmp_path / "mask.safetensors", network, 0.25, {})
    found, threshold = load_mask_network(tmp_path / "mask.safetensors")
    x = torch.rand(1, PARTS * PARTS * FEATURES, 5, 7)
    assert threshold == 0.25 and torch.equal(found(x), network(x))
    save_weights(tmp_path / "detector.safetensors", Detector(), 0.2, (VEHICLE,), {})
    (tmp_path / "text.safetensors").write_text("no weights")
    network.logits.bias.data[0] = math.nan
    save_mask_weights(tmp_path / "nan.safetensors", network, 0.25, {})
    for name in ("detector", "text", "nan", "missing"):
        with pytest.raises(WeightsError, match=r"mask\.weights: .* is not a mask network"):
            load_mask_network(tmp_path / f"{name}.safetensors")


def frame_with_cars() -> LabelledFrame:
    rng = np.random.default_rng(1)
    boxes = np.float32([[20, 1, 0.8, 4.5, 1.9, 1.6, 0.5], [45, -8, 0.8, 4.5, 1.9, 1.6, 1.5]])
    cars = [rng.uniform(-0.5, 0.5, (200, 3)) * box[3:6] + box[:3] for box in boxes]
    ground = np.c_[rng.uniform(0, 70, 3000), rng.uniform(-20, 20, 3000), rng.normal(0, 0.02, 3000)]
    points = np.pad(np.concatenate([*cars, ground]), ((0, 0), (0, 1))).astype(np.float32)
    return LabelledFrame("", points, None, boxes, np.array([200, 200]), np.array([0, 0]))


def test_a_trained_mask_network_keeps_the_vehicles_and_the_pipeline_computes_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    frame, config = frame_with_cars(), TrainConfig(mask_network=True, steps=30, learning_rate=0.01)
    trainer = Trainer(config, "scenes")
    sample = trainer.task.sample(frame, COMPACT, np.random.default_rng(0))
    losses = [trainer.train_on(sample)["mask"] for _ in range(30)]
    assert losses[-1] < losses[0] / 2
    # What is handed out has a threshold that keeps the vehicles of other drives.
    monkeypatch.setattr("sbnet_perception.learning.train.frames_of_drives", lambda *_: iter([frame]))
    weights = tmp_path / "mask.safetensors"
    hand_out(trainer.network.eval(), config, weights, {})
    mask = MaskConfig("predicted", weights=str(weights))
    result = Pipeline(DetectorConfig(mask=mask))(frame.points)
    label = make_targets(frame.boxes, frame.point_counts, frame.classes, (VEHICLE,), COMPACT).label > 0
    assert (result.computed.numpy() & label).sum() >= RECALL * label.sum()
    assert result.sparsity["conv-3"] > 0.6 and not result.dense and "mask" in result.timings_ms


def test_the_threshold_is_the_highest_that_keeps_the_vehicles() -> None:
    frame, network = frame_with_cars(), MaskNetwork(SMALL)
    threshold = chosen_threshold(network, [frame], DetectorConfig())
    near = network(seen(torch.from_numpy(frame.points), COMPACT))[0].sigmoid().detach().numpy()
    label = make_targets(frame.boxes, frame.point_counts, frame.classes, (VEHICLE,), COMPACT).label
    rows, columns = np.nonzero(label > 0)
    kept = near[rows // 2, columns // 2]
    assert (kept > threshold).mean() >= RECALL > (kept > threshold / 0.98).mean()


def test_predicted_without_weights_is_refused_in_a_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone.safetensors"
    with pytest.raises(WeightsError, match=r"mask\.weights: there is no file"):
        Pipeline(DetectorConfig(mask=MaskConfig("predicted", weights=str(gone))))
