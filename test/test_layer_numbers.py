"""Numbers that the kernels of the layers read and write on every device: NaN, infinity, all of 16 bits, roundings."""

from __future__ import annotations

import pytest
import torch
from layer_helpers import DTYPES, arguments_of, assert_computes_its_plain_form, needs_ops, plain, run

from sbnet_perception.blocks import Pixels
from sbnet_perception.blocks.pixels import has_words

pytestmark = needs_ops


def cases(device, inputs):
    """Every kernel in every dtype that it computes in, on a full map, with as many channels inside as inputs."""
    options = [("conv", 6, {"kernel": kernel}) for kernel in (1, 3)] + [("upsample", 6, {})]
    options += [("residual_units", n, {"stride": s}) for n in (inputs, 4 * inputs) for s in (1, 2)]
    maps = {"size": (1, 12, 12), "densities": (1.0, 1.0), "device": device}
    for dtype in DTYPES:
        if dtype.itemsize > 2 and has_words(device):
            continue  # a GPU computes in the plain form
        for name, outputs, chosen in options:
            yield name, dtype, arguments_of(name, dtype, (inputs, outputs, inputs), **maps, **chosen)


@pytest.mark.parametrize("inputs", [5, 8])
def test_nan_and_infinity_appear_where_the_plain_form_has_them(device, inputs):
    for name, dtype, arguments in cases(device, inputs):
        x = arguments[0]
        x[5, 3], x[-1, 1], x[-7, 2] = torch.nan, torch.inf, -torch.inf
        found, expected = run(name, arguments), plain(name, arguments)
        assert expected.isnan().any() and expected.isfinite().any()
        for kind in (torch.isnan, torch.isposinf, torch.isneginf):
            assert torch.equal(kind(found), kind(expected)), (name, dtype, kind)


def test_an_odd_number_of_channels_is_padded_with_zeros_not_with_what_an_earlier_call_left(device):
    for (name, dtype, small), (*_, large) in zip(cases(device, 5), cases(device, 31), strict=True):
        run(name, (torch.full_like(large[0], torch.nan), *large[1:]))
        assert_computes_its_plain_form(name, small, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_other_pixel_of_the_output_changes_a_bit(device, dtype):
    x, pixels, size, _, *rest = arguments_of("conv", dtype, (64, 96, 24), (2, 30, 35), device=device)
    few, all_pixels = (torch.rand(2, 30, 35) < 0.1).to(device), Pixels.all(size, device)
    every = run("conv", (x, pixels, size, all_pixels.lists, *rest))
    assert torch.equal(run("conv", (x, pixels, size, Pixels.from_mask(few).lists, *rest)), every[few.flatten()])


def pointwise(x, weights, shift):
    """x [P, C] times weights [N, C] plus shift [N]."""
    pixels, norm = Pixels.all((1, 1, len(x)), x.device), torch.stack([torch.ones_like(shift), shift])
    return run("conv", (x, pixels.lists, pixels.size, pixels.lists, 1, False, weights[:, :, None, None], norm))


def numbers_of(dtype):
    """All finite numbers of a type of 16 bits, as rows of 40."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    every = every[every.isfinite()]
    return torch.cat([every, every.new_zeros(-len(every) % 40)]).reshape(-1, 40)


# The instructions for bfloat16 take its subnormal numbers for 0.
FLUSHED = {torch.float16: 0.0, torch.bfloat16: torch.finfo(torch.bfloat16).tiny}


@pytest.mark.parametrize("dtype", FLUSHED)
@pytest.mark.parametrize("width", [40, 1])
def test_every_number_of_16_bits_is_read_and_written_unchanged(device, dtype, width):
    x = numbers_of(dtype).reshape(-1, width).to(device)
    y = pointwise(x, torch.eye(width, device=device), torch.zeros(width, device=device))
    torch.testing.assert_close(y, x, rtol=0, atol=FLUSHED[dtype])


@pytest.mark.parametrize("dtype", FLUSHED)
@pytest.mark.parametrize("width", [40_000, 1])
def test_results_are_rounded_to_16_bits_as_torch_rounds_them(device, dtype, width):
    numbers = numbers_of(dtype).double().flatten().sort().values
    ties = ((numbers[1:] + numbers[:-1]) / 2).float()
    infinity = torch.tensor(torch.inf)
    beyond = torch.tensor([65519.99, 65520.0, 65536.0, 1e30, 3.4e38, torch.inf, torch.nan])
    nan = torch.tensor([-1, 2**31 - 1], dtype=torch.int32).view(torch.float32)  # rounded as a number, it would be 0
    shifts = torch.cat([ties, ties.nextafter(infinity), ties.nextafter(-infinity), -beyond, beyond, nan])
    shifts = shifts.to(device)
    for part in shifts.split(width) if width > 1 else shifts[-100:].split(1):
        y = pointwise(part.new_zeros(1, 2, dtype=dtype), part.new_zeros(len(part), 2), part)
        torch.testing.assert_close(y[0], part.to(dtype), rtol=0, atol=FLUSHED[dtype], equal_nan=True)
