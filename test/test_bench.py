"""`sbnet bench`: what it compares is the same computation, and its rows say what they should. No time is asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from sbnet_perception.bench import cases, contest, units
from sbnet_perception.bench.cases import CONVOLUTIONS, MASKS, STAGES, UNITS, Case, top_left
from sbnet_perception.bench.contest import Contest
from sbnet_perception.bench.dense import compiled, eager, has_onednn, onednn
from sbnet_perception.bench.folded import fold
from sbnet_perception.bench.measure import alternate, median_interval
from sbnet_perception.cli import main

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
FIELDS = {"layer", "dtype", "mask", "pixel_sparsity", "tile_sparsity", "tile", "dense_ms", "dense_best", "sparse_ms"}
FIELDS |= {"all_tiles_ms", "speedup", "lone_ms", "mask_ms", "rounds", "page_faults"}
FIELDS |= {"ratio", "ratio_low", "ratio_high"}


def tiny(layer: str, dtype: str = "float32", tile: tuple[int, int] = (1, 1)) -> Case:
    return Case(layer, dtype, (12, 20), 16, tile)


@pytest.fixture
def uncompiled():
    """torch.compile takes seconds per layer; here its functions run as they are written."""
    with torch.compiler.set_stance("force_eager"):
        yield


def in_double(case: Case) -> torch.Tensor:
    y = case.input().double()
    for layer in case.layers():
        y = layer.double()(y)
    return y


@torch.inference_mode()
def assert_computes(case: Case, dense) -> None:
    x, expected = case.input(), in_double(case)
    given = x.clone()
    error = (dense(x).double() - expected).norm() / expected.norm()
    assert error < TOLERANCE[case.dtype]
    assert torch.equal(x, given), "the caller's map was changed"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer", ["conv-2", "conv-2-3x3"])
def test_dense_baselines_compute_the_layers_and_leave_their_input_alone(uncompiled, layer, dtype):
    case = tiny(layer, dtype)
    folded = [fold(one) for one in case.layers()]
    assert_computes(case, eager(folded))
    if has_onednn(case.input().dtype):
        assert_computes(case, onednn(folded, (1, *case.size)))


def test_the_compiled_baseline_computes_the_layers():
    case = tiny("conv-2")
    assert_computes(case, compiled(nn.Sequential(*(fold(one) for one in case.layers()))))


def test_a_candidate_that_computes_something_else_is_not_timed(uncompiled, monkeypatch):
    monkeypatch.setattr(contest, "baselines", lambda layers, x: {"eager": lambda x: x})
    with pytest.raises(RuntimeError, match="eager does not compute conv-2"):
        Contest(tiny("conv-2"))


@pytest.mark.parametrize("layer", UNITS + CONVOLUTIONS)
def test_the_shipped_masks_leave_out_90_percent_of_every_layer(layer):
    case = Case.named(layer, "float32")
    for mask in case.masks(MASKS).values():
        assert mask.shape == (1, *case.size)
        assert 1 - float(mask.double().mean()) == pytest.approx(0.9, abs=0.002)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 1.0])
def test_top_left_masks_are_as_sparse_as_asked(sparsity):
    for size, _ in STAGES.values():
        assert 1 - float(top_left(size, sparsity).double().mean()) == pytest.approx(sparsity, abs=0.02)


@pytest.mark.parametrize("layer", ["conv-2", "conv-2-3x3"])
def test_a_row_tells_the_sparsity_of_pixels_and_of_tiles(uncompiled, layer):
    contenders = Contest(tiny(layer, tile=(4, 4)))
    mask = torch.zeros((1, 12, 20), dtype=torch.bool)
    mask[0, 5, 5] = mask[0, 5, 8] = True
    row = contenders.row(contenders.run({"two pixels": mask}, rounds=3), "two pixels", mask)
    assert row.keys() >= FIELDS
    assert row["pixel_sparsity"] == pytest.approx(1 - 2 / 240) and row["tile_sparsity"] == pytest.approx(1 - 2 / 15)
    assert (row["tile"], row["rounds"], row["mask"]) == ("4x4", 3, "two pixels")
    assert row["dense_ms"] == min(row[f"dense_{name}_ms"] for name in contenders.dense)
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]


def test_candidates_alternate_and_warm_up_rounds_are_not_counted():
    calls = []
    times = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=4, warm_up=2)
    assert calls == ["a", "b"] * 6
    assert [len(time.ms) for time in times.values()] == [4, 4]


def test_the_interval_holds_the_true_median_in_95_of_100_samples():
    samples = np.random.default_rng(0).exponential(size=(2000, 60))
    intervals = np.array([median_interval(sample) for sample in samples])
    held = np.mean((intervals[:, 1] <= np.log(2)) & (np.log(2) <= intervals[:, 2]))
    assert 0.94 <= held <= 0.98
    assert np.allclose(intervals[:, 0], np.median(samples, axis=1))


@pytest.fixture
def small(uncompiled, monkeypatch):
    """The command on tiny maps, in this process."""
    monkeypatch.setattr(cases, "STAGES", dict.fromkeys(UNITS, ((10, 20), 16)))
    monkeypatch.setattr(units, "SPARSITIES", (0.0, 0.5, 1.0))
    monkeypatch.setattr(units, "with_steady_memory", lambda: None)


def test_a_sweep_writes_rows_and_the_machine_and_draws_a_picture(small, tmp_path, capsys):
    files = ["--json", str(tmp_path / "sweep.json"), "--plot", str(tmp_path / "sweep.png")]
    assert main(["bench", "units", "--sweep", "--rounds", "2", "--only", "conv-5", "--tile", "2x2", *files]) == 0
    written = json.loads((tmp_path / "sweep.json").read_text())
    assert written["machine"].keys() >= {"cpu", "flags", "threads", "torch", "date"}
    assert [(row["dtype"], row["pixel_sparsity"]) for row in written["rows"]] == [
        (dtype, pytest.approx(sparsity, abs=0.02)) for dtype in ("float32", "bfloat16") for sparsity in (0.0, 0.5, 1.0)
    ]
    assert all(row["all_tiles_ms"] is not None and row["tile"] == "2x2" for row in written["rows"])
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "conv-5" in capsys.readouterr().out


def test_the_table_has_a_row_per_layer_dtype_and_mask(small, monkeypatch, tmp_path):
    monkeypatch.setattr(Case, "masks", lambda case, names: {name: top_left(case.size, 0.9) for name in names})
    assert main(["bench", "units", "--rounds", "1", "--json", str(tmp_path / "units.json")]) == 0
    rows = json.loads((tmp_path / "units.json").read_text())["rows"]
    expected = {(layer, dtype, mask) for layer in UNITS + CONVOLUTIONS for dtype in TOLERANCE for mask in MASKS}
    assert {(row["layer"], row["dtype"], row["mask"]) for row in rows} == expected and len(rows) == len(expected)
    assert all(row.keys() >= FIELDS and row["all_tiles_ms"] is not None for row in rows)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--rounds 0", "--rounds is 0"),
        ("--threads -1", "--threads is -1"),
        ("--only conv-9", "--only is 'conv-9'; use one of conv-2, "),
        ("--dtype float16", "--dtype is 'float16'; use one of float32, bfloat16"),
        ("--mask round", "--mask is 'round'; use one of topleft, road"),
        ("--tile 0x4", "--tile is '0x4'; give height x width"),
        ("--tile 4", "--tile is '4'; give height x width"),
        ("--plot a.png", "add --sweep"),
        ("--sweep --plot a.jpg", "--plot is a.jpg; its name must end in one of .png"),
        ("--sweep --mask road", "--mask is 'road', but --sweep has masks of its own"),
        ("--json no/such/folder.json", "--json is no/such/folder.json, but there is no folder no/such"),
    ],
)
def test_an_impossible_option_is_named_before_anything_is_measured(capsys, options, says):
    assert main(["bench", "units", *options.split()]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_missing_compiler_is_named(capsys, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["bench", "units"]) == 2
    assert "torch.compile needs the compiler 'no-such-compiler'" in capsys.readouterr().err
