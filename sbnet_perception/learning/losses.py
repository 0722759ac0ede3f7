"""Focal loss for the class, smooth L1 for the box (paper, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception.detector.network import Prediction

ALPHA, GAMMA = 0.25, 2.0
BETA = 0.1
"""Where smooth L1 turns linear. Small, so that the sign of an ambiguous heading is decided, not averaged."""


def detection_loss(prediction: Prediction, label: Tensor, regression: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss over the computed pixels, per positive pixel.

    Args:
        prediction: outputs for N images.
        label: int8 [N, h, w], 1 positive, 0 negative, -1 ignored.
        regression: float32 [N, 8, h, w], see `targets.Targets`.

    Returns:
        The sum, and its parts by name (detached).
    """
    # The computed pixels alone have a prediction.
    label, regression = label.flatten()[prediction.pixels.flat], regression.permute(0, 2, 3, 1).flatten(0, 2)
    positive = label == 1
    normalizer = positive.sum().clamp(min=1)
    counted = label >= 0
    focal = focal_loss(prediction.logits[counted, 0].float(), positive[counted]) / normalizer
    # Boxes count where a vehicle is.
    outputs = torch.cat([prediction.size, prediction.orientation], 1)[positive].float()
    wanted = regression[prediction.pixels.flat[positive]]
    box = F.smooth_l1_loss(outputs, wanted, beta=BETA, reduction="sum") / normalizer
    return focal + box, {"focal": focal.detach(), "box": box.detach()}


def focal_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017), summed: logits [K], positive bool [K]."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    weight = torch.where(positive, ALPHA, 1 - ALPHA) * (1 - torch.exp(-cross_entropy)) ** GAMMA
    return (weight * cross_entropy).sum()
