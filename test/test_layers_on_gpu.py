"""The layers as the kernels of a GPU compute them: in 16 bits on tensor cores, in other dtypes in their plain form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import (
    DENSITIES,
    OPERATIONS,
    OPTIONS,
    SEEDS,
    SIDES,
    SIZES,
    arguments_of,
    assert_computes_its_plain_form,
    needs_ops,
    packed,
    plain,
    random_mask,
    random_voxels,
    randomized,
    run,
)
from torch.utils._pytree import tree_map

from sbnet_perception.bev.voxelize import CHANNELS as CHANNELS_OF_A_VOXEL
from sbnet_perception.blocks import Pixels, Tiles, layer_ops, layer_plain
from sbnet_perception.blocks.layer_ops import UnitWeights
from sbnet_perception.detector.network import Detector

pytestmark = needs_ops
PACK = torch.ops.sbnet.pack_weights.default
HALVES = [torch.bfloat16, torch.float16]
CHANNELS = st.integers(1, 40) | st.sampled_from([96, 130])


@pytest.mark.parametrize("name", OPERATIONS)
@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(HALVES), st.tuples(*[CHANNELS] * 3), SIZES, SIDES, st.tuples(*[DENSITIES] * 2), SEEDS, OPTIONS,
    st.booleans(),
)  # fmt: skip
def test_a_kernel_computes_its_plain_form_whoever_packed_the_weights(
    gpu, name, dtype, channels, size, sides, densities, seed, options, keeps_shape
):
    channels = (channels[0], channels[0] if keeps_shape else channels[1], channels[2])
    arguments = arguments_of(name, dtype, channels, size, sides, densities, seed, device=gpu, **options)
    found = assert_computes_its_plain_form(name, arguments, dtype)
    assert torch.equal(run(name, packed(arguments, dtype)), found)


# --- which pixels


def masks():
    size = (1, 15, 37)
    border, one = torch.ones(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    border[:, 1:-1, 1:-1] = False
    one[0, 6, 36] = True
    return {"border": border, "one": one} | {f"{d}": random_mask(size, d) for d in (0.0, 0.2, 1.0)}


def whole_numbers(arguments):
    """Small ones in place of all numbers, and few weights that are not 0: no product or sum is rounded."""
    generator = torch.Generator().manual_seed(0)

    def whole(a):
        if not isinstance(a, torch.Tensor) or not a.is_floating_point() or not a.numel():
            return a
        numbers = torch.randint(-2, 3, a.shape, generator=generator)
        if a.dim() == 4:
            numbers = numbers.clamp(-1, 1) * (torch.rand(a.shape, generator=generator) < 3 / a[0].numel())
        if a.dim() == 2 and a.dtype == torch.float32:  # scale and shift
            numbers[0] = 1
        return numbers.to(a)

    return tree_map(whole, arguments)


@pytest.mark.parametrize("kind", masks())
@pytest.mark.parametrize("name", OPERATIONS)
def test_whole_numbers_are_exact_on_maps_of_any_pixels(gpu, name, kind):
    mask = masks()[kind]
    for number, dtype in enumerate(HALVES):
        options = {"stride": 1 + number, "kernel": 3 - 2 * number, "more": 1, "mask": mask}
        channels = (100, 100, 25) if number == 0 else (196, 100, 48)
        arguments = whole_numbers(arguments_of(name, dtype, channels, tuple(mask.shape), device=gpu, **options))
        expected = plain(name, arguments)
        assert not expected.numel() or 1 < expected.abs().max() <= 256
        assert torch.equal(run(name, arguments).double(), expected)


ROWS = {"conv": {0: 1}, "voxel_conv": {0: 2, 1: 2}, "upsample": {0: 1, 2: 3}, "residual_units": {0: 1}}
"""Of each operation: which argument has a row for each pixel of which lists."""


def sizes_of(name, arguments):
    """The lists among the arguments, with the size of their map."""
    (place,) = (i for i, a in enumerate(arguments) if isinstance(a, tuple))
    size = arguments[place]
    half = (size[0], -(-size[1] // 2), -(-size[2] // 2))
    sizes = {i: size for i, a in enumerate(arguments) if isinstance(a, list) and len(a) == 4}
    return sizes | ({1: half} if name == "upsample" else {3: half} if name == "residual_units" else {})


def with_room(name, arguments, room):
    """The same with buffers for so many pixels of each map, behind the last of which nothing may be read."""
    arguments = list(arguments)
    for place, lists in ROWS[name].items():
        rows, garbage = arguments[place], torch.nan if arguments[place].is_floating_point() else -1
        kept = min(len(arguments[lists][0]), room)
        arguments[place] = rows.new_full((room, *rows.shape[1:]), garbage)
        arguments[place][:kept] = rows[:kept]
    for place, size in sizes_of(name, arguments).items():
        mask = Pixels(arguments[place][0], size, ()).mask()
        arguments[place] = Tiles.pyramid(mask, [(1, 1)], [1], [room])[0].pixels.lists
    return arguments


def cut(name, arguments, room):
    """The same without the pixels that have no room."""
    arguments = list(arguments)
    for place in ROWS[name]:
        arguments[place] = arguments[place][:room]
    for place, size in sizes_of(name, arguments).items():
        arguments[place] = Pixels.from_flat(arguments[place][0][:room], size).lists
    return arguments


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", OPERATIONS)
def test_buffers_may_have_more_rows_than_pixels_or_fewer(gpu, name, dtype):
    arguments = arguments_of(name, dtype, (36, 20, 9), (2, 9, 13), densities=(0.3, 0.3), stride=2, more=1, device=gpu)
    for room in (500, 30):
        found, expected = run(name, with_room(name, arguments, room)), run(name, cut(name, arguments, room))
        assert found.shape == (room, 20) and 0 < len(expected) <= room
        tolerance = 0 if dtype is torch.bfloat16 else 1e-5
        torch.testing.assert_close(found[: len(expected)], expected, rtol=0, atol=tolerance)


# --- the network that is shipped


def rounded_units(x, x_lists, size, y_lists, stride, channels, weights):
    """Residual units in float32, rounded where the kernels round."""

    def after(norm):
        return lambda rows: (rows * norm[0] + norm[1]).relu().to(x.dtype).float()

    values, pixels = x.float(), Pixels(x_lists[0], size, ())
    output = Pixels(y_lists[0], (size[0], -(-size[1] // stride), -(-size[2] // stride)), ())
    for first in range(0, len(weights), 7):
        unit = UnitWeights(*weights[first : first + 7])
        matrices = [unit.reduce, unit.conv, unit.expand, *([unit.project] if unit.project.numel() else [])]
        norms = [after(unit.activation), after(unit.reduce_norm), after(unit.conv_norm)]
        values = layer_plain.residual_unit(values, pixels, output, stride, matrices, norms).to(x.dtype).float()
        pixels, stride = output, 1
    return values


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("inputs", "channels"), [(32, 96), (96, 192), (192, 256), (256, 384)])
def test_the_units_of_every_stage_round_where_they_should_and_nowhere_else(gpu, inputs, channels, dtype):
    widths, size = (inputs, channels, channels // 4), (1, 21, 26)
    options = {"densities": (0.4, 0.4), "stride": 2, "more": 2, "device": gpu}
    arguments = arguments_of("residual_units", dtype, widths, size, (2, 2), **options)
    found, expected = run("residual_units", arguments).double(), rounded_units(*arguments).double()
    exact, ulp = plain("residual_units", arguments), torch.finfo(dtype).eps
    # Sums in another order turn some roundings, and what has turned changes what depends on it: far less than the
    # roundings themselves.
    assert (found - expected).norm() < 0.4 * ulp * expected.norm()
    assert (found - exact).norm() < 0.8 * ulp * exact.norm()


def test_all_of_the_network_is_as_exact_as_16_bits_are(gpu):
    torch.manual_seed(0)
    network = randomized(Detector()).to(gpu)
    voxels = random_voxels((1, 64, 96), 0.1, 1, CHANNELS_OF_A_VOXEL, gpu)
    mask = random_mask((1, 64, 96), 0.004).to(gpu)
    with torch.no_grad():
        expected = network(voxels, mask).rows.double()
    for dtype in HALVES:
        prepared = network.prepare(dtype, gpu)
        found = prepared.predict(voxels, prepared.tiles(mask)).rows
        assert found.dtype == dtype and found.shape == expected.shape and len(found) > 50
        assert (found - expected).norm() < 1.5 * torch.finfo(dtype).eps * expected.norm()


# --- other dtypes, gradients, errors


def test_in_other_dtypes_weights_stay_as_they_are_and_the_plain_form_computes(gpu):
    for dtype in (torch.float32, torch.float64):
        for name in OPERATIONS:
            arguments = arguments_of(name, dtype, (8, 8, 4), stride=2, more=1, device=gpu)
            prepared = packed(arguments, dtype)
            assert all(a.dtype != torch.uint8 for a in prepared if isinstance(a, torch.Tensor))
            expected = getattr(torch.ops.sbnet, f"{name}_plain")(*arguments)
            torch.testing.assert_close(run(name, prepared), expected, rtol=1e-5, atol=1e-5)
    for dtype in (torch.bfloat16, torch.float32):
        torch.library.opcheck(PACK, (torch.ones(3, 5, 2, 2, device=gpu), torch.empty(0, dtype=dtype, device=gpu)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_the_plain_form(gpu, name):
    arguments = arguments_of(name, torch.bfloat16, (8, 12, 4), stride=2, more=1, device=gpu)
    wanted = [a.requires_grad_() for a in arguments if isinstance(a, torch.Tensor) and a.is_floating_point()]
    wanted = [a for a in wanted if a.numel() and a.dim() > 1]
    found = []
    for function in (getattr(torch.ops.sbnet, name), getattr(layer_ops, f"_plain_{name}")):
        y = function(*arguments)
        found.append(torch.autograd.grad(y, wanted, torch.ones_like(y)))
    assert wanted and all(map(torch.equal, *found))


WRONG = [
    ("conv", {0: lambda x: x.int()}, "x must be float32.* got Int"),
    ("conv", {0: lambda x: x[:-1]}, r"x must be contiguous \[\d+, C\], a row per stored pixel"),
    ("conv", {1: lambda lists: lists[:3]}, "pixels of x must be 4 lists, got 3"),
    ("conv", {6: lambda w: w[:, :3]}, r"weight must be \[4, 4, 3, 3\], got Float \[4, 3, 3, 3\]"),
    ("conv", {6: lambda w: w.new_ones(9, dtype=torch.uint8)}, "weight must be 4608 packed bytes, .*4 input"),
    ("conv", {7: lambda n: n.bfloat16()}, r"norm must be contiguous Float \[2, 4\]"),
    ("upsample", {2: lambda x: x.half()}, "skip must have the dtype of x"),
    ("residual_units", {4: lambda _: 2}, "without projection must keep the shape"),
    ("voxel_conv", {1: lambda v: v[1:]}, "last must be contiguous float32"),
]


@pytest.mark.parametrize(("name", "changes", "named"), WRONG, ids=[f"{name}: {named:.40}" for name, _, named in WRONG])
def test_a_wrong_argument_is_named(gpu, name, changes, named):
    arguments = arguments_of(name, torch.bfloat16, (4, 4, 4), device=gpu)
    wrong = [changes[place](a) if place in changes else a for place, a in enumerate(arguments)]
    with pytest.raises(RuntimeError, match=f"^{name}: .*{named}"):
        run(name, wrong)
