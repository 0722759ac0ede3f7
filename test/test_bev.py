"""Grid, planar poses and ground."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev import ground as ground_module
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.se2 import SE2


def height_above_ground(points: np.ndarray) -> np.ndarray:
    return ground_module.height_above_ground(torch.from_numpy(points)).numpy()


GRIDS = st.builds(
    lambda x, y, w, h, resolution: Grid(x, x + w * resolution, y, y + h * resolution, resolution),
    st.floats(-50, 50),
    st.floats(-50, 50),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([0.05, 0.1, 0.2, 0.3, 1.0]),
)
POSES = st.builds(SE2, st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-10, 10))
POINTS = st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=1, max_size=20)


def test_the_named_grids_have_the_sizes_of_the_design() -> None:
    assert Grid.named("compact").shape == (200, 352)
    assert Grid.named("paper").shape == (800, 1408)
    with pytest.raises(ValueError, match=r"compact.*paper.*'tiny'"):
        Grid.named("tiny")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((0, 10, 0, 10, 0.0), "resolution must be positive"),
        ((0, 10, 0, 10, math.nan), "resolution must be finite"),
        ((0, math.inf, 0, 10, 0.1), "x_max must be finite"),
        ((10, 0, 0, 10, 0.1), r"x range \[10, 0\)"),
        ((0, 10, 0, 10.05, 0.1), "y range .* whole number of cells"),
    ],
)
def test_an_impossible_grid_is_refused_by_name(values: tuple[float, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Grid(*values)


@pytest.mark.fault(10)
@settings(max_examples=150, deadline=None)
@given(GRIDS, st.sampled_from([np.float32, np.float64]))
def test_points_on_and_next_to_every_edge_never_leave_the_raster(grid: Grid, dtype: type) -> None:
    edges_x = np.array([grid.x_min, grid.x_max], dtype=dtype)
    edges_y = np.array([grid.y_min, grid.y_max], dtype=dtype)
    near = [
        np.concatenate([edges, np.nextafter(edges, dtype(-np.inf)), np.nextafter(edges, dtype(np.inf))])
        for edges in (edges_x, edges_y)
    ]
    points = np.stack(np.meshgrid(*near), axis=-1).reshape(-1, 2)
    row, col, inside = grid.cells(points)
    assert len(row) == len(col) == inside.sum()
    assert ((row >= 0) & (row < grid.height) & (col >= 0) & (col < grid.width)).all()
    # The upper edges themselves, in the points' own precision, are outside.
    assert not inside[(points[:, 0] == dtype(grid.x_max)) | (points[:, 1] == dtype(grid.y_max))].any()


@settings(max_examples=100, deadline=None)
@given(GRIDS, st.data())
def test_a_point_lies_in_the_cell_it_is_given(grid: Grid, data: st.DataObject) -> None:
    share = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
    u, v = data.draw(share)
    point = np.array(
        [[grid.x_min + u * (grid.x_max - grid.x_min), grid.y_min + v * (grid.y_max - grid.y_min)]]
    )
    row, col, inside = grid.cells(point)
    for r, c, (x, y) in zip(row, col, point[inside], strict=True):
        assert abs(x - grid.x_centres[c]) <= grid.resolution * (0.5 + 1e-6)
        assert abs(y - grid.y_centres[r]) <= grid.resolution * (0.5 + 1e-6)


def test_points_that_are_not_finite_are_outside() -> None:
    points = np.array([[np.nan, 0], [1, np.nan], [np.inf, 0], [1, -np.inf], [1, 1]], dtype=np.float32)
    _, _, inside = Grid.named("compact").cells(points)
    assert inside.tolist() == [False, False, False, False, True]


@settings(deadline=None)
@given(POSES, POSES, POSES, POINTS)
def test_poses_form_a_group_that_acts_on_points(
    a: SE2, b: SE2, c: SE2, points: list[tuple[float, float]]
) -> None:
    xy = np.array(points)
    np.testing.assert_allclose((a @ b).apply(xy), a.apply(b.apply(xy)), atol=1e-9)
    np.testing.assert_allclose(((a @ b) @ c).apply(xy), (a @ (b @ c)).apply(xy), atol=1e-9)
    np.testing.assert_allclose((a @ a.inverse()).apply(xy), xy, atol=1e-9)
    np.testing.assert_allclose((a.inverse() @ a).apply(xy), xy, atol=1e-9)
    np.testing.assert_allclose((a @ SE2()).apply(xy), a.apply(xy), atol=1e-9)


@settings(deadline=None)
@given(POSES, POSES)
def test_planar_poses_compose_as_their_matrices_do(a: SE2, b: SE2) -> None:
    np.testing.assert_allclose((a @ b).matrix(), a.matrix() @ b.matrix(), atol=1e-9)
    np.testing.assert_allclose(SE2.from_matrix(a.matrix()).matrix(), a.matrix(), atol=1e-12)


@given(st.floats(-3, 3), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_a_tilted_pose_keeps_the_heading_of_its_x_axis(yaw: float, pitch: float, roll: float) -> None:
    cy, sy, cp, sp, cr, sr = *_cs(yaw), *_cs(pitch), *_cs(roll)
    rz = np.array([(cy, -sy, 0), (sy, cy, 0), (0, 0, 1)])
    ry = np.array([(cp, 0, sp), (0, 1, 0), (-sp, 0, cp)])
    rx = np.array([(1, 0, 0), (0, cr, -sr), (0, sr, cr)])
    matrix = np.eye(4)
    matrix[:3, :3] = rz @ ry @ rx
    matrix[:3, 3] = 4, 5, 6
    pose = SE2.from_matrix(matrix)
    assert (pose.x, pose.y) == (4, 5)
    assert pose.yaw == pytest.approx(yaw, abs=1e-9)


def _cs(angle: float) -> tuple[float, float]:
    return math.cos(angle), math.sin(angle)


def test_poses_that_are_not_finite_or_have_no_heading_are_refused() -> None:
    with pytest.raises(ValueError, match="yaw must be finite"):
        SE2(0, 0, math.nan)
    with pytest.raises(ValueError, match=r"finite \[4, 4\]"):
        SE2.from_matrix(np.full((4, 4), np.nan))
    upright = np.eye(4)[[2, 1, 0, 3]]
    with pytest.raises(ValueError, match="x axis is vertical"):
        SE2.from_matrix(upright)


def _plane(rng: np.random.Generator, slope: float, level: float) -> np.ndarray:
    """A dense road surface with 1 % of its points reflected 2 m under it."""
    points = np.column_stack([rng.uniform((0, -20), (70, 20), (40000, 2)), np.zeros(40000), np.zeros(40000)])
    points[:, 2] = level + slope * points[:, 0] + rng.normal(0, 0.02, 40000)
    points[rng.random(40000) < 0.01, 2] -= 2.0
    return points.astype(np.float32)


@pytest.mark.parametrize("level", [-1.73, 0.0, 12.0])
@pytest.mark.parametrize("slope", [0.0, 0.06, -0.06])
def test_height_is_above_the_local_ground_whatever_its_level_slope_and_reflections(
    level: float, slope: float
) -> None:
    rng = np.random.default_rng(0)
    ground = _plane(rng, slope, level)
    car = np.array([[20, 3, level + slope * 20 + 1.5, 0]], dtype=np.float32) + rng.uniform(
        (-2, -0.8, -0.2, 0), (2, 0.8, 0.2, 0), (500, 4)
    ).astype(np.float32)
    height = height_above_ground(np.concatenate([ground, car]))
    above = height[:40000][ground[:, 2] > level + slope * ground[:, 0] - 0.5]
    assert height.dtype == np.float32
    assert (above > 0.35).mean() < 0.03
    assert np.abs(above.mean()) < 0.2
    assert (np.abs(height[40000:] - 1.5) < 0.45).all()


def test_a_cell_that_holds_only_a_roof_takes_its_ground_from_its_neighbours() -> None:
    rng = np.random.default_rng(1)
    ground = _plane(rng, 0.0, 0.0)
    in_cell = (np.abs(ground[:, 0] - 22) < 2) & (np.abs(ground[:, 1] - 2) < 2)
    roof = ground[in_cell] + np.array([0, 0, 3, 0], dtype=np.float32)
    height = height_above_ground(np.concatenate([ground[~in_cell], roof]))
    assert np.median(height[-len(roof) :]) == pytest.approx(3.0, abs=0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_any_cloud_has_finite_heights_and_its_order_does_not_matter(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = (rng.normal(size=(count, 4)) * 10.0 ** rng.integers(-2, 6, (count, 4))).astype(np.float32)
    height = height_above_ground(points)
    assert height.shape == (count,)
    assert np.isfinite(height).all()
    order = rng.permutation(count)
    np.testing.assert_array_equal(height_above_ground(points[order]), height[order])


def test_a_point_that_is_not_finite_has_no_height_and_harms_no_other() -> None:
    points = _plane(np.random.default_rng(2), 0.0, 0.0)
    expected = height_above_ground(points[3:])
    points[:3] = [[np.nan, 1, 1, 0], [1, np.inf, 1, 0], [1, 1, -np.inf, 0]]
    height = height_above_ground(points)
    assert np.isnan(height[:3]).all()
    np.testing.assert_array_equal(height[3:], expected)
