"""What stands in the simulated world: vehicles and props on the ground, none of them overlapping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from .geometry import corners, overlaps
from .lidar import RayScene
from .materials import Material, sample_reflectances
from .mesh import Mesh
from .props import SOFT, VARIANTS, prop
from .roads import RoadNetwork
from .terrain import Ground, Terrain
from .vehicles import Shape

CLEARANCE = 0.2  # smallest gap between two things [m]


@dataclass(frozen=True)
class Vehicle:
    """A vehicle where it stands: box float64 [7] in the map frame, and the reflectances of its materials."""

    shape: Shape
    box: np.ndarray
    reflectances: np.ndarray
    track_id: int

    def at(self, box: np.ndarray) -> Vehicle:
        return Vehicle(self.shape, box, self.reflectances, self.track_id)


class Assembly:
    """Meshes put together into one ray-cast scene."""

    def __init__(self) -> None:
        self._triangles: list[np.ndarray] = []
        self._material: list[np.ndarray] = []
        self._reflectance: list[np.ndarray] = []

    def add(self, mesh: Mesh, triangles: np.ndarray, reflectances: np.ndarray) -> None:
        self._triangles.append(triangles)
        self._material.append(mesh.material)
        self._reflectance.append(reflectances[mesh.material])

    def add_vehicle(self, vehicle: Vehicle) -> None:
        x, y, z, *size, yaw = vehicle.box
        mesh = vehicle.shape.mesh
        self.add(mesh, mesh.placed(x, y, z - size[2] / 2, yaw, size), vehicle.reflectances)

    def __len__(self) -> int:
        return len(self._triangles)

    def build(self) -> RayScene:
        return RayScene(*(np.concatenate(a) for a in (self._triangles, self._material, self._reflectance)))


class World:
    """Roads, ground and everything static. `area`: only what stands within it is built (a polygon in the map
    frame)."""

    def __init__(self, rng: np.random.Generator, network: RoadNetwork, area: shapely.Polygon) -> None:
        self.rng = rng
        self.network = network
        self.area = area
        wild = Material(rng.choice((Material.GRASS, Material.CONCRETE), p=(0.6, 0.4)))
        self.ground = Ground(Terrain(rng, network), network, wild)
        self.vehicles: list[Vehicle] = []
        self._props: list[tuple[Mesh, float, float, float, tuple[float, float, float]]] = []
        self._bounds = np.array(area.bounds)
        self._taken: np.ndarray = np.zeros((256, 7))
        self._soft: np.ndarray = np.zeros(256, bool)
        self._count = 0
        shapely.prepare(area)

    def is_free(self, box: np.ndarray, clearance: float = CLEARANCE, soft: bool = False) -> bool:
        """Whether nothing stands within about `clearance` metres of the ground rectangle of `box` [7]; something `soft`
        may stand in what is soft too."""
        taken = self._taken[: self._count]
        return not overlaps(box, taken[~self._soft[: self._count]] if soft else taken, clearance).any()

    def take(self, box: np.ndarray, soft: bool = False) -> None:
        """Reserve the ground rectangle of `box` [7]."""
        if self._count == len(self._taken):
            self._taken = np.concatenate([self._taken, np.zeros_like(self._taken)])
            self._soft = np.concatenate([self._soft, np.zeros_like(self._soft)])
        self._taken[self._count], self._soft[self._count] = box, soft
        self._count += 1

    def sees(self, x: float, y: float) -> bool:
        x0, y0, x1, y1 = self._bounds
        return x0 < x < x1 and y0 < y < y1 and bool(shapely.contains_xy(self.area, x, y))

    def park(self, shape: Shape, x: float, y: float, yaw: float, clearance: float = CLEARANCE) -> bool:
        """Put a vehicle there unless something is in its way, the ground is steep, or it is out of the area."""
        if not self.sees(x, y):
            return False
        box = shape.box(x, y, yaw)
        if not self.is_free(box, clearance) or self.ground.is_steep(box):
            return False
        self.take(box)
        self.vehicles.append(Vehicle(shape, box, sample_reflectances(self.rng), len(self.vehicles)))
        return True

    def put(self, name: str, x: float, y: float, yaw: float, scale: tuple[float, float, float] = (1, 1, 1),
            on_road: bool = False, variant: int | None = None, clearance: float = CLEARANCE) -> bool:  # fmt: skip
        """Put a prop there, a random variant or this one, unless it would stand in something's way, on the road, or out
        of the area."""
        if not self.sees(x, y):
            return False
        mesh, (x0, y0, x1, y1) = prop(name, int(self.rng.integers(VARIANTS)) if variant is None else variant)
        c, s = np.cos(yaw), np.sin(yaw)
        cx, cy = (x0 + x1) / 2 * scale[0], (y0 + y1) / 2 * scale[1]
        centre = (x + c * cx - s * cy, y + s * cx + c * cy)
        box = np.array((*centre, 0, (x1 - x0) * scale[0], (y1 - y0) * scale[1], 0, yaw))
        if not self.is_free(box, clearance, name in SOFT):
            return False
        if not on_road and shapely.intersects(self.network.surface, shapely.Polygon(corners(box[None])[0])):
            return False
        self.take(box, name in SOFT)
        self.add(mesh, x, y, yaw, scale)
        return True

    def add(self, mesh: Mesh, x: float, y: float, yaw: float, scale: tuple[float, float, float]) -> None:
        """Put a mesh there whatever else is there."""
        self._props.append((mesh, x, y, yaw, scale))

    def on_ground(self, vehicles: list[Vehicle]) -> list[Vehicle]:
        """Vehicles whose boxes stand on z = 0, moved up or down onto the ground; they stay upright."""
        if not vehicles:
            return []
        z = self.ground.height(np.array([v.box[:2] for v in vehicles]))
        return [v.at(v.box + np.array((0, 0, dz, 0, 0, 0, 0))) for v, dz in zip(vehicles, z, strict=True)]

    def build(self) -> RayScene:
        """Set everything on the ground, for good, and make it ready for ray casting."""
        self.vehicles = self.on_ground(self.vehicles)
        assembly = Assembly()
        ground = self.ground.mesh(self.area)
        assembly.add(ground, ground.triangles, sample_reflectances(self.rng))
        for vehicle in self.vehicles:
            assembly.add_vehicle(vehicle)
        places = np.array([prop[1:3] for prop in self._props]).reshape(-1, 2)
        for (mesh, x, y, yaw, scale), z in zip(self._props, self.ground.height(places), strict=True):
            assembly.add(mesh, mesh.placed(x, y, z - 0.02, yaw, scale), sample_reflectances(self.rng))
        return assembly.build()
