"""Clouds on their way to the detector, without ROS: order, jumps of time, several LiDARs as one, what was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.boxes import Detections
from sbnet_perception.messages.cdr import Header, Stamp
from sbnet_perception.messages.raw_cloud import Field, RawCloud
from sbnet_perception.node.clocks import clock_remark
from sbnet_perception.node.frame_names import MOST_KEYS, FrameNames, PerSource
from sbnet_perception.node.gate import Gate
from sbnet_perception.node.losses import Losses
from sbnet_perception.node.merge import PATIENCE, SILENT, Arrived, Frame, Merge
from sbnet_perception.node.parameters import NodeConfig
from sbnet_perception.node.processor import Processor
from sbnet_perception.node.status import Dropped, NotProcessed, Rejected
from sbnet_perception.node.transforms import TransformUnavailable, lookup_before, matrix_from_pose

MS = 1_000_000
START = 1_700_000_000_000 * MS


def header(ms: float, frame_id: str = "lidar") -> Header:
    ns = START + round(ms * MS)
    return Header(Stamp(ns // 10**9, ns % 10**9), frame_id)


def raw_cloud(ms: float, frame_id: str = "lidar", points: np.ndarray | None = None) -> RawCloud:
    """points: float32 [P, 4]."""
    points = np.zeros((0, 4), np.float32) if points is None else points
    fields = tuple(Field(name, 4 * i, 7, 1) for i, name in enumerate(("x", "y", "z", "intensity")))
    data = memoryview(points.tobytes())
    return RawCloud(header(ms, frame_id), 1, len(points), fields, False, 16, 16 * len(points), data, True)


def arrived(topic: str, ms: float, at_ms: float | None = None, **cloud: Any) -> Arrived:
    """A cloud; it comes at the time of its stamp by default."""
    return Arrived(raw_cloud(ms, **cloud), (ms if at_ms is None else at_ms) / 1e3, topic)


# Order and jumps of time -------------------------------------------------------------------------------


def outcomes(gate: Gate, clouds: list[tuple[str, float]]) -> list[str]:
    """What becomes of clouds (source, milliseconds): "", the reason of a drop, or "jump"."""
    found = []
    for source, ms in clouds:
        try:
            found.append("jump" if gate.check(header(ms), source) else "")
        except Dropped as error:
            found.append(error.reason)
    return found


def test_two_lidars_are_each_kept_in_order_whatever_the_others_stamps() -> None:
    gate = Gate()
    drive = [cloud for k in range(20) for cloud in (("a", 100.0 * k), ("b", 100.0 * k - 30), ("c", 100.0 * k))]
    assert outcomes(gate, drive) == [""] * 60
    assert outcomes(gate, [("a", 1900), ("b", 1700)]) == ["duplicate stamp", "out of order"]
    assert gate.era == 0


@pytest.mark.parametrize("jump_ms", [-60_000, 3_600_000])
def test_a_jump_of_time_is_recognised_once_however_many_lidars_make_it(jump_ms: float) -> None:
    gate = Gate()
    lap = [cloud for k in range(20) for cloud in (("a", 100.0 * k), ("b", 100.0 * k + 50))]
    assert outcomes(gate, lap) == [""] * 40
    # One of the clouds from before comes after the first from behind the jump.
    late, rest = ("b", 2050.0), [(name, ms + jump_ms) for name, ms in lap]
    assert outcomes(gate, [rest[0], late, *rest[1:]]) == ["jump", *[""] * 40]
    again = [(name, ms + 2 * jump_ms) for name, ms in lap]
    assert outcomes(gate, again) == ["jump", *[""] * 39]
    assert gate.era == 2


def test_two_clocks_on_one_topic_make_one_jump_and_a_single_wrong_stamp_is_survived() -> None:
    gate, hour = Gate(), 3_600_000.0
    two = [("a", 100.0 * k + hour * (k % 2)) for k in range(40)]
    found = outcomes(gate, two)
    assert found.count("jump") == 1
    assert found.count("stamp of another clock") == 19
    gate = Gate()
    wrong = [("a", 100.0 * k + (hour if k == 20 else 0)) for k in range(40)]
    found = outcomes(gate, wrong)
    assert found.count("jump") == 2
    assert found[25:] == [""] * 15


def test_a_clock_that_jumps_back_tells_it_before_the_clouds_and_they_do_not_tell_it_again() -> None:
    gate = Gate()
    outcomes(gate, [("a", 60_000), ("b", 60_050)])
    assert not gate.clock_is(START + 60_000 * MS)
    assert gate.clock_is(START)
    assert not gate.clock_is(START)
    assert outcomes(gate, [("a", 0), ("b", 50), ("a", 100), ("b", 150)]) == [""] * 4
    assert gate.era == 1


# Several LiDARs become one -----------------------------------------------------------------------------


def gathered(merge: Merge, clouds: list[Arrived]) -> Iterator[tuple[dict[str, float], set[str]]]:
    """Frames as the node gathers them: stamps (ms) by topic, and missing topics; late clouds raise."""

    def shape(frame: Frame) -> tuple[dict[str, float], set[str]]:
        return {cloud.topic: (cloud.stamp_ns - START) / MS for cloud in frame.clouds}, set(frame.missing)

    for cloud in sorted(clouds, key=lambda cloud: cloud.at):
        if merge.due is not None and merge.due < cloud.at:
            yield shape(merge.close())
        yield from map(shape, merge.put(cloud))


def test_with_one_topic_each_cloud_is_a_frame_at_once() -> None:
    merge = Merge(("points",), 0.05)
    for k in range(5):
        cloud = arrived("points", 10.0 * k, frame_id=f"lidar_{k % 2}")
        (frame,) = merge.put(cloud, era=7)
        assert (frame.clouds, dict(frame.missing), frame.era, merge.due) == ((cloud,), {}, 7, None)


@settings(max_examples=25, deadline=None)
@given(
    offsets=st.lists(st.floats(0.0, 49.0), min_size=2, max_size=4),
    delays=st.lists(st.floats(0.0, 40.0), min_size=4, max_size=4),
)
def test_clouds_within_the_window_become_one_frame_in_the_order_of_topics(
    offsets: list[float], delays: list[float]
) -> None:
    topics = tuple(f"l{i}" for i in range(len(offsets)))
    clouds = [
        arrived(topic, 200 * k + offset, 200 * k + offset + delay)
        for k in range(6)
        for topic, offset, delay in zip(topics, offsets, delays, strict=False)
    ]
    frames = list(gathered(Merge(topics, 0.05), clouds))
    assert len(frames) == 6
    for k, (stamps, missing) in enumerate(frames):
        assert not missing
        assert list(stamps) == list(topics)
        assert list(stamps.values()) == pytest.approx([200 * k + offset for offset in offsets], abs=1e-3)


def test_lidars_that_are_not_synchronised_lose_nothing_once_they_have_met() -> None:
    for offset in range(0, 100, 7):
        clouds = [arrived("a", 100.0 * k, 100 * k + 5) for k in range(20)]
        clouds += [arrived("b", 100.0 * k + offset, 100 * k + offset + 25) for k in range(20)]
        frames = list(gathered(Merge(("a", "b"), 0.05), clouds))
        assert all(not missing for _, missing in frames[1:-1]), offset
        assert sum(len(stamps) for stamps, _ in frames) >= 39


def test_a_missing_lidar_is_reported_with_the_reason_and_after_a_while_not_waited_for() -> None:
    merge = Merge(("a", "b"), 0.05)
    assert list(gathered(merge, [arrived("a", 0), arrived("b", 10)])) == [({"a": 0, "b": 10}, set())]
    for k in range(1, SILENT + 1):
        assert merge.put(arrived("a", 100.0 * k)) == []
        assert merge.due == pytest.approx(0.1 * k + PATIENCE * 0.05)
        frame = merge.close()
        assert len(frame.clouds) == 1
        assert (
            f"no cloud of b within merge_window 0.05 s: the stamp of its last one lies -{0.1 * k - 0.01:.3f} s"
            in (frame.missing["b"])
        )
    (alone,) = merge.put(arrived("a", 800))
    assert set(alone.missing) == {"b"}
    # It is back: waited for again.
    assert merge.put(arrived("b", 900)) == []
    ((frame),) = merge.put(arrived("a", 905))
    assert not frame.missing
    assert frame.stamp == header(900).stamp, "the stamp of the oldest"


def test_a_cloud_that_comes_after_its_frame_has_gone_is_dropped_and_leaves_the_next_frame_alone() -> None:
    merge = Merge(("a", "b"), 0.05)
    merge.put(arrived("a", 0))
    merge.close()
    merge.put(arrived("a", 100))
    with pytest.raises(Dropped, match="too late to be merged"):
        merge.put(arrived("b", 5, at_ms=110))
    (frame,) = merge.put(arrived("b", 105))
    assert [cloud.topic for cloud in frame.clouds] == ["a", "b"]
    assert merge.put(arrived("a", 200)) == []
    assert merge.clear() == 1
    assert merge.due is None


def test_lidars_of_two_clocks_are_both_answered_and_the_difference_is_told() -> None:
    merge = Merge(("a", "b"), 0.05)
    clouds = [arrived("a", 100.0 * k) for k in range(10)]
    clouds += [arrived("b", 100.0 * k - 3_600_000, 100 * k + 20) for k in range(10)]
    frames = [frame for cloud in sorted(clouds, key=lambda cloud: cloud.at) for frame in merge.put(cloud)]
    assert {cloud.topic for frame in frames for cloud in frame.clouds} == {"a", "b"}
    assert all(len(frame.clouds) == 1 for frame in frames)
    assert "lies -3600.0" in frames[2].missing["b"]


# From clouds to the detector ---------------------------------------------------------------------------


class Fixed:
    """Transforms to base_link along x by frame; others are not known."""

    def __init__(self, **metres: float) -> None:
        self.changed, self.waiting = threading.Condition(), False
        self._metres = metres
        self.asked: list[tuple[str, int]] = []
        self.began: list[int] = []

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        self.asked.append((source, stamp_ns))
        if source not in self._metres:
            raise TransformUnavailable(f"{target} <- {source}: never heard of")
        return matrix_from_pose((self._metres[source], 0.0, 0.0, 1.0, 0.0, 0.0, 0.0))

    def time_began(self, now_ns: int) -> None:
        self.began.append(now_ns)


class Bench:
    """A processor whose detector only keeps the points that it is given."""

    def __init__(self, transforms: Fixed, now_ms: float = 0.0, max_points: int = 1000, **config: Any) -> None:
        self.points: list[np.ndarray] = []
        self.refused: list[tuple[NotProcessed, str]] = []
        config_ = SimpleNamespace(mask=SimpleNamespace(names=()), max_points=max_points)
        about = {"device": torch.device("cpu"), "grid": Grid.named("compact"), "config": config_, "remark": ""}
        self.pipeline: Any = type("Detector", (), {"__call__": self._detect, **about})()
        settings = NodeConfig(**{"tf_timeout": 0.0, "ground_z": 0.0, **config})
        self.processor = Processor(
            settings,
            self.pipeline,
            transforms,
            {},
            lambda: START + round(now_ms * MS),
            lambda error, frame_id: self.refused.append((error, frame_id)),
        )

    def _detect(self, points: torch.Tensor) -> Any:
        self.points.append(points.numpy().copy())
        empty = {"detections": Detections.empty(), "dense": False, "sparsity": {}, "timings_ms": {}}
        return SimpleNamespace(points_in_range=len(points), times_computed=1, **empty)

    def __call__(self, *clouds: Arrived, era: int = 0) -> Any:
        return self.processor(Frame(clouds, era=era), threading.Event())


def row(x: float, intensity: float, count: int = 200) -> np.ndarray:
    return np.tile(np.array([[x, 0, 1, intensity]], np.float32), (count, 1))


def test_clouds_of_a_frame_are_moved_by_their_own_transforms_and_scaled_by_their_own_intensities() -> None:
    transforms = Fixed(front=2.0, rear=-3.0)
    bench = Bench(transforms, grid_frame="/base_link")
    bright = np.concatenate([row(10, 255), row(10, 51)])
    dim = np.concatenate([row(20, 1.0), row(20, 0.25)])
    done = bench(
        arrived("/f", 0, at_ms=0, frame_id="front", points=bright),
        arrived("/r", 40, at_ms=0, frame_id="rear", points=dim),
    )
    (points,) = bench.points
    assert sorted(set(map(tuple, points.astype(float).round(4).tolist()))) == sorted(
        [(12.0, 0.0, 1.0, 1.0), (12.0, 0.0, 1.0, 0.2), (17.0, 0.0, 1.0, 1.0), (17.0, 0.0, 1.0, 0.25)]
    )
    assert transforms.asked == [("front", START), ("rear", START + 40 * MS)]
    assert (done.frame_id, done.facts.clouds, done.stamp) == ("base_link", 2, header(0).stamp)
    assert dict(done.facts.scales) == {"/f": 255.0, "/r": 1.0}


def test_weights_that_do_not_know_their_mask_are_told_with_each_answer() -> None:
    bench = Bench(Fixed(front=0.0), grid_frame="front")
    bench.pipeline.remark = "weights own were not trained under the mask 'everywhere'"
    assert bench(arrived("/f", 0, frame_id="front")).facts.warnings[-1] == bench.pipeline.remark


def test_a_cloud_that_cannot_be_used_is_refused_and_the_rest_of_its_frame_is_answered() -> None:
    bench = Bench(Fixed(front=0.0), grid_frame="base_link", max_points=100)
    done = bench(
        arrived("/f", 0, frame_id="front", points=row(1, 9)), arrived("/r", 0, frame_id="rear", points=row(1, 9))
    )
    ((error, frame_id),) = bench.refused
    assert (error.reason, frame_id) == ("no transform", "rear")
    assert done.facts.missing == {"/r": "the cloud of /r cannot be used: no transform"}
    assert done.facts.points == 50, "two clouds are no larger than max_points together"
    assert bench(arrived("/r", 100, frame_id="rear")) is None
    assert len(bench.refused) == 2


def test_clouds_of_several_frames_need_a_grid_frame_and_one_frame_does_not() -> None:
    bench = Bench(Fixed())
    assert bench(arrived("/f", 0, frame_id="front"), arrived("/r", 0, frame_id="rear")) is None
    error = bench.refused[0][0]
    assert len(bench.refused) == 2
    assert isinstance(error, Rejected)
    assert "(/f in 'front', /r in 'rear'): set grid_frame" in str(error)
    assert bench(arrived("/f", 100, frame_id="front"), arrived("/r", 100, frame_id="front")).frame_id == "front"


def test_what_was_learnt_of_lidars_that_take_turns_stays_until_time_begins_anew() -> None:
    transforms, rng = Fixed(), np.random.default_rng(0)
    bench = Bench(transforms, ground_z="auto")
    flat = {z: np.c_[rng.uniform(-25, 25, (8000, 2)), np.full(8000, z), np.full(8000, 100.0)] for z in (-1.7, -0.7)}
    clouds = {z: points.astype(np.float32) for z, points in flat.items()}
    for k in range(3):
        done = bench(arrived("points", 100.0 * k, frame_id="high", points=clouds[-1.7]))
        low = bench(arrived("points", 100.0 * k - 60_000, frame_id="low", points=clouds[-0.7]))
        assert (done.ground_z, low.ground_z) == pytest.approx((-1.7, -0.7), abs=0.02)
        assert any("the ground lies" in news for news in done.facts.news) == (k == 0)
    assert transforms.began == []
    assert bench(arrived("points", 0, frame_id="high", points=clouds[-1.7]), era=1).facts.news
    assert transforms.began == [START]


def test_a_transform_that_is_missing_for_a_stamp_far_from_the_clock_names_the_difference() -> None:
    for off_ms, said in ((-3_600_000, "3600.0 s behind the node's clock"), (3_600_000, "3600.0 s ahead of")):
        bench = Bench(Fixed(), now_ms=-off_ms, grid_frame="base_link")
        assert bench(arrived("points", 0)) is None
        assert said in str(bench.refused[0][0])
    bench = Bench(Fixed(), grid_frame="base_link")
    bench(arrived("points", 0))
    assert "clock" not in str(bench.refused[0][0])
    assert clock_remark(START, START + 900 * MS) == ""


# Names and losses --------------------------------------------------------------------------------------


def test_a_slash_before_a_frame_is_left_out_and_told_once() -> None:
    said: list[str] = []
    names = FrameNames(said.append)
    assert [names(name) for name in ("/lidar", "lidar", "/lidar", "//map", "/a/b", "/")] == [
        "lidar", "lidar", "lidar", "map", "a/b", "",
    ]  # fmt: skip
    assert [line.split()[1] for line in said] == ["'/lidar'", "'//map'", "'/a/b'", "'/'"]


def test_sources_without_end_take_no_memory_without_end() -> None:
    kept = PerSource(lambda source: [source])
    for number in range(10 * MOST_KEYS):
        assert kept[number] is kept[number]
        kept["a LiDAR"].append(number)
    assert len(list(kept)) == MOST_KEYS
    assert len(kept["a LiDAR"]) == 10 * MOST_KEYS + 1


def info(number: int, publisher: int = 0) -> dict[str, Any]:
    return {"publication_sequence_number": number, "publisher_gid": {"data": bytes([publisher] * 16)}}


def test_what_dds_lost_is_counted_by_the_numbers_of_each_publisher() -> None:
    losses = Losses()
    heard = [(1, 0), (2, 0), (100, 1), (3, 0), (101, 1), (7, 0), (8, 0), (105, 1)]
    assert [losses.numbered("points", info(*one)) for one in heard] == [0, 0, 0, 0, 0, 3, 0, 3]
    # Numbers without a publisher that go back are those of several: they tell nothing.
    anonymous = [losses.numbered("points", {"publication_sequence_number": n}) for n in (500, 501, 20, 502, 21)]
    assert anonymous == [0, 0, None, None, None]
    assert losses.numbered("points", {}) is None


def test_without_numbers_the_usual_period_of_a_sensor_tells_what_is_missing() -> None:
    losses, rng = Losses(), np.random.default_rng(1)
    stamps = [START + round((100 * k + rng.uniform(-8, 8)) * MS) for k in range(100)]
    kept = [stamp for k, stamp in enumerate(stamps) if k not in (40, 60, 61)]
    assert sum(losses.stamped("a", stamp) for stamp in kept) == 3
    # Nothing is known yet of another one, and a pause of minutes is no loss.
    assert [losses.stamped("b", START + ms * MS) for ms in (0, 100, 300, 400)] == [0, 0, 0, 0]
    assert losses.stamped("a", stamps[-1] + 600_000 * MS) == 0


def test_a_lookup_that_is_waited_for_can_be_told_from_a_busy_detector() -> None:
    transforms, stop = Fixed(), threading.Event()

    def wait() -> None:
        with pytest.raises(TransformUnavailable):
            lookup_before(transforms, "base_link", "x", START, time.monotonic() + 60, stop)

    waiter = threading.Thread(target=wait)
    waiter.start()
    deadline = time.monotonic() + 60
    while not transforms.waiting and time.monotonic() < deadline:
        time.sleep(0.001)
    assert transforms.waiting
    stop.set()
    waiter.join()
    assert not transforms.waiting
