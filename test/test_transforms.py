"""Transforms without tf2_ros: history, interpolation, what is refused; against plain NumPy."""

from __future__ import annotations

import importlib.util
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from sbnet_perception.node.processor import move
from sbnet_perception.node.transform_history import TransformHistory
from sbnet_perception.node.transforms import TransformUnavailable, lookup_before, matrix_from_pose

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
STILL = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


def random_pose(rng: np.random.Generator) -> tuple[float, ...]:
    turn = rng.normal(size=4)
    return (*rng.uniform(-50, 50, 3), *(turn / np.linalg.norm(turn)))


def along_x(metres: float) -> tuple[float, ...]:
    return (metres, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), frames=st.integers(2, 6))
def test_a_lookup_through_any_tree_is_the_product_of_its_edges(seed: int, frames: int) -> None:
    rng = np.random.default_rng(seed)
    history = TransformHistory(10.0)
    root_from = [np.eye(4)]
    for child in range(1, frames):
        parent = int(rng.integers(child))
        pose = random_pose(rng)
        static = bool(rng.integers(2))
        # A static transform holds at any time, whatever its stamp.
        history.add(f"f{parent}", f"f{child}", 0 if static else START, pose, static)
        quaternion = Rotation.from_quat([*pose[4:], pose[3]]).as_matrix()
        edge = np.eye(4)
        edge[:3, :3], edge[:3, 3] = quaternion, pose[:3]
        root_from.append(root_from[parent] @ edge)
    for target in range(frames):
        for source in range(frames):
            if target != source:
                expected = np.linalg.inv(root_from[target]) @ root_from[source]
                found = history.lookup(f"f{target}", f"f{source}", START)
                assert found.dtype == np.float64
                np.testing.assert_allclose(found, expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.0, 1.0))
