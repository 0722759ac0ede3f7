"""Variants of labelled frames, and real sweeps with simulated vehicles put in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.bev.grid import Grid
from sbnet_perception.detector.classes import VEHICLE
from sbnet_perception.errors import UserError
from sbnet_perception.learning import sweeps
from sbnet_perception.learning.augment import augment, crop, mirrored, moved
from sbnet_perception.learning.datasets.npz import read_frame
from sbnet_perception.learning.frames import LabelledFrame, simulated_frame
from sbnet_perception.learning.simulator import sample_scene
from sbnet_perception.learning.simulator.geometry import count_inside, inside, overlaps

GRID = Grid.named("compact")


@pytest.fixture(scope="module")
def frames() -> list[LabelledFrame]:
    return [simulated_frame(*sample_scene(seed, GRID.bounds), f"scene {seed}") for seed in range(3)]


def road_under(frame: LabelledFrame, xy: np.ndarray) -> np.ndarray:
    view = frame.road
    raster = view.road.origin.inverse().apply(view.map_from_grid.apply(xy)) / view.road.resolution
    column, row = np.floor(raster).astype(int).T
    within = (row >= 0) & (column >= 0) & (row < view.road.cells.shape[0]) & (column < view.road.cells.shape[1])
    road = np.zeros(len(xy), bool)
    road[within] = view.road.cells.numpy()[row[within], column[within]]
    return road


@settings(max_examples=15, deadline=None)
@given(turn=st.floats(-4, 4), scale=st.floats(0.8, 1.25), index=st.integers(0, 2))
def test_turning_and_scaling_move_points_boxes_and_road_together(frames, turn, scale, index):
    frame = frames[index]
    changed = moved(frame, turn, scale)
    # A point on the edge of a box, or of a cell of the road, may round either way.
    before, after = count_inside(frame.points, frame.boxes), count_inside(changed.points, changed.boxes)
    assert np.abs(before - after).max() <= 3 + 0.01 * before.max()
    same = road_under(frame, frame.points[:, :2]) == road_under(changed, changed.points[:, :2])
    assert same.mean() > 0.999
    assert changed.boxes[:, 3:6] == pytest.approx(scale * frame.boxes[:, 3:6], rel=1e-5)
    assert (np.abs(changed.boxes[:, 6]) <= math.pi + 1e-5).all()


def test_mirroring_moves_points_boxes_and_road_together(frames):
    for frame in frames:
        changed = mirrored(frame)
        assert count_inside(changed.points, changed.boxes) == pytest.approx(frame.point_counts, abs=2)
        assert torch.equal(changed.road.mask(GRID, 0.5), frame.road.mask(GRID, 0.5).flip(0))


def test_a_variant_keeps_its_objects_and_counts_their_points(frames):
    lost_road = 0
    for seed in range(30):
        frame = frames[seed % 3]
        before = frame.points.copy()
        changed = augment(frame, np.random.default_rng(seed))
        assert np.array_equal(frame.points, before), "the scene is used again"
        assert len(changed.boxes) == len(frame.boxes)
        assert np.array_equal(changed.point_counts, count_inside(changed.points, changed.boxes))
        # Objects are thinned out as everything is, not moved away from their points.
        share = len(changed.points) / len(frame.points)
        assert changed.point_counts.sum() > 0.5 * share * frame.point_counts.sum()
        assert changed.points.dtype == np.float32 and 0 <= changed.points[:, 3].min() <= changed.points[:, 3].max() <= 1
        lost_road += changed.road is None
    assert 0 < lost_road < 30
    again = augment(frames[0], np.random.default_rng(0))
    assert np.array_equal(again.points, augment(frames[0], np.random.default_rng(0)).points)


def test_a_window_lies_anywhere_and_keeps_its_points(frames):
    rng = np.random.default_rng(0)
    holding = 0
    for index in range(30):
        frame = frames[index % 3]
        part, window = crop(frame, 0.2, (160, 176), rng)
        assert window.shape == (160, 176)
        assert len(part.points) == window.cells(frame.points)[2].sum() == window.cells(part.points)[2].sum()
        holding += window.cells(frame.boxes)[2].any()
    assert holding > 15


def street() -> LabelledFrame:
    """Flat ground seen by beams all around, a wall along y = 9, and a labelled car."""
    elevation, azimuth = np.meshgrid(np.deg2rad(np.linspace(-20, 3, 48)), np.deg2rad(np.arange(0, 360, 0.5)))
    directions = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], -1
    ).reshape(-1, 3)
    with np.errstate(divide="ignore"):
        down, wall = 1.8 / -directions[:, 2], 9.0 / directions[:, 1]
    reach = np.minimum(np.where(down > 0, down, np.inf), np.where(wall > 0, wall, np.inf))
    kept = reach < 60
    xyz = directions[kept] * reach[kept, None] + (0, 0, 1.8)
    car = np.array([[12.0, -4.0, 0.8, 4.4, 1.8, 1.6, 0.0]], np.float32)
    points = np.float32(np.column_stack([xyz, np.full(len(xyz), 0.1)]))
    rng = np.random.default_rng(0)
    on_car = np.column_stack([car[0, :3] + rng.uniform(-0.5, 0.5, (200, 3)) * car[0, 3:6], np.full(200, 0.2)])
    points = np.concatenate([points, np.float32(on_car)])
    return LabelledFrame("street", points, None, car, count_inside(points, car), np.zeros(1, np.int64))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> sweeps.Sweep:
    frame, folder = street(), tmp_path_factory.mktemp("sweeps")
    arrays = {
        "xyz_cm": np.round(frame.points[:, :3] * 100).astype(np.int16),
        "intensity": np.round(frame.points[:, 3] * 255).astype(np.uint8),
        "boxes": frame.boxes,
        "labels": np.array(["car"]),
        "points_inside": frame.point_counts.astype(np.int32),
        "label_fov": "full",
        "origin_height": 1.8,
    }
    np.savez(folder / "nuscenes_street.npz", **arrays)
    return sweeps.sweep_of(read_frame(folder / "nuscenes_street.npz"))


def test_vehicles_are_put_on_free_ground_and_their_points_are_where_the_beams_meet_them(sweep):
    put_in = seen = 0
    for seed in range(12):
        frame = sweeps.with_simulated_vehicles(sweep, (VEHICLE,), np.random.default_rng(seed))
        new = frame.boxes[len(frame.boxes) - (len(frame.boxes) - 1 if sweep.frame.boxes[0] in frame.boxes else 0) :]
        for number, box in enumerate(frame.boxes):
            others = np.delete(frame.boxes, number, axis=0)
            assert not len(others) or not overlaps(box, others).any()
            wall = np.array([[0.0, 9.0, 1.0, 200.0, 0.01, 2.0, 0.0]])
            assert np.hypot(*box[:2]) > 30 or not overlaps(box, wall).any(), "nearer, the wall has many points"
            assert box[2] - box[5] / 2 == pytest.approx(0.0, abs=0.1), "it stands on the ground"
        put_in += len(new)
        seen += (frame.point_counts >= 20).sum()
        # Points are the sweep's, or on a vehicle.
        own = {tuple(row) for row in sweep.frame.points[:, :3].round(3).tolist()}
        fresh = np.array([tuple(row) not in own for row in frame.points[:, :3].round(3).tolist()])
        assert inside(frame.points[fresh], frame.boxes, 0.3).mean() > 0.99
    assert put_in > 30 and seen > 30


def test_a_vehicle_hides_what_lies_behind_it(sweep):
    hidden = 0
    for seed in range(8):
        frame = sweeps.with_simulated_vehicles(sweep, (VEHICLE,), np.random.default_rng(seed))
        for box, count in zip(frame.boxes, frame.point_counts, strict=True):
            if count < 100 or np.allclose(box, sweep.frame.boxes[0]):
                continue
            # The ground just behind the middle of the vehicle, as seen from the LiDAR.
            away = box[:2] / np.hypot(*box[:2])
            spot = np.array([[*(box[:2] + away * (np.hypot(*box[3:5]) / 2 + 0.5)), 0.0, 0.6, 0.6, 0.3, 0.0]])
            before, after = (count_inside(points, spot)[0] for points in (sweep.frame.points, frame.points))
            assert after <= before
            hidden += before > 0 and after == 0
    assert hidden > 5


def test_own_vehicles_are_cut_out_or_stay_with_their_labels(sweep, monkeypatch):
    own = sweep.frame.boxes
    for share, stay in ((0.0, True), (1.0, False)):
        monkeypatch.setattr(sweeps, "CUT_OUT", share)
        monkeypatch.setattr(sweeps, "MOST", 0)
        monkeypatch.setattr(sweeps, "_placed", lambda *_: [])
        frame = sweeps.with_simulated_vehicles(sweep, (VEHICLE,), np.random.default_rng(0))
        assert (len(frame.boxes) == 1) == stay
        assert inside(frame.points, own).any() == stay


def test_points_of_the_class_of_a_vehicle_are_no_background(tmp_path):
    frame = street()
    classes = np.where(inside(frame.points, frame.boxes), 7, 0).astype(np.uint8)
    xyz, intensity = np.round(frame.points[:, :3] * 100).astype(np.int16), np.zeros(len(classes), np.uint8)
    np.savez(tmp_path / "ika_1.npz", xyz_cm=xyz, intensity=intensity, classes=classes, origin_height=1.8)
    read = sweeps.sweep_of(read_frame(tmp_path / "ika_1.npz"))
    assert len(read.frame.points) == (classes == 0).sum() and len(read.frame.boxes) == 0


def test_what_nobody_labelled_is_no_background(tmp_path):
    frame = street()
    arrays = {"points": frame.points[:, :3], "intensity": frame.points[:, 3], "boxes": frame.boxes}
    np.savez(tmp_path / "mine_1.npz", labels=np.array(["car"]), label_fov="0.6", **arrays)
    read = sweeps.sweep_of(read_frame(tmp_path / "mine_1.npz"))
    assert 0 < len(read.frame.points) < len(frame.points) / 4
    assert np.abs(np.arctan2(read.frame.points[:, 1], read.frame.points[:, 0])).max() <= 0.6


def test_a_file_that_is_no_sweep_is_named(tmp_path):
    np.savez(tmp_path / "mine_1.npz", classes=np.zeros(3, np.uint8))
    with pytest.raises(UserError, match=r"mine_1\.npz: it has no array points"):
        sweeps.sweep_of(read_frame(tmp_path / "mine_1.npz"))
