"""The numbers that the fused layers compute: those of their plain form in float64, on every instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from fused_helpers import DTYPES, needs_ops, never_dense, norm_parameters, random_tiles, randomized  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.blocks import ConvUnit, ResidualUnit, Stage, UpsampleUnit, layer_ops, reference_layers

pytestmark = needs_ops

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 3e-2}
dtypes = st.sampled_from(DTYPES)
# More than 128 inputs are summed in parts, and runs of pixels are found in words of 64.
channels = st.integers(1, 40) | st.sampled_from([127, 128, 129, 300])
maps = st.tuples(st.integers(1, 2), st.integers(1, 30), st.integers(1, 30)) | st.sampled_from(
    [(1, 3, 63), (1, 2, 64), (2, 3, 65), (1, 4, 130)]
)
tile_sides = st.tuples(st.integers(1, 5), st.integers(1, 5))
densities = st.sampled_from([0.0, 0.02, 0.2, 0.7, 1.0])
seeds = st.integers(0, 2**16)


def run_exactly(plain, arguments, parameters):
    """The plain form in float64, from the same numbers."""
    exact = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]
    return plain(*exact, [p.double() for p in parameters])


def assert_equal_to_plain(name, arguments, parameters, dtype):
    parameters = [p.detach() for p in parameters]
    found = getattr(layer_ops, name)(*arguments, parameters)
    expected = run_exactly(getattr(reference_layers, name), arguments, parameters)
    assert found.dtype == dtype and found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(found.double() / scale, expected / scale, rtol=0, atol=TOLERANCE[dtype])
    return found


@settings(deadline=None, max_examples=60)
@given(
    dtypes, channels, st.integers(1, 40), maps, tile_sides, densities, st.sampled_from([1, 2]), st.integers(0, 2), seeds
)
def test_fused_residual_units_equal_their_plain_form(dtype, inputs, quarter, size, tile, density, stride, more, seed):
    torch.manual_seed(seed)
    width = 4 * (quarter // 4 + 1)
    units = [ResidualUnit(inputs, width, stride), *(ResidualUnit(width, width) for _ in range(more))]
    stage = randomized(Stage(units), dtype)
    x = torch.randn(size[0], inputs, *size[1:]).to(dtype)
    tiles = random_tiles(size, tile, density, stride, seed)
    parameters = [tensor for unit in units for tensor in unit.tensors()]
    arguments = (x, tiles.indices, tile, stride, [1e-5] * 3 * len(units))
    before = x.clone()
    found = assert_equal_to_plain("residual_units", arguments, parameters, dtype)
    assert torch.equal(x, before), "the input must not be written to"
    with torch.no_grad():
        assert torch.equal(stage(x, tiles), found)


@settings(deadline=None, max_examples=60)
@given(dtypes, channels, channels, maps, tile_sides, densities, st.sampled_from([1, 3]), st.booleans(), seeds)
def test_fused_convolutions_equal_their_plain_form(dtype, inputs, outputs, size, tile, density, kernel, branch, seed):
    torch.manual_seed(seed)
    layer = randomized(ConvUnit(inputs, outputs, kernel), dtype)
    x = torch.randn(size[0], inputs, *size[1:]).to(dtype)
    arguments = (x, random_tiles(size, tile, density, 1, seed).indices, tile, 1e-5)
    parameters = [layer.norm.bias] if branch else norm_parameters(layer.norm)
    assert_equal_to_plain("conv_unit", arguments, [layer.conv.weight, *parameters], dtype)


@settings(deadline=None, max_examples=40)
@given(dtypes, channels, channels, channels, maps, st.sampled_from([(2, 2), (4, 2), (2, 6)]), densities, seeds)
def test_fused_upsampling_equals_its_plain_form(dtype, inputs, skips, outputs, size, tile, density, seed):
    torch.manual_seed(seed)
    layer = randomized(UpsampleUnit(inputs, skips, outputs), dtype)
    skip = torch.randn(size[0], skips, *size[1:]).to(dtype)
    x = torch.randn(size[0], inputs, (size[1] + 1) // 2, (size[2] + 1) // 2).to(dtype)
    arguments = (x, skip, random_tiles(size, tile, density, 1, seed).indices, tile, 1e-5)
    parameters = [layer.up.weight, layer.lateral.weight, *norm_parameters(layer.norm)]
    assert_equal_to_plain("upsample_unit", arguments, parameters, dtype)


def layers_with_inputs(size, dtype, inputs):
    """Every layer: its operation, arguments on a full mask, parameters. `inputs` channels, and `inputs` in between."""
    torch.manual_seed(0)
    everywhere = random_tiles(size, (2, 2), 1.0).indices
    x = torch.randn(size[0], inputs, *size[1:]).to(dtype)
    half = torch.randn(size[0], inputs, (size[1] + 1) // 2, (size[2] + 1) // 2).to(dtype)
    for kernel in (1, 3):
        layer = randomized(ConvUnit(inputs, 6, kernel), dtype)
        yield "conv_unit", (x, everywhere, (2, 2), 1e-5), [layer.conv.weight, *norm_parameters(layer.norm)]
    for outputs in (inputs, 4 * inputs):
        unit = randomized(ResidualUnit(inputs, 4 * inputs) if outputs > inputs else ResidualUnit(inputs, inputs), dtype)
        yield "residual_units", (x, everywhere, (2, 2), 1, [1e-5] * 3), list(unit.tensors())
    layer = randomized(UpsampleUnit(inputs, inputs, 6), dtype)
    parameters = [layer.up.weight, layer.lateral.weight, *norm_parameters(layer.norm)]
    yield "upsample_unit", (half, x, everywhere, (2, 2), 1e-5), parameters


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs", [5, 8])
def test_nan_and_infinity_appear_where_the_plain_form_has_them(dtype, inputs):
    for name, (x, *others), parameters in layers_with_inputs((1, 12, 12), dtype, inputs):
        x[0, 3, 2, 2], x[0, 1, -1, -1], x[0, 2, 2, -2] = torch.nan, torch.inf, -torch.inf
        parameters = [p.detach() for p in parameters]
        found = getattr(layer_ops, name)(x, *others, parameters)
        expected = run_exactly(getattr(reference_layers, name), (x, *others), parameters)
        assert expected.isnan().any() and expected.isfinite().any()
        for kind in (torch.isnan, torch.isposinf, torch.isneginf):
            assert torch.equal(kind(found), kind(expected)), (name, kind)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_odd_number_of_channels_is_padded_with_zeros_not_with_what_an_earlier_call_left(dtype):
    size = (1, 6, 6)
    small, large = (list(layers_with_inputs(size, dtype, inputs)) for inputs in (5, 31))
    for (name, arguments, parameters), (_, (x, *others), of_large) in zip(small, large, strict=True):
        getattr(layer_ops, name)(torch.full_like(x, torch.nan), *others, [p.detach() for p in of_large])
        assert_equal_to_plain(name, arguments, parameters, dtype)


def pointwise(x, weights, shift):
    """x [pixels, C] times weights [N, C] plus shift [N], in one call of a kernel."""
    o = torch.ops.sbnet
    packed = o.pack_weights(F.pad(weights, (0, weights.shape[1] % 2))[None], x)
    norm = torch.stack([torch.ones_like(shift), shift])
    tiles = random_tiles((1, 1, len(x)), (1, len(x)), 1.0).indices
    return o.conv_unit_packed(x[None, None], tiles, [1, len(x)], 1, False, packed, norm)[0, 0]


def numbers_of(dtype):
    """All finite numbers of a type of 16 bits, as rows of 40."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    every = every[every.isfinite()]
    return torch.cat([every, every.new_zeros(-len(every) % 40)]).reshape(-1, 40)


