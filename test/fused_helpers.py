"""What the tests of the fused layers share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sbnet_perception.blocks import Tiles
from sbnet_perception.blocks import operation as ops
from sbnet_perception.blocks.tuning import NEVER, dense_from

needs_ops = pytest.mark.skipif(bool(ops.UNAVAILABLE), reason=f"no compiled ops: {ops.UNAVAILABLE}")
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True, scope="module")
def never_dense():
    """However full their masks are, the layers run the fused kernels."""
    with dense_from(NEVER):
        yield


def random_tiles(size, tile, density, stride=1, seed=0):
    mask = torch.from_numpy(np.random.default_rng(seed).random(size) < density)
    return Tiles.from_mask(mask, tile, stride)


def randomized(module, dtype=torch.float32):
    """In evaluation mode, with statistics that matter."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for tensor in (part.running_mean, part.bias):
                torch.nn.init.normal_(tensor, std=0.3)
            for tensor in (part.running_var, part.weight):
                torch.nn.init.uniform_(tensor, 0.5, 2.0)
    return module.eval().to(dtype)


def norm_parameters(norm):
    return [norm.weight, norm.bias, norm.running_mean, norm.running_var]
