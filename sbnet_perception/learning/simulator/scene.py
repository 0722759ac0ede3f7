"""One independent, domain-randomised scene around the vehicle, for training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap

from .geometry import count_inside
from .lidar import RayScene, scan
from .roads import Lane, road_network
from .roadside import furnish
from .sensors import SensorModel, randomised_sensor
from .types import SimulatedFrame, boxes_in_base, rays_in_map
from .vehicles import ARTICULATED, articulated, random_shape, template
from .vehicles import VARIANTS as TEMPLATES
from .world import World

MARGIN = 1.0  # what is seen this far beyond the region belongs to the scene [m]
EGO_SEEN = 0.25  # share of scenes in which the LiDAR sees the vehicle that carries it
QUIET = 0.18  # share of scenes with hardly any vehicle on the road
SECTOR = 112.0  # half angle of the rays to a region in front; the LiDAR may stand ahead of x = 0
ROAD_RESOLUTION = 0.2
GROUND_ERROR = 0.15  # the ground of a real frame lies this far from z = 0 [m]


Bounds = tuple[float, float, float, float]
SensorOf = Callable[[np.random.Generator], SensorModel]
"""Makes the sensor of a scene."""


def sample_scene(
    seed: int, region: Bounds, sensor_of: SensorOf = randomised_sensor
) -> tuple[SimulatedFrame, RoadMap]:
    """A random scene, equal for equal arguments: only points and vehicles within `MARGIN` of the region (x_min,
    x_max, y_min, y_max in metres) around base_link.

    Sensor, mounting, weather-like losses and intensity scale, all by `sensor_of`, and the height of z = 0 over the
    ground are random too.
    """
    rng = np.random.default_rng(seed)
    x_min, x_max, y_min, y_max = (b + d for b, d in zip(region, (-MARGIN, MARGIN, -MARGIN, MARGIN), strict=True))
    # The road goes on beyond both ends of the region.
    ahead, behind = max(region[1], 20.0) + 9.6, max(-region[0], 0.0)
    network = road_network(rng, 110.0 + ahead + behind, (40.0, 120.0), narrowest=2.4)
    lane = network.lanes[int(rng.integers(len(network.lanes)))]
    pose = _stand(rng, lane, ahead, behind)
    base = shapely.box(x_min, y_min, x_max, y_max)
    area = shapely.transform(base.buffer(3.0, join_style="mitre"), pose.apply)
    world = World(rng, network, area)
    world.take(np.array((pose.x, pose.y, 0, 6.0, 2.4, 0, pose.yaw)))
    quiet = rng.random() < QUIET
    _traffic(world, 0.03 if quiet else rng.uniform(0.05, 1.0))
    furnish(world, 0.05 if quiet else rng.uniform(0.5, 1.3))
    sensor = sensor_of(rng)
    if rng.random() < EGO_SEEN:
        _add_carrier(world, sensor, pose)
    scene = world.build()

    ground = float(world.ground.height(np.array([(pose.x, pose.y)]))[0]) - rng.uniform(-GROUND_ERROR, GROUND_ERROR)
    points = _scan_within((x_min, x_max, y_min, y_max), scene, sensor, pose, ground, rng)
    boxes = boxes_in_base(np.array([v.box for v in world.vehicles]), pose, ground)
    x, y = boxes[:, 0], boxes[:, 1]
    tracks = np.flatnonzero((x > x_min) & (x < x_max) & (y > y_min) & (y < y_max)).astype(np.int64)
    boxes[:, :3] = sensor.reported(boxes[:, :3])
    boxes, labels = boxes[tracks], np.array([world.vehicles[track].shape.kind for track in tracks], np.str_)
    frame = SimulatedFrame(0, points, boxes, tracks, count_inside(points, boxes), labels, pose)
    near = shapely.transform(base.buffer(10.0, join_style="mitre"), pose.apply)
    return frame, RoadMap.from_polygons(*_clipped(network.surface, near))


def _clipped(surface: shapely.Geometry, area: shapely.Geometry) -> tuple[list[np.ndarray], float, list[np.ndarray]]:
    """Arguments of RoadMap.from_polygons for the part of the road within `area`."""
    parts = [p for p in shapely.get_parts(surface.intersection(area)) if isinstance(p, shapely.Polygon)]
    outlines = [np.asarray(p.exterior.coords) for p in parts]
    return outlines, ROAD_RESOLUTION, [np.asarray(r.coords) for p in parts for r in p.interiors]


def _stand(rng: np.random.Generator, lane: Lane, ahead: float, behind: float) -> SE2:
    """Where the sensor's vehicle is: on a lane, hardly ever quite straight, with these metres of road where the lane
    has them."""
    first = min(5.0 + behind, lane.path.length / 2)
    s = rng.uniform(first, max(lane.path.length - ahead, first + 20.0))
    x, y = lane.path.at(s) + rng.normal(0, 0.3, 2)
    yaw = float(lane.path.yaw(s)) + rng.normal(0, 0.06)
    if rng.random() < 0.1:
        yaw += rng.uniform(-0.8, 0.8)
    return SE2(float(x), float(y), yaw)


def _traffic(world: World, density: float) -> None:
    """Vehicles on the lanes at random distances, and some turning or crossing within junctions."""
    rng = world.rng
    for lane in world.network.lanes:
        s = rng.uniform(0, 20)
        while s < lane.path.length:
            train = articulated(rng)[::-1] if rng.random() < ARTICULATED else (random_shape(rng),)
            turn = rng.normal(0, 0.04)
            for number, shape in enumerate(train):
                s += shape.size[0] / 2
                x, y, yaw = lane.path.pose(s)
                world.park(shape, x, y, yaw + turn / len(train), clearance=0.1 if number else 0.5)
                s += shape.size[0] / 2 + 0.3
            s += 1.2 + rng.exponential(14.0 / density)
    for junction in world.network.junctions:
        for _ in range(rng.poisson(1.5 * density)):
            x, y = world.network.roads[0].centre.at(junction.s) + rng.uniform(-6, 6, 2)
            world.park(random_shape(rng), x, y, rng.uniform(0, 2 * np.pi), clearance=0.5)


def _add_carrier(world: World, sensor: SensorModel, pose: SE2) -> None:
    """The roof and bonnet under the LiDAR, which many real sensors see; no label."""
    mesh, size = template("suv", int(world.rng.integers(TEMPLATES)))
    x, y = pose.apply((sensor.mount[0] + world.rng.uniform(-0.3, 0.5), sensor.mount[1]))
    roof = sensor.mount[2] - world.rng.uniform(0.1, 0.4)
    world.add(mesh, float(x), float(y), pose.yaw, (float(size[0]), float(size[1]), roof))


def _scan_within(
    bounds: Bounds, scene: RayScene, sensor: SensorModel, pose: SE2, ground: float, rng: np.random.Generator
) -> np.ndarray:
    """Points float32 [P, 4] within the bounds in base_link; `ground`: height of z = 0 in the map."""
    origins, directions, beams = sensor.rays(rng, SECTOR if bounds[0] >= -MARGIN else 180.0)
    reach = np.full(len(beams), sensor.reach, np.float32)
    # A ray ends where it leaves the bounds: nothing beyond is of use.
    for axis, low, high in ((0, *bounds[:2]), (1, *bounds[2:])):
        wall = np.where(directions[:, axis] > 0, high, low) - origins[:, axis]
        speed = np.where(np.abs(directions[:, axis]) < 1e-6, 1e-6, directions[:, axis])
        reach = np.minimum(reach, np.abs(wall / speed)).astype(np.float32)
    inside = reach > 0
    rays = rays_in_map(origins[inside], directions[inside], pose, ground)
    points = scan([scene], sensor, (*rays, beams[inside]), rng, reach[inside])
    points[:, :2] = pose.inverse().apply(points[:, :2])
    points[:, 2] -= ground
    points[:, :3] = sensor.reported(points[:, :3])
    x, y = points[:, 0], points[:, 1]
    return points[(x > bounds[0]) & (x < bounds[1]) & (y > bounds[2]) & (y < bounds[3])]
