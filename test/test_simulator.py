"""The simulator: scans obey geometry, labels fit the vehicles, traffic behaves, and everything repeats from a seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import shapely

from sbnet_perception.detector.classes import SIMULATOR, VEHICLE
from sbnet_perception.learning.simulator import Drive, SimulatedFrame, sample_scene
from sbnet_perception.learning.simulator.bodies import KINDS
from sbnet_perception.learning.simulator.lidar import RayScene, scan
from sbnet_perception.learning.simulator.materials import Material
from sbnet_perception.learning.simulator.mesh import Mesh, box, ellipsoid, join
from sbnet_perception.learning.simulator.sensors import HDL64, SENSORS, VLP32C_PAIR, SensorModel, randomised_sensor
from sbnet_perception.learning.simulator.vehicles import VARIANTS, Shape, template

FAULTS: tuple[tuple[str, float], ...] = (("mixing", 0.0), ("mixing", 1.0), ("bloom", 1.0), ("floor", 60.0))
REGION = (0.0, 70.4, -20.0, 20.0)


@pytest.fixture(scope="module")
def drive() -> tuple[Drive, list[SimulatedFrame]]:
    made = Drive(11, 3.0, rate_hz=5.0, sensor="hdl32")
    return made, list(made.frames())


@pytest.fixture(scope="module")
def scenes() -> list[SimulatedFrame]:
    return [sample_scene(seed, REGION)[0] for seed in range(6)]


def _ray_scene(mesh: Mesh) -> RayScene:
    return RayScene(mesh.triangles, mesh.material, np.full(len(mesh.material), 0.5, np.float32))


def _in_box_frame(points: np.ndarray, vehicle: np.ndarray) -> np.ndarray:
    """Points [P, 3] in the box's own axes, about its centre."""
    c, s = np.cos(vehicle[6]), np.sin(vehicle[6])
    return (points[:, :3] - vehicle[:3]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def _rectangles(boxes: np.ndarray) -> np.ndarray:
    """Ground rectangles of boxes [M, 7] as shapely polygons."""
    unit = np.array([(0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5)])
    turn = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), -np.sin(boxes[:, 6]), np.cos(boxes[:, 6])], 1)
    return shapely.polygons((unit * boxes[:, None, 3:5]) @ turn.reshape(-1, 2, 2) + boxes[:, None, :2])


def _same(a: SimulatedFrame, b: SimulatedFrame) -> bool:
    names = ("points", "boxes", "track_ids", "point_counts", "labels")
    equal = all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)
    return equal and a.map_from_base == b.map_from_base and a.stamp_ns == b.stamp_ns


def test_a_scene_repeats_from_its_seed_and_differs_between_seeds() -> None:
    (first, road), (again, same_road) = sample_scene(5, REGION), sample_scene(5, REGION)
    assert _same(first, again)
    assert np.array_equal(road.cells, same_road.cells)
    assert not _same(first, sample_scene(6, REGION)[0])


def test_a_scene_of_a_region_all_around_has_points_road_and_vehicles_behind() -> None:
    seen = [sample_scene(seed, (-70.4, 70.4, -40.0, 40.0)) for seed in range(3)]
    points, boxes = (np.concatenate([getattr(frame, name) for frame, _ in seen]) for name in ("points", "boxes"))
    for rows in (points, boxes):
        assert 0.2 < (rows[:, 0] < 0).mean() < 0.8
        assert (np.abs(rows[:, :2]).max(0) <= (71.5, 41.1)).all() and (np.abs(rows[:, :2]).max(0) > (60, 30)).all()
    for frame, road in seen:
        behind = frame.map_from_base.apply(np.array([(-x, 0.0) for x in range(5, 30)]))
        column, row = np.floor(road.origin.inverse().apply(behind) / road.resolution).astype(int).T
        assert road.cells.numpy()[row, column].mean() > 0.5


