"""`sbnet reproduce table5`: what its trainings teach, that it goes on where it stopped, and what its table says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_files import write_av2, write_kitti
from learning_helpers import GRID, frame
from rich.console import Console

from sbnet_perception.bench import table5, table5_report
from sbnet_perception.bench.table5 import LINES, TRAININGS
from sbnet_perception.cli import main
from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_network import MaskNetwork
from sbnet_perception.detector.mask_weights import save_mask_weights
from sbnet_perception.detector.network import Detector, NetworkConfig, initialize
from sbnet_perception.detector.weights import save_weights
from sbnet_perception.errors import UserError
from sbnet_perception.learning.evaluate import SimulatedResult
from sbnet_perception.learning.targets import IGNORED
from sbnet_perception.learning.tasks import DetectorTask
from sbnet_perception.learning.train_config import TrainConfig
from sbnet_perception.masks.config import MaskConfig

RNG = np.random.default_rng(0)


def under(mask: str, loss_mask: str = "") -> DetectorTask:
    return DetectorTask(DetectorConfig(), NetworkConfig(), [MaskConfig(mask)], None, loss_mask)


def test_each_sample_of_a_training_under_several_masks_is_under_one_of_them() -> None:
    masks = [MaskConfig(mask) for mask in ("road", "road", "road", "everywhere")]
    task, rng = DetectorTask(DetectorConfig(), NetworkConfig(), masks), np.random.default_rng(1)
    computed = [int(task.sample(frame(), GRID, rng)[1].sum()) for _ in range(60)]
    assert len(set(computed)) == 2 and max(computed) == 64 * 64
    assert 5 <= computed.count(64 * 64) <= 25


def test_a_training_without_a_mask_learns_by_dense_convolutions_what_it_would_learn_on_all_pixels() -> None:
    network = initialize(Detector(), 1).train()
    bev, *wanted = under("everywhere").sample(frame(), GRID, RNG)
    voxels, _, *same = under("dilate(road, 50)").sample(frame(), GRID, RNG)
    assert isinstance(bev, torch.Tensor) and all(torch.equal(a, b) for a, b in zip(wanted, same, strict=True))
    everywhere = torch.ones((1, *GRID.shape), dtype=torch.bool)
    losses = [under("everywhere").loss(outputs, *wanted)[0] for outputs in (network(bev), network(voxels, everywhere))]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-3)


def test_a_loss_on_the_road_only_asks_for_what_the_road_mask_would_and_ignores_the_rest() -> None:
    tasks = under("everywhere"), under("everywhere", "road"), under("road")
    (*_, everything, _), (*_, label, _), (_, mask, wanted, _) = (task.sample(frame(), GRID, RNG) for task in tasks)
    # Whole tiles of 2 x 2 pixels at stride 4.
    tiles = mask[0].view(8, 8, 8, 8).any(3).any(1)
    counted = tiles.repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    assert 0.3 < counted.float().mean() < 0.7 and (label[~counted] == IGNORED).all()
    assert torch.equal(label[counted], wanted[counted]) and 0 < (label > 0).sum() < (everything > 0).sum()
    with pytest.raises(UserError, match="--loss-mask names predicted, which --mask does not"):
        TrainConfig(loss_mask="predicted")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The trainings that are done, which cost nothing: a file is the weights, and figures depend on line and seed."""
    done: list[tuple[str, int]] = []

    def train(config: TrainConfig, out: Path, work: Path, device: torch.device) -> None:
        assert Path(config.mask_weights).exists() or config.mask != "predicted"
        done.append((out.stem.rsplit("-", 1)[0], config.seed))
        out.write_text(json.dumps({"ap": 0.5 + config.seed / 100}))

    def pipeline(config: DetectorConfig, mask: str) -> Any:
        return json.loads(Path(config.weights).read_text())["ap"]

    def evaluate(of_mask: dict[str, Any], *_: Any) -> list[SimulatedResult]:
        ((name, ap),) = of_mask.items()
        places = ("on the road", ap), ("all", ap - 0.2)
        return [
            SimulatedResult(name, asked, "vehicle", 60, 9, ap, ap / 2, 0, 0, 0, 0.9, 1.0, {"conv-3": 0.75})
            for asked, ap in places
        ]

    times = {"dense_ms": 100.0, "mask_ms": 5.0, "network_ms": 20.0}
    speed = [{"mask": mask, **times} for mask in ("road", "predicted") for _ in range(3)]
    monkeypatch.setattr(table5, "make_weights", train)
    monkeypatch.setattr(table5, "pipeline_under", pipeline)
    monkeypatch.setattr(table5, "evaluate_simulated", evaluate)
    monkeypatch.setattr(table5, "frames_of_drives", lambda _: [])
    monkeypatch.setattr(table5, "with_steady_memory", lambda: None)
    monkeypatch.setattr(table5.table5_speed, "measure", lambda *_: speed)
    return done


