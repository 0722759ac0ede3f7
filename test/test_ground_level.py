"""The height of the ground beneath a cloud's origin: measured against simulated scans, real frames and shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sbnet_perception.bev.ground_level import LEAST_SUPPORT, GroundLevel, ground_level
from sbnet_perception.learning.datasets.npz import DELIVERIES
from sbnet_perception.learning.simulator import sample_scene, scene

RNG = np.random.default_rng(5)


def level(points: np.ndarray) -> GroundLevel:
    found = ground_level(torch.from_numpy(points.astype(np.float32)))
    assert found is not None
    return found


def plane(count: int, x: tuple[float, float], y: tuple[float, float], z: float, noise: float = 0.02) -> np.ndarray:
    """float64 [count, 3]: a level sheet."""
    return np.stack([RNG.uniform(*x, count), RNG.uniform(*y, count), RNG.normal(z, noise, count)], 1)


def street(z: float) -> np.ndarray:
    """Ground with a gap where the sensor does not see, walls along both sides, a row of vans."""
    walls = [plane(4000, (-30, 40), (side - 0.1, side + 0.1), 0.0) for side in (-9.0, 9.0)]
    for wall in walls:
        wall[:, 2] = RNG.uniform(z, z + 8.0, len(wall))
    return np.concatenate([plane(5000, (-30, 40), (-9, 9), z), *walls, plane(1500, (5, 17), (4, 6), z + 2.0)])


def test_in_simulated_scenes_the_ground_is_found_within_15_cm_at_any_height_of_the_origin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scene, "GROUND_ERROR", 0.0)
    for seed in range(8):
        points = sample_scene(40 + seed, (-20.0, 20.0, -20.0, 20.0))[0].points[:, :3]
        height = RNG.choice((0.0, -1.73, 2.5, 300.0))
        found = level(points + np.array((0.0, 0.0, height)))
        assert found.z == pytest.approx(height, abs=0.15), seed
        assert found.support >= LEAST_SUPPORT, seed


def test_in_nearly_all_real_frames_the_ground_is_found_within_15_cm(real_data: Path) -> None:
    errors = []
    for file in sorted((real_data / "frames").glob("*.npz")):
        with np.load(file) as data:
            errors.append(level(data["points"]).z + DELIVERIES[file.stem.split("_")[0]].height)
    for file in sorted((real_data / "real").glob("*.npz")):
        with np.load(file) as data:
            errors.append(level(data["xyz_cm"] / 100.0).z)
    wrong = np.abs(errors)
    assert len(wrong) >= 60
    assert np.mean(wrong < 0.15) > 0.98
    assert wrong.max() < 0.25


@pytest.mark.parametrize("z", [0.0, -1.7])
def test_neither_roof_nor_missing_views_nor_reflections_nor_a_slope_hide_the_ground(z: float) -> None:
    whole = street(z)
    roof = plane(6000, (-8, 3), (-1.2, 1.2), z + 3.0)
    mirrored = whole[RNG.random(len(whole)) < 0.08]
    mirrored[:, 2] = z - RNG.uniform(0.3, 3.0, len(mirrored))
    sloped = whole.copy()
    sloped[:, 2] += 0.07 * sloped[:, 0] - 0.03 * sloped[:, 1]
    cases = {
        "roof": np.concatenate([whole, roof]),
        "front": whole[whole[:, 0] > 0],
        "left": whole[whole[:, 1] > 0],
        "sector": whole[np.abs(np.arctan2(whole[:, 1], whole[:, 0])) < 0.7],
        "reflections": np.concatenate([whole, mirrored]),
        "few points": whole[RNG.random(len(whole)) < 0.1],
        "slope": sloped,
    }
    assert {name: level(points).z for name, points in cases.items()} == pytest.approx(dict.fromkeys(cases, z), abs=0.1)


def test_what_has_no_plane_has_little_support_and_too_few_points_have_no_answer() -> None:
    assert level(RNG.uniform((-25, -25, 0), (25, 25, 8), (20_000, 3))).support < LEAST_SUPPORT
    assert ground_level(torch.zeros(0, 4)) is None
    assert ground_level(torch.full((1000, 4), float("nan"))) is None
    far = plane(5000, (30, 60), (-10, 10), 0.0)
    assert ground_level(torch.from_numpy(far).float()) is None
    one_place = np.tile([[5.0, 5.0, 1.0]], (5000, 1))
    assert ground_level(torch.from_numpy(one_place).float()) is None


def test_points_that_are_not_finite_do_not_count_and_their_order_hardly_does() -> None:
    points = street(-1.0)
    spoilt = np.concatenate([points, [[np.nan, 5, 0], [5, 5, np.inf], [5, -np.inf, 0]]])
    assert level(spoilt).z == pytest.approx(level(points).z, abs=0.02)
    assert level(RNG.permutation(points)).z == pytest.approx(level(points).z, abs=0.02)
    assert level(points) == level(points)


def test_ground_of_two_levels_side_by_side_still_has_a_height() -> None:
    """A chequerboard of 2 m cells 0.35 m apart: no cell lies near the plane between them."""
    spots = np.stack(np.meshgrid(np.arange(-25, 25, 0.2), np.arange(-25, 25, 0.2)), -1).reshape(-1, 2)
    upper = (np.floor(spots / 2).sum(1) % 2 == 0) * 0.35
    found = ground_level(torch.from_numpy(np.column_stack([spots, upper]).astype(np.float32)))
    assert found is None or np.isfinite(found.z)