def test_a_drive_repeats_from_its_seed_however_often_it_is_iterated(
    drive: tuple[Drive, list[SimulatedFrame]],
) -> None:
    made, frames = drive
    again = [frame for frame, _ in zip(made.frames(), range(3), strict=False)]
    fresh = next(Drive(11, 3.0, rate_hz=5.0, sensor="hdl32").frames())
    assert len(frames) == len(made) == 15
    assert all(_same(a, b) for a, b in zip(frames, again, strict=False))
    assert _same(frames[0], fresh)


def test_frames_have_the_stated_types_and_cover_the_stated_area(
    drive: tuple[Drive, list[SimulatedFrame]], scenes: list[SimulatedFrame]
) -> None:
    for frame in [drive[1][0], *scenes]:
        assert frame.points.dtype == np.float32
        assert frame.boxes.dtype == np.float32
        assert frame.track_ids.dtype == frame.point_counts.dtype == np.int64
        assert np.isfinite(frame.points).all()
        assert 0 <= frame.points[:, 3].min() <= frame.points[:, 3].max() <= 255
        assert len(frame.boxes) == len(frame.track_ids) == len(frame.point_counts) == len(set(frame.track_ids))
        assert len(frame.labels) == len(frame.boxes) and set(frame.labels) <= set(VEHICLE.labels[SIMULATOR])
    azimuth = np.degrees(np.arctan2(drive[1][0].points[:, 1], drive[1][0].points[:, 0]))
    assert (np.histogram(azimuth, 12, (-180, 180))[0] > 100).all()
    for frame in scenes:
        assert (frame.points[:, :2] > (-1.2, -21.2)).all()
        assert (frame.points[:, :2] < (71.6, 21.2)).all()


def test_boxes_of_vehicles_never_overlap(
    drive: tuple[Drive, list[SimulatedFrame]], scenes: list[SimulatedFrame]
) -> None:
    for frame in [*drive[1], *scenes]:
        rectangles = _rectangles(frame.boxes.astype(np.float64))
        first, second = shapely.STRtree(rectangles).query(rectangles, predicate="intersects")
        assert (first == second).all()


def test_tracks_move_at_bounded_speed_and_keep_their_size(drive: tuple[Drive, list[SimulatedFrame]]) -> None:
    _, frames = drive
    moved = 0
    for before, after in pairwise(frames):
        step = (after.stamp_ns - before.stamp_ns) * 1e-9
        assert step == pytest.approx(0.2)
        common, i, j = np.intersect1d(before.track_ids, after.track_ids, return_indices=True)
        assert len(common) > 0.8 * len(before.track_ids)
        start = before.map_from_base.apply(before.boxes[i, :2])
        way = after.map_from_base.apply(after.boxes[j, :2]) - start
        assert (np.hypot(*way.T) < 20.0 * step).all()
        assert np.allclose(before.boxes[i, 3:6], after.boxes[j, 3:6])
        heading = before.boxes[i, 6] + before.map_from_base.yaw
        fast = np.hypot(*way.T) > 2.0 * step
        forward = np.cos(np.arctan2(way[:, 1], way[:, 0]) - heading)
        assert (forward[fast] > 0.9).all()
        moved += int(fast.sum())
        ego = np.subtract(
            (after.map_from_base.x, after.map_from_base.y), (before.map_from_base.x, before.map_from_base.y)
        )
        assert np.hypot(*ego) < 15.0 * step
    assert moved > 20


def test_point_counts_are_the_points_inside_the_boxes(
    drive: tuple[Drive, list[SimulatedFrame]], scenes: list[SimulatedFrame]
) -> None:
    for frame in [drive[1][-1], *scenes]:
        for vehicle, count in zip([*frame.boxes.astype(np.float64)], frame.point_counts, strict=True):
            local = np.abs(_in_box_frame(frame.points.astype(np.float64), vehicle))
            # Points on a face itself may fall either way in float32.
            strictly, loosely = ((local <= vehicle[3:6] / 2 + slack).all(1).sum() for slack in (-1e-4, 1e-4))
            assert strictly <= count <= loosely
    assert sum(int(frame.point_counts.sum()) for frame in scenes) > 5000


