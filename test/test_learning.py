"""Targets, losses, metrics and the training itself."""

from __future__ import annotations

import itertools
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.detector.classes import CLASSES, VEHICLE, ObjectClass
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import Detector, NetworkConfig, initialize
from sbnet_perception.detector.weights import save_weights
from sbnet_perception.errors import UserError
from sbnet_perception.learning import scenes as scenes_module
from sbnet_perception.learning.evaluate import evaluate_simulated
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.losses import detection_loss, hellinger_distance, quality_focal_loss
from sbnet_perception.learning.metrics import average_precision, match
from sbnet_perception.learning.pruning import Pruning
from sbnet_perception.learning.scenes import Scenes
from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.targets import make_targets
from sbnet_perception.learning.train import train
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.learning.trainer import Trainer
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.road import RoadView

GRID = Grid.named("compact")
CAR = [20.0, 1.0, 0.8, 4.5, 1.9, 1.6, 0.5]


def detections(boxes, scores, classes=None):
    classes = np.zeros(len(scores), np.int64) if classes is None else np.array(classes)
    return Detections(np.float32(boxes).reshape(-1, 7), np.float32(scores), classes)


def test_average_precision_is_the_area_under_the_curve():
    truth = np.float32([CAR, [40, 0, 1, 4, 2, 1.5, 0], [60, 0, 1, 4, 2, 1.5, 0], [65, 9, 1, 4, 2, 1.5, 0]])
    wrong = [30, 10, 1, 4, 2, 1.5, 0]
    found = detections([truth[0], wrong, truth[1], truth[2]], [0.9, 0.8, 0.7, 0.6])
    matches = match(found, truth, np.ones(4, bool), 0.5)
    assert matches.hits.tolist() == [True, False, True, True] and matches.found.tolist() == [
        True,
        True,
        True,
        False,
    ]
    # Precision 1, then 3/4 (made monotonic) at recalls 1/4, 2/4 and 3/4; the fourth vehicle is never found.
    assert average_precision([matches]) == pytest.approx((1 + 0.75 + 0.75) / 4)


def test_a_second_detection_of_the_same_vehicle_is_false_and_an_uncounted_vehicle_is_neither():
    truth = np.float32([CAR, [40, 0, 1, 4, 2, 1.5, 0]])
    found = detections([CAR, CAR, truth[1]], [0.9, 0.8, 0.7])
    matches = match(found, truth, np.array([True, False]), 0.5)
    assert matches.hits.tolist() == [True, False] and len(matches.found) == 1


def test_targets_ignore_the_rim_and_vehicles_that_cannot_be_seen():
    boxes = np.float32([CAR, [50, -5, 1, 4.5, 1.9, 1.6, 0], [-1.0, 0, 1, 4.5, 1.9, 1.6, 0]])
    targets = make_targets(boxes, np.array([100, 2, 100]), np.zeros(3, np.int64), (VEHICLE,), GRID)
    assert targets.label[int(21 / 0.8), int(20 / 0.8)] == 1
    assert targets.label[int(15 / 0.8), int(50 / 0.8)] == -1
    assert targets.label[25, 0] == -1, "a vehicle whose centre lies outside the grid is ignored where it reaches in"
    assert targets.label[0, 0] == 0 and set(np.unique(targets.label)) == {-1, 0, 1}


def test_a_vehicle_whose_core_is_not_computed_is_learned_from_the_part_that_is():
    computed = np.zeros((50, 88), bool)
    rear = int((20.0 - 1.9) / 0.8)
    computed[:, : rear + 1] = True
    box = np.float32([[20.0, 1.0, 0.8, 4.5, 1.9, 1.6, 0.0]])
    targets = make_targets(box, np.array([50]), np.array([0]), (VEHICLE,), GRID, computed)
    rows, columns = np.nonzero(targets.label == 1)
    assert len(rows) > 0 and (columns <= rear).all()
    assert targets.regression[3, rows, columns] == pytest.approx(20.0 - (columns + 0.5) * 0.8, abs=1e-5)


CYCLIST = ObjectClass(
    "cyclist", "#3cff00", least_points=3, core=1.0, score_threshold=0.2, labels={"kitti": ("Cyclist",)}
)
BICYCLE = [30.0, -4.0, 0.9, 1.8, 0.6, 1.7, 1.0]


