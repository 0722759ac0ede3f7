"""One independent, domain-randomised scene in front of the vehicle, for training."""

from __future__ import annotations

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
from .vehicles import VARIANTS as TEMPLATES
from .vehicles import random_shape, template
from .world import World

# The design's region x [0, 70.4], y [-20, 20] with a metre around it is what points are kept of.
FRONT = (-1.0, -21.0, 71.4, 21.0)
EGO_SEEN = 0.25  # share of scenes in which the LiDAR sees the vehicle that carries it
QUIET = 0.12  # share of scenes with hardly any vehicle on the road
SECTOR = 112.0  # half angle of the rays; more than 90 degrees because the LiDAR may stand ahead of x = 0
ROAD_RESOLUTION = 0.2
GROUND_ERROR = 0.15  # the ground of a real frame lies this far from z = 0 [m]


def sample_scene(seed: int) -> tuple[SimulatedFrame, RoadMap]:
    """A random scene, equal for equal seeds: only points and vehicles in front of base_link, within
    `FRONT`.

    Sensor, mounting, weather-like losses, intensity scale and the height of z = 0 over the ground are
    random too.
    """
    rng = np.random.default_rng(seed)
    network = road_network(rng, 190.0, (40.0, 120.0))
    lane = network.lanes[int(rng.integers(len(network.lanes)))]
    pose = _stand(rng, lane)
    base = shapely.box(FRONT[0], FRONT[1], FRONT[2], FRONT[3])
    area = shapely.transform(base.buffer(3.0, join_style="mitre"), pose.apply)
    world = World(rng, network, area)
    world.take(np.array((pose.x, pose.y, 0, 6.0, 2.4, 0, pose.yaw)))
    quiet = rng.random() < QUIET
    _traffic(world, 0.03 if quiet else rng.uniform(0.1, 1.2))
    furnish(world, 0.05 if quiet else rng.uniform(0.3, 1.0))
    sensor = randomised_sensor(rng)
    if rng.random() < EGO_SEEN:
        _add_carrier(world, sensor, pose)
    scene = world.build()

    ground = float(world.ground.height(np.array([(pose.x, pose.y)]))[0]) - rng.uniform(-GROUND_ERROR, GROUND_ERROR)
    points = _front_scan(scene, sensor, pose, ground, rng)
    boxes = boxes_in_base(np.array([v.box for v in world.vehicles]), pose, ground)
    in_front = (boxes[:, 0] > FRONT[0]) & (boxes[:, 0] < FRONT[2]) & (np.abs(boxes[:, 1]) < FRONT[3])
    boxes = boxes[in_front]
    tracks = np.flatnonzero(in_front).astype(np.int64)
    frame = SimulatedFrame(0, points, boxes, tracks, count_inside(points, boxes), pose)
    near = shapely.transform(base.buffer(10.0, join_style="mitre"), pose.apply)
    return frame, RoadMap.from_polygons(*_clipped(network.surface, near))


def _clipped(surface: shapely.Geometry, area: shapely.Geometry) -> tuple[list[np.ndarray], float, list[np.ndarray]]:
    """Arguments of RoadMap.from_polygons for the part of the road within `area`."""
    parts = [p for p in shapely.get_parts(surface.intersection(area)) if isinstance(p, shapely.Polygon)]
    outlines = [np.asarray(p.exterior.coords) for p in parts]
    return outlines, ROAD_RESOLUTION, [np.asarray(r.coords) for p in parts for r in p.interiors]


def _stand(rng: np.random.Generator, lane: Lane) -> SE2:
    """Where the sensor's vehicle is: on a lane, hardly ever quite straight, with road ahead."""
    s = rng.uniform(5.0, max(lane.path.length - 80.0, 25.0))
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
            shape = random_shape(rng)
            s += shape.size[0] / 2
            x, y, yaw = lane.path.pose(s)
            world.park(shape, x, y, yaw + rng.normal(0, 0.04), clearance=0.5)
            s += shape.size[0] / 2 + 1.5 + rng.exponential(14.0 / density)
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


def _front_scan(scene: RayScene, sensor: SensorModel, pose: SE2, ground: float, rng: np.random.Generator) -> np.ndarray:
    """Points float32 [P, 4] within `FRONT` in base_link; `ground`: height of z = 0 in the map."""
    origins, directions, beams = sensor.rays(rng, SECTOR)
    reach = np.full(len(beams), sensor.reach, np.float32)
    # A ray ends where it leaves the front region: nothing beyond is of use.
    for axis, low, high in ((0, FRONT[0], FRONT[2]), (1, FRONT[1], FRONT[3])):
        wall = np.where(directions[:, axis] > 0, high, low) - origins[:, axis]
        speed = np.where(np.abs(directions[:, axis]) < 1e-6, 1e-6, directions[:, axis])
        reach = np.minimum(reach, np.abs(wall / speed)).astype(np.float32)
    inside = reach > 0
    rays = rays_in_map(origins[inside], directions[inside], pose, ground)
    points = scan([scene], sensor, (*rays, beams[inside]), rng, reach[inside])
    points[:, :2] = pose.inverse().apply(points[:, :2])
    points[:, 2] -= ground
    return points