def test_rays_return_the_nearest_triangle() -> None:
    rng = np.random.default_rng(0)
    triangles = (rng.uniform(-8, 8, (60, 1, 3)) + rng.normal(0, 2, (60, 3, 3))).astype(np.float32)
    soup = RayScene(triangles, np.zeros(60, np.uint8), np.ones(60, np.float32))
    origins = np.tile(np.array([(-20, 0, 0)], np.float32), (400, 1))
    directions = rng.normal((1, 0, 0), 0.3, (400, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = soup.cast(origins, directions, np.full(400, 100, np.float32)).distance

    # Cramer's rule for every ray and triangle: origin + t d = a + u (b - a) + v (c - a).
    a, b, c = np.moveaxis(triangles.astype(np.float64), 1, 0)
    system = np.stack(np.broadcast_arrays(-directions[:, None], (b - a)[None], (c - a)[None]), -1)
    t, u, v = np.moveaxis(np.linalg.solve(system, (origins[:, None] - a)[..., None])[..., 0], -1, 0)
    nearest = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0), t, np.inf).min(1)
    assert np.isfinite(nearest).sum() > 50
    assert np.isclose(found, nearest, atol=1e-3).mean() > 0.99


def test_nothing_is_seen_behind_a_wall_but_much_through_leaves() -> None:
    far = box((1, 30, 12), Material.FACADE, z=-6).moved(x=20)
    for near, passing in (
        (box((0.2, 20, 10), Material.FACADE, z=-5).moved(x=8), (0.0, 0.0)),
        (ellipsoid((1.0, 30, 20), Material.LOOSE_FOLIAGE, 0).moved(x=8), (0.05, 0.6)),
    ):
        rng = np.random.default_rng(0)
        origins, directions, beams = HDL64.rays(rng, 20.0)
        origins[:] = 0
        points = scan([_ray_scene(join([near, far]))], HDL64, (origins, directions, beams), rng)
        assert passing[0] <= (points[:, 0] > 12).mean() <= passing[1]
        assert len(points) > 0.95 * len(beams)
    leaves = points[points[:, 0] < 12, 0]
    assert leaves.min() > 6.9
    assert leaves.std() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_every_return_of_a_vehicle_lies_in_its_tight_box(kind: str) -> None:
    for variant in range(VARIANTS):
        unit, size = template(kind, variant)
        corners = unit.triangles.reshape(-1, 3)
        assert np.allclose(corners.min(0), (-0.5, -0.5, 0), atol=1e-5)
        assert np.allclose(corners.max(0), (0.5, 0.5, 1), atol=1e-5)
    shape = Shape(kind, 0, (float(size[0]), float(size[1]), float(size[2])))
    vehicle = shape.box(12.0, 3.0, 0.7)
    placed = Mesh(unit.placed(12.0, 3.0, 0.0, 0.7, size), unit.material)
    rng = np.random.default_rng(1)
    points = scan([_ray_scene(placed)], HDL64, HDL64.rays(rng, 90.0), rng)
    outside = np.abs(_in_box_frame(points, vehicle)) - vehicle[3:6] / 2
    assert len(points) > 300
    assert outside.max() < 6 * HDL64.range_noise
    # Both visible sides are touched, not only approached.
    assert (outside[:, :2] > -0.08).any(0).all()


