"""`sbnet bench node`: clouds such as drivers send, and rows that say what they should. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sbnet_perception.bench.node import LAYOUTS, in_layout, played, simulated
from sbnet_perception.cli import main
from sbnet_perception.messages.pointcloud2 import read_points
from sbnet_perception.messages.raw_cloud import read_cloud

STEPS = {"latency", "overhead", "pipeline", "cloud", "ground", "road", "mask"}
SIZES = {"xyzi": 16, "velodyne": 22, "autoware": 32}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_same_points_are_in_every_layout(layout: str) -> None:
    points = np.random.default_rng(1).integers(0, 250, (500, 4)).astype(np.float32)
    msg = in_layout(points, layout)
    assert msg.point_step == SIZES[layout]
    np.testing.assert_array_equal(read_points(msg, intensity_scale=1.0).points, points)


def test_every_cloud_has_the_points_asked_for_and_is_newer_than_the_one_before() -> None:
    for count in (1_000, 150_000):
        messages = list(played(simulated(count, "xyzi"), 12))
        clouds = [read_cloud(message.raw) for message in messages if message.topic == "/points"]
        assert [message.topic for message in messages[:4]] == ["/tf_static", "/road_mask", "/tf", "/points"]
        assert [cloud.width for cloud in clouds] == [count] * 12
        stamps = [cloud.header.stamp for cloud in clouds]
        assert stamps == sorted(set(stamps))


def test_rows_have_latency_overhead_pipeline_and_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "node.json"
    options = ["--points", "5000", "--messages", "4", "--layout", "velodyne", "--json", str(rows)]
    assert main(["bench", "node", *options]) == 0
    found = {row["what"]: row for row in json.loads(rows.read_text())["rows"]}
    assert found.keys() >= STEPS
    for row in found.values():
        assert (row["points"], row["layout"], row["messages"], row["dropped"]) == (5000, "velodyne", 4, 0)
        assert 0 <= row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert found["latency"]["p50_ms"] > found["pipeline"]["p50_ms"] > found["mask"]["p50_ms"] > 0
    assert "overhead" in capsys.readouterr().out


@pytest.mark.parametrize("options", ["--points 0", "--messages 0", "--grid huge", "--layout ouster"])
def test_a_wrong_option_is_named(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "node", *options.split()]) == 2
    assert options.replace(" ", " is ").split(" is ")[0] in capsys.readouterr().err
