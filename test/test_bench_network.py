"""`sbnet bench network`: dense ways that compute the detector, masks of every kind, rows, table and picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_helpers import tiny_detector, tiny_weights

from sbnet_perception.bench import current, dense, inputs, network, sides
from sbnet_perception.bench.inputs import Input, Scene
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.cli import main
from sbnet_perception.detector.mask_network import MaskNetwork, MaskNetworkConfig, seen
from sbnet_perception.detector.mask_weights import save_mask_weights
from sbnet_perception.detector.pipeline import Pipeline
from sbnet_perception.masks.road import RoadMap

DTYPES = {"float32": 1e-5, "bfloat16": 3e-2}
KEYS = {"input", "grid", "dtype", "mask", "frame", "pixel_sparsity", "tile_sparsity", "dense_ms", "dense_best"}
KEYS |= {"sparse_ms", "p95_ms", "speedup", "mask_ms", "speedup_with_mask", "weights", "page_faults", "other_programs"}


@pytest.fixture
def uncompiled():
    """torch.compile takes seconds per stage; here its functions run as they are written."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture
def in_this_process(uncompiled, monkeypatch):
    monkeypatch.setattr(network, "with_steady_memory", lambda: None)
    monkeypatch.setattr(network, "SPARSITIES", (0.5, 0.9))


def small_bev(dtype: str) -> torch.Tensor:
    """Of a size that no stride divides."""
    bev = (torch.rand((1, 33, 40, 72), generator=torch.Generator().manual_seed(0)) < 0.1).to(getattr(torch, dtype))
    return bev.to(memory_format=torch.channels_last)


@torch.inference_mode()
def relative_error(found: torch.Tensor, bev: torch.Tensor) -> float:
    expected = current.dense_maps(tiny_detector().double(), bev.double())
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_every_way_to_run_the_dense_detector_computes_the_detector(uncompiled, dtype):
    bev = small_bev(dtype)
    if not dense.has_onednn(bev.dtype):
        pytest.skip(f"oneDNN has no {dtype} on this CPU")
    ways = dense.detectors(tiny_detector(bev.dtype), bev)
    assert set(ways) == {"eager", "compile", "onednn"}
    for name, way in ways.items():
        given, stages = bev.clone(), []
        assert relative_error(way(bev, stages.append), bev) < DTYPES[dtype], name
        assert torch.equal(bev, given), f"{name} changed its input"
        assert stages == list(dense.STAGES)
        assert torch.equal(way(bev), way(bev)), f"{name} is not repeatable"


@torch.inference_mode()
def test_compiled_upsampling_computes_what_eager_does():
    up, generator = dense.Up(tiny_detector()), torch.Generator().manual_seed(0)
    maps = [torch.randn(shape, generator=generator) for shape in ((1, 32, 3, 5), (1, 24, 5, 9), (1, 16, 10, 18))]
    expected = up(*maps)
    assert torch.allclose(dense.compiled(up)(*maps), expected, atol=1e-5)


def test_mixed_takes_each_stage_from_the_way_that_was_fastest():
    ways = {name: dense.DenseDetector({stage: (name, stage) for stage in dense.STAGES}) for name in "ab"}
    ms = {name: {stage: float((stage == "up") == (name == "a")) for stage in dense.STAGES} for name in "ab"}
    assert dense.mixed(ways, ms).stages == {s: ("b" if s == "up" else "a", s) for s in dense.STAGES}


def test_a_way_that_computes_something_else_is_not_timed(uncompiled, tmp_path, monkeypatch):
    monkeypatch.setattr(dense, "whole", lambda folded: lambda bev: torch.zeros(1, 9, 50, 88))
    pipeline, _ = current.open_pipeline(current.configured("compact", "float32", "", str(tiny_weights(tmp_path))))
    with pytest.raises(RuntimeError, match="compile-whole does not compute the detector"):
        sides.DenseSide(pipeline, np.ones((5, 4), np.float32))


def test_a_voxel_map_in_half_precision_forgets_the_frame_before():
    grid, rng = Grid.named("compact"), np.random.default_rng(0)
    half, full = (sides.DenseInput(grid, dtype) for dtype in (torch.bfloat16, torch.float32))
    for count in (1000, 0, 500):
        points = rng.uniform((-5, -22, -3, 0), (75, 22, 5, 1), (count, 4)).astype(np.float32)
        assert torch.equal(half(points), full(points).bfloat16())


def scene() -> Scene:
    """A wall of points on a road over the left half, and a box."""
    grid, rng = Grid.named("compact"), np.random.default_rng(0)
    points = rng.uniform((5, -15, 0, 0), (60, 15, 2, 1), (5000, 4)).astype(np.float32)
    cells = np.zeros((300, 500), np.bool_)
    cells[:150] = True
    road = RoadMap(torch.from_numpy(cells), 0.2, SE2(grid.x_min - 5, -30.0))
    return Scene(points, road, SE2(), np.array([[20, 0, 1, 4, 2, 1.5, 0.3], [500, 0, 1, 4, 2, 1.5, 0]], np.float32))


def test_masks_of_true_boxes_cover_footprints_and_grow_with_the_dilation():
    grid = Grid.named("compact")
    masks = network.masks_of(scene(), grid)
    assert 0.9 * 8 <= masks["boxes + 0 m"].sum() * grid.resolution**2 <= 8 + 5
    assert masks["boxes + 0 m"][100, 100], "the centre of the box"
    assert masks["boxes + 0 m"].sum() < masks["boxes + 1 m"].sum() < masks["boxes + 3 m"].sum()
    assert np.array_equal(masks["road and occupancy"], masks["road"] & masks["occupancy"])