# The instructions for bfloat16 take its subnormal numbers for 0.
FLUSHED = {torch.float16: 0.0, torch.bfloat16: torch.finfo(torch.bfloat16).tiny}


@pytest.mark.parametrize("dtype", FLUSHED)
@pytest.mark.parametrize("width", [40, 1])
def test_every_number_of_16_bits_is_read_and_written_unchanged(dtype, width):
    x = numbers_of(dtype).reshape(-1, width)
    y = pointwise(x, torch.eye(width), torch.zeros(width))
    torch.testing.assert_close(y, x, rtol=0, atol=FLUSHED[dtype])


@pytest.mark.parametrize("dtype", FLUSHED)
@pytest.mark.parametrize("width", [60_000, 1])
def test_results_are_rounded_to_16_bits_as_torch_rounds_them(dtype, width):
    numbers = numbers_of(dtype).double().flatten().sort().values
    ties = ((numbers[1:] + numbers[:-1]) / 2).float()
    infinity = torch.tensor(torch.inf)
    beyond = torch.tensor([65519.99, 65520.0, 65536.0, 1e30, 3.4e38, torch.inf, torch.nan])
    nan = torch.tensor([-1, 2**31 - 1], dtype=torch.int32).view(torch.float32)  # rounded as a number, it would be 0
    shifts = torch.cat([ties, ties.nextafter(infinity), ties.nextafter(-infinity), -beyond, beyond, nan])
    for part in shifts.split(width) if width > 1 else shifts[-100:].split(1):
        y = pointwise(torch.zeros(1, 2, dtype=dtype), torch.zeros(len(part), 2), part)
        torch.testing.assert_close(y[0], part.to(dtype), rtol=0, atol=FLUSHED[dtype], equal_nan=True)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512bf16"])
def test_every_instruction_set_of_this_machine_computes_the_same(isa):
    if os.environ.get("SBNET_ISA") or isa == torch.ops.sbnet.isa():
        pytest.skip("this process runs it")
    probe = "import sbnet_perception.blocks, torch; torch.ops.sbnet.isa()"
    environment = {**os.environ, "SBNET_ISA": isa}
    if subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, check=False).returncode:
        pytest.skip(f"this machine does not run {isa}")
    stored = Path(__file__).with_name("test_stored.py")
    tests = ["a_convolution_of_voxels_equals_that_of_the_map_they_are", "as_exactly_as_the_whole_map_in_every_dtype"]
    command = [sys.executable, "-m", "pytest", "-q", __file__, str(stored)]
    command += ["-k", " or ".join(["test_fused_numbers", *tests])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
