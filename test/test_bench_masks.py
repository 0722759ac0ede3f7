"""`sbnet bench masks`: its rows and table, and the surroundings that it drives through."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from bench_helpers import tiny_weights
from learning_helpers import frame

from sbnet_perception.bench import masks
from sbnet_perception.bev.grid import Grid
from sbnet_perception.cli import main
from sbnet_perception.learning.simulator.roads import road_network
from sbnet_perception.learning.simulator.roadside import SETTINGS, furnish
from sbnet_perception.learning.simulator.world import World


def test_each_mask_of_each_setting_gets_a_row_that_says_what_it_skips_and_finds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(masks, "with_steady_memory", lambda: None)
    seen = frame(Grid.named("compact"))
    monkeypatch.setattr(masks, "frames_in", lambda setting, drives, frames: iter([seen] * frames))
    options = ["--weights", str(tiny_weights(tmp_path)), "--frames", "2", "--drives", "1", "--rounds", "1"]
    options += ["--mask", "road", "everywhere", "dilate(road, 1.0)", "--setting", "city", "country"]
    assert main(["bench", "masks", *options, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["setting"], row["mask"]) for row in rows[:2]] == [("city", "road"), ("city", "everywhere")]
    assert len(rows) == 6 and {row["weights"] for row in rows} == {"compact.safetensors"}
    assert {row["vehicles_on_road"] for row in rows} == {2} and {row["vehicles"] for row in rows} == {4}
    assert rows[0]["skipped"] > rows[2]["skipped"] > rows[1]["skipped"] == 0
    assert rows[1]["pixel_recall_on_road"] == 1.0 and all(row["ms"] > 0 for row in rows)
    assert "dilate(road, 1.0)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--setting", "moon"], ["--mask", "road or"], ["--dtype", "both"], ["--frames", "0"]]
)
def test_an_option_that_cannot_be_is_refused(options, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(masks, "with_steady_memory", lambda: None)
    assert main(["bench", "masks", "--weights", str(tiny_weights(tmp_path)), *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_a_row_of_parked_cars_is_longer_in_the_city_than_in_the_country():
    parked = dict.fromkeys(SETTINGS, 0)
    for setting in ("city", "country"):
        for seed in range(3):
            rng = np.random.default_rng(seed)
            network = road_network(rng, 150.0)
            world = World(rng, network, shapely.LineString(network.roads[0].centre.line).buffer(40.0))
            furnish(world, 1.0, setting)
            parked[setting] += len(world.vehicles)
    assert parked["city"] > 3 * parked["country"] > 0
