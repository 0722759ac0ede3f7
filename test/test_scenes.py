"""Making training scenes in parallel: what happens when it is broken off."""

from __future__ import annotations

import errno
import time

import pytest

from sbnet_perception.bev.grid import Grid
from sbnet_perception.learning import scenes

SHARDS = 20


def fail_at_the_first(path, grid, seed, sensor_of):
    if seed == 0:
        raise OSError(errno.ENOSPC, "No space left on device")
    time.sleep(0.05)
    path.with_suffix(".made").touch()


def test_a_failure_or_interrupt_ends_the_simulation_instead_of_working_off_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "_make_shard", fail_at_the_first)
    monkeypatch.setattr(scenes.os, "cpu_count", lambda: 2)
    with pytest.raises(OSError, match="No space left"):
        scenes.Scenes(tmp_path, Grid.named("compact"), SHARDS * scenes.SHARD, seed=0)
    assert len(list(tmp_path.rglob("*.made"))) < SHARDS / 2
