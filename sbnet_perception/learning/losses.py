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
        label: int8 [N, h, w], see `targets.Targets`.
        regression: float32 [N, 8, h, w], see `targets.Targets`.

    Returns:
        The sum, and its parts by name (detached).
    """
    # The computed pixels alone have a prediction.
    label, regression = label.flatten()[prediction.pixels.flat], regression.permute(0, 2, 3, 1).flatten(0, 2)
    positive = label > 0
    normalizer = positive.sum().clamp(min=1)
    # Each class says yes or no for itself.
    counted = label >= 0
    numbers = torch.arange(1, prediction.logits.shape[1] + 1, device=label.device)
    focal = focal_loss(prediction.logits[counted].float(), label[counted, None] == numbers) / normalizer
    # Boxes count where an object is.
    outputs = prediction.box[positive].float()
    wanted = regression[prediction.pixels.flat[positive]]
    box = F.smooth_l1_loss(outputs, wanted, beta=BETA, reduction="sum") / normalizer
    return focal + box, {"focal": focal.detach(), "box": box.detach()}


def focal_loss(logits: Tensor, positive: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017), summed: logits and positive (bool) of one shape."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), reduction="none")
    weight = torch.where(positive, ALPHA, 1 - ALPHA) * (1 - torch.exp(-cross_entropy)) ** GAMMA
    return (weight * cross_entropy).sum()
