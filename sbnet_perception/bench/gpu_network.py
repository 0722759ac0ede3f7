"""`sbnet bench gpu network`: the network under masks of frames, beside the best dense one and the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from sbnet_perception.bench import current, dense, launches, limits
from sbnet_perception.bench.chips import Chip
from sbnet_perception.bench.inputs import Input, Scene
from sbnet_perception.bench.measure import Row, Run, alternate
from sbnet_perception.bench.network import expressions
from sbnet_perception.bench.recorded import recorded, timer
from sbnet_perception.bench.sides import DenseInput
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Voxels
from sbnet_perception.blocks.sparse_map import spread
from sbnet_perception.detector.device import first_line
from sbnet_perception.detector.frame import Room
from sbnet_perception.detector.gpu import rooms_on, smallest
from sbnet_perception.detector.network import Detector, Prediction
from sbnet_perception.detector.pipeline import Pipeline

Way = Callable[[Tensor], Tensor]
EVERYWHERE = "everywhere"
NOT_OF_THE_NETWORK = "boxes"


WAYS: dict[str, Callable[[Detector, Tensor], Way]] = {
    "eager": lambda network, bev: dense.detectors(network, bev)["eager"],
    "compile": lambda network, bev: dense.whole(network),
    "autotune": lambda network, bev: dense.whole(network, max_autotune=True),
    "tensorrt": lambda network, bev: dense.tensorrt(network),
}
"""Dense networks for inputs like ``bev``. All are recorded before they are timed: launches cost them nothing."""


class Measured:
    """The networks of one configuration, dense and sparse, on the frame that was shown last."""

    def __init__(self, pipeline: Pipeline, names: Sequence[str], scene: Scene) -> None:
        self.pipeline, self.device = pipeline, pipeline.device
        self._dense_input = DenseInput(pipeline.grid, pipeline.network.dtype)
        self.module = current.dense_network(pipeline).to(self.device)
        self.bev = self._dense_input(scene.points).to(self.device)
        self.expected = current.dense_maps(self.module, self.bev)
        self.dense: dict[str, Run] = {}
        self.about: Row = {}
        """Of each dense network how far it is from the network's own result (2-norm, relative), or why it failed."""
        for name in names:
            self._add(name)

    def _add(self, name: str) -> None:
        try:
            run = recorded(partial(WAYS[name](self.module, self.bev), self.bev), self.device)
            self.about[f"dense_{name}_error"] = self.error(run())
        except Exception as error:  # of whatever compiles it: the others are measured all the same
            self.about[f"dense_{name}_failed"] = first_line(error)
            return
        self.dense[name] = run

    def masks(self, scene: Scene) -> dict[str, Tensor]:
        """Those that can be made for a scene, on the device."""
        masks = {name: current.computed(scene, self.pipeline.grid, mask) for name, mask in expressions(False).items()}
        masks[EVERYWHERE] = torch.ones(self.pipeline.grid.shape, dtype=torch.bool)
        return {name: mask.to(self.device) for name, mask in masks.items() if mask is not None}

    def show(self, scene: Scene) -> Voxels:
        """Puts a scene before the dense networks; returns it for the sparse one."""
        self.bev.copy_(self._dense_input(scene.points))
        self.expected = current.dense_maps(self.module, self.bev)
        points = torch.from_numpy(scene.points).to(self.device)
        return voxels(points, self.pipeline.grid, min(len(points), self.bev.shape[2] * self.bev.shape[3]))

    def sparse(self, bev: Voxels, mask: Tensor) -> Run:
        """The network under a mask, tiles included, with the room that the pipeline would give it."""
        network = self.pipeline.network
        room = room_for([len(tiles.pixels) for tiles in network.tiles(mask).values()], self.pipeline)
        return recorded(lambda: network.predict(bev, network.tiles(mask, room)), self.device)

    def error(self, found: object) -> float:
        """How far maps, or a prediction everywhere, are from the network's own result (2-norm, relative)."""
        maps = spread(found.rows, found.pixels) if isinstance(found, Prediction) else found
        assert isinstance(maps, Tensor)
        expected = self.expected.float()
        return float((maps.float() - expected).norm() / expected.norm())


def room_for(counts: Sequence[int], pipeline: Pipeline) -> tuple[int, ...]:
    """Rows of each stage's buffers: the smallest that `Graphs` has for such counts."""
    rooms = rooms_on(pipeline.grid)
    return rooms[smallest(rooms, counts)]


def frame_room(pipeline: Pipeline, points: int, counts: Sequence[int]) -> Room:
    """Room for a frame of so many points and pixels of each stage."""
    height, width = pipeline.grid.shape
    return Room(min(points, height * width), room_for(counts, pipeline))


@torch.inference_mode()
def measure(
    source: Input, pipeline: Pipeline, names: Sequence[str], frames: int, rounds: int, chip: Chip | None
) -> Iterator[list[Row]]:
    """The rows of one frame after the other: one for each mask, against the dense networks of the same rounds."""
    scenes = source.frames()
    measured, ms_of = Measured(pipeline, names, source.scenes[0]), timer(pipeline.device)
    for number, scene in zip(range(frames), scenes, strict=False):
        bev, masks = measured.show(scene), measured.masks(scene)
        sparse = {name: measured.sparse(bev, mask) for name, mask in masks.items()}
        about: Row = {"frame": number, "error": measured.error(sparse[EVERYWHERE]()), **measured.about}
        times = alternate({**measured.dense, **sparse}, rounds, ms_of=ms_of)
        medians = {name: time.median for name, time in times.items()}
        best = min(measured.dense, key=lambda name: medians[name])
        yield [
            {
                "mask": name,
                **about,
                "pixel_sparsity": 1.0 - float(mask.float().mean()),
                "dense_ms": medians[best],
                "dense_best": best,
                **{f"dense_{way}_ms": medians[way] for way in measured.dense},
                "sparse_ms": medians[name],
                "p95_ms": times[name].p95,
                "speedup": medians[best] / medians[name],
                **model(measured.module, pipeline, mask, chip),
            }
            for name, mask in masks.items()
        ]


def model(network: Detector, pipeline: Pipeline, mask: Tensor, chip: Chip | None) -> Row:
    """What the model says of the network under a mask, in milliseconds."""
    if chip is None:
        return {"model_dense_ms": None, "model_sparse_ms": None}
    height, width = pipeline.grid.shape
    pixels = {stage: float(len(tiles.pixels)) for stage, tiles in pipeline.network.tiles(mask).items()}
    sides: Mapping[str, Sequence[launches.Launch]] = {
        "model_dense_ms": launches.dense(network, height, width),
        "model_sparse_ms": launches.sparse(network, pixels, height * width),
    }
    return {
        side: 1e3 * limits.total([one for one in found if one.part != NOT_OF_THE_NETWORK], chip).seconds
        for side, found in sides.items()
    }
