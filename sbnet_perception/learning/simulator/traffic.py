"""Traffic on the lanes: routes through junctions, signals, car-following, and never two vehicles in one
place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .geometry import Path, overlaps
from .materials import sample_reflectances
from .roads import Lane, RoadNetwork
from .vehicles import Shape, random_shape
from .world import Vehicle, World

# Signal phases of a junction, in turn: main road straight and right, main road left, then the same for the
# other road.
GREEN = (12.0, 4.0, 7.0, 4.0)
CYCLE_SPEED = 8.0  # the signals of the main road turn green one after the other for traffic of this speed [m/s]
CLEARING = 3.0
ACCELERATION, BRAKING, SIDEWAYS = 1.6, 2.2, 2.0  # comfortable [m/s2]
HEADWAY, STANDSTILL = 1.3, 2.5  # of the intelligent driver model (Treiber et al. 2000) [s], [m]
LOOK_AHEAD = 48.0
MARGIN = 0.15  # smallest gap between vehicles [m]


@dataclass(frozen=True, eq=False)
class Route:
    """A way through the network: path, speed limit per vertex of the path [m/s], and (s, junction, phase) of
    its
    stop lines; turns: whether it leaves its lane, which long vehicles do not."""

    path: Path
    limit: np.ndarray
    stops: tuple[tuple[float, int, int], ...]
    turns: bool


def _route(line: np.ndarray, stops: list[tuple[float, int, int]], turns: bool) -> Route:
    """Speed limits follow from the curvature, with comfortable braking ahead of bends."""
    path = Path(line)
    yaw = path.yaw(path.arc)
    bend = np.abs(np.angle(np.exp(1j * (np.roll(yaw, -2) - np.roll(yaw, 2))))) / 4.0
    bend[:2] = bend[-2:] = 0.0
    limit = np.minimum(np.sqrt(SIDEWAYS / np.maximum(bend, 1e-3)), 14.0)
    for i in range(len(limit) - 2, -1, -1):
        limit[i] = min(limit[i], np.sqrt(limit[i + 1] ** 2 + 2 * BRAKING * (path.arc[i + 1] - path.arc[i])))
    return Route(path, limit, tuple(stops), turns)


def routes(network: RoadNetwork) -> list[Route]:
    """Straight on along every lane, first the main road's, and all turns from one lane into another."""
    found = []
    for lane in network.lanes:
        side = 0 if lane.road == 0 else 2
        found.append(_route(lane.path.line, [(stop, junction, side) for stop, _, junction in lane.crossings], False))
    for lane in network.lanes:
        for other in network.lanes:
            # Left turns between inner lanes and right turns between outer ones never cross each other.
            if other.road != lane.road and 0 in (lane.road, other.road):
                found += _turns(lane, other)
    return found


def _turns(lane: Lane, other: Lane) -> list[Route]:
    """The route that leaves `lane` for `other` at the junction that they share, if any."""
    shared = [(a, b) for a in lane.crossings for b in other.crossings if a[2] == b[2]]
    if not shared:
        return []
    (stop, _, junction), (_, out, _) = shared[0]
    if other.path.length - out < 15 or stop < 5:
        return []
    start, end = lane.path.at(stop), other.path.at(out)
    before, after = float(lane.path.yaw(stop)), float(other.path.yaw(out))
    reach = 0.4 * float(np.hypot(*(end - start)))
    t = np.linspace(0, 1, 25)[:, None]
    a, b = (
        start + reach * np.array([np.cos(before), np.sin(before)]),
        end - reach * np.array([np.cos(after), np.sin(after)]),
    )
    bend = (1 - t) ** 3 * start + 3 * t * (1 - t) ** 2 * a + 3 * t**2 * (1 - t) * b + t**3 * end
    left = bool(np.sin(after - before) > 0)
    if not (lane.inner and other.inner if left else lane.outer and other.outer):
        return []
    main = 0 if lane.road == 0 else 2
    line = np.concatenate(
        [
            lane.path.at(np.arange(0, stop - 0.5, 1.0)),
            bend,
            other.path.at(np.arange(out + 1, other.path.length, 1.0)),
        ]
    )
    stops = [(s, j, main) for s, _, j in lane.crossings if s < stop] + [(stop, junction, main + left)]
    gone = stop + Path(bend).length - out
    stops += [(s + gone, j, 0 if other.road == 0 else 2) for s, _, j in other.crossings if s > out]
    return [_route(line, stops, True)]


@dataclass
class Driver:
    """A moving vehicle: its route, the distance s of its middle along it [m], its speed and wished speed
    [m/s]."""

    vehicle: Vehicle
    route: Route
    s: float
    speed: float
    wish: float