def test_the_trainings_go_seed_by_seed_and_what_is_finished_is_not_done_again(
    trained: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["reproduce", "table5", "--out", str(tmp_path), "--steps", "3"]
    assert main([*command, "--seeds", "1"]) == 0
    assert trained == [(name, 1) for name in TRAININGS]
    (tmp_path / "dense-1.safetensors").unlink()
    assert main([*command, "--seeds", "3"]) == 0
    assert trained[6:] == [("dense", 1), *((name, seed) for seed in (2, 3) for name in TRAININGS)]
    content = json.loads((tmp_path / "table5.json").read_text())
    told = [(row["line"], row["seed"]) for row in content["rows"] if row["asked"] == "all"]
    assert told == [(line.name, seed) for seed in (1, 2, 3) for line in LINES]
    assert main([*command, "--seeds", "3", "--batch", "8"]) == 2
    assert "holds trainings with batch 2; use the same options, or another --out" in capsys.readouterr().err
    assert len(trained) == 19


def test_the_table_has_mean_and_deviation_over_seeds_and_the_speed_with_and_without_the_mask(
    trained: list[tuple[str, int]], tmp_path: Path
) -> None:
    assert main(["reproduce", "table5", "--out", str(tmp_path), "--seeds", "3"]) == 0
    head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (tmp_path / "table5.md").open())
    assert head[1:] == list(table5_report.HEADINGS) and [cells[0] for cells in lines] == [line.name for line in LINES]
    of_road = dict(zip(head, next(cells for cells in lines if cells[0] == "SBNet + road"), strict=True))
    assert of_road["AP, IoU 0.5"] == "0.520 ± 0.010" and of_road["of all vehicles: AP 0.5"] == "0.320 ± 0.010"
    assert (of_road["tiles skipped"], of_road["vehicle pixels computed"], of_road["seeds"]) == ("75.0 %", "90.0 %", "3")
    assert (of_road["network faster by"], of_road["with its mask"]) == ("5.00 ± 0.00", "4.00 ± 0.00")


def test_detectors_may_begin_with_given_weights_and_the_mask_network_begins_with_random_ones(tmp_path: Path) -> None:
    given = tmp_path / "given.safetensors"
    save_weights(given, initialize(Detector(), 3), 0.2, (VEHICLE,), {})
    base = TrainConfig(start=str(given), learning_rate=1e-3)
    work = table5.Reproduction(tmp_path, base, Console())
    assert {name: work.config(name, 1).start for name in TRAININGS if name != "mask"} == dict.fromkeys(
        set(TRAININGS) - {"mask"}, str(given)
    )
    assert work.config("mask", 1).start == "" and work.config("dense", 2).learning_rate == 1e-3


def test_a_given_mask_network_is_not_trained_and_makes_what_is_predicted(
    trained: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "given.safetensors", tmp_path / "out"
    command = ["reproduce", "table5", "--out", str(out), "--mask-weights", str(given), "--seeds", "1"]
    assert main(command) == 2 and "given.safetensors is not a mask network" in capsys.readouterr().err and not trained
    save_mask_weights(given, MaskNetwork(), 0.5, {})
    assert main(command) == 0
    assert trained == [(name, 1) for name in TRAININGS if name != "mask"]
    told = json.loads((out / "table5.json").read_text())["rows"]
    assert [row["line"] for row in told if row["asked"] == "all"] == [line.name for line in LINES]
    work = table5.Reproduction(tmp_path / "other", TrainConfig(mask_weights=str(given)), Console())
    assert work.config("predicted", 1).mask_weights == work.detector(LINES[7], 2).mask.weights == str(given)
    assert work.config("dense", 1).mask_weights == ""


def test_a_data_set_to_measure_on_has_roads_or_is_refused(
    trained: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_av2(tmp_path / "log")
    write_kitti(tmp_path / "kitti")
    frames = table5.frames_with_roads(f"av2:{tmp_path / 'log'}", Console())
    assert frames and all(frame.road is not None for frame in frames)
    command = ["reproduce", "table5", "--out", str(tmp_path / "out"), "--measure-on", f"kitti:{tmp_path / 'kitti'}:val"]
    assert main(command) == 2
    assert "has no road; Argoverse 2 and nuScenes have both" in capsys.readouterr().err
    assert not trained
