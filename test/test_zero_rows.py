"""Rows of weights that are 0 are not multiplied, and no number says so. test_layer_ops runs it per instruction set."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import DTYPES, arguments_of, assert_computes_its_plain_form, needs_ops, packed, run
from torch.utils._pytree import tree_map

pytestmark = needs_ops
OUTPUTS = [4, 8, 16]  # vectors of SSE, AVX2 and AVX-512: one panel of a pair has rows that the other lacks, or both


def with_zero_rows(arguments, share, seed, inputs, outputs):
    """Weights that are 0 for blocks of so many inputs and outputs."""
    generator = torch.Generator().manual_seed(seed)

    def pruned(a):
        if not isinstance(a, torch.Tensor) or a.dim() != 4:
            return a
        blocks = -(-a.shape[0] // outputs), -(-a.shape[1] // inputs), *a.shape[2:]
        keep = torch.rand(blocks, generator=generator) >= share
        return a * keep.repeat_interleave(outputs, 0)[: len(a)].repeat_interleave(inputs, 1)[:, : a.shape[1]]

    return tree_map(pruned, arguments)


def with_full_rows(arguments, outputs):
    """The first of so many outputs gets weights everywhere: nothing can be left out."""

    def filled(a):
        if not isinstance(a, torch.Tensor) or a.dim() != 4:
            return a
        a = a.clone()
        a[::outputs] = 1.0
        return a

    return tree_map(filled, arguments)


@pytest.mark.parametrize("name", ["conv", "upsample"])
@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(DTYPES), st.tuples(*[st.integers(1, 80) | st.just(300)] * 3), st.sampled_from([0.3, 0.7, 1.0]),
    st.sampled_from([1, 2]), st.sampled_from(OUTPUTS), st.sampled_from([1, 3]), st.integers(0, 2**16),
)  # fmt: skip
def test_no_bit_of_the_other_outputs_depends_on_rows_of_zeros_being_left_out(
    name, dtype, channels, share, inputs, outputs, kernel, seed
):
    arguments = arguments_of(name, dtype, channels, (1, 6, 7), seed=seed, kernel=kernel)
    pruned = with_zero_rows(arguments, share, seed, inputs, outputs)
    others = torch.arange(channels[1]) % outputs != 0
    found, expected = (run(name, packed(a, dtype))[:, others] for a in (pruned, with_full_rows(pruned, outputs)))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["conv", "upsample", "residual_units"])
def test_a_layer_with_rows_of_zeros_computes_its_plain_form(name, dtype):
    for seed, (inputs, outputs) in enumerate(itertools.product((1, 2), OUTPUTS)):
        arguments = arguments_of(name, dtype, (70, 90, 40), (2, 6, 7), seed=seed, more=1, stride=2)
        assert_computes_its_plain_form(name, with_zero_rows(arguments, 0.7, seed, inputs, outputs), dtype)


def in_tiles(dtype):
    return torch.ops.sbnet.isa() == "amx" and dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinity_times_a_row_of_zeros_is_no_number_that_is_computed(dtype):
    arguments = arguments_of("conv", dtype, (8, 40, 1), (1, 4, 4), densities=(1.0, 1.0))
    weight = arguments[6].clone()
    weight[:, 2:4] = 0
    weight[32:, 2:4] = 1
    arguments = (torch.full_like(arguments[0], 1.0), *arguments[1:6], weight, arguments[7])
    arguments[0][:, 2] = torch.inf
    y = run("conv", arguments)
    # Matrix tiles multiply zeros too.
    assert y[:, :32].isfinite().all() == (not in_tiles(dtype))
    assert not y[:, 32:].isfinite().any()
