"""A drive: the vehicle with the LiDAR follows its lane through simulated traffic."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely

from sbnet_perception.bev.se2 import SE2
from sbnet_perception.masks.road import RoadMap

from .geometry import count_inside
from .lidar import scan
from .roads import road_network
from .roadside import SETTINGS, furnish
from .sensors import SENSORS
from .traffic import Traffic, routes
from .types import SimulatedFrame, boxes_in_base, rays_in_map
from .vehicles import Shape, template
from .world import Assembly, Vehicle, World

ROAD_RESOLUTION = 0.2
WARM_UP = 4.0  # seconds of traffic before the first frame
TOP_SPEED = 13.5
BLIND = 2.0  # returns this near the LiDAR, from the vehicle that carries it, are cut off [m]
CORRIDOR = 2.9  # width kept clear for traffic on every route [m]


class Drive:
    """A drive of `seconds` at `rate_hz` frames per second through a world made from `seed`.

    Equal arguments give equal frames, however often they are iterated.

    Args:
        sensor: hdl64, hdl32, pandar64 or vlp32c (a pair of them).
        setting: what is beside the roads: city, residential, commercial or country; empty: random.

    Raises:
        ValueError: an unknown sensor or setting, or a duration or rate that is not positive.
    """

    def __init__(
        self, seed: int, seconds: float, rate_hz: float = 10.0, sensor: str = "hdl64", setting: str = ""
    ) -> None:
        if sensor not in SENSORS:
            raise ValueError(f"sensor must be one of {', '.join(SENSORS)}, got {sensor!r}")
        if setting and setting not in SETTINGS:
            raise ValueError(f"setting must be one of {', '.join(SETTINGS)}, got {setting!r}")
        if not (seconds > 0 and rate_hz > 0):
            raise ValueError(f"seconds and rate_hz must be positive, got {seconds} and {rate_hz}")
        self.seed, self.rate_hz, self.sensor = seed, rate_hz, SENSORS[sensor]
        self._frames = max(round(seconds * rate_hz), 1)
        rng = np.random.default_rng([seed, 1])
        self.network = road_network(rng, 130.0 + (seconds + WARM_UP) * TOP_SPEED)
        area = shapely.LineString(self.network.roads[0].centre.line).buffer(80.0)
        self._world = World(rng, self.network, area)
        self._keep_lanes_clear()
        furnish(self._world, rng.uniform(0.5, 1.3), setting)
        self._static = self._world.build()
        lanes = sum(lane.path.length for lane in self.network.lanes)
        self._count = int(lanes / rng.uniform(40, 90))

    @property
    def base_from_lidar(self) -> np.ndarray:
        """Pose of the LiDAR, float64 [4, 4]."""
        return self.sensor.base_from_lidar

    @property
    def road_map(self) -> RoadMap:
        """Raster of the road surface in the map frame."""
        return RoadMap.from_polygons(self.road_polygons, ROAD_RESOLUTION, self.road_holes)

    @property
    def road_polygons(self) -> list[np.ndarray]:
        """Outlines [K, 2] of the road surface in the map frame."""
        return self.network.polygons()[0]

    @property
    def road_holes(self) -> list[np.ndarray]:
        """Outlines [K, 2] of what the road surface surrounds."""
        return self.network.polygons()[1]

    @property
    def centre_lines(self) -> list[np.ndarray]:
        """Middle of every lane in driving direction, [K, 2] in the map frame."""
        return [lane.path.line for lane in self.network.lanes]

    def __len__(self) -> int:
        return self._frames

    def _keep_lanes_clear(self) -> None:
        """Reserve the routes of the traffic, so that nothing is parked there."""
        seen: set[tuple[int, int]] = set()
        for route in routes(self.network):
            s = np.arange(2.0, route.path.length, 4.0)
            for (x, y), yaw in zip(route.path.at(s), route.path.yaw(s), strict=True):
                cell = (round(x * 2), round(y * 2))
                if cell not in seen:
                    seen.add(cell)
                    self._world.take(np.array((x, y, 0, 4.0, CORRIDOR, 0, yaw)))

    def frames(self) -> Iterator[SimulatedFrame]:
        """The full scans of the drive, in base_link."""
        kind = "suv"
        size = template(kind, 0)[1]
        ego = Shape(kind, 0, (float(size[0]), float(size[1]), float(size[2])))
        traffic = Traffic(self._world, np.random.default_rng([self.seed, 2]), ego, self._count)
        for _ in range(round(WARM_UP * 10)):
            traffic.step(0.1)
        for number in range(self._frames):
            if number:
                traffic.step(1.0 / self.rate_hz)
            yield self._frame(number, traffic)

    def _frame(self, number: int, traffic: Traffic) -> SimulatedFrame:
        rng = np.random.default_rng([self.seed, 3, number])
        x, y, *_, yaw = traffic.drivers[0].vehicle.box
        pose = SE2(float(x), float(y), float(yaw))
        ground = float(self._world.ground.height(np.array([(x, y)]))[0])
        moving = self._world.on_ground([driver.vehicle for driver in traffic.drivers[1:]])
        points = self._scan(moving, pose, ground, rng)

        # What the LiDAR cannot reach has no label.
        reach = self.sensor.reach
        vehicles = [v for v in self._world.vehicles + moving if np.hypot(v.box[0] - x, v.box[1] - y) < reach]
        boxes = boxes_in_base(np.array([v.box for v in vehicles]), pose, ground)
        boxes[:, :3] = self.sensor.reported(boxes[:, :3])
        tracks = np.array([v.track_id for v in vehicles], np.int64)
        stamp = round(number * 1e9 / self.rate_hz)
        labels = np.array([v.shape.kind for v in vehicles], np.str_)
        return SimulatedFrame(stamp, points, boxes, tracks, count_inside(points, boxes), labels, pose)

    def _scan(self, moving: list[Vehicle], pose: SE2, ground: float, rng: np.random.Generator) -> np.ndarray:
        """One revolution over the static scene and a scene of the moving vehicles."""
        assembly = Assembly()
        for vehicle in moving:
            if np.hypot(vehicle.box[0] - pose.x, vehicle.box[1] - pose.y) < self.sensor.reach:
                assembly.add_vehicle(vehicle)
        scenes = [self._static, assembly.build()] if len(assembly) else [self._static]
        origins, directions, beams = self.sensor.rays(rng)
        points = scan(scenes, self.sensor, (*rays_in_map(origins, directions, pose, ground), beams), rng)
        points[:, :2] = pose.inverse().apply(points[:, :2])
        points[:, 2] -= ground
        points[:, :3] = self.sensor.reported(points[:, :3])
        return points[np.hypot(*(points[:, :2] - self.sensor.mount[:2]).T) > BLIND]
