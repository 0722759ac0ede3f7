"""Training in two processes under torchrun, one of which is killed half-way, beside the same training in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_together
from train_together import CHECKPOINT_EVERY, CONFIG, KILLED_AT, trained

import sbnet_perception


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    program = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1", "--rdzv-backend=c10d"]
    command = [sys.executable, *program, "--rdzv-endpoint=localhost:0", train_together.__file__, str(folder)]
    # Of another checkout, which may be the installed one, they would make other scenes.
    paths = [str(Path(sbnet_perception.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environ)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def said(folder: Path, rank: int, restarts: int) -> tuple[float, list[dict[str, float]]]:
    """The error of a normalization, and the losses of each step."""
    error, *losses = (folder / f"said.{rank}.{restarts}").read_text().splitlines()
    return float(error), [json.loads(line) for line in losses]


def test_two_processes_lose_what_one_with_all_their_scenes_loses_though_one_of_them_was_killed(together, tmp_path):
    alone: list[dict[str, float]] = []
    whole = trained(together / "scenes", tmp_path / "checkpoint", alone.append)
    assert said(together, 1, 1)[1] == said(together, 0, 1)[1]
    (_, before), (_, after) = said(together, 0, 0), said(together, 0, 1)
    resumed = KILLED_AT - KILLED_AT % CHECKPOINT_EVERY
    assert [loss["step"] for loss in before + after] == [*range(KILLED_AT), *range(resumed, CONFIG.steps)]
    for losses in (before, after):
        for ours in losses:
            assert ours == pytest.approx(alone[ours["step"]], rel=1e-4, abs=1e-6)
    averages = [torch.load(together / f"averaged.{rank}", weights_only=True) for rank in (0, 1)]
    for name, tensor in whole.averaged.state_dict().items():
        assert torch.equal(averages[0][name], averages[1][name]), name
        assert torch.allclose(averages[0][name], tensor, rtol=1e-3, atol=1e-4), name


def test_a_normalization_over_two_processes_is_that_of_one_with_all_pixels_and_so_is_its_gradient(together):
    assert all(said(together, rank, 1)[0] < 1e-12 for rank in (0, 1))


def test_only_the_first_process_writes_and_scenes_are_simulated_once(together):
    left = {path.name for path in together.iterdir() if not path.name.startswith(("said.", "averaged."))}
    assert left == {"scenes", "checkpoint"}
    assert sorted(path.name for path in together.glob("scenes/*/*")) == ["00000.npz", "00001.npz"]
