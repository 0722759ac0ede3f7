"""Typed configuration of the detector: the only source of its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from sbnet_perception.bev.grid import NAMED_RESOLUTIONS, Grid
from sbnet_perception.checks import check_fields
from sbnet_perception.detector.classes import CLASSES, ObjectClass
from sbnet_perception.masks.config import MaskConfig

MOST_CELLS = 2**24
"""Of a grid: under the mask ``everywhere`` each takes about 400 bytes."""
LIVE = ("mask", "score_threshold", "nms_iou", "max_detections", "max_points")
"""Fields that may change between two frames: the network does not depend on them."""


@dataclass(frozen=True)
class DetectorConfig:
    """What the detector does, from points to boxes.

    Raises:
        ValueError: a value is out of its range; the message names the field.
    """

    grid: str = field(
        default="compact",
        metadata={
            "help": "Cells of the bird's-eye view, and the weights for them: compact (0.2 m) or paper (0.05 m).",
            "choices": tuple(NAMED_RESOLUTIONS),
        },
    )
    region: tuple[float, float, float, float] = field(
        default=Grid.named("compact").bounds,
        metadata={
            "help": "Where to detect, in metres around the vehicle: x_min, x_max (forward), y_min, y_max (left)."
        },
    )
    weights: str = field(
        default="",
        metadata={
            "help": "Weights file (safetensors) or name of a shipped one, as compact_any_mask; empty means the shipped "
            "weights of the grid."
        },
    )
    dtype: str = field(
        default="auto",
        metadata={
            "help": "Numbers that the network computes with: float32, or bfloat16 or float16, faster where the device "
            "has them; int8, fastest on a CPU, with weights of sbnet quantize; auto is float32 on a CPU, bfloat16 on a "
            "GPU that has it.",
            "choices": ("auto", "float32", "bfloat16", "float16", "int8"),
        },
    )
    device: str = field(
        default="auto",
        metadata={
            "help": "Where the detector computes: cpu, cuda, cuda:1, or auto: a GPU where there is one and it proves "
            "to compute what the CPU does."
        },
    )
    classes: tuple[str, ...] = field(
        default=("vehicle",), metadata={"help": "Names of the classes, in the order of the weights' logits."}
    )
    mask: MaskConfig = field(default_factory=MaskConfig, metadata={"help": "Where the network computes."})
    score_threshold: float | tuple[float, ...] = field(
        default=0.5,
        metadata={
            "help": "Detections below this score (0-1) are not reported; a list has one for each of the classes.",
            "range": (0.0, 1.0),
            "per_class": True,
        },
    )
    nms_iou: float = field(
        default=0.1,
        metadata={
            "help": "A box that overlaps a better one by more than this bird's-eye-view IoU goes and has a vote on it.",
            "range": (0.0, 1.0),
        },
    )
    max_detections: int = field(
        default=200,
        metadata={"help": "At most this many detections per frame, the best ones.", "range": (1, 10_000)},
    )
    max_points: int = field(
        default=500_000,
        metadata={
            "help": "Clouds with more points are subsampled evenly to this many.",
            "range": (1, 10_000_000),
        },
    )
    threads: int = field(
        default=0,
        metadata={"help": "CPU threads for the network; 0 leaves PyTorch's choice.", "range": (0, 1024)},
    )

    def __post_init__(self) -> None:
        check_fields(self)
        unknown = [name for name in self.classes if name not in CLASSES]
        if unknown or not self.classes or len(set(self.classes)) < len(self.classes):
            known = ", ".join(CLASSES)
            raise ValueError(f"classes is {self.classes!r}; give at least one of {known}, none of them twice")
        if isinstance(self.score_threshold, tuple) and len(self.score_threshold) != len(self.classes):
            raise ValueError(
                f"score_threshold is {list(self.score_threshold)}; give one number, or one for each of the classes: "
                f"{', '.join(self.classes)}"
            )
        if len(self.region) != 4:
            raise ValueError(f"region is {self.region!r}; give x_min, x_max, y_min, y_max in metres")
        try:
            grid = self.raster
        except ValueError as error:
            raise ValueError(f"region is {self.region!r}: {error}; give x_min, x_max, y_min, y_max in metres") from None
        if grid.height * grid.width > MOST_CELLS:
            raise ValueError(
                f"region is {self.region!r}: it holds {grid.height} x {grid.width} cells of {grid.resolution} m, more "
                f"than {MOST_CELLS}; make it smaller, or choose a grid of larger cells"
            )

    @property
    def raster(self) -> Grid:
        """The cells of the grid's size that cover the region."""
        return Grid(*self.region, resolution=self.cell_size)

    @property
    def cell_size(self) -> float:
        """Side of a cell, in metres."""
        return NAMED_RESOLUTIONS[self.grid]

    @property
    def objects(self) -> tuple[ObjectClass, ...]:
        """The entries of the classes."""
        return tuple(CLASSES[name] for name in self.classes)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """For each class the score (0-1) below which its detections are not reported."""
        if isinstance(self.score_threshold, tuple):
            return self.score_threshold
        shared = self.score_threshold
        own = (entry.score_threshold for entry in self.objects)
        return tuple(shared if threshold is None else threshold for threshold in own)

    @property
    def nms_groups(self) -> tuple[int, ...]:
        """For each class a number; boxes of classes of one number suppress each other."""
        # A class of no group is the only one of its group: names and groups cannot be the same tuple.
        groups = [(entry.nms_group,) if entry.nms_group else ("", entry.name) for entry in self.objects]
        return tuple(groups.index(group) for group in groups)
