"""How weights are made: the only source of a training's defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import NetworkConfig
from sbnet_perception.errors import UserError
from sbnet_perception.learning.datasets.registry import HELP
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.predicted import PREDICTED


@dataclass(frozen=True)
class TrainConfig:
    """How weights are made. The same configuration gives the same weights on the same kind of machine."""

    grid: str = field(default="compact", metadata={"help": "grid to train for (compact or paper)"})
    region: tuple[float, float, float, float] = field(
        default=DetectorConfig.region, metadata={"help": "where scenes are simulated: x_min x_max y_min y_max, metres"}
    )
    classes: tuple[str, ...] = field(
        default=DetectorConfig.classes, metadata={"help": "classes to learn, of detector/classes.py"}
    )
    scenes: int = field(default=4000, metadata={"help": "simulated scenes to train on"})
    steps: int = field(default=4000, metadata={"help": "optimizer steps"})
    batch: int = field(default=4, metadata={"help": "scenes per step, of all processes together"})
    crop: int = field(default=192, metadata={"help": "columns of the grid seen in one sample, a multiple of 16"})
    crop_rows: int = field(default=176, metadata={"help": "rows of the grid seen in one sample, a multiple of 16"})
    learning_rate: float = field(default=2e-3, metadata={"help": "peak of the one-cycle schedule"})
    weight_decay: float = field(default=1e-2, metadata={"help": "AdamW weight decay"})
    seed: int = field(default=1, metadata={"help": "seed of initialization, order and augmentation"})
    start: str = field(default="", metadata={"help": "weights file to begin with; empty means random weights"})
    data: str = field(default="", metadata={"help": f"real sweeps to mix in: {HELP}"})
    data_frames: int = field(default=1000, metadata={"help": "most frames of the data set, evenly taken"})
    data_share: float = field(default=0.3, metadata={"help": "share of the samples that are of real sweeps"})
    sensor: str = field(default="", metadata={"help": "file of the sensor to simulate, of sbnet adapt; empty: random"})
    scene_seed: int = field(default=1_000_000, metadata={"help": "seed of the first scene"})
    mask: tuple[str, ...] = field(
        default=(MaskConfig().settled,),
        metadata={
            "help": "mask expressions that the detector is trained under: of several one is drawn for each sample, one "
            "that is given twice twice as often",
        },
    )
    mask_weights: str = field(
        default="", metadata={"help": "mask network of an expression that names predicted"}
    )
    width: float = field(
        default=1.0, metadata={"help": "share of the network's channels to have, from random weights: a faster network"}
    )
    header_convolutions: int = field(
        default=NetworkConfig.header_convolutions, metadata={"help": "3x3 convolutions before the outputs"}
    )
    zeros: float = field(default=0.0, metadata={"help": "share of weights that become 0, docs/sparse_weights.md"})
    zeros_inputs: int = field(
        default=2, metadata={"help": "inputs whose weights are 0 together: 1 for float32, 2 for bfloat16 too, or 4"}
    )
    loss_mask: str = field(
        default="", metadata={"help": "mask expression where the loss counts; empty: wherever the detector computes"}
    )
    teacher: str = field(
        default="",
        metadata={"help": "weights file whose outputs are learned beside the labels, for smaller or sparser networks"},
    )
    mask_network: bool = field(default=False, metadata={"help": "train a mask network instead of the detector"})

    def __post_init__(self) -> None:
        for name in ("scenes", "steps", "batch", "data_frames"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.data_share <= 1:
            raise UserError(f"--data-share is {self.data_share}; it must lie in [0, 1]")
        if not 0 < self.width <= 1:
            raise UserError(f"--width is {self.width}; it must be more than 0 and at most 1")
        if not 1 <= self.header_convolutions <= 16:
            raise UserError(f"--header-convolutions is {self.header_convolutions}; it must lie in [1, 16]")
        if self.network != NetworkConfig() and (self.start or self.mask_network):
            other = "--mask-network" if self.mask_network else "--start, whose weights have their own"
            raise UserError(f"--width and --header-convolutions shape a new detector; leave them or {other}, out")
        if not 0 <= self.zeros < 1:
            raise UserError(f"--zeros is {self.zeros}; it must be at least 0 and less than 1")
        if self.zeros_inputs not in (1, 2, 4):
            raise UserError(f"--zeros-inputs is {self.zeros_inputs}; it must be 1, 2 or 4")
        if self.zeros_inputs != type(self).zeros_inputs and not self.zeros:
            raise UserError(f"--zeros-inputs is {self.zeros_inputs}, which counts with --zeros only; give both or none")
        if self.zeros and self.mask_network:
            raise UserError("--zeros is for the detector; leave it or --mask-network out")
        if self.teacher and self.mask_network:
            raise UserError("--teacher is for the detector; leave it or --mask-network out")
        try:
            grid = self.detector.raster
            loss_mask = MaskConfig(self.loss_mask or self.mask[0])
            named = frozenset().union(*(mask.names for mask in self.masks))
        except ValueError as error:
            raise UserError(f"--{error}") from None
        if PREDICTED.name in loss_mask.names - named:
            raise UserError("--loss-mask names predicted, which --mask does not; name it in both")
        for name, value, extent in (("crop", self.crop, grid.width), ("crop-rows", self.crop_rows, grid.height)):
            if not 16 <= value <= extent or value % 16:
                raise UserError(f"--{name} is {value}; it must be a multiple of 16 up to the grid's {extent}")

    @property
    def network(self) -> NetworkConfig:
        """Shape of a detector that begins with random weights."""
        return replace(NetworkConfig(), header_convolutions=self.header_convolutions).thinner(self.width)

    @property
    def masks(self) -> tuple[MaskConfig, ...]:
        """What the detector is trained under."""
        return tuple(MaskConfig(mask, weights=self.mask_weights) for mask in self.mask)

    @property
    def detector(self) -> DetectorConfig:
        """What the weights are for, and what they begin with; its mask is the first."""
        return DetectorConfig(
            grid=self.grid, region=self.region, classes=self.classes, weights=self.start, mask=self.masks[0]
        )
