"""What the tests of the layers share."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.utils._pytree import tree_map

from sbnet_perception import operation as ops
from sbnet_perception.blocks import Pixels, PointwiseConv2d, Tiles, Voxels, layer_ops, prepare_branches

needs_ops = pytest.mark.skipif(bool(ops.UNAVAILABLE), reason=f"no compiled ops: {ops.UNAVAILABLE}")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# Runs of pixels are found in words of 64.
SIZES = st.tuples(st.integers(1, 2), st.integers(1, 19), st.integers(1, 30)) | st.sampled_from(
    [(1, 3, 63), (1, 2, 64), (2, 3, 65), (1, 4, 130)]
)
SIDES = st.tuples(st.integers(1, 5), st.integers(1, 7))
DENSITIES = st.sampled_from([0.0, 0.02, 0.2, 0.7, 1.0])
SEEDS = st.integers(0, 2**16)
OPTIONS = st.fixed_dictionaries(
    {"kernel": st.sampled_from([1, 3]), "relu": st.booleans(), "stride": st.sampled_from([1, 2])}
    | {"more": st.integers(0, 2)}
)


def random_mask(size, density, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(size) < density)


def random_tiles(size, tile, density, stride=1, seed=0, device="cpu"):
    return Tiles.from_mask(random_mask(size, density, seed).to(device), tile, stride)


def random_voxels(size, density, seed, channels=6, device="cpu"):
    rng, pixels = np.random.default_rng(seed), Pixels.from_mask(random_mask(size, density, seed).to(device))
    bits = torch.from_numpy(rng.integers(0, 1 << (channels - 1), len(pixels))).to(device)
    last = torch.from_numpy(rng.random(len(pixels)).astype(np.float32)).to(device)
    return Voxels(pixels, bits, last, channels, torch.tensor(len(pixels)))


def randomized(module, dtype=torch.float32):
    """In evaluation mode, with statistics that matter."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for tensor in (part.running_mean, part.bias):
                torch.nn.init.normal_(tensor, std=0.3)
            for tensor in (part.running_var, part.weight):
                torch.nn.init.uniform_(tensor, 0.5, 2.0)
    return module.eval().to(dtype)


def prepared(layer, dtype=torch.float32):
    return prepare_branches([layer], dtype) if isinstance(layer, PointwiseConv2d) else layer.prepare(dtype)


TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 3e-2}


def assert_computes_its_plain_form(name, arguments, dtype):
    found, expected = run(name, arguments), plain(name, arguments)
    assert found.dtype == dtype and found.shape == expected.shape and found.is_contiguous()
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(found.double() / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype])
    return found


# --- operations with their arguments: lists of pixels, values, plain weights

OPERATIONS = ["conv", "voxel_conv", "upsample", "residual_units"]


def arguments_of(name, dtype, channels, *maps, device="cpu", **options):
    """Arguments of an operation for random maps: ``channels`` (inputs, outputs, and of skip or between units)."""
    arguments = _arguments_on(device, name, dtype, channels, *maps, **options)
    return tree_map(lambda a: a.to(device) if isinstance(a, torch.Tensor) else a, arguments)


def _arguments_on(
    device, name, dtype, channels, size=(2, 7, 6), sides=(2, 3), densities=(0.3, 0.3), seed=0, **options
):  # fmt: skip
    torch.manual_seed(seed)
    inputs, outputs, other = channels
    sums = torch.promote_types(dtype, torch.float32)

    def matrix(n, k, side):
        return (torch.randn(n, k, side, side) / (k * side * side) ** 0.5).to(dtype).to(sums)

    def norm(count):
        return torch.stack([torch.rand(count) + 0.5, torch.randn(count) * 0.3]).to(sums)

    @functools.cache  # whoever asks for the same pixels gets the same lists
    def pixels(stride, density, shift):
        if "mask" in options:
            return Tiles.from_mask(options["mask"].to(device), (1, 1), stride).pixels
        return random_tiles(size, sides, density, stride, seed + shift, device).pixels

    x_pixels, y_pixels = pixels(1, densities[0], 0), pixels(1, densities[1], 0 if "mask" in options else 1)
    x = torch.randn(len(x_pixels), inputs).to(dtype)
    if name == "conv":
        kernel, relu = options.get("kernel", 3), options.get("relu", True)
        return x, x_pixels.lists, size, y_pixels.lists, kernel, relu, matrix(outputs, inputs, kernel), norm(outputs)
    if name == "voxel_conv":
        seen, scale = random_voxels(size, densities[0], seed, min(max(inputs, 2), 64), device), norm(outputs)
        weights = layer_ops.voxel_weights(matrix(outputs, seen.channels, 3), scale)
        like = torch.empty(0, dtype=dtype)
        return seen.bits, seen.last, seen.pixels.lists, size, y_pixels.lists, seen.channels, *weights, like
    if name == "upsample":
        half = pixels(2, densities[0], 2)
        skip, x = torch.randn(len(x_pixels), other).to(dtype), torch.randn(len(half), inputs).to(dtype)
        weights = matrix(outputs, inputs, 2), matrix(outputs, other, 1), norm(outputs)
        return x, half.lists, skip, x_pixels.lists, size, y_pixels.lists, *weights
    stride, output, units = options.get("stride", 1), outputs, []
    keeps = stride == 1 and inputs == output
    for k in (inputs, *[output] * options.get("more", 0)):
        projection = torch.empty(0, dtype=sums) if keeps or units else matrix(output, k, 1)
        units += [norm(k), matrix(other, k, 1), norm(other), matrix(other, other, 3), norm(other)]
        units += [matrix(output, other, 1), projection]
    y_pixels = y_pixels if stride == 1 else pixels(stride, densities[1], 1)
    return x, x_pixels.lists, size, y_pixels.lists, stride, output, units


def run(name, arguments):
    return getattr(torch.ops.sbnet, name)(*arguments)


def plain(name, arguments):
    """The plain form in float64, from the same numbers."""
    exact = tree_map(lambda a: a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a, arguments)
    return getattr(layer_ops, f"_plain_{name}")(*exact)


def packed(arguments, dtype):
    """With packed weights; all other tensors have fewer dimensions."""
    like = torch.empty(0, dtype=dtype, device=arguments[0].device)
    pack = torch.ops.sbnet.pack_weights
    return tree_map(lambda a: pack(a, like) if isinstance(a, torch.Tensor) and a.dim() == 4 else a, arguments)


def without_windows(arguments):
    """With pixels whose windows nobody found before."""
    return tuple(a[:3] if isinstance(a, list) and len(a) == 5 else a for a in arguments)