class Traffic:
    """Moving vehicles, stepped in time; drivers[0] is the vehicle that carries the LiDAR. Deterministic from
    `rng`."""

    def __init__(self, world: World, rng: np.random.Generator, ego: Shape, count: int) -> None:
        self._rng = rng
        self._routes = routes(world.network)
        self._parked = np.array([v.box for v in world.vehicles]).reshape(-1, 7)
        arrivals = np.array([junction.s / CYCLE_SPEED for junction in world.network.junctions])
        self._offsets = rng.uniform(0, 8.0, len(arrivals)) - arrivals
        self._next_track = len(world.vehicles)
        self.time = 0.0
        self.drivers: list[Driver] = []
        self._enter(self._routes[0], 25.0, ego, 0.0)
        for _ in range(6 * count):
            if len(self.drivers) < count:
                route = self._routes[int(rng.integers(len(self._routes)))]
                s = rng.uniform(5, route.path.length - 5)
                # Nobody starts within a junction.
                if not any(stop - 5 < s < stop + 30 for stop, _, _ in route.stops):
                    self._enter(route, s, random_shape(rng, route.turns), 1.5)

    def _enter(self, route: Route, s: float, shape: Shape, gap: float) -> None:
        """Let a vehicle start there unless the place is taken."""
        box = self._box(shape, route, s)
        if gap and overlaps(box, self._boxes(), gap).any():
            return
        vehicle = Vehicle(shape, box, sample_reflectances(self._rng), self._next_track)
        self._next_track += 1
        wish = self._rng.uniform(8.0, 13.5)
        self.drivers.append(Driver(vehicle, route, s, 0.7 * wish, wish))

    @staticmethod
    def _box(shape: Shape, route: Route, s: float) -> np.ndarray:
        """The box, on z = 0, of a vehicle whose axles stand on the path."""
        rear, front = route.path.at(np.array((s - 0.3 * shape.size[0], s + 0.3 * shape.size[0])))
        (x, y), (dx, dy) = (rear + front) / 2, front - rear
        return shape.box(float(x), float(y), math.atan2(dy, dx))

    def _boxes(self) -> np.ndarray:
        return np.concatenate([self._parked, *[d.vehicle.box[None] for d in self.drivers]])

    def _is_green(self, junction: int, phase: int) -> bool:
        clock = (self.time + self._offsets[junction]) % (sum(GREEN) + 4 * CLEARING)
        start = sum(GREEN[:phase]) + phase * CLEARING
        return bool(start <= clock < start + GREEN[phase])

    def step(self, seconds: float) -> None:
        """Move everybody; vehicles that reach the end of their route leave and others enter."""
        self.time += seconds
        boxes = self._boxes()
        pushes = [self._acceleration(driver, boxes, len(self._parked) + i) for i, driver in enumerate(self.drivers)]
        for i, (driver, push) in enumerate(zip(self.drivers, pushes, strict=True)):
            speed = max(driver.speed + push * seconds, 0.0)
            s = driver.s + speed * seconds
            box = self._box(driver.vehicle.shape, driver.route, s)
            row = len(self._parked) + i
            others = np.delete(boxes, row, axis=0)
            if speed > 0 and overlaps(box, others, MARGIN).any():
                driver.speed = 0.0
                continue
            driver.s, driver.speed, driver.vehicle = s, speed, driver.vehicle.at(box)
            boxes[row] = box
        staying = [d for i, d in enumerate(self.drivers) if i == 0 or d.s < d.route.path.length - 4]
        gone = len(self.drivers) - len(staying)
        self.drivers = staying
        for _ in range(gone):
            route = self._routes[int(self._rng.integers(len(self._routes)))]
            self._enter(route, 4.0, random_shape(self._rng, route.turns), 6.0)

    def _acceleration(self, driver: Driver, boxes: np.ndarray, row: int) -> float:
        """Intelligent driver model: free road, the vehicle ahead, and a red signal as a standing one."""
        length = driver.vehicle.shape.size[0]
        wish = min(driver.wish, float(np.interp(driver.s, driver.route.path.arc, driver.route.limit)))
        gap, closing = self._leader(driver, boxes, row)
        for stop, junction, phase in driver.route.stops:
            ahead = stop - driver.s - length / 2
            braking = driver.speed**2 / (2 * 2 * BRAKING)
            if braking - 1.0 < ahead + 1.0 < gap and ahead > -1.0 and not self._is_green(junction, phase):
                gap, closing = max(ahead + STANDSTILL, 0.1), driver.speed
        wanted = STANDSTILL + max(
            driver.speed * HEADWAY + driver.speed * closing / (2 * np.sqrt(ACCELERATION * BRAKING)), 0
        )
        push = ACCELERATION * (1 - (driver.speed / max(wish, 0.5)) ** 4 - (wanted / max(gap, 0.1)) ** 2)
        return float(np.clip(push, -8.0, ACCELERATION))

    def _leader(self, driver: Driver, boxes: np.ndarray, row: int) -> tuple[float, float]:
        """Free distance ahead on the driver's path [m] and the speed at which it shrinks [m/s]."""
        size = driver.vehicle.shape.size
        ahead = np.arange(size[0] / 2 + 0.5, size[0] / 2 + LOOK_AHEAD, 1.0)
        reach = driver.s + ahead
        on_path = driver.route.path.at(reach[reach < driver.route.path.length])
        if len(on_path) == 0:
            return LOOK_AHEAD, 0.0
        near = np.hypot(*(boxes[:, :2] - driver.vehicle.box[:2]).T) < LOOK_AHEAD + 12
        near[row] = False
        # Moving vehicles only: parked ones stand beside the lanes.
        near[: len(self._parked)] = False
        others = np.flatnonzero(near)
        if len(others) == 0:
            return LOOK_AHEAD, 0.0
        # A vehicle blocks the path where the path's middle comes within half the width of its rectangle.
        c, s = np.cos(boxes[others, 6]), np.sin(boxes[others, 6])
        offset = on_path[:, None] - boxes[others, :2]
        along, across = offset[..., 0] * c + offset[..., 1] * s, offset[..., 1] * c - offset[..., 0] * s
        beside = np.abs(across) - boxes[others, 4] / 2 < size[1] / 2 + 0.25
        hit = beside & (np.abs(along) < boxes[others, 3] / 2 + 0.3)
        first = np.argmax(hit.any(1))
        if not hit[first].any():
            return LOOK_AHEAD, 0.0
        leader = self.drivers[int(others[np.argmax(hit[first])]) - len(self._parked)]
        turn = leader.vehicle.box[6] - driver.vehicle.box[6]
        return float(ahead[first] - size[0] / 2 - 0.5), driver.speed - leader.speed * max(float(np.cos(turn)), 0.0)
