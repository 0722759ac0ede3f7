"""`sbnet bench sparsity`: the networks that it sets beside each other, its rows, table and picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench_helpers import tiny_weights

from sbnet_perception.bench import sparsity
from sbnet_perception.bench.inputs import Input, Scene
from sbnet_perception.cli import main
from sbnet_perception.detector.network import NetworkConfig


def test_rivals_are_smaller_in_width_or_header_and_otherwise_the_same():
    whole = NetworkConfig()
    found = sparsity.rivals(whole)
    assert found["2 header convolutions"] == NetworkConfig(header_convolutions=2)
    assert found["0.5 as wide"].widths == (48, 96, 128, 192)
    assert all(rival.tiles == whole.tiles and rival.units == whole.units for rival in found.values())


def test_a_table_and_a_picture_set_zeros_beside_rivals_and_accuracy_beside_time(tmp_path, monkeypatch, capsys):
    points = np.random.default_rng(0).uniform((0, -20, 0, 0), (70, 20, 2, 1), (200, 4)).astype(np.float32)
    monkeypatch.setattr(sparsity, "with_steady_memory", lambda: None)
    monkeypatch.setattr(sparsity, "read_inputs", lambda text: [Input(text, (Scene(points),))])
    monkeypatch.setattr(sparsity, "SHARES", (0.0, 0.7))
    given = tiny_weights(tmp_path).rename(tmp_path / "own.safetensors")
    weights = tiny_weights(tmp_path)
    figures = tmp_path / "own.json"
    figures.write_text(json.dumps({"simulated": [{"mask": "road_and_occupancy", "ap50": 0.8123, "ap70": 0.6}]}))
    rows, plot = tmp_path / "rows.json", tmp_path / "rows.png"
    options = ["--weights", str(weights), "--trained", str(given), str(figures), "--json", str(rows)]
    options += ["--plot", str(plot)]
    assert main(["bench", "sparsity", "--frames", "1", "--rounds", "2", "--dtype", "float32", *options]) == 0
    found = {row["network"]: row for row in json.loads(rows.read_text())["rows"]}
    assert [row["kind"] for row in found.values()] == ["the weights", "zeros", *["rival"] * 4, "trained"]
    assert found["the weights"]["speedup"] == 1.0 and found["the weights"]["zeros"] < 0.01
    assert 0.2 < found["70% zeros"]["zeros"] < 0.75  # the first convolution is a large part of the tiny network
    assert "0.812" in capsys.readouterr().out and found[str(given)]["ap70"] == 0.6
    assert plot.stat().st_size > 10_000

    figures.write_text("{}")
    assert main(["bench", "sparsity", *options]) == 2
    assert "has no figures of simulated drives" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "no JSON", '{"simulated": []}', '{"simulated": [{"ap50": null}]}'])
def test_figures_that_are_none_are_refused(tmp_path, content):
    file = tmp_path / "figures.json"
    file.write_text(content)
    with pytest.raises(sparsity.UserError, match="sbnet evaluate --validation"):
        sparsity.read_figures(file)
