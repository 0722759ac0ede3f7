"""`sbnet demo` from end to end, with a drive of six clouds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recordings import write_replay
from rich.console import Console

from sbnet_perception.bags.reader import BagReader
from sbnet_perception.bags.recorded import Recording
from sbnet_perception.desk.demo import simulated_drive
from sbnet_perception.desk.score import Score, score


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What it prints, and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "sbnet_perception.cli", "demo", "--seconds", "0.6", "--every-frame"]
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder


def test_the_demo_processes_every_frame_and_says_how_many_vehicles_it_found(demo: tuple[str, Path]) -> None:
    said, _ = demo
    assert re.search(r"frames processed\s+│ 6 ", said), said
    assert re.search(r"dropped\s+│ 0 ", said), said
    assert re.search(r"vehicles of 50\+ points found\s+│ \d+ of \d+", said), said
    assert "false positives" in said
    assert "latency p50 / p95" in said


def test_the_demo_leaves_a_recording_pictures_and_an_animation_and_names_them(demo: tuple[str, Path]) -> None:
    said, folder = demo
    for name in ("out.mcap", "drive_1.png", "drive.gif"):
        assert (folder / name).is_file()
        assert name in said.replace("\n", "")
    with Image.open(folder / "drive.gif") as animation:
        assert animation.n_frames == 6
    with BagReader(folder / "out.mcap") as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
    assert counts["/points"] == counts["/detections"] == counts["/computation_mask"] == 6
    assert counts["/ground_truth"] == 6
    assert counts["/road_mask"] == 1


def test_a_drive_that_is_there_is_not_simulated_again(demo: tuple[str, Path]) -> None:
    _, folder = demo
    before = next(folder.glob("drive_seed7_0.6s.mcap")).stat().st_mtime_ns
    path = simulated_drive(folder, seed=7, seconds=0.6, console=Console(quiet=True))
    assert path.stat().st_mtime_ns == before


def test_the_score_counts_found_missed_and_false_and_says_what_the_mask_skipped(tmp_path: Path) -> None:
    # The clouds have two boxes of 400 points, at (17, 2) and at (32, -4); a third vehicle has hardly any point.
    truth = np.array([[17, 2, 0.8, 4.5, 2.4, 1.6, 0], [32, -4, 0.8, 4.5, 2.4, 1.6, 0], [60, 15, 0.9, 4, 2, 1, 0]])
    found = np.array([[17.5, 2, 0.8, 4.5, 2.4, 1.6, 0], [50, 10, 0.8, 4.5, 2.4, 1.6, 0]])
    computed = np.zeros((50, 88), bool)
    computed[:, :30] = True
    path = write_replay(tmp_path / "out.mcap", 3, truth, computed, found=found)
    assert score(Recording(path)) == [Score("vehicle", frames=3, objects=6, found=3, skipped=3, false_positives=3)]


def test_a_detection_of_another_class_finds_no_vehicle(tmp_path: Path) -> None:
    truth = np.array([[17, 2, 0.8, 4.5, 2.4, 1.6, 0], [32, -4, 0.8, 4.5, 2.4, 1.6, 0]])
    path = write_replay(tmp_path / "out.mcap", 2, truth, None, names=("tram", "vehicle"))
    vehicles, trams = score(Recording(path))
    assert vehicles == Score("vehicle", frames=2, objects=4, found=2)
    assert trams == Score("tram", frames=2, false_positives=2)
