"""What the layers refuse: each error is a ValueError (TypeError for a type) that names the argument."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from sbnet_perception.blocks import ConvUnit, PointwiseConv2d, ResidualUnit, Stage, Tiles, UpsampleUnit
from sbnet_perception.blocks import operation as ops

compiled = pytest.mark.skipif(bool(ops.UNAVAILABLE), reason=f"no compiled ops: {ops.UNAVAILABLE}")
TILES = Tiles.from_mask(torch.ones(1, 8, 8, dtype=torch.bool), (2, 2))
MAKERS = [
    lambda: ConvUnit(4, 4),
    lambda: PointwiseConv2d(4, 4),
    lambda: ResidualUnit(4, 4),
    lambda: Stage([ResidualUnit(4, 4), ResidualUnit(4, 4)]),
    lambda: UpsampleUnit(4, 4, 4),
]


def run(layer, x, tiles):
    return layer(x[..., ::2, ::2], x, tiles) if isinstance(layer, UpsampleUnit) else layer(x, tiles)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("tiles", [None, TILES], ids=["dense", "sparse"])
def test_a_map_of_another_rank_or_of_integers_is_named(make, tiles):
    layer, x = make().eval(), torch.ones(1, 4, 8, 8)
    for wrong in (x[0], x.int(), x.bool()):
        with pytest.raises(ValueError, match=r"x must be floating point \[N, C, H, W\], got"):
            run(layer, wrong, tiles)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("of_map", "of_layer"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
        (torch.float16, torch.bfloat16),
    ],
)
def test_a_map_of_another_dtype_than_the_layer_is_refused_with_both_dtypes(make, of_map, of_layer):
    layer, x = make().eval().to(of_layer), torch.ones(1, 4, 8, 8, dtype=of_map)
    with pytest.raises(ValueError, match=f"is {of_map}, the layer has parameters of {of_layer}"):
        run(layer, x, TILES)


def test_normalizations_and_skips_of_another_dtype_are_refused_too():
    unit, x = ResidualUnit(4, 4).eval(), torch.ones(1, 4, 8, 8)
    unit.norm2.bfloat16()
    with pytest.raises(ValueError, match=r"x is torch\.float32, the layer has parameters of torch\.bfloat16"):
        unit(x, TILES)
    with pytest.raises(ValueError, match=r"skip is torch\.bfloat16, the layer has parameters of torch\.float32"):
        UpsampleUnit(4, 4, 4).eval()(x[..., ::2, ::2], x.bfloat16(), TILES)


@compiled
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("indices", "named"), [(TILES.indices + 4, "outside the map"), (TILES.indices.long(), "indices must be .*int32")]
)
def test_tiles_that_the_kernels_refuse_are_a_value_error(make, indices, named):
    with pytest.raises(ValueError, match=named):
        run(make().eval(), torch.ones(1, 4, 8, 8), Tiles(indices, 1, (8, 8), (2, 2)))


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: ConvUnit(4, 4, kernel=5), ValueError, "kernel must be 1 or 3, got 5"),
        (lambda: ResidualUnit(4, 3), ValueError, "out_channels must be at least 4.* got 3"),
        (lambda: ResidualUnit(4, 4, stride=3), ValueError, "stride must be 1 or 2, got 3"),
        (lambda: Stage([]), ValueError, "at least one unit, got none"),
        (lambda: Stage([ResidualUnit(4, 4), ConvUnit(4, 4)]), TypeError, "ResidualUnit only, got ConvUnit"),
        (lambda: Stage([ResidualUnit(4, 4), ResidualUnit(4, 8)]), ValueError, "must keep the shape"),
    ],
)
def test_a_layer_that_could_not_compute_is_not_made(make, error, named):
    with pytest.raises(error, match=named):
        make()


@compiled
def test_an_unknown_instruction_set_is_an_error_of_the_import():
    command = [sys.executable, "-c", "import sbnet_perception.blocks"]
    environment = {**os.environ, "SBNET_ISA": "mmx"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and "SBNET_ISA is 'mmx'; this machine runs " in done.stderr
