"""A teacher: a trained network, whose outputs another one learns beside the labels (Hinton et al. 2015, Distilling the
knowledge in a neural network).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbnet_perception.blocks import Voxels
from sbnet_perception.detector.config import DetectorConfig
from sbnet_perception.detector.network import NetworkConfig
from sbnet_perception.detector.weights import load_network
from sbnet_perception.errors import UserError


class Teacher:
    """Says what it would detect in a training sample."""

    def __init__(self, config: DetectorConfig, student: NetworkConfig) -> None:
        """The weights that ``config`` names, for a student of that shape.

        Raises:
            WeightsError: they are missing, damaged, or of other cells or classes.
            UserError: they compute other tiles than the student, so that their pixels are not the student's.
        """
        network = load_network(config)
        if network.config.tiles != student.tiles:
            raise UserError(
                f"--teacher computes tiles of {network.config.tiles} pixels, what is trained {student.tiles}; "
                "take weights with these tiles as the teacher"
            )
        self._network = network.prepare(torch.float32)

    def __call__(self, bev: Voxels, mask: Tensor) -> Tensor:
        """Outputs [P, classes + 8] at the pixels that the student computes under ``mask`` bool [1, H, W], in their
        order (`Prediction.rows`)."""
        return self._network.predict(bev, self._network.tiles(mask)).rows
