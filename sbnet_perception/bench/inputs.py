"""What the benches of the network and the pipeline run on: recorded or simulated clouds, never twice the same."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbnet_perception.bags.messages import point_cloud2
from sbnet_perception.bags.reader import BagReader, deserialize
from sbnet_perception.bags.recorded import CLOUD_TYPE
from sbnet_perception.bags.transforms import TransformTable, stamp_ns
from sbnet_perception.bags.types import typestore
from sbnet_perception.bev.se2 import SE2
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.frame import RealFrame
from sbnet_perception.learning.datasets.registry import FORM, READERS, open_data
from sbnet_perception.learning.frames import FULL_REFLECTANCE
from sbnet_perception.learning.simulator import Drive
from sbnet_perception.masks.road import RoadMap, RoadView
from sbnet_perception.messages.occupancy_grid import road_from_occupancy_grid
from sbnet_perception.messages.pointcloud2 import read_points

SIMULATED = "simulated"
DRIVES = (9_100_001, 9_100_002)
"""Seeds of the simulated drives."""
SECONDS, RATE_HZ = 8.0, 0.5
MOST_CLOUDS = 40
"""Clouds taken from a bag or data set, evenly over its length; more frames are variants of them."""
GROUND_FRAME = "base_link"
KINDS = f"a bag, labelled frames (*.npz) or a folder of them, another data set ({FORM}), or 'simulated'"

MOVE, TURN = 0.5, 0.03
"""The vehicle stands up to this many metres, in x and in y, and radians beside where the cloud was taken."""
NOISE, DROP_OUT = 0.01, 0.05
"""Standard deviation in metres added to every coordinate; up to this share of the points is left out."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A cloud in the grid frame (z = 0 is the ground) and the road around it.

    Attributes:
        points: float32 [P, 4] x, y, z in metres, intensity 0-1.
        road: map of the road, or None where none is known.
        map_from_grid: where the vehicle is on that map.
        boxes: float32 [M, 7] of the vehicles that are there, or None where nobody knows.
    """

    points: NDArray[np.float32]
    road: RoadMap | None = None
    map_from_grid: SE2 = field(default_factory=SE2)
    boxes: NDArray[np.float32] | None = None

    def view(self) -> RoadView | None:
        """The road under this frame, looked up anew for each view."""
        return None if self.road is None else RoadView(self.road, self.map_from_grid)

    def message(self) -> bytes:
        """The cloud as the CDR bytes of a sensor_msgs/PointCloud2, intensity 0-255."""
        return bytes(typestore().serialize_cdr(point_cloud2(self.points, GROUND_FRAME, 0), CLOUD_TYPE))


@dataclass(frozen=True, eq=False)
class Input:
    """Scenes of one source, under the name that rows carry."""

    name: str
    scenes: tuple[Scene, ...]

    def frames(self, seed: int = 0) -> Iterator[Scene]:
        """Perturbed scenes without end, the same for the same seed."""
        for number in itertools.count():
            yield perturbed(self.scenes[number % len(self.scenes)], np.random.default_rng([seed, number]))


def perturbed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene as a vehicle sees it that stands a little elsewhere: points, boxes and road move together.

    The points get noise and some drop out, so that no two frames share a cloud, a mask or a road.
    """
    x, y = rng.uniform(-MOVE, MOVE, 2)
    old_from_new = SE2(float(x), float(y), float(rng.uniform(-TURN, TURN)))
    new_from_old = old_from_new.inverse()
    points = scene.points[rng.random(len(scene.points)) >= rng.uniform(0.0, DROP_OUT)]
    points[:, :2] = new_from_old.apply(points[:, :2])
    points[:, :3] += rng.normal(0.0, NOISE, (len(points), 3)).astype(np.float32)
    boxes = None
    if scene.boxes is not None:
        boxes = scene.boxes.copy()
        boxes[:, :2] = new_from_old.apply(boxes[:, :2])
        boxes[:, 6] += new_from_old.yaw
    return replace(scene, points=points, boxes=boxes, map_from_grid=scene.map_from_grid @ old_from_new)


