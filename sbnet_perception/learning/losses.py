"""Quality focal loss for the class; smooth L1 and the overlap of Gaussians for the box.

The paper (section 4.2) has focal loss and smooth L1. Here the score of a pixel is to be how well its box fits (Li et
al. 2020, Generalized Focal Loss), so that boxes are ordered by their fit: the square root of the fit, lest vehicles of
few points, whose boxes cannot fit well, come after hedges that might be vehicles. And boxes are also compared as
Gaussians (Llerena et al. 2021, ProbIoU), which sees place, size and heading together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sbnet_perception import processes
from sbnet_perception.detector.network import Prediction

GAMMA = 2.0
SURE = 0.1
"""A teacher's boxes count where its score is above this."""
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
    # Of several processes each has a share of the images: the mean of their losses is that of all images together.
    normalizer = processes.averaged(positive.sum().float()).clamp(min=1 / processes.count())
    # Boxes count where an object is.
    outputs = prediction.box[positive].float()
    wanted = regression[prediction.pixels.flat[positive]]
    box = F.smooth_l1_loss(outputs, wanted, beta=BETA, reduction="sum") / normalizer
    distance = hellinger_distance(outputs, wanted)
    # Each class says for itself how well the box of its object fits, or no.
    counted = label >= 0
    numbers = torch.arange(1, prediction.logits.shape[1] + 1, device=label.device)
    fit = torch.zeros(len(label), device=label.device)
    fit[positive] = torch.sqrt(1 - distance.detach())
    quality = (label[:, None] == numbers) * fit[:, None]
    score = quality_focal_loss(prediction.logits[counted].float(), quality[counted]) / normalizer
    overlap = distance.sum() / normalizer
    return score + box + overlap, {"score": score.detach(), "box": box.detach(), "overlap": overlap.detach()}


def distillation_loss(prediction: Prediction, taught: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """How far a prediction is from a teacher's outputs [P, classes + 8] at its pixels, per pixel that the teacher takes
    for an object's: the same losses as `detection_loss`, with the teacher's scores and boxes as what is wanted.

    Returns:
        The sum, and its parts by name (detached).
    """
    wanted = torch.sigmoid(taught[:, : prediction.logits.shape[1]])
    best = wanted.amax(1)
    # A teacher's box is learned the more the surer it is of it.
    sure = best.where(best > SURE, 0)
    normalizer = processes.averaged(sure.sum()).clamp(min=1 / processes.count())
    score = quality_focal_loss(prediction.logits.float(), wanted) / normalizer
    ours, theirs = prediction.box[sure > 0].float(), taught[sure > 0, -prediction.box.shape[1] :]
    apart = F.smooth_l1_loss(ours, theirs, beta=BETA, reduction="none").sum(1) + hellinger_distance(ours, theirs)
    box = (sure[sure > 0] * apart).sum() / normalizer
    return score + box, {"taught score": score.detach(), "taught box": box.detach()}


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss (Li et al. 2020), summed: logits and the scores wanted, in 0-1, of one shape."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return ((quality - torch.sigmoid(logits)).abs() ** GAMMA * cross_entropy).sum()


def hellinger_distance(a: Tensor, b: Tensor) -> Tensor:
    """How far the boxes of rows ``a`` and ``b`` [M, 8] (see `targets.Targets`) are apart in the bird's-eye view.

    A box is the Gaussian with its centre and moments. 1 minus the distance resembles the IoU; boxes that differ by
    half a turn are the same (Llerena et al. 2021, equations 3 to 8).

    Returns:
        [M], 0 for equal boxes, 1 far apart.
    """
    (axx, ayy, axy), (bxx, byy, bxy) = _covariance(a), _covariance(b)
    xx, yy, xy = axx + bxx, ayy + byy, axy + bxy
    determinant = xx * yy - xy**2
    dx, dy = a[:, 3] - b[:, 3], a[:, 4] - b[:, 4]
    apart = (yy * dx**2 + xx * dy**2 - 2 * xy * dx * dy) / (4 * determinant)
    alone = (axx * ayy - axy**2) * (bxx * byy - bxy**2)
    # Of two equal boxes rounding may make a little less than nothing, and a square root there has no slope.
    bhattacharyya = apart + 0.5 * torch.log(determinant / (4 * alone.clamp(min=1e-12).sqrt()))
    return torch.sqrt((1 - torch.exp(-bhattacharyya.clamp(min=1e-5))).clamp(max=1))


def _covariance(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """xx, yy and xy of boxes [M, 8]: those of a uniform rectangle."""
    along, across = ((2 * rows[:, axis].clamp(-3, 5)).exp() / 12 for axis in (0, 1))
    heading = F.normalize(rows[:, 6:8], dim=1, eps=1e-3)
    cosine, sine = heading.unbind(1)
    return (
        along * cosine**2 + across * sine**2,
        along * sine**2 + across * cosine**2,
        (along - across) * cosine * sine,
    )