def test_the_road_raster_agrees_with_the_vector_map(drive: tuple[Drive, list[SimulatedFrame]]) -> None:
    made, frames = drive
    road = made.road_map
    surface = shapely.union_all([shapely.Polygon(p) for p in made.road_polygons])
    surface = surface.difference(shapely.union_all([shapely.Polygon(h) for h in made.road_holes]))
    rng = np.random.default_rng(0)
    x0, y0, x1, y1 = surface.bounds
    xy = rng.uniform((x0, y0), (x1, y1), (20000, 2))
    col, row = np.floor(road.origin.inverse().apply(xy) / road.resolution).astype(int).T
    inside = shapely.contains_xy(surface, xy[:, 0], xy[:, 1])
    clear = shapely.distance(shapely.boundary(surface), shapely.points(xy)) > 2 * road.resolution
    assert np.array_equal(road.cells[row, col][clear], inside[clear])
    assert 0.02 < inside.mean() < 0.6
    # The ego drives on it, and so do the lanes' centre lines.
    assert all(surface.contains(shapely.Point(f.map_from_base.x, f.map_from_base.y)) for f in frames)
    for line in made.centre_lines:
        assert shapely.contains_xy(surface, line[2:-2, 0], line[2:-2, 1]).all()


def test_sensors_have_the_published_beams_and_mountings() -> None:
    limits = {
        "hdl64": (-24.8, 2.0, 64, 1.73),
        "hdl32": (-30.67, 10.67, 32, 1.84),
        "vlp32c": (-25.0, 25.0, 64, 1.93),
        "pandar64": (-25.0, 15.0, 64, 2.1),
    }
    assert set(limits) == set(SENSORS)
    for name, (low, high, beams, height) in limits.items():
        sensor = SENSORS[name]
        origins, directions, beam = sensor.rays(np.random.default_rng(0))
        elevation = np.degrees(np.arcsin(directions[:, 2]))
        assert np.allclose(elevation, sensor.elevations[beam], atol=1e-3)
        assert (elevation.min(), elevation.max()) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
        assert len(sensor.elevations) == beams
        assert sensor.base_from_lidar[2, 3] == height
        assert np.abs(origins[:, 2] - height).max() <= 0.2 + 1e-6
        assert len(directions) == pytest.approx(beams * 360 / sensor.azimuth_step, rel=0.01)
    assert len(set(VLP32C_PAIR.offsets)) == len(set(HDL64.offsets)) == 2


def test_random_sensors_range_from_sparse_to_dense_and_from_all_around_to_forward_only() -> None:
    sensors = [randomised_sensor(np.random.default_rng(seed)) for seed in range(300)]
    steps = np.array([sensor.azimuth_step for sensor in sensors])
    beams = np.array([len(sensor.elevations) for sensor in sensors])
    heights = np.array([sensor.mount[2] for sensor in sensors])
    tilts = np.abs([sensor.tilt for sensor in sensors])
    assert (beams <= 33).mean() > 0.15 and (beams > 100).mean() > 0.05 and beams.max() <= 128
    assert steps.min() > 0.06 and (beams / steps).max() < 600
    assert 0.03 < np.mean([sensor.field_of_view != (-180.0, 180.0) for sensor in sensors]) < 0.15
    assert (np.quantile(heights, (0.1, 0.9)) > (1.4, 2.0)).all() and heights.max() < 3.0 and 1.5 < tilts.max() <= 2.0
    assert all(len(sensor.offsets) == len(sensor.elevations) for sensor in sensors)


def test_rays_keep_to_the_field_of_view_and_leave_blocked_sectors_empty() -> None:
    model = replace(HDL64, field_of_view=(-50.0, 40.0), blocked=((-10.0, 5.0),), tilt=(0.0, 2.0))
    directions = model.rays(np.random.default_rng(0))[1] @ model.base_from_lidar[:3, :3]
    azimuth = np.degrees(np.arctan2(directions[:, 1], directions[:, 0]))
    assert -50.0 <= azimuth.min() < -49.0 and 39.0 < azimuth.max() < 40.4
    assert not ((azimuth > -9.6) & (azimuth < 5.0)).any()
    # Looking down: straight ahead the beams point two degrees lower.
    level = replace(model, tilt=(0.0, 0.0)).rays(np.random.default_rng(0))[1]
    ahead = np.abs(azimuth - 6) < 0.5
    drop = np.arcsin(level[ahead, 2]) - np.arcsin(model.rays(np.random.default_rng(0))[1][ahead, 2])
    assert np.degrees(drop) == pytest.approx(2.0, abs=0.1)


