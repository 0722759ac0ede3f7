"""Low-bit copies of a product: inputs and weights rounded to a few bits (SeerNet, Cao et al., CVPR 2019, section 3).

Inputs have one scale for a map and weights one for each output. Scales are those of least squared error, and those of
the inputs are the frame's own: fixed ones could hardly be better. (A scale for each channel of the inputs, which the
weights then have to take in, misses more: 2 % instead of 0.2 % with 8 bits.)
"""

from __future__ import annotations

import torch
from torch import Tensor

RANGES = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)
"""Parts of the largest number that a scale may stop at; what lies beyond is cut off."""


def low_bit_inputs(inputs: Tensor, bits: int) -> Tensor:
    """Inputs [P, K] as whole numbers of so many bits, times their scale; unsigned ones where none is negative."""
    signed = bool((inputs < 0).any())
    return _rounded(inputs.reshape(1, -1), 2 ** (bits - signed) - 1).view_as(inputs)


def low_bit_weights(weights: Tensor, bits: int) -> Tensor:
    """Weights [N, K, ...] as whole numbers of so many bits, the sign among them, times each output's scale."""
    return _rounded(weights.flatten(1), 2 ** (bits - 1) - 1).view_as(weights)


def _rounded(rows: Tensor, most: int) -> Tensor:
    """Each row as whole numbers up to ``most`` in size, times the scale that changes the row least."""
    largest = rows.abs().amax(1, keepdim=True).clamp(min=1e-20)
    best, least = rows, torch.full_like(largest, torch.inf)
    for part in RANGES:
        step = part * largest / most
        found = (rows / step).round_().clamp_(-most, most).mul_(step)
        error = (found - rows).square().sum(1, keepdim=True)
        best, least = torch.where(error < least, found, best), torch.minimum(error, least)
    return best
