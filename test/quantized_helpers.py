"""Arguments of the operations of 8-bit levels, for their tests."""

from __future__ import annotations

import torch
from layer_helpers import random_tiles
from torch.utils._pytree import tree_map

from sbnet_perception.blocks import quantized_ops  # noqa: F401  (defines the operations)

QUANTIZED = ["quantized_conv", "quantized_upsample", "quantized_units"]
FEW = (2, 7, 6)


def quantized_arguments(name, channels, size=FEW, sides=(2, 3), densities=(0.3, 0.3), seed=0, **options):
    """Of an operation, with weights of all 7 bits, and sums that reach levels below, within and above their range."""
    torch.manual_seed(seed)
    inputs, outputs, middle = channels

    def weight(n, k, side):
        return torch.randint(-64, 65, (n, k, side, side), dtype=torch.int8)

    def norm(count, terms, center=100.0):
        return torch.stack([torch.rand(count) / (40 * terms**0.5), center * torch.randn(count)])

    def pixels(stride, density, shift):
        return random_tiles(size, sides, density, stride, seed + shift).pixels

    def values(count, width, of_levels):
        return torch.randint(0, 256, (count, width), dtype=torch.uint8) if of_levels else torch.randn(count, width)

    of_levels, x_pixels = options.get("of_levels", True), pixels(1, densities[0], 0)
    dtype, makes_levels = options.get("dtype", torch.uint8), torch.stack([torch.rand(inputs) * 80, torch.ones(inputs)])
    makes_levels[1] *= 128
    if name == "quantized_conv":
        kernel = options.get("kernel", 3) if of_levels else 1
        x, terms = values(len(x_pixels), inputs, of_levels), inputs * kernel**2
        activation = torch.empty(0) if of_levels else makes_levels
        after = weight(outputs, inputs, kernel), norm(outputs, terms), torch.empty(0, dtype=dtype)
        return x, activation, x_pixels.lists, size, pixels(1, densities[1], 1).lists, kernel, *after
    if name == "quantized_upsample":
        half = pixels(2, densities[0], 2)
        x, skip = values(len(half), outputs, True), values(len(x_pixels), inputs, False)
        after = weight(middle, outputs, 2), weight(middle, inputs, 1), norm(middle, inputs + outputs)
        return x, half.lists, skip, makes_levels, x_pixels.lists, size, pixels(1, densities[1], 1).lists, *after
    stride = options.get("stride", 2)
    weights = []
    for unit in range(1 + options.get("more", 1)):
        k = outputs if unit else inputs
        first = torch.stack([torch.rand(k) * (1 if of_levels and not unit else 80), 50 * torch.randn(k)])
        weights += [first, weight(middle, k, 1), norm(middle, k), weight(middle, middle, 3), norm(middle, 9 * middle)]
        project = torch.empty(0) if unit else weight(outputs, k, 1)
        weights += [weight(outputs, middle, 1), project, torch.rand(outputs) * 1e-4]
    x = values(len(x_pixels), inputs, of_levels)
    return x, x_pixels.lists, size, pixels(stride, densities[1], 1).lists, stride, outputs, weights


def with_packed(arguments):
    like, pack = torch.empty(0, dtype=torch.uint8), torch.ops.sbnet.pack_weights
    return tree_map(lambda a: pack(a, like) if isinstance(a, torch.Tensor) and a.dim() == 4 else a, arguments)
