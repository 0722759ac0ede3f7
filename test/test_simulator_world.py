"""The simulated world: vehicles stand as real ones do, their labels fit, and what is porous can be seen through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import shapely

from sbnet_perception.learning.simulator.geometry import corners
from sbnet_perception.learning.simulator.materials import FREE_PATH
from sbnet_perception.learning.simulator.parking import BESIDE, bay_row, kerb_row
from sbnet_perception.learning.simulator.props import MAKERS, VARIANTS, prop
from sbnet_perception.learning.simulator.roads import RoadNetwork, road_network
from sbnet_perception.learning.simulator.roadside import furnish
from sbnet_perception.learning.simulator.scene import _traffic
from sbnet_perception.learning.simulator.stretch import Stretch
from sbnet_perception.learning.simulator.vehicles import random_shape
from sbnet_perception.learning.simulator.world import World


def test_every_vehicle_has_a_shape_of_its_own_that_fills_its_box() -> None:
    rng = np.random.default_rng(3)
    shapes = [random_shape(rng) for _ in range(60)]
    assert len({(shape.kind, shape.variant, shape.warp) for shape in shapes}) == len(shapes)
    for shape in shapes:
        points = shape.mesh.triangles.reshape(-1, 3)
        assert np.allclose(points.min(0), (-0.5, -0.5, 0), atol=1e-5), shape
        assert np.allclose(points.max(0), (0.5, 0.5, 1), atol=1e-5), shape


def _empty_street(seed: int) -> tuple[World, Stretch]:
    """A world without anything, and the left side of its main road, which has a parking strip."""
    rng = np.random.default_rng(seed)
    road = replace(road_network(rng, 150.0).roads[0], parking=(2.4, 2.4))
    world = World(rng, RoadNetwork([road], []), shapely.LineString(road.centre.line).buffer(60.0))
    return world, Stretch(road, 1, 10.0, 140.0, road.pavement)


def _gaps(world: World) -> np.ndarray:
    """Distance of every vehicle's rectangle to the nearest other one [m]."""
    boxes = np.array([vehicle.box for vehicle in world.vehicles]).reshape(-1, 7)
    rectangles = shapely.polygons(corners(boxes))
    distance = shapely.distance(rectangles[:, None], rectangles[None])
    np.fill_diagonal(distance, np.inf)
    return distance.min(1, initial=np.inf)


def test_a_full_street_is_parked_bumper_to_bumper_without_a_touch() -> None:
    gaps = []
    for seed in range(8):
        world, stretch = _empty_street(seed)
        kerb_row(world, stretch, 1.0, on_walk=False)
        gaps.append(_gaps(world))
    found = np.concatenate(gaps)
    assert len(found) > 120
    assert found.min() > 0.1
    assert np.median(found) < 1.0


def test_vehicles_in_bays_stand_side_by_side_a_door_apart() -> None:
    for turn in (np.pi / 2, 1.0):
        gaps = []
        for seed in range(6):
            world, stretch = _empty_street(seed)
            bay_row(world, stretch, 1.0, turn, 1.0)
            gaps.append(_gaps(world))
        found = np.concatenate(gaps)
        assert len(found) > 60
        assert found.min() > 0.1
        assert np.median(found) < BESIDE[1]


def test_what_is_porous_is_a_closed_body_so_that_a_beam_that_enters_also_leaves() -> None:
    for name in MAKERS:
        for variant in range(VARIANTS):
            built = prop(name, variant)[0]
            leaves = built.triangles[FREE_PATH[built.material] > 0].astype(np.float64)
            # Of a closed body the faces' normals cancel out, and they point outward.
            normals = np.cross(leaves[:, 1] - leaves[:, 0], leaves[:, 2] - leaves[:, 0])
            volume = np.einsum("ij,ij->", leaves.mean(1), normals) / 6
            assert np.abs(normals.sum(0)).max() < 1e-3 * max(np.abs(normals).sum(), 1), (name, variant)
            assert volume > 0 or not len(leaves), (name, variant)


def test_most_vehicles_of_a_training_scene_are_parked() -> None:
    still = moving = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        network = road_network(rng, 150.0, narrowest=2.4)
        world = World(rng, network, shapely.LineString(network.roads[0].centre.line).buffer(40.0))
        _traffic(world, 0.65)
        moving += len(world.vehicles)
        furnish(world, 0.9)
        still += len(world.vehicles)
    assert still - moving > moving