def test_without_road_and_boxes_their_masks_are_left_out():
    bare = Scene(scene().points)
    names = set(network.masks_of(bare, Grid.named("compact")))
    assert {name for name in names if not name.startswith("top left")} == {"occupancy", "shadow"}


def test_rows_table_and_picture_of_the_network(in_this_process, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(network, "read_inputs", lambda text: [Input("made", (scene(),))])
    files = ["--json", str(tmp_path / "rows.json"), "--plot", str(tmp_path / "rows.png")]
    options = ["--frames", "3", "--rounds", "1", "--dtype", "float32", "--weights", str(tiny_weights(tmp_path))]
    assert main(["bench", "network", *options, *files]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    masks = set(network.masks_of(scene(), Grid.named("compact"))) | set(network.COMPUTED)  # of the shipped mask network
    assert {(row["mask"], row["frame"]) for row in rows} == {(mask, frame) for mask in masks for frame in range(3)}
    for row in rows:
        assert row.keys() >= KEYS and row["speedup"] == pytest.approx(row["dense_ms"] / row["sparse_ms"])
    rectangles = {row["mask"]: row["pixel_sparsity"] for row in rows if row["mask"].startswith("top left")}
    assert rectangles["top left 90 %"] == pytest.approx(0.9, abs=0.01)
    assert (tmp_path / "rows.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80 and "road and occupancy" in printed


@torch.inference_mode()
def tiny_mask_weights(folder: Path) -> Path:
    """A mask network that expects vehicles in a third of `scene`."""
    torch.manual_seed(0)
    mask_network = MaskNetwork(MaskNetworkConfig(widths=(8, 8, 8, 8), units=(1, 1, 1, 1), head_width=8)).eval()
    x = seen(torch.from_numpy(scene().points), Grid.named("compact"))
    threshold = float(mask_network(x).sigmoid().quantile(2 / 3))
    save_mask_weights(folder / "mask.safetensors", mask_network, threshold, {})
    return folder / "mask.safetensors"


class DenseOf100:
    """In place of the dense networks: one that takes 100 ms."""

    names, contest = ("made up",), {"made up": 100.0}

    def __init__(self, *_):
        self.input = self.network = lambda *_: {"network": 100.0}


def test_making_a_predicted_mask_counts_the_mask_network_and_is_told_apart_from_the_network(
    in_this_process, tmp_path, monkeypatch
):
    ran = []
    computed = current.computed

    def noted(scene, grid, mask, mask_network=None):
        ran.append(mask_network is not None)
        return computed(scene, grid, mask, mask_network)

    monkeypatch.setattr(current, "computed", noted)
    monkeypatch.setattr(network, "DenseSide", DenseOf100)
    monkeypatch.setattr(network, "read_inputs", lambda text: [Input("made", (scene(),))])
    options = ["--frames", "1", "--rounds", "2", "--dtype", "float32", "--weights", str(tiny_weights(tmp_path))]
    files = ["--mask-weights", str(tiny_mask_weights(tmp_path)), "--json", str(tmp_path / "rows.json")]
    assert main(["bench", "network", *options, *files, "--only", "expressions", "boxes"]) == 0
    rows = {row["mask"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    boxes = {f"boxes + {metres:g} m" for metres in network.DILATIONS}
    assert set(rows) == set(network.COMPUTED) | boxes and all(ran)
    assert 0.1 < rows["predicted"]["pixel_sparsity"] < rows["road and predicted"]["pixel_sparsity"] < 0.99
    for name, row in rows.items():
        if name in boxes:
            assert row["mask_ms"] is None and row["speedup_with_mask"] is None
        else:
            assert row["speedup"] == pytest.approx(100 / row["sparse_ms"]) and row["mask_ms"] > 0
            assert row["speedup_with_mask"] == pytest.approx(100 / (row["sparse_ms"] + row["mask_ms"]))


def test_boxes_alone_of_an_input_without_labels_are_refused(in_this_process, monkeypatch, capsys):
    monkeypatch.setattr(network, "read_inputs", lambda text: [Input("bare", (Scene(scene().points),))])
    assert main(["bench", "network", "--only", "boxes"]) == 2
    assert "--only boxes: bare has no labelled boxes; add expressions or rectangles" in capsys.readouterr().err


def test_the_mask_that_is_timed_is_the_pipelines(tmp_path):
    weights, of_mask = str(tiny_weights(tmp_path)), str(tiny_mask_weights(tmp_path))
    for expression in network.COMPUTED.values():
        pipeline = Pipeline(current.configured("compact", "float32", expression, weights, mask_weights=of_mask))
        found = current.computed(scene(), pipeline.grid, expression, pipeline.mask_network)
        assert torch.equal(found, pipeline(scene().points, scene().view()).mask), expression


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--grid huge", "--grid is 'huge'; use one of compact, paper"),
        ("--dtype half", "--dtype is 'half'; use one of float32, bfloat16, int8, both"),
        ("--frames 0", "--frames is 0; it must be at least 1"),
        ("--rounds 0", "--rounds is 0"),
        ("--plot a.jpg", "--plot is a.jpg; its name must end in one of .png"),
        ("--json no/such/rows.json", "there is no folder no/such"),
        ("--only circles", "--only is 'circles'; use one of expressions, boxes, rectangles"),
        ("--only boxes --mask-weights a", "--mask-weights makes masks of expressions, which --only leaves out"),
        ("--mask-weights nowhere.safetensors", "mask.weights: there is no file nowhere.safetensors"),
        ("nowhere", f"there is no nowhere; give {inputs.KINDS}"),
    ],
)
def test_an_impossible_option_is_named_before_anything_is_measured(capsys, options, says):
    assert main(["bench", "network", *options.split()]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
