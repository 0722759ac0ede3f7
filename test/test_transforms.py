"""Transforms without tf2_ros: history, interpolation, what is refused; against plain NumPy."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
import types
from typing import Any

import numpy as np
import pytest
import torch
from geometry_msgs.msg import TransformStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp
from tf2_msgs.msg import TFMessage

from sbnet_perception.node.processor import move
from sbnet_perception.node.transform_history import TransformHistory
from sbnet_perception.node.transforms import (
    HeardTransforms,
    Tf2Transforms,
    TopicTransforms,
    TransformUnavailable,
    lookup_before,
    matrix_from_pose,
)

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


def test_a_sample_far_out_of_order_forgets_nothing() -> None:
    history = TransformHistory(10.0)
    for second in (0, 5, 6, 2, -20):
        history.add("map", "base_link", START + second * SECOND, along_x(second), False)
    for second in (0, 1, 2, 4, 5.5, 6):
        assert history.lookup("map", "base_link", START + int(second * SECOND))[0, 3] == pytest.approx(second)
    with pytest.raises(TransformUnavailable):
        history.lookup("map", "base_link", START - SECOND)


def test_a_frame_that_changes_its_parent_keeps_its_old_samples_as_in_tf2() -> None:
    history = TransformHistory(10.0)
    history.add("world", "map", 0, along_x(100.0), True)
    history.add("world", "odom", 0, along_x(200.0), True)
    for second, parent in ((0, "map"), (1, "map"), (2, "odom"), (3, "odom")):
        history.add(parent, "base_link", START + second * SECOND, along_x(second), False)
    for second, expected in ((0.5, 100.5), (1.0, 101.0), (1.5, 101.0), (2.0, 202.0), (2.5, 202.5)):
        found = history.lookup("world", "base_link", START + int(second * SECOND))
        assert found[0, 3] == pytest.approx(expected), second
    assert history.lookup("odom", "base_link", START + 3 * SECOND)[0, 3] == 3.0


def test_what_lies_above_the_common_frame_need_not_be_known_and_a_loop_ends() -> None:
    history = TransformHistory(10.0)
    history.add("map", "base_link", START, STILL, False)
    history.add("base_link", "front", 0, along_x(1.0), True)
    history.add("base_link", "rear", 0, along_x(-1.0), True)
    assert history.lookup("front", "rear", START + 60 * SECOND)[0, 3] == -2.0
    history.add("a", "b", START, STILL, False)
    history.add("b", "a", START, STILL, False)
    with pytest.raises(TransformUnavailable, match="loop"):
        history.lookup("map", "a", START)


def test_a_message_of_many_frames_costs_as_much_as_each_of_them() -> None:
    def seconds(frames: int) -> float:
        history, begin = TransformHistory(10.0), time.process_time()
        for step in range(3):
            for child in range(frames):
                history.add(f"f{child // 2}", f"f{child + 1}", START + step, STILL, False)
        history.lookup("f0", f"f{frames}", START)
        return time.process_time() - begin

    # Linear: 16 times as long. What grew with the cube would take 4096 times as long.
    assert seconds(3200) < 160 * max(seconds(200), 1e-3)


class Heard:
    """What `TopicTransforms` needs of a node; hears without DDS."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Any] = {}

    def create_subscription(self, kind: Any, topic: str, callback: Any, qos: Any) -> None:
        self.callbacks[topic] = callback

    def say(self, *samples: tuple[int, float], topic: str = "/tf", child: str = "base_link") -> None:
        """Samples of map -> child: stamp and metres along x."""
        message = TFMessage()
        for at, metres in samples:
            item = TransformStamped(child_frame_id=child)
            item.header.frame_id, item.transform.translation.x = "map", float(metres)
            item.header.stamp = Time(nanoseconds=at).to_msg()
            message.transforms.append(item)
        self.callbacks[topic](message)


class Tf2Core:
    """Stands for tf2_ros.BufferCore where that is not installed: takes nothing older than ten seconds."""

    def __init__(self, cache_time: Any) -> None:
        self.history = TransformHistory(cache_time.nanoseconds / 1e9)

    def set_transform(self, item: TransformStamped, authority: str, static: bool = False) -> None:
        move, turn = item.transform.translation, item.transform.rotation
        pose = (move.x, move.y, move.z, turn.w, turn.x, turn.y, turn.z)
        at = Time.from_msg(item.header.stamp).nanoseconds
        self.history.add(item.header.frame_id, item.child_frame_id, at, pose, static)

    def set_transform_static(self, item: TransformStamped, authority: str) -> None:
        self.set_transform(item, authority, static=True)

    def lookup_transform_core(self, target: str, source: str, at: Time) -> TransformStamped:
        found = TransformStamped()
        found.transform.translation.x = self.history.lookup(target, source, at.nanoseconds)[0, 3]
        return found

    def clear(self) -> None:
        self.history.clear()


@pytest.fixture(params=["own", "tf2_ros"])
def listening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Heard, HeardTransforms]:
    """Transforms of both kinds, heard from no network; tf2_ros is a stand-in."""
    names = ("LookupException", "ConnectivityException", "ExtrapolationException", "InvalidArgumentException")
    stand_in = types.SimpleNamespace(BufferCore=Tf2Core, **dict.fromkeys(names, TransformUnavailable))
    monkeypatch.setitem(sys.modules, "tf2_ros", stand_in)
    node = Heard()
    return node, (TopicTransforms if request.param == "own" else Tf2Transforms)(node)


@pytest.mark.parametrize("lap_s", [3, 100])
def test_the_first_cloud_after_a_jump_back_finds_the_transforms_that_came_before_it(
    listening: tuple[Heard, HeardTransforms], lap_s: int
) -> None:
    node, transforms = listening
    node.say((START, 7.0), topic="/tf_static", child="mast")
    for second in range(lap_s):
        node.say((START + second * SECOND, 50.0 + second))
    # The bag begins anew: these come before the first cloud that tells it.
    node.say((START, 1.0))
    node.say((START + SECOND // 10, 2.0))
    transforms.time_began(START + SECOND // 20)
    assert transforms.lookup("map", "base_link", START + SECOND // 20)[0, 3] == pytest.approx(1.5)
    with pytest.raises(TransformUnavailable):
        transforms.lookup("map", "base_link", START + 2 * SECOND)
    assert transforms.lookup("map", "mast", START)[0, 3] == 7.0
    # Again, before any transform of the new lap came.
    node.say((START + 30 * SECOND, 9.0))
    transforms.time_began(START)
    with pytest.raises(TransformUnavailable):
        transforms.lookup("map", "base_link", START)


@pytest.mark.parametrize(
    ("parent", "child", "pose"),
    [
        ("", "a", STILL),
        ("a", "a", STILL),
        ("a", "b", (float("nan"), *STILL[1:])),
        ("a", "b", (float("inf"), *STILL[1:])),
        ("a", "b", (0.0,) * 7),
        ("a", "b", (0.0, 0.0, 0.0, float("nan"), 0.0, 0.0, 0.0)),
        ("a", "b", (0.0, 0.0, 0.0, 1.01, 0.0, 0.0, 0.0)),
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
        self.changed, self.waiting = threading.Condition(), False
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


@pytest.mark.skipif(importlib.util.find_spec("tf2_ros") is None, reason="tf2_ros is not installed on this machine")
def test_the_listener_agrees_with_tf2_wherever_tf2_is_installed() -> None:
    import tf2_ros

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
