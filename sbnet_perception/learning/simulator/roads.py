"""Road networks: a main road of straights and curves, roads that cross or join it, lanes and polygons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from .geometry import Path

CORNER = 6.0  # radius of the kerb where roads meet [m]
STOP = 4.0  # distance of the stop lines from the crossing road [m]


@dataclass(frozen=True)
class Lane:
    """A lane in driving direction; road: index of its road; crossings: the junctions on it in driving
    order, each as (where traffic waits, where it has left the junction, number of the junction),
    distances along the lane [m]; inner, outer: whether it is the lane next to the middle of the road, or
    next to the kerb."""

    path: Path
    road: int
    crossings: tuple[tuple[float, float, int], ...]
    inner: bool
    outer: bool


@dataclass(frozen=True)
class Road:
    """centre: centre line; forward, backward: number of lanes along and against it; lane: width of one [m];
    parking: widths of the parking strips to the left and right, 0 for none; pavement: width of the
    sidewalks."""

    centre: Path
    forward: int
    backward: int
    lane: float
    parking: tuple[float, float]
    pavement: float

    @property
    def left(self) -> float:
        """Distance of the left kerb from the centre line [m]."""
        return self.backward * self.lane + self.parking[0]

    @property
    def right(self) -> float:
        return self.forward * self.lane + self.parking[1]

    def band(self, left: float, right: float) -> shapely.Polygon:
        """The strip from `left` m on the left to `right` m on the right of the centre line."""
        return shapely.Polygon(
            np.concatenate([self.centre.offset(left).line, self.centre.offset(-right).line[::-1]])
        ).buffer(0)


@dataclass(frozen=True)
class Junction:
    """Where road `road` meets the main road: s, distance along the main road [m]."""

    s: float
    road: int


class RoadNetwork:
    """roads[0] is the main road; `surface` is the area within the kerbs, `paved` adds the sidewalks."""

    def __init__(self, roads: list[Road], junctions: list[Junction]) -> None:
        self.roads = roads
        self.junctions = junctions
        kerbs = shapely.union_all([road.band(road.left, road.right) for road in roads])
        self.surface = kerbs.buffer(CORNER, quad_segs=4).buffer(-CORNER, quad_segs=4).simplify(0.02)
        walks = [road.band(road.left + road.pavement, road.right + road.pavement) for road in roads]
        self.paved = shapely.union_all([*walks, self.surface])
        self.lanes = [lane for index in range(len(roads)) for lane in self._lanes(index)]

    def _lanes(self, index: int) -> list[Lane]:
        road = self.roads[index]
        lanes = []
        for number in range(road.forward + road.backward):
            ahead = number < road.forward
            offset = -(number + 0.5) * road.lane if ahead else (number - road.forward + 0.5) * road.lane
            path = road.centre.offset(offset)
            path = path if ahead else path.reversed()
            rank, last = (number, road.forward - 1) if ahead else (number - road.forward, road.backward - 1)
            lanes.append(Lane(path, index, self._crossings(path, index), rank == 0, rank == last))
        return lanes

    def _crossings(self, path: Path, index: int) -> tuple[tuple[float, float, int], ...]:
        """Where a lane of road `index` enters and leaves its junctions."""
        line = shapely.LineString(path.line)
        found = []
        for number, junction in enumerate(self.junctions):
            other = self.roads[junction.road if index == 0 else 0]
            meeting = line.intersection(other.band(other.left, other.right)) if index in (0, junction.road) else None
            if meeting is not None and not meeting.is_empty:
                s = shapely.line_locate_point(line, shapely.points(shapely.get_coordinates(meeting)))
                found.append((max(float(s.min()) - STOP, 0.0), min(float(s.max()) + STOP, path.length), number))
        return tuple(sorted(found))

    def polygons(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outlines [K, 2] of the road surface, and of the holes in it."""
        parts = shapely.get_parts(self.surface)
        return [np.asarray(p.exterior.coords) for p in parts], [
            np.asarray(r.coords) for p in parts for r in p.interiors
        ]


def _winding_line(rng: np.random.Generator, length: float) -> np.ndarray:
    """Centre line [K, 2] with a vertex per metre: straights and arcs that steer back to the first heading."""
    curvature: list[float] = []
    heading = 0.0
    while len(curvature) < length:
        piece = int(rng.uniform(25, 80))
        bend = 0.0 if rng.random() < 0.5 else rng.choice((-1, 1)) / rng.uniform(50, 250)
        if abs(heading + bend * piece) > 0.9:
            bend = -bend if abs(heading - bend * piece) <= 0.9 else 0.0
        curvature += [bend] * piece
        heading += bend * piece
    smooth = np.convolve(np.array(curvature[: int(length)]), np.full(9, 1 / 9), mode="same")
    yaw = np.concatenate([[0.0], np.cumsum(smooth)])
    return np.concatenate([[(0.0, 0.0)], np.cumsum(np.stack([np.cos(yaw), np.sin(yaw)], 1), axis=0)])


def _road(rng: np.random.Generator, line: np.ndarray, busy: float, narrowest: float) -> Road:
    """A road of random cross-section along `line`; `busy` in 0-1 widens it."""
    lanes = int(rng.choice((1, 2, 3), p=(1 - 0.6 * busy, 0.45 * busy, 0.15 * busy)))
    one_way = rng.random() < 0.2
    parking = tuple(float(rng.uniform(2.1, 2.7)) if rng.random() < 0.5 else 0.0 for _ in range(2))
    lane = rng.uniform(narrowest, 3.7)
    pavement = 0.5 + 4.0 * rng.beta(1.3, 2.5)
    return Road(Path(line), lanes, 0 if one_way else lanes, lane, (parking[0], parking[1]), pavement)


def road_network(
    rng: np.random.Generator, length: float, spacing: tuple[float, float] = (50.0, 160.0), narrowest: float = 2.8
) -> RoadNetwork:
    """A main road of `length` metres with junctions every `spacing` metres; its lanes are `narrowest` m wide or more:
    in less than 2.8 m the widest vehicles cannot pass each other."""
    busy = rng.random() ** 1.7
    roads = [_road(rng, _winding_line(rng, length), busy, narrowest)]
    main = roads[0].centre
    junctions: list[Junction] = []
    s = rng.uniform(15, spacing[1])
    while s < length - 15:
        at, yaw = main.at(s), float(main.yaw(s)) + np.pi / 2 + rng.normal(0, 0.2)
        side = rng.choice((-1, 0, 1), p=(0.2, 0.6, 0.2))
        reach = np.arange(-80.0 * (side <= 0), 80.0 * (side >= 0) + 1.0)
        line = at + reach[:, None] * np.array([np.cos(yaw), np.sin(yaw)])
        roads.append(_road(rng, line, 0.6 * busy, narrowest))
        junctions.append(Junction(float(s), len(roads) - 1))
        s += rng.uniform(*spacing)
    return RoadNetwork(roads, junctions)