def test_each_class_is_learned_at_its_own_pixels_with_its_own_core_and_least_points():
    boxes, classes = np.float32([CAR, BICYCLE, BICYCLE]), np.array([0, 1, 0])
    boxes[2, 0] = 40
    label = make_targets(boxes, np.array([9, 3, 3]), classes, (VEHICLE, CYCLIST), GRID).label
    at = [label[int((y + 20) / 0.8), int(x / 0.8)] for x, y in boxes[:, :2]]
    assert at == [1, 2, -1], "a vehicle needs five points, a cyclist three"
    narrow = make_targets(boxes[:1], np.array([9]), np.array([0]), (replace(VEHICLE, core=0.2),), GRID).label
    assert 0 < (narrow == 1).sum() < (label == 1).sum()


def test_a_network_of_two_classes_learns_to_tell_them_apart():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    boxes, classes = np.float32([CAR, BICYCLE]), np.array([0, 1])
    cloud = np.concatenate([rng.uniform(-0.5, 0.5, (300, 3)) * box[3:6] + box[:3] for box in boxes])
    points = np.pad(cloud, ((0, 0), (0, 1))).astype(np.float32)
    targets = make_targets(boxes, np.array([300, 300]), classes, (VEHICLE, CYCLIST), GRID)
    label, regression = torch.from_numpy(targets.label)[None], torch.from_numpy(targets.regression)[None]
    mask = torch.zeros(1, *GRID.shape, dtype=torch.bool)
    mask[:, 60:120, 80:170] = True
    network = initialize(Detector(2, NetworkConfig(8, (8, 8, 8, 8), (1, 1, 1, 1), 8, (8, 8), 1)), 0).train()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    losses = []
    for _ in range(40):
        prediction = network(voxels(torch.from_numpy(points), GRID), mask)
        loss, _ = detection_loss(prediction, label, regression)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    learned = label.flatten()[prediction.pixels.flat]
    assert {1, 2} <= set(learned.tolist())
    for number in (1, 2):
        assert (prediction.logits[learned == number].argmax(1) == number - 1).all()


def test_an_evaluation_of_two_classes_has_figures_for_each(monkeypatch):
    monkeypatch.setitem(CLASSES, "cyclist", CYCLIST)
    boxes = np.float32([CAR, BICYCLE, BICYCLE])
    boxes[2, 0] = 50
    frame = LabelledFrame(
        "made up", np.zeros((0, 4), np.float32), None, boxes, np.array([9, 3, 3]), np.array([0, 1, 1])
    )

    # The mask leaves out the vehicle's half.
    computed = torch.ones(50, 88, dtype=torch.bool)
    label = make_targets(boxes[:1], np.array([9]), np.array([0]), (VEHICLE,), GRID).label > 0
    rows, columns = np.nonzero(label)
    computed[rows[::2], columns[::2]] = False

    class Stub:
        grid = GRID
        config = DetectorConfig(classes=("vehicle", "cyclist"), mask=MaskConfig("occupancy"))

        def __call__(self, points, road):
            # The last cyclist is taken for a vehicle.
            found = detections(boxes, [0.9, 0.3, 0.6], [0, 1, 0])
            return SimpleNamespace(detections=found, sparsity={"conv-3": 0.9}, computed=computed, timings_ms={})

    vehicles, cyclists = evaluate_simulated({"occupancy": Stub()}, [frame], Stub.config.thresholds)
    assert (vehicles.object, vehicles.objects, vehicles.ap50, vehicles.precision50) == ("vehicle", 1, 1.0, 0.5)
    assert (cyclists.object, cyclists.objects, cyclists.ap50, cyclists.recall50) == ("cyclist", 2, 0.5, 0.5)
    assert vehicles.pixel_recall == pytest.approx(0.5, abs=0.1) and cyclists.pixel_recall == 1.0


def test_quality_focal_loss_weighs_cross_entropy_by_how_wrong_the_score_is():
    logits, quality = torch.tensor([0.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.5])
    # p = 1/2: (q - p)^2 * log 2; nothing where the score is the quality.
    parts = [quality_focal_loss(logits[i : i + 1], quality[i : i + 1]).item() for i in range(3)]
    assert parts == pytest.approx([0.25 * np.log(2), 0.25 * np.log(2), 0.0])


