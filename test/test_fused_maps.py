"""What lies outside the tiles, and what the kernels refuse: wrong arguments, too little memory."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from fused_helpers import needs_ops
from hypothesis import given, settings
from hypothesis import strategies as st

from sbnet_perception.blocks import Tiles

pytestmark = needs_ops
LARGEST = 2**31 - 1


@settings(deadline=None, max_examples=200)
@given(
    st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(0, 20) | st.sampled_from([63, 64, 65, 128, 130, 200])),
    st.tuples(*[st.integers(1, 5) | st.just(LARGEST)] * 2),
    st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]),
    st.sampled_from([torch.bool, torch.int8, torch.bfloat16, torch.float32, torch.int64]),
    st.integers(0, 9999),
)
def test_exactly_the_pixels_outside_the_tiles_are_restored_in_any_order_of_the_tiles(size, tile, density, dtype, seed):
    rng = np.random.default_rng(seed)
    count = [-(-extent // side) for extent, side in zip(size[1:], tile, strict=True)]
    active = torch.from_numpy(rng.random((size[0], *count)) < density)
    indices = active.nonzero().int().contiguous()
    if seed % 2:
        indices = indices[rng.integers(0, max(len(indices), 1), 2 * len(indices))]
        active = torch.zeros_like(active).index_put(tuple(indices.long().unbind(1)), torch.tensor(True))
    mask = active.repeat_interleave(min(tile[0], 7), 1).repeat_interleave(min(tile[1], 200), 2)
    y, x = (torch.from_numpy(rng.integers(0, 2, (*size, 3))).to(dtype) for _ in range(2))
    for other in (x, None, y):
        restored = y.clone() if other is not y else y
        expected = torch.where(mask[:, : size[1], : size[2], None], y, 0 if other is None else other)
        torch.ops.sbnet.restore_inactive_(restored, other, indices, tile)
        assert torch.equal(restored, expected.to(dtype))


# --- wrong arguments


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda o, x, i, w: o.conv_unit_packed(x[0], i, [1, 1], 1, True, *w), "x must be contiguous"),
        (lambda o, x, i, w: o.conv_unit_packed(x.int(), i, [1, 1], 1, True, *w), r"x must be float32.* got Int \[1, 4"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i.long(), [1, 1], 1, True, *w), "indices must be contiguous int32"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [0, 1], 1, True, *w), "tile must be"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [1, 1], 5, True, *w), "kernel must be 1 or 3"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [1, 1], 3, True, *w), "weights must be"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [1, 1], 1, True, w[0], w[1].double()), "norm must be"),
        (lambda o, x, i, w: o.conv_unit_packed(x, i, [1, 1], 1, True, w[0], w[1][:, :0]), r"norm must be \[2, C\]"),
        (lambda o, x, i, w: o.residual_units_packed(x, i, [1, 1], 3, 4, [*w]), "stride must be 1 or 2"),
        (lambda o, x, i, w: o.residual_units_packed(x, i, [1, 1], 1, 4, [*w]), "7 tensors per unit"),
        (lambda o, x, i, w: o.upsample_unit_packed(x, x, i, [1, 1], *w, w[1]), "half the size"),
        (lambda o, x, i, w: o.pack_weights(torch.ones(1, 2, 3), x), "even K"),
        (lambda o, x, i, w: o.pack_weights(torch.ones(1, 0, 4), x), r"between 1 and .* channels, got .* \[1, 0, 4\]"),
        (lambda o, x, i, w: o.pack_weights(torch.ones(1, 2, 4), x.int()), "^x must be float32.* got Int"),
        (lambda o, x, i, w: o.restore_inactive_(x, x.double(), i, [1, 1]), "x must have the dtype and the shape of y"),
        (lambda o, x, i, w: o.restore_inactive_(x, x[:, :2], i, [1, 1]), "x must have the dtype and the shape of y"),
        (lambda o, x, i, w: o.restore_inactive_(x.permute(0, 3, 1, 2), None, i, [1, 1]), "y must be contiguous"),
    ],
)
def test_a_wrong_argument_of_a_kernel_is_named(call, named):
    o = torch.ops.sbnet
    weights = [o.pack_weights(torch.ones(1, 4, 4), torch.ones(1)), torch.ones(2, 4)]
    with pytest.raises(RuntimeError, match=named):
        call(o, torch.ones(1, 4, 4, 4), torch.zeros(1, 3, dtype=torch.int32), weights)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tiles_beside_the_map_are_refused_on_every_side(axis):
    y, count = torch.ones(2, 8, 12, 1), (2, 3, 4)
    last = torch.tensor(count, dtype=torch.int32) - 1
    for wrong in (-1, -(2**31), count[axis], LARGEST):
        index = last.clone()
        index[axis] = wrong
        before = last - torch.tensor([0, 0, 1], dtype=torch.int32)  # its neighbour, with which it may form a run
        for indices in (index[None], torch.stack([last, index]), torch.stack([before, last, index])):
            with pytest.raises(RuntimeError, match="within 2 x 3 x 4, some lie outside the map"):
                torch.ops.sbnet.restore_inactive_(y, None, indices, (3, 3))
    torch.ops.sbnet.restore_inactive_(y, None, torch.stack([torch.zeros_like(last), last]), (3, 3))
    assert y[0, :3, :3].all() and y[1, 6:, 9:].all() and y.sum() == 9 + 6


@pytest.mark.parametrize("size", [(2**31, 0, 1, 1), (0, 2**31, 1, 1), (0, 1, 2**31, 1), (2**16, 2**16, 0, 1)])
def test_a_map_whose_pixels_cannot_be_numbered_is_refused(size):
    with pytest.raises(RuntimeError, match="y must have at most 2147483647 pixels"):
        torch.ops.sbnet.restore_inactive_(torch.ones(size), None, torch.zeros(0, 3, dtype=torch.int32), (1, 1))


@pytest.mark.skipif("SBNET_OPS" in os.environ, reason="the address sanitizer needs more memory than the limit")
@pytest.mark.parametrize("threads", [1, 3])
def test_too_little_memory_for_a_thread_is_an_error_that_says_so(threads):
    o, width, middle = torch.ops.sbnet, 2**18, 512
    x = torch.ones(1, 3, width, 2)
    norms = [torch.ones(2, channels) for channels in (2, middle, middle)]
    matrices = [
        o.pack_weights(torch.ones(shape), x) for shape in ((1, middle, 2), (3, middle, 3 * middle), (1, 2, middle))
    ]
    weights = [tensor for pair in zip(norms, matrices, strict=True) for tensor in pair]
    indices = Tiles.from_mask(torch.ones(1, 3, width, dtype=torch.bool), (1, width)).indices
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, threads_before = resource.getrlimit(resource.RLIMIT_AS), torch.get_num_threads()
    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    try:
        with pytest.raises(RuntimeError, match=r"out of memory: a layer needs [0-9]{10} bytes of scratch memory"):
            o.residual_units_packed(x, indices, (1, width), 1, 2, [*weights, torch.ones(0, dtype=torch.uint8)])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        torch.set_num_threads(threads_before)