def read_inputs(text: str) -> list[Input]:
    """The inputs that the command line names: one for each frame of npz files, else one.

    Raises:
        UserError: there is nothing of that name, or nothing in it; the message says what can be given.
    """
    if text == SIMULATED:
        return [Input(SIMULATED, tuple(_simulated()))]
    path = Path(text)
    if not path.exists() and ":" not in text:
        raise UserError(f"INPUT: there is no {text}; give {KINDS}")
    if path.exists() and READERS["bag"].recognizes(path):
        return [Input(path.stem, tuple(_bag(path)))]
    try:
        data = open_data(text)
    except UserError as error:
        raise UserError(f"INPUT: {error}; give {KINDS}") from None
    if data.reader is READERS["npz"]:
        return [Input(item.name, (_stored(item.read()),)) for item in data.items]
    return [Input(data.folder.name[:8], tuple(_mapped(item.read()) for item in data.evenly(MOST_CLOUDS).items))]


def _simulated() -> Iterator[Scene]:
    for seed in DRIVES:
        drive = Drive(seed, SECONDS, RATE_HZ, "hdl64")
        road = drive.road_map
        for frame in drive.frames():
            points = frame.points.copy()
            points[:, 3] /= FULL_REFLECTANCE
            yield Scene(points, road, frame.map_from_base, frame.boxes)


def _mapped(frame: RealFrame) -> Scene:
    """A frame with the road of its map, if it has one."""
    if frame.road is None:
        return Scene(frame.points, boxes=frame.boxes)
    return Scene(frame.points, frame.road.road, frame.road.map_from_grid, frame.boxes)


def _stored(frame: RealFrame) -> Scene:
    """A frame of a file, whose road ends where the grid ends: a vehicle that stands a little elsewhere looks beyond."""
    if frame.road is None:
        return _mapped(frame)
    margin, stored = 50, frame.road.road
    cells = np.pad(stored.cells.numpy(), margin, mode="edge")
    shift = -margin * stored.resolution
    road = RoadMap(torch.from_numpy(cells), stored.resolution, stored.origin @ SE2(shift, shift))
    return Scene(frame.points, road, SE2(), frame.boxes)


def _bag(path: Path) -> Iterator[Scene]:
    """Clouds of a bag in `GROUND_FRAME`, or in their own frame where the bag does not know it."""
    with BagReader(path) as bag:
        clouds = bag.find_topic(CLOUD_TYPE, preferred="/points")
        step = -(-bag.topics[clouds].count // MOST_CLOUDS)
        transforms = TransformTable()
        for message in bag.messages([name for name in ("/tf_static", "/tf") if name in bag.topics]):
            for item in deserialize(message.raw, message.msgtype).transforms:
                transforms.add(item)
        roads = [name for name in bag.topics_of("nav_msgs/msg/OccupancyGrid") if name.endswith("road_mask")]
        masks = [deserialize(message.raw, message.msgtype) for message in bag.messages(roads[:1])][:1] if roads else []
        for message in itertools.islice(bag.messages([clouds]), 0, None, step):
            yield _scene(deserialize(message.raw, message.msgtype), transforms, masks)


def _scene(cloud: Any, transforms: TransformTable, masks: list[Any]) -> Scene:
    points, stamp = read_points(cloud, missing_intensity="zero").points, stamp_ns(cloud.header)
    matrix = _lookup(transforms, GROUND_FRAME, cloud.header.frame_id, stamp)
    if matrix is None:
        return Scene(points)
    points[:, :3] = points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    on_map = _lookup(transforms, masks[0].header.frame_id, GROUND_FRAME, stamp) if masks else None
    if on_map is None:
        return Scene(points)
    return Scene(points, road_from_occupancy_grid(masks[0]), SE2.from_matrix(on_map))


def _lookup(transforms: TransformTable, target: str, source: str, stamp: int) -> NDArray[np.float64] | None:
    try:
        return transforms.lookup(target, source, stamp)
    except UserError:
        return None