def rows_of(boxes: np.ndarray) -> torch.Tensor:
    size, rest = np.log(boxes[:, 3:6]), boxes[:, [0, 1, 2]]
    return torch.from_numpy(np.concatenate([size, rest, np.cos(boxes[:, 6:]), np.sin(boxes[:, 6:])], 1)).float()


def test_the_distance_of_two_boxes_is_that_of_their_gaussians():
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.normal(0, 1, (50, 3)), rng.uniform(1, 6, (50, 3)), rng.uniform(-4, 4, (50, 1))], 1)
    b = a + rng.normal(0, 0.4, a.shape)
    b[:, 3:6] = np.abs(b[:, 3:6])

    def gaussian(box):
        turn = np.array([(np.cos(box[6]), -np.sin(box[6])), (np.sin(box[6]), np.cos(box[6]))])
        return box[:2], turn @ np.diag(box[3:5] ** 2 / 12) @ turn.T

    for ours, one, other in zip(hellinger_distance(rows_of(a), rows_of(b)), a, b, strict=True):
        (m, p), (n, q) = gaussian(one), gaussian(other)
        mean = (p + q) / 2
        exponent = (m - n) @ np.linalg.inv(mean) @ (m - n) / 8
        overlap = (np.linalg.det(p) * np.linalg.det(q)) ** 0.25 / np.linalg.det(mean) ** 0.5 * np.exp(-exponent)
        assert ours.item() == pytest.approx(np.sqrt(1 - overlap), abs=2e-3)
    turned = a + np.array([0, 0, 0, 0, 0, 0, np.pi])
    assert (hellinger_distance(rows_of(a), rows_of(turned)) < 0.01).all()