def test_labels_are_turned_and_drift_as_the_points_do() -> None:
    model = replace(HDL64, tilt_error=(0.5, -1.0), drift=1.2)
    rng = np.random.default_rng(3)
    body = box((4.4, 1.8, 1.5), Material.PAINT)
    for x, y, yaw in ((15.0, 8.0, 0.4), (40.0, -10.0, 2.0), (8.0, 12.0, -1.0)):
        car = np.array((x, y, 0.75, 4.4, 1.8, 1.5, yaw))
        points = scan([_ray_scene(body.moved(x=x, y=y, yaw=yaw))], model, model.rays(rng), rng)
        points[:, :3] = model.reported(points[:, :3])
        wrong = np.abs(_in_box_frame(points, car)) - car[3:6] / 2
        car[:3] = model.reported(car[None, :3])[0]
        right = np.abs(_in_box_frame(points, car)) - car[3:6] / 2
        assert len(points) > 50
        assert right.max() < 0.2 < wrong.max()


def test_a_sensor_at_fault_mixes_edges_widens_reflectors_and_loses_faint_intensities() -> None:
    wall, panel = box((0.1, 9, 2), Material.FACADE, z=-1), box((0.1, 1, 2), Material.SIGN, z=-1)
    perfect = replace(HDL64, range_noise=0.0, beam_bias=0.0, mixing=0.0, bloom=0.0, loss=0.0, floor=0.0, gamma=1.0)
    scene = RayScene(
        join([wall.moved(x=12.0), panel.moved(x=11.0)]).triangles,
        join([wall, panel]).material,
        np.repeat(np.array((0.1, 3.0), np.float32), 12),
    )

    def seen(model: SensorModel) -> np.ndarray:
        rng = np.random.default_rng(0)
        origins, directions, beams = model.rays(rng, 15.0)
        origins[:] = 0
        return scan([scene], model, (origins, directions, beams), rng)

    exact, mixed, halo, deaf = (seen(replace(perfect, **{k: v})) for k, v in FAULTS)
    between = [((p[:, 0] > 11.1) & (p[:, 0] < 11.9) & (np.abs(p[:, 1]) < 0.6)).sum() for p in (exact, mixed)]
    assert between[0] == 0 and between[1] > 5
    on_panel = [p[p[:, 0] < 11.3] for p in (exact, halo)]
    assert np.abs(on_panel[0][:, 1]).max() < 0.51 and 0.6 < np.abs(on_panel[1][:, 1]).max() < 1.5
    assert (exact[:, 3] == 0).mean() < 0.05 < 0.9 < (deaf[exact[:, 0] > 11.9, 3] == 0).mean()


def test_the_ground_lies_near_zero_under_the_vehicle(
    drive: tuple[Drive, list[SimulatedFrame]], scenes: list[SimulatedFrame]
) -> None:
    for frame in [*drive[1], *scenes]:
        distance = np.hypot(frame.points[:, 0], frame.points[:, 1])
        near = frame.points[(distance < 8) & (distance > 3)]
        # The lowest points are the ground's; vehicles and walls stand close by.
        assert abs(np.percentile(near[:, 2], 5)) < 0.4


def test_a_drive_rejects_what_it_cannot_simulate() -> None:
    with pytest.raises(ValueError, match="sensor must be one of"):
        Drive(0, 1.0, sensor="sonar")
    with pytest.raises(ValueError, match="setting must be one of city"):
        Drive(0, 1.0, setting="moon")
    with pytest.raises(ValueError, match="must be positive"):
        Drive(0, 0.0)