def test_between_two_samples_position_is_linear_and_rotation_spherical(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = random_pose(rng), random_pose(rng)
    history = TransformHistory(10.0)
    history.add("map", "base_link", START, first, False)
    history.add("map", "base_link", START + SECOND // 10, second, False)
    at = START + round(share * (SECOND // 10))
    found = history.lookup("map", "base_link", at)
    exact = (at - START) / (SECOND // 10)
    np.testing.assert_allclose(
        found[:3, 3], (1 - exact) * np.array(first[:3]) + exact * np.array(second[:3]), atol=1e-9
    )
    turns = Rotation.from_quat([[*first[4:], first[3]], [*second[4:], second[3]]])
    np.testing.assert_allclose(found[:3, :3], Slerp([0, 1], turns)(exact).as_matrix(), atol=1e-6)


def test_nothing_is_extrapolated_and_an_unknown_frame_is_never_identity() -> None:
    history = TransformHistory(10.0)
    history.add("map", "base_link", START, STILL, False)
    history.add("map", "base_link", START + SECOND, along_x(1.0), False)
    history.add("other", "camera", 0, STILL, True)
    for stamp in (START - 1, START + SECOND + 1):
        with pytest.raises(TransformUnavailable, match="map <- base_link"):
            history.lookup("map", "base_link", stamp)
    with pytest.raises(TransformUnavailable, match="'lidar' was never heard of"):
        history.lookup("map", "lidar", START)
    with pytest.raises(TransformUnavailable, match="not connected"):
        history.lookup("map", "camera", START)


def test_samples_older_than_ten_seconds_are_forgotten_and_late_ones_sorted_in() -> None:
    history = TransformHistory(10.0)
    for tenth in (0, 2, 1, *range(3, 151)):
        history.add("map", "base_link", START + tenth * SECOND // 10, along_x(tenth / 10), False)
    assert history.lookup("map", "base_link", START + 6 * SECOND)[0, 3] == pytest.approx(6.0)
    with pytest.raises(TransformUnavailable):
        history.lookup("map", "base_link", START + 4 * SECOND)
    fresh = TransformHistory(10.0)
    for tenth in (0, 2, 1):
        fresh.add("map", "base_link", START + tenth * SECOND // 10, along_x(tenth**2), False)
    assert fresh.lookup("map", "base_link", START + SECOND // 20)[0, 3] == pytest.approx(0.5)


def test_when_a_bag_begins_anew_the_old_lap_is_forgotten_and_static_transforms_stay() -> None:
    history = TransformHistory(10.0)
    history.add("base_link", "lidar", 0, along_x(2.0), True)
    history.add("map", "base_link", START + 5 * SECOND, along_x(50.0), False)
    history.add("map", "base_link", START, STILL, False)
    np.testing.assert_allclose(history.lookup("map", "lidar", START)[0, 3], 2.0)
    with pytest.raises(TransformUnavailable):
        history.lookup("map", "base_link", START + 5 * SECOND)
    # Told by the clouds before any new transform came: what lies ahead is forgotten, what is fresh stays.
    history.time_jumped_back(START - SECOND // 2)
    assert history.lookup("map", "base_link", START)[0, 3] == 0.0
    history.time_jumped_back(START - 5 * SECOND)
    with pytest.raises(TransformUnavailable, match="since time was reset"):
        history.lookup("map", "base_link", START)


def test_the_slash_that_ros_1_wrote_before_a_frame_is_left_out() -> None:
    history = TransformHistory(10.0)
    history.add("/map", "/base_link", START, along_x(1.0), False)
    assert history.lookup("map", "base_link", START)[0, 3] == 1.0


def test_a_new_parent_replaces_the_old_one() -> None:
    history = TransformHistory(10.0)
    history.add("map", "base_link", START, along_x(1.0), False)
    history.add("odom", "base_link", START, along_x(2.0), False)
    assert history.lookup("odom", "base_link", START)[0, 3] == 2.0
    with pytest.raises(TransformUnavailable):
        history.lookup("map", "base_link", START)


@pytest.mark.parametrize(
    ("parent", "child", "pose"),
    [
        ("", "a", STILL),
        ("a", "a", STILL),
        ("a", "b", (float("nan"), *STILL[1:])),
        ("a", "b", (0.0,) * 7),
    ],
)
def test_a_transform_that_is_none_is_refused(parent: str, child: str, pose: tuple[float, ...]) -> None:
    history = TransformHistory(10.0)
    with pytest.raises(ValueError, match="frames"):
        history.add(parent, child, START, pose, False)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), axes=st.sampled_from(["", "z", "xyz"]))
def test_points_are_moved_in_place_as_a_matrix_product_moves_them(seed: int, axes: str) -> None:
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    if axes:
        matrix[:3, :3] = Rotation.from_euler(axes, rng.uniform(-180, 180, len(axes)), degrees=True).as_matrix()
    matrix[:3, 3] = rng.uniform(-10, 10, 3)
    before = rng.uniform(-70, 70, (50, 4)).astype(np.float32)
    points = torch.from_numpy(before.copy())
    move(points, matrix)
    expected = np.c_[before[:, :3] @ matrix[:3, :3].T + matrix[:3, 3], before[:, 3]]
    np.testing.assert_allclose(points.numpy(), expected, atol=1e-4)


class Late:
    """Transforms that arrive some time after they are asked for."""

    def __init__(self, seconds: float) -> None:
        self.changed = threading.Condition()
        self._since = time.monotonic() + seconds

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        if time.monotonic() < self._since:
            raise TransformUnavailable("not yet")
        return matrix_from_pose(along_x(3.0))


def test_a_late_transform_is_waited_for_until_the_deadline_or_the_end() -> None:
    stop = threading.Event()
    found = lookup_before(Late(0.1), "map", "base_link", START, time.monotonic() + 60.0, stop)
    assert found[0, 3] == 3.0
    begin = time.monotonic()
    with pytest.raises(TransformUnavailable):
        lookup_before(Late(60.0), "map", "base_link", START, begin + 0.1, stop)
    assert 0.1 <= time.monotonic() - begin < 50.0
    stop.set()
    with pytest.raises(TransformUnavailable):
        lookup_before(Late(60.0), "map", "base_link", START, time.monotonic() + 60.0, stop)
    np.testing.assert_array_equal(lookup_before(Late(60.0), "lidar", "lidar", START, 0.0, stop), np.eye(4))


@pytest.mark.skipif(
    importlib.util.find_spec("tf2_ros") is None, reason="tf2_ros is not installed on this machine"
)
def test_the_listener_agrees_with_tf2_wherever_tf2_is_installed() -> None:
    import tf2_ros
    from geometry_msgs.msg import TransformStamped
    from rclpy.time import Time

    from sbnet_perception.node.transforms import matrix

    rng = np.random.default_rng(3)
    buffer, history = tf2_ros.BufferCore(), TransformHistory(10.0)
    for parent, child, static in (("map", "odom", False), ("odom", "base", False), ("base", "lidar", True)):
        for step in range(1 if static else 20):
            pose, at = random_pose(rng), START + step * SECOND // 10
            history.add(parent, child, at, pose, static)
            msg = TransformStamped(child_frame_id=child)
            msg.header.frame_id = parent
            msg.header.stamp = Time(nanoseconds=at).to_msg()
            move, turn = msg.transform.translation, msg.transform.rotation
            move.x, move.y, move.z, turn.w, turn.x, turn.y, turn.z = pose
            (buffer.set_transform_static if static else buffer.set_transform)(msg, "test")
    for at in START + rng.integers(0, 19 * SECOND // 10, 50):
        reference = buffer.lookup_transform_core("map", "lidar", Time(nanoseconds=int(at))).transform
        np.testing.assert_allclose(history.lookup("map", "lidar", int(at)), matrix(reference), atol=1e-6)
