"""Layers of 8-bit levels: kernels return what their plain form does, bit by bit, on every instruction set."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import (
    DENSITIES,
    SEEDS,
    SIDES,
    SIZES,
    arguments_of,
    needs_ops,
    randomized,
    run,
    without_windows,
)
from quantized_helpers import QUANTIZED, quantized_arguments, with_packed

from sbnet_perception.blocks import ConvUnit, Pixels, ResidualUnit, SparseMap, Stage, Tiles, UpsampleUnit
from sbnet_perception.blocks.quantized import (
    SIGNED,
    Levels,
    UnitLevels,
    prepare_conv,
    prepare_stage,
    prepare_upsample,
)

pytestmark = needs_ops

CHANNELS = st.integers(1, 40) | st.sampled_from([64, 96, 131])
def plain_form(name, arguments):
    return getattr(torch.ops.sbnet, f"{name}_plain")(*arguments)


@pytest.mark.parametrize("name", QUANTIZED)
@settings(deadline=None, max_examples=25)
@given(
    st.tuples(*[CHANNELS] * 3), SIZES, SIDES, st.tuples(*[DENSITIES] * 2), SEEDS,
    st.fixed_dictionaries({"kernel": st.sampled_from([1, 3]), "of_levels": st.booleans(), "more": st.integers(0, 2),
                           "stride": st.sampled_from([1, 2]), "dtype": st.sampled_from([torch.uint8, torch.float32])}),
)  # fmt: skip
def test_a_kernel_computes_its_plain_form_bit_by_bit(name, channels, size, sides, densities, seed, options):
    arguments = quantized_arguments(name, channels, size, sides, densities, seed, **options)
    expected = plain_form(name, arguments)
    for form in (arguments, with_packed(arguments), without_windows(arguments)):
        found = run(name, form)
        assert found.dtype == expected.dtype and torch.equal(found, expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_products_are_exact_to_the_last_bit(sign):
    pixels, inputs = Pixels.all((1, 5, 5)), 260
    x = torch.full((25, inputs), 255, dtype=torch.uint8)
    weight = torch.full((9, inputs, 3, 3), 64 * sign, dtype=torch.int8)
    norm = torch.stack([torch.full((9,), float(sign)), torch.zeros(9)])
    like = torch.empty(0, dtype=torch.float32)
    y = run("quantized_conv", (x, torch.empty(0), pixels.lists, pixels.size, pixels.lists, 3, weight, norm, like))
    assert y[12].tolist() == [255 * 64 * 9 * inputs] * 9 and y[0].tolist() == [255 * 64 * 4 * inputs] * 9


def test_every_float_becomes_a_level_in_all_numbers_of_channels():
    """Halves go to the even level; what lies outside, infinity too, is the first or last level, and NaN the first."""
    numbers = [-torch.inf, -1e30, -0.6, 0.5, 1.5, 2.5, 127.49, 254.5, 255.5, 1e30, torch.inf, torch.nan]
    expected = [0, 0, 0, 0, 2, 2, 127, 254, 255, 255, 255, 0]
    for channels in (1, 3, 8, 12, 31):
        pixels = Pixels.all((1, 1, len(numbers)))
        x = torch.tensor(numbers)[:, None].expand(-1, channels).contiguous()
        unit = torch.stack([torch.ones(channels), torch.zeros(channels)])
        weight = torch.eye(channels, dtype=torch.int8)[:, :, None, None]
        size, like = pixels.size, torch.empty(0, dtype=torch.float32)
        y = run("quantized_conv", (x, unit, pixels.lists, size, pixels.lists, 1, weight, unit, like))
        assert y.tolist() == [[level] * channels for level in expected]


def test_threads_and_later_calls_change_no_bit_of_levels():
    threads = torch.get_num_threads()
    arguments = quantized_arguments("quantized_units", (32, 96, 24), (2, 60, 70), of_levels=False, more=2)
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run("quantized_units", arguments))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(y, plain_form("quantized_units", arguments)) for y in results)


def test_the_first_convolution_computes_levels_of_voxels():
    arguments = arguments_of("voxel_conv", torch.float32, (34, 24, 0), (1, 20, 20))
    *others, norm, _ = arguments
    found = run("voxel_conv", (*others, 40 * norm, torch.empty(0, dtype=torch.uint8)))
    expected = 40 * run("voxel_conv", arguments).double()
    assert found.dtype == torch.uint8 and 0 < found.count_nonzero() < found.numel()
    assert float((found - expected.clamp(max=255)).abs().max()) < 0.501


# --- layers


def levels_for(rows, zero=0):
    return Levels(rows.abs().amax(0).clamp(min=1e-3) / (127 if zero else 255), zero)


def as_levels(rows, levels):
    return (rows / levels.step + levels.zero).round().clamp(0, 255).to(torch.uint8)


def close(found, expected, share=0.03):
    return float((found - expected).detach().norm() / expected.detach().norm()) < share


def test_layers_of_levels_come_close_to_those_of_floats():
    torch.manual_seed(3)
    tiles = Tiles.from_mask(torch.rand(24, 24) < 0.5, (2, 2))
    half = Tiles.from_mask(torch.rand(24, 24) < 0.5, (2, 2), 2)
    rows, skip = torch.rand(len(tiles.pixels), 32), torch.randn(len(tiles.pixels), 20)
    x = levels_for(rows)
    seen = SparseMap(as_levels(rows, x), tiles.pixels)
    # 3x3, with levels or floats behind it
    conv = randomized(ConvUnit(32, 24))
    expected = conv(SparseMap(rows, tiles.pixels), tiles).values
    y = levels_for(expected)
    assert close(prepare_conv(conv, x, y)(seen, tiles).values * y.step, expected)
    assert close(prepare_conv(conv, x, None)(seen, tiles).values, expected)
    # 1x1 of signed values
    conv = randomized(ConvUnit(20, 24, kernel=1))
    signed, floats = levels_for(skip, SIGNED), SparseMap(skip, tiles.pixels)
    assert close(prepare_conv(conv, signed, None)(floats, tiles).values, conv(floats, tiles).values)
    # upsampling, beside a skip map that may be negative
    up, coarse = randomized(UpsampleUnit(32, 20, 12)), torch.rand(len(half.pixels), 32)
    below = levels_for(coarse)
    expected = up(SparseMap(coarse, half.pixels), floats, tiles).values
    y, taken = levels_for(expected), SparseMap(as_levels(coarse, below), half.pixels)
    assert close(prepare_upsample(up, below, signed, y)(taken, floats, tiles).values * y.step, expected, 0.1)


def test_a_stage_of_levels_comes_close_to_that_of_floats():
    torch.manual_seed(4)
    tiles, out = (Tiles.from_mask(torch.rand(24, 24) < 0.6, (2, 2), stride) for stride in (1, 2))
    stage = randomized(Stage([ResidualUnit(16, 32, 2), ResidualUnit(32, 32)]))
    rows = torch.rand(len(tiles.pixels), 16)
    x = levels_for(rows)
    step = [[Levels(torch.full((n,), 0.06)) for n in widths] for widths in ((16, 8, 8), (32, 8, 8))]
    prepared = prepare_stage(stage, x, [UnitLevels(*each) for each in step])
    found = prepared(SparseMap(as_levels(rows, x), tiles.pixels), out).values
    assert close(found, stage(SparseMap(rows, tiles.pixels), out).values, 0.06)


# --- what is refused


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("quantized_conv", {0: lambda x: x.float()}, "x must be uint8 for kernel 3"),
        ("quantized_conv", {0: lambda x: x.double()}, "x must be uint8 or float32"),
        ("quantized_conv", {6: lambda w: w.float()}, "weight must be Char"),
        ("quantized_conv", {6: lambda w: w.fill_(65)}, "weight must be in -64 .. 64"),
        ("quantized_conv", {8: lambda like: like.double()}, "like must be uint8 or float32"),
        ("quantized_upsample", {0: lambda x: x.float()}, "x must be uint8"),
        ("quantized_upsample", {2: lambda skip: skip.double()}, "skip must be float32"),
        ("quantized_units", {6: lambda w: w[:-1]}, "weights must be 8 tensors per unit"),
        ("quantized_units", {6: lambda w: [*w[:6], torch.empty(0), *w[7:]]}, "x must be float32 for a unit"),
        ("quantized_units", {6: lambda w: [*w[:-1], w[-1].double()]}, "scale must be contiguous Float"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_by_name(name, changes, message):
    arguments = list(quantized_arguments(name, (8, 12, 4)))
    for place, change in changes.items():
        arguments[place] = change(arguments[place])
    with pytest.raises(RuntimeError, match=message):
        run(name, arguments)
