"""`sbnet bench roofline`: what it counts is what the detector's layers compute, and its model keeps to reason."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bench_helpers import TINY, tiny_weights
from torch.utils.flop_counter import FlopCounterMode

from sbnet_perception.bench import current, launches, limits, roofline
from sbnet_perception.bench.chips import ASSUMED, CHIPS, DEFAULT_CHIPS, Chip
from sbnet_perception.bench.inputs import Input, Scene
from sbnet_perception.bench.launches import PARTS, Launch, Work, everywhere
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.bev.voxelize import CHANNELS
from sbnet_perception.cli import main
from sbnet_perception.detector.network import STRIDES, Detector, NetworkConfig
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.masks.road import RoadMap

GRIDS = {name: Grid.named(name).shape for name in ("compact", "paper")}
ALL_CHIPS = pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
BOTH_GRIDS = pytest.mark.parametrize("size", GRIDS.values(), ids=GRIDS)


@pytest.fixture(scope="module")
def network() -> Detector:
    with torch.device("meta"):
        return Detector()


def flops(found: list[Launch]) -> float:
    return sum(launch.work.flops for launch in found)


def moved(found: list[Launch]) -> float:
    return sum(launch.work.maps + launch.work.weights for launch in found)


def sparse(network: Detector, size: tuple[int, int], share: float) -> list[Launch]:
    pixels = {stage: share * count for stage, count in everywhere(*size).items()}
    return launches.sparse(network, pixels, size[0] * size[1])


@pytest.mark.parametrize("config", [NetworkConfig(), TINY], ids=["the paper's", "tiny"])
@pytest.mark.parametrize("size", [(32, 64), (37, 51)])
def test_dense_flops_are_those_that_torch_counts(config, size):
    detector = Detector(2, config).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        detector(torch.zeros(1, CHANNELS, *size))
    assert flops(launches.dense(detector, *size)) == counter.get_total_flops()


def test_a_full_mask_has_the_dense_flops_and_padding():
    config = NetworkConfig(widths=(64, 128, 192, 256), top_width=64, upsample_widths=(64, 32))
    detector, size = Detector(1, config), (64, 96)
    pixels = everywhere(*size)
    # Only voxels (33 channels) and predictions (9) are no multiples of 16 here.
    padding = 2 * pixels["conv-1"] * 9 * (48 - 33) * 32 + 2 * pixels["conv-3"] * 32 * (16 - 9)
    assert flops(sparse(detector, size, 1.0)) == flops(launches.dense(detector, *size)) + padding


def test_launches_follow_the_units_of_the_network(network):
    with torch.device("meta"):
        short = Detector(1, NetworkConfig(units=(1, 1, 1, 1), header_convolutions=2))
    size, units, convolutions = (64, 96), 14, 2
    assert len(sparse(network, size, 0.1)) - len(sparse(short, size, 0.1)) == units + convolutions
    assert len(launches.dense(network, *size)) - len(launches.dense(short, *size)) == 3 * units + convolutions


def test_every_weight_is_read_by_one_launch(network):
    count = sum(weight.numel() for weight in network.parameters() if weight.dim() == 4)
    read = sum(launch.work.weights for launch in launches.dense(network, 64, 96))
    assert read == launches.BYTES * count
    padded = sum(launch.work.weights for launch in sparse(network, (64, 96), 0.1))
    assert read < padded < 1.2 * read


@ALL_CHIPS
@BOTH_GRIDS
def test_an_empty_mask_costs_launches_weights_and_the_look_at_the_mask(network, size, chip):
    empty = sparse(network, size, 0.0)
    rest = [launch for launch in empty if launch.part != "tiles"]
    assert flops(empty) == 0 and all(launch.work.maps == launch.work.windows == 0 for launch in rest)
    weights = sum(launch.work.weights for launch in rest) / (limits.DRAM_REACHED * chip.dram)
    assert limits.total(rest, chip).seconds == pytest.approx(len(rest) * chip.launch + weights)
    assert moved([launch for launch in empty if launch.part == "tiles"]) < 2 * size[0] * size[1]


@ALL_CHIPS
@BOTH_GRIDS
@pytest.mark.parametrize("limit", ["dram", "l2", "l2_each", "l2_bytes", "tensor"])
def test_more_of_a_limit_never_makes_a_launch_slower(network, size, chip, limit):
    for factor in (1.3, 4.0):
        better = replace(chip, **{limit: factor * getattr(chip, limit)})
        for launch in [*sparse(network, size, 0.1), *launches.dense(network, *size)]:
            assert limits.time_of(launch, better).seconds <= limits.time_of(launch, chip).seconds, launch


@ALL_CHIPS
@BOTH_GRIDS
def test_more_pixels_never_make_a_frame_faster(network, size, chip):
    seconds = [limits.total(sparse(network, size, share), chip).seconds for share in np.linspace(0, 1, 41)]
    assert (np.diff(seconds) >= 0).all()


@ALL_CHIPS
@BOTH_GRIDS
def test_a_full_mask_gains_no_more_than_the_bytes_that_fusion_saves(network, size, chip):
    full, dense = sparse(network, size, 1.0), launches.dense(network, *size)
    saved = (moved(dense) - moved(full)) / (limits.DRAM_REACHED * chip.dram)
    assert limits.total(dense, chip).seconds - limits.total(full, chip).seconds <= saved
    # What is fused away is what a unit would write and read between its convolutions.
    assert 0 < moved(dense) - moved(full) < 0.3 * moved(dense)


def test_a_frame_is_bound_by_what_is_scarce(network):
    chip, found = CHIPS["h100-sxm"], launches.dense(network, *GRIDS["paper"])
    for limit, label in {"dram": limits.DRAM, "tensor": limits.TENSOR}.items():
        assert limits.total(found, replace(chip, **{limit: getattr(chip, limit) / 100})).limit == label
    assert limits.total(found, replace(chip, dense_launch=1.0)).limit == limits.FLOOR


@ALL_CHIPS
def test_few_groups_are_as_slow_as_the_few_multiprocessors_that_they_keep_busy(chip):
    eighth = chip.multiprocessors / 8
    computes, moves = Work(flops=1e12), Work(maps=1.0, windows=1e12)
    for work in (computes, moves):
        many = limits.time_of(Launch("", "", work, 1e6, limits.BUSY_WARPS), chip).seconds
        few = limits.time_of(Launch("", "", work, eighth, limits.BUSY_WARPS), chip).seconds
        each = 1.0 if work is computes else min(1.0, chip.l2 / (chip.multiprocessors * chip.l2_each))
        assert few == pytest.approx(8 * each * many)


@ALL_CHIPS
def test_every_number_of_a_chip_names_its_source_and_says_if_it_is_assumed(chip):
    numbers = set(Chip.__dataclass_fields__) - {"name", "sources"}
    assert set(chip.sources) == numbers
    assert sum(len(words) for words in chip.numbers().values()) == len(numbers)
    assumed = {name for name, source in chip.sources.items() if source.startswith(ASSUMED)}
    assert assumed == {"l2", "l2_each", "launch", "dense_launch"}


def scene(with_road: bool = True) -> Scene:
    """Points all over, on a road over a part of the grid."""
    grid, rng = Grid.named("compact"), np.random.default_rng(0)
    points = rng.uniform((5, -15, 0, 0), (60, 15, 2, 1), (3000, 4)).astype(np.float32)
    cells = np.zeros((300, 500), np.bool_)
    cells[:150] = True
    return Scene(points, RoadMap(torch.from_numpy(cells), 0.2, SE2(grid.x_min - 5, -30.0)) if with_road else None)


@pytest.mark.parametrize(("mask", "with_road"), [("", True), ("road", True), ("road", False), ("everywhere", True)])
def test_active_pixels_are_those_that_the_pipeline_computes(tmp_path, mask, with_road):
    config = current.configured("compact", "float32", mask, str(tiny_weights(tmp_path)))
    pipeline, frame = Pipeline(config), scene(with_road)
    pixels, missing = roofline.active_pixels(pipeline.network, config, frame)
    result = pipeline(frame.points, frame.view())
    assert pixels["conv-3"] == int(result.computed.sum()) and missing == ("road" in result.missing)
    whole = everywhere(*config.raster.shape)
    assert all(0 < pixels[stage] <= whole[stage] for stage in STRIDES)
    assert (pixels == whole) == result.dense


def test_the_command_says_that_it_is_a_model_and_writes_all_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(roofline, "read_inputs", lambda text: [Input("made", (scene(), scene(with_road=False)))])
    assert main(["bench", "roofline", "made", "--json", str(tmp_path / "rows.json")]) == 0
    out, written = capsys.readouterr().out, json.loads((tmp_path / "rows.json").read_text())
    assert out.count(roofline.NOTICE) == 2 and written["model"] == roofline.NOTICE
    assert "1 of them without a road" in out and written["frames"] == 2
    assert list(written["sources"]) == [CHIPS[name].name for name in DEFAULT_CHIPS]
    for name in written["sources"]:
        rows = [row for row in written["rows"] if row["chip"] == name]
        first = {(row["side"], row["part"]): row for row in reversed(rows)}
        assert set(first) == {(side, part) for side in ("sparse", "dense") for part in (*PARTS, "frame")} - {
            ("dense", "tiles")
        }
        for side in ("sparse", "dense"):
            for key in ("launches", "megabytes", "gflop", "microseconds"):
                parts = sum(first[side, part][key] for part in PARTS if (side, part) in first)
                assert parts == pytest.approx(first[side, "frame"][key])
        # Shorter launches save just that.
        sparse_rows = [row for row in rows if (row["side"], row["part"]) == ("sparse", "frame")]
        for row in sparse_rows[1:]:
            shorter = sparse_rows[0]["launch_microseconds"] - row["launch_microseconds"]
            saved = sparse_rows[0]["microseconds"] - row["microseconds"]
            assert shorter > 0 and saved == pytest.approx(row["launches"] * shorter)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--chip h1000", "--chip is 'h1000'; use one of h100-sxm, "),
        ("--grid large", "--grid is 'large'"),
        ("--mask roads", "--mask"),
        ("--mask predicted", "--mask: "),
        ("--json no/such/folder.json", "--json is no/such/folder.json, but there is no folder no/such"),
    ],
)
def test_an_impossible_option_is_named(monkeypatch, capsys, options, says):
    monkeypatch.setattr(roofline, "read_inputs", lambda text: [Input("made", (scene(),))])
    assert main(["bench", "roofline", *options.split()]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
