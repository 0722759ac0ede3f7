"""Layers run densely where their mask is too full, with the same result; what was measured is kept and used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bench import tune
from sbnet_perception.bench.tune import Layer, layers_by_shape
from sbnet_perception.blocks import ConvUnit, PointwiseConv2d, ResidualUnit, Stage, Tiles, dense_layers, tuning
from sbnet_perception.blocks.operation import UNAVAILABLE
from sbnet_perception.blocks.tuning import NEVER, Choice, Shape
from sbnet_perception.cli import main
from sbnet_perception.detector.network import Detector

pytestmark = pytest.mark.skipif(
    bool(UNAVAILABLE) or not dense_layers.is_fast(torch.float32), reason="needs the compiled ops and oneDNN"
)
DTYPES = [torch.float32, *([torch.bfloat16] if dense_layers.is_fast(torch.bfloat16) else [])]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
LAYERS = {
    "conv 3x3": lambda: ConvUnit(5, 7),
    "conv 1x1": lambda: ConvUnit(5, 7, kernel=1),
    "branch": lambda: PointwiseConv2d(5, 3),
    "plain unit": lambda: ResidualUnit(8, 8),
    "strided unit": lambda: ResidualUnit(8, 12, stride=2),
    "stage": lambda: Stage([ResidualUnit(4, 8, stride=2), ResidualUnit(8, 8), ResidualUnit(8, 8)]),
    "stage in place": lambda: Stage([ResidualUnit(8, 8), ResidualUnit(8, 8)]),
}


@pytest.fixture(autouse=True)
def tuning_file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "tuning.json"
    monkeypatch.setenv("SBNET_TUNING", str(path))
    tuning._choices.cache_clear()
    yield path
    tuning._choices.cache_clear()


def made(name: str, dtype: torch.dtype) -> tuple[torch.nn.Module, int, int]:
    """A layer with normalizations that do something, its input channels and its stride."""
    layer = LAYERS[name]()
    for part in layer.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for tensor in (part.weight.data, part.running_var):
                tensor.uniform_(0.7, 1.3)
            for tensor in (part.bias.data, part.running_mean):
                tensor.uniform_(-0.3, 0.3)
    channels = next(p for p in layer.parameters() if p.dim() == 4).shape[1]
    stride = 2 if "strided" in name or name == "stage" else 1
    return layer.to(dtype).eval().requires_grad_(False), channels, stride


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(list(LAYERS)),
    dtype=st.sampled_from(DTYPES),
    images=st.integers(1, 2),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    tile=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 999),
)
def test_a_layer_that_runs_densely_has_the_result_of_its_tiles(name, dtype, images, size, tile, share, seed):
    torch.manual_seed(seed)
    layer, channels, stride = made(name, dtype)
    x = torch.randn((images, channels, *size)).to(dtype)
    x = x.contiguous(memory_format=[torch.channels_last, torch.contiguous_format][seed % 2])
    mask = torch.rand((images, *size)) < share
    tiles, given_x = Tiles.from_mask(mask, tile, stride), x.clone()
    with tuning.dense_from(NEVER):
        by_tiles = layer(x, tiles)
    with tuning.dense_from(0.0):
        densely = layer(x, tiles)
    inactive = ~tiles.mask()[:, None].expand_as(densely)
    assert torch.equal(densely[inactive], by_tiles[inactive]), "inactive pixels keep x, or are 0"
    assert torch.equal(x, given_x), "the caller's map was changed"
    assert densely.is_contiguous(memory_format=torch.channels_last)
    error = (densely.double() - by_tiles.double()).norm() / by_tiles.double().norm().clamp_min(1e-30)
    assert error < TOLERANCE[dtype]


def test_a_layer_runs_densely_from_the_share_on_that_was_measured(monkeypatch):
    layer, channels, _ = made("conv 3x3", torch.float32)
    calls = []
    real = dense_layers.conv_unit
    monkeypatch.setattr(dense_layers, "conv_unit", lambda *a: calls.append(1) or real(*a))
    x = torch.randn(1, channels, 10, 10)
    tuning.save({Shape("conv3x3", 5, 7, 1, (1, 10, 10), torch.float32): Choice((1, 1), 0.65)})
    ran = []
    for rows in range(11):
        mask = torch.zeros((10, 10), dtype=torch.bool)
        mask[:rows] = True
        calls.clear()
        layer(x, Tiles.from_mask(mask, (1, 1)))
        ran.append(bool(calls))
    assert ran == [rows >= 7 for rows in range(11)]


def test_repeated_tiles_do_not_make_a_mask_full_and_wrong_ones_are_refused():
    layer, channels, _ = made("conv 3x3", torch.float32)
    x, indices = torch.randn(1, channels, 6, 6), torch.zeros((9, 3), dtype=torch.int32)
    with tuning.dense_from(0.0):
        y = layer(x, Tiles(indices, 1, (6, 6), (2, 2)))
        assert y[..., :2, :2].any() and not y[..., 2:, :].any() and not y[..., 2:].any()
        with pytest.raises(ValueError, match="outside the map"):
            layer(x, Tiles(indices + 3, 1, (6, 6), (2, 2)))


def test_a_file_that_cannot_be_written_is_named(monkeypatch, capsys):
    layer = Layer(ConvUnit(4, 4), ((1, 4, 6, 6),))
    monkeypatch.setattr(tune, "layers_by_shape", lambda dtype: {layer.shape(dtype): layer})
    monkeypatch.setattr(tune, "with_steady_memory", lambda: None)
    monkeypatch.setenv("SBNET_TUNING", "/proc/none/tuning.json")
    assert main(["bench", "tune", "--rounds", "1", "--dtype", "float32"]) == 2
    assert "name another file in SBNET_TUNING" in capsys.readouterr().err


def test_weights_that_change_are_folded_anew():
    layer, channels, _ = made("conv 3x3", torch.float32)
    x, tiles = torch.randn(1, channels, 6, 6), Tiles.from_mask(torch.ones(6, 6, dtype=torch.bool), (2, 2))
    with tuning.dense_from(0.0):
        layer(x, tiles)
        layer.load_state_dict(made("conv 3x3", torch.float32)[0].state_dict())
        torch.testing.assert_close(layer(x, tiles), layer(x))


def test_what_was_measured_is_found_again_beside_what_other_machines_measured(tuning_file):
    tuning_file.write_text(json.dumps({"another machine": {"kept": {}}}))
    here, there = (Shape("residual", 8, 8, 1, (1, size, 9), torch.bfloat16) for size in (9, 10))
    tuning.save({here: Choice((2, 4), 0.5), there: Choice((1, 8), NEVER)})
    tuning.save({there: Choice((4, 4), NEVER)})
    assert (tuning.choice(here), tuning.choice(there)) == (Choice((2, 4), 0.5), Choice((4, 4), NEVER))
    assert tuning.choice(here._replace(dtype=torch.float32)) == tuning.DEFAULTS["residual"]
    assert json.loads(tuning_file.read_text()).keys() == {"another machine", tuning.hardware(torch.get_num_threads())}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert tuning.choice(here) == tuning.DEFAULTS["residual"], "another number of threads is another machine"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"HERE": 3}', '{"HERE": {"conv3x3 5->7 float32": {}}}']
    + [
        f'{{"HERE": {{"conv3x3 5->7 /1 1x6x6 float32": {value}}}}}'
        for value in ("3", "{}", '{"tile": [0, 1], "dense_above": 1}', '{"tile": [1, 1], "dense_above": "x"}')
    ],
)
def test_a_damaged_file_is_named_once_and_layers_run_with_defaults(tuning_file, recwarn, content):
    here = json.dumps(tuning.hardware(torch.get_num_threads()))
    tuning_file.write_text(content.replace('"HERE"', here))
    for _ in range(2):
        assert tuning.choice(Shape("residual", 5, 7, 1, (1, 6, 6), torch.float32)) == tuning.DEFAULTS["residual"]
    assert [str(tuning_file) in str(warning.message) for warning in recwarn] == [True]


def test_a_network_looks_up_only_shapes_that_are_tuned(monkeypatch):
    looked_up = []
    monkeypatch.setattr(tuning, "dense_above", lambda shape: looked_up.append(shape) or NEVER)
    network = Detector().eval()
    mask = torch.zeros((1, 200, 352), dtype=torch.bool)
    with torch.inference_mode():
        network(torch.zeros((1, 33, 200, 352)), mask)
    assert len(looked_up) >= 10
    assert set(looked_up) <= layers_by_shape(torch.float32).keys()


def test_tune_keeps_what_layers_then_use(monkeypatch, tuning_file, capsys):
    layers = [Layer(ConvUnit(4, 4), ((1, 4, 12, 20),)), Layer(ResidualUnit(8, 8), ((1, 8, 12, 20),))]
    monkeypatch.setattr(tune, "layers_by_shape", lambda dtype: {layer.shape(dtype): layer for layer in layers})
    monkeypatch.setattr(tune, "with_steady_memory", lambda: None)
    assert main(["bench", "tune", "--rounds", "1"]) == 0
    kept = json.loads(tuning_file.read_text())[tuning.hardware(torch.get_num_threads())]
    assert len(kept) == 4
    for dtype in ("float32", "bfloat16"):
        shape = layers[0].shape(getattr(torch, dtype))
        assert list(tuning.choice(shape).tile) == kept[str(shape)]["tile"]
    assert str(tuning_file) in capsys.readouterr().out.replace("\n", "")


def test_the_break_even_lies_where_both_take_as_long(monkeypatch):
    # 2 ms plus 8 ms times the share of tiles, against a dense layer of 6.8 ms
    made_up = {"half": 6.0, "full": 10.0, "dense": 6.8}
    times = {name: type("Times", (), {"median": ms}) for name, ms in made_up.items()}
    monkeypatch.setattr(tune, "alternate", lambda candidates, rounds: times)
    share, ratio = tune._break_even(lambda tiles: None, (8, 8), (1, 1), 3)
    assert (share, ratio) == (pytest.approx(0.6), pytest.approx(10 / 6.8))
    times["dense"].median = 10.0
    assert tune._break_even(lambda tiles: None, (8, 8), (1, 1), 3)[0] == NEVER


def test_an_unknown_dtype_is_named(capsys):
    assert main(["bench", "tune", "--dtype", "float16"]) == 2
    assert "--dtype is 'float16'; use one of float32, bfloat16" in capsys.readouterr().err


def test_without_measurements_full_convolutions_run_densely_unless_they_are_small():
    large, small = (Shape("conv3x3", 32, 32, 1, (1, side, side), torch.float32) for side in (200, 20))
    assert tuning.dense_above(large) < 1 and tuning.dense_above(small) == NEVER
