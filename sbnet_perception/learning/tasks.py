"""What a training teaches: the network, what it sees of a frame, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception import processes
from sbnet_perception.bev.grid import Grid
from sbnet_perception.bev.voxelize import voxels
from sbnet_perception.blocks import Tiles, Voxels
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.mask_network import PreparedMaskNetwork, seen, stride_on
from sbnet_perception.detector.network import OUTPUT_STRIDE, NetworkConfig
from sbnet_perception.learning.frames import LabelledFrame
from sbnet_perception.learning.losses import detection_loss, distillation_loss
from sbnet_perception.learning.targets import IGNORED, make_targets, vehicles_near
from sbnet_perception.learning.teacher import Teacher
from sbnet_perception.masks.computation import computation_mask
from sbnet_perception.masks.config import MaskConfig
from sbnet_perception.masks.frame import Frame

Sample = tuple[Any, ...]
"""Tensors and `Voxels` with a leading axis of images."""


class Task(Protocol):
    """What a training teaches a network.

    Attributes:
        inputs: how many parts of a sample, from the first on, the network takes.
    """

    inputs: int

    def sample(self, frame: LabelledFrame, grid: Grid, rng: np.random.Generator) -> Sample:
        """What the network sees of a frame on a grid, and what it should say; ``rng`` draws what is random in it."""

    def loss(self, outputs: Any, *wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts by name (detached)."""


def joined(samples: Sequence[Sample]) -> Sample:
    """Several samples as one."""
    return tuple(
        Voxels.cat(list(parts)) if isinstance(parts[0], Voxels) else torch.cat(parts)
        for parts in zip(*samples, strict=True)
    )


class DetectorTask:
    """Boxes where the mask says to compute; without a mask everywhere, by dense convolutions."""

    def __init__(
        self,
        detector: DetectorConfig,
        network: NetworkConfig,
        masks: Sequence[MaskConfig],
        mask_network: PreparedMaskNetwork | None = None,
        loss_mask: str = "",
        teacher: Teacher | None = None,
    ) -> None:
        """For a detector of the shape ``network``, each sample under one of ``masks``.

        ``mask_network`` makes what these call ``predicted``.

        The loss counts where the expression ``loss_mask`` is, of what is computed; empty means all of it. What a
        ``teacher`` says is learned too.
        """
        self._detector, self._masks, self._mask_network, self._teacher = detector, masks, mask_network, teacher
        self._tile = network.tile("conv-3")
        self._loss_mask = replace(masks[0], expression=loss_mask) if loss_mask else None
        self.inputs = 2 if any(mask.names for mask in masks) else 1

    def sample(self, frame: LabelledFrame, grid: Grid, rng: np.random.Generator) -> Sample:
        points = torch.from_numpy(frame.points)
        predicted = None if self._mask_network is None else self._mask_network(points, grid)
        chosen = self._masks[int(rng.integers(len(self._masks)))]
        view = Frame(points, grid, chosen, frame.road, None, predicted)
        mask = counted = _mask(view)
        if self._loss_mask is not None:
            counted = mask & _mask(replace(view, config=self._loss_mask))
        labelled = Tiles.from_mask(counted, self._tile, OUTPUT_STRIDE).mask()[0]
        objects = self._detector.objects
        targets = make_targets(frame.boxes, frame.point_counts, frame.classes, objects, grid, labelled.numpy())
        label = torch.from_numpy(targets.label).masked_fill(~labelled, IGNORED)
        bev = voxels(points, grid)
        taught = [self._teacher(bev, mask[None])] if self._teacher else []
        wanted = label[None], torch.from_numpy(targets.regression)[None], *taught
        return (bev, mask[None], *wanted) if self.inputs == 2 else (bev.dense(), *wanted)

    def loss(self, outputs: Any, *wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        label, regression, *taught = wanted
        loss, parts = detection_loss(outputs, label, regression)
        for rows in taught:
            more, others = distillation_loss(outputs, rows)
            loss, parts = loss + more, parts | others
        return loss, parts


def _mask(frame: Frame) -> Tensor:
    mask = computation_mask(frame).mask
    return torch.ones(frame.grid.shape, dtype=torch.bool) if mask is None else mask


class MaskTask:
    """Where vehicles are to be expected (paper, section 4.2): their boxes, grown a little."""

    inputs = 1

    def __init__(self, detector: DetectorConfig) -> None:
        self._objects = detector.objects

    def sample(self, frame: LabelledFrame, grid: Grid, rng: np.random.Generator) -> Sample:
        wanted = vehicles_near(frame.boxes, frame.point_counts, frame.classes, self._objects, grid, stride_on(grid))
        return seen(torch.from_numpy(frame.points), grid), torch.from_numpy(wanted)[None]

    def loss(self, outputs: Any, *wanted: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        counted = wanted[0] != IGNORED
        said, right = outputs[counted].float(), wanted[0][counted].float()
        total = F.binary_cross_entropy_with_logits(said, right, reduction="sum")
        loss = total / processes.averaged(counted.sum().float()).clamp(min=1 / processes.count())
        return loss, {"mask": loss.detach()}


def on_device(sample: Sample, device: torch.device) -> Sample:
    """A batch on a device."""
    return tuple(part.to(device) for part in sample)