def test_a_score_learns_how_well_its_box_fits():
    """Of two objects that look alike but for the place of their boxes, neither can be known: the score says so."""
    label = torch.ones(1, 1, 2, dtype=torch.int8)
    wanted = rows_of(np.array([CAR, CAR])).T.reshape(1, 8, 1, 2).clone()
    box = rows_of(np.array([CAR, CAR])) + torch.tensor([[0.0], [1.0]]) * torch.tensor([0, 0, 0, 0.8, 0, 0, 0, 0])
    logits = torch.zeros(2, 1, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(200):
        pixels = SimpleNamespace(flat=torch.arange(2))
        prediction = SimpleNamespace(logits=logits, box=box, pixels=pixels)
        optimizer.zero_grad()
        detection_loss(prediction, label, wanted)[0].backward()
        optimizer.step()
    good, poor = torch.sigmoid(logits.detach()).flatten().tolist()
    assert good > 0.9 and poor == pytest.approx(np.sqrt(1 - hellinger_distance(box[1:], box[:1]).item()), abs=0.02)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    shard, scenes_module.SHARD = scenes_module.SHARD, 6
    yield Scenes(tmp_path_factory.mktemp("scenes"), GRID, 6, seed=77)
    scenes_module.SHARD = shard


def blocks_not_zero(network, inputs):
    return Pruning(network, 0.0, inputs).kept


def test_scenes_are_simulated_once_and_read_back(scenes):
    again = Scenes(scenes.folder.parent, GRID, 6, seed=77)
    for index in range(6):
        first, second = scenes[index], again[index]
        assert np.array_equal(first.points, second.points)
        assert torch.equal(first.road.mask(GRID), second.road.mask(GRID))
        assert GRID.cells(first.points)[2].mean() > 0.999


@pytest.mark.parametrize("name", ["compact", "paper"])
@pytest.mark.parametrize("dilation", [0.0, 0.5, 2.0])
def test_training_sees_the_road_of_the_node_bit_for_bit(scenes, name, dilation):
    """Packed and unpacked, under poses that are turned against the map."""
    grid = Grid.named(name)
    for index in range(6):
        scan, road = sample_scene(77 + index, GRID.bounds)
        expected = RoadView(road, scan.map_from_base).mask(grid, dilation)
        assert torch.equal(scenes[index].road.mask(grid, dilation), expected)


def test_another_region_or_other_sources_are_other_scenes_and_other_cells_are_not(tmp_path, monkeypatch):
    versions = {
        scenes_module._version(grid.bounds)
        for grid in (GRID, Grid.named("paper"), replace(GRID, x_min=-10.0, x_max=60.4), replace(GRID, y_max=20.2))
    }
    folder, file = tmp_path / "masks" / "inner", tmp_path / "frames.py"
    folder.mkdir(parents=True)
    monkeypatch.setattr(scenes_module, "_MAKERS", [tmp_path / "masks", file])
    for source in (file, folder / "road.py"):
        for text in ("a", "b"):
            file.touch()
            source.write_text(text)
            versions.add(scenes_module._version(GRID.bounds))
    assert len(versions) == 3 + 4


def test_a_training_stopped_by_ctrl_c_resumes_to_the_same_weights_bit_for_bit(scenes, tmp_path, monkeypatch):
    torch.set_num_threads(2)
    config = TrainConfig(scenes=6, steps=4, batch=1, crop=80, zeros=0.7)  # zeros are chosen in the first two steps
    whole = train(config, scenes.folder.parent, tmp_path / "whole", checkpoint_every=100)
    # The same training, with Ctrl-C in the middle of its third step.
    steps = itertools.count()

    def with_ctrl_c(*arguments):
        if next(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return detection_loss(*arguments)

    monkeypatch.setattr("sbnet_perception.learning.tasks.detection_loss", with_ctrl_c)
    # Where the tests run in the background, Ctrl-C may be ignored from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config, scenes.folder.parent, tmp_path / "cut", checkpoint_every=100)
    finally:
        signal.signal(signal.SIGINT, before)
    resumed = train(config, scenes.folder.parent, tmp_path / "cut", checkpoint_every=100)
    assert next(steps) == 4, "no step may be done twice"
    for name, tensor in whole.averaged.state_dict().items():
        assert torch.equal(tensor, resumed.averaged.state_dict()[name]), name
    for name, kept in blocks_not_zero(whole.averaged, inputs=2).items():
        assert int((~kept).sum()) == round(0.7 * kept.numel()), name
    with pytest.raises(UserError, match="same options"):
        train(replace(config, seed=9), scenes.folder.parent, tmp_path / "cut")


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"crop": 100},
        {"crop": 400},
        {"grid": "huge"},
        {"region": (0.0, 1.0, 0.0, 0.1)},
        {"classes": ("x",)},
        {"data_share": 7.0},
        {"width": 0.0},
        {"width": 0.5, "start": "weights/compact.safetensors"},
        {"header_convolutions": 0},
        {"zeros": 1.0},
        {"zeros_inputs": 3},
        {"zeros": 0.5, "mask_network": True},
    ],
)
def test_a_training_that_cannot_be_is_refused(options):
    with pytest.raises(UserError, match=next(iter(options)).replace("_", "-")):
        TrainConfig(**options)


def test_a_training_goes_on_from_the_weights_it_is_given(tmp_path):
    network = initialize(Detector(), 3)
    save_weights(tmp_path / "first.safetensors", network, 0.2, (VEHICLE,), {})
    trainer = Trainer(TrainConfig(start=str(tmp_path / "first.safetensors")), "scenes")
    assert all(torch.equal(a, b) for a, b in zip(trainer.network.parameters(), network.parameters(), strict=True))


def test_a_thinner_network_begins_with_random_weights_and_goes_on_in_its_shape(tmp_path):
    thin = Trainer(TrainConfig(width=0.5, header_convolutions=2), "scenes").network
    assert thin.config == replace(NetworkConfig(), header_convolutions=2).thinner(0.5)
    assert sum(p.numel() for p in thin.parameters()) < 0.3 * sum(p.numel() for p in Detector().parameters())
    save_weights(tmp_path / "thin.safetensors", thin, 0.2, (VEHICLE,), {})
    trainer = Trainer(TrainConfig(start=str(tmp_path / "thin.safetensors")), "scenes")
    assert trainer.network.config == thin.config
    assert all(torch.equal(a, b) for a, b in zip(trainer.network.parameters(), thin.parameters(), strict=True))
