"""The operations of the layers: their kernels compute their plain form, on every instruction set of the machine."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_helpers import (
    DENSITIES,
    DTYPES,
    OPERATIONS,
    OPTIONS,
    SEEDS,
    SIDES,
    SIZES,
    arguments_of,
    assert_computes_its_plain_form,
    needs_ops,
    packed,
    run,
    without_windows,
)
from quantized_helpers import QUANTIZED, quantized_arguments, with_packed
from torch.utils._pytree import tree_leaves, tree_map

from sbnet_perception.blocks import Pixels

pytestmark = needs_ops

# More than 128 inputs are summed in parts.
CHANNELS = st.integers(1, 40) | st.sampled_from([127, 128, 129, 300])


def tensors_of(arguments):
    return [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]


# --- numbers


@pytest.mark.parametrize("name", OPERATIONS)
@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(DTYPES), st.tuples(*[CHANNELS] * 3), SIZES, SIDES, st.tuples(*[DENSITIES] * 2), SEEDS, OPTIONS,
    st.booleans(),
)  # fmt: skip
def test_a_kernel_computes_its_plain_form_whoever_packed_the_weights_and_found_the_windows(
    name, dtype, channels, size, sides, densities, seed, options, keeps_shape
):
    channels = (channels[0], channels[0] if keeps_shape else channels[1], channels[2])
    arguments = arguments_of(name, dtype, channels, size, sides, densities, seed, **options)
    before = tree_map(lambda a: a.clone() if isinstance(a, torch.Tensor) else a, arguments)
    found = assert_computes_its_plain_form(name, arguments, dtype)
    for other in (packed(arguments, dtype), without_windows(arguments)):
        assert torch.equal(run(name, other), found)
    assert all(torch.equal(a, b) for a, b in zip(*map(tensors_of, (arguments, before)), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_thread_and_no_later_call_changes_a_bit(dtype):
    threads, channels, size = torch.get_num_threads(), (64, 96, 24), (2, 60, 70)
    for name in OPERATIONS:
        arguments, results = arguments_of(name, dtype, channels, size, more=2, stride=2), []
        try:
            for count in (1, 2, 3, 7):
                torch.set_num_threads(count)
                results.append((y := run(name, arguments), y.clone()))
        finally:
            torch.set_num_threads(threads)
        run(name, arguments_of(name, dtype, channels, size, more=2, stride=2, seed=5))
        assert all(torch.equal(y, results[0][1]) for pair in results for y in pair)


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "avx512bf16", "amx"])
def test_every_instruction_set_of_this_machine_computes_the_same(isa):
    if os.environ.get("SBNET_ISA") or isa == torch.ops.sbnet.isa():
        pytest.skip("this process runs it")
    probe = [sys.executable, "-c", "import sbnet_perception.blocks, torch; torch.ops.sbnet.isa()"]
    environment = {**os.environ, "SBNET_ISA": isa}
    if subprocess.run(probe, env=environment, capture_output=True, check=False).returncode:
        pytest.skip(f"this machine does not run {isa}")
    beside = ("test_layer_numbers.py", "test_zero_rows.py", "test_quantized_layers.py")
    files = __file__, *(str(Path(__file__).with_name(name)) for name in beside)
    chosen = "(computes or bit or number) and not shim and not cuda"
    command = [sys.executable, "-m", "pytest", "-q", *files, "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


# --- as torch demands them


def small(name, dtype=torch.float64, **options):
    return arguments_of(name, dtype, (4, 3, 2), sides=(2, 1), stride=2, more=1, **options)


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_the_function(name):
    arguments = small(name)
    wanted = [a for a in tensors_of(arguments) if a.dtype == torch.float64 and a.numel()]

    def function(*values):
        given = dict(zip(map(id, wanted), values, strict=True))
        return run(name, tree_map(lambda a: given.get(id(a), a), arguments))

    inputs = [a.clone().requires_grad_() for a in wanted]
    assert torch.autograd.gradcheck(function, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_operations_are_registered_as_torch_demands(name, dtype):
    operation = getattr(torch.ops.sbnet, name).default
    arguments = small(name, dtype)
    torch.library.opcheck(operation, packed(arguments, dtype), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", QUANTIZED)
def test_the_operations_of_levels_are_registered_as_torch_demands(name):
    operation, arguments = getattr(torch.ops.sbnet, name).default, quantized_arguments(name, (4, 8, 3))
    with torch.no_grad():  # gradients there are none
        torch.library.opcheck(operation, with_packed(arguments), test_utils=("test_schema", "test_faketensor"))
    for tensor in tensors_of(arguments):
        tensor.requires_grad_(tensor.is_floating_point() and tensor.numel() > 0)
    torch.library.opcheck(operation, arguments)


def test_what_packs_their_weights_is_registered_as_torch_demands():
    for dtype in DTYPES:
        weight = torch.ones(3, 5, 2, 2, dtype=torch.promote_types(dtype, torch.float32))
        torch.library.opcheck(torch.ops.sbnet.pack_weights.default, (weight, torch.empty(0, dtype=dtype)))


# --- what is refused


def changed(name, **changes):
    names = [a.name for a in getattr(torch.ops.sbnet, name).default._schema.arguments]
    arguments = dict(zip(names, arguments_of(name, torch.float32, (4, 4, 4)), strict=True))
    return [value(arguments[key]) if callable(value := changes.get(key)) else arguments[key] for key in names]


def nth(place, change):
    return lambda values: [change(v) if i == place else v for i, v in enumerate(values)]


WRONG = [
    ("conv", {"x": lambda x: x[:-1]}, r"x must be contiguous \[\d+, C\], a row per stored pixel"),
    ("conv", {"x": lambda x: x.T.contiguous().T}, "x must be contiguous"),
    ("conv", {"x": lambda x: x.int()}, "x must be float32.* got Int"),
    ("conv", {"x": lambda x: x[:, :3].contiguous()}, r"weight must be \[4, 3, 3, 3\], got Float \[4, 4, 3, 3\]"),
    ("conv", {"x": lambda x: torch.ones(len(x), 65_537)}, "x must have 1 to 65536 channels, got 65537"),
    ("conv", {"x": lambda x: x[:, :0]}, "x must have 1 to 65536 channels, got 0"),
    ("conv", {"kernel": lambda _: 5}, "kernel must be 1 or 3, got 5"),
    ("conv", {"norm": lambda n: n.double()}, r"norm must be contiguous Float \[2, 4\]"),
    ("conv", {"norm": lambda n: n[:, :0]}, r"norm must be \[2, C\]"),
    ("conv", {"norm": lambda n: torch.ones(2, 65_537)}, "norm must be .* 1 to 65536 channels"),
    ("conv", {"weight": lambda w: w.double()}, "weight must be Float, got Double"),
    ("conv", {"weight": lambda w: torch.ones(9, dtype=torch.uint8)}, r"weight must be \d+ packed bytes, .*4 input"),
    ("conv", {"size": lambda _: (2, 8, 6)}, r"start of x must be contiguous int32 \[17\]"),
    ("conv", {"size": lambda _: (2, 7)}, r"size"),
    ("conv", {"x_pixels": lambda lists: lists[:2]}, "pixels of x must be 3 or 5 lists, got 2"),
    ("conv", {"x_pixels": nth(0, lambda flat: flat.int())}, r"positions of x must be contiguous int64 \[P\]"),
    ("conv", {"y_pixels": nth(0, lambda flat: flat[1:])}, "runs of y must hold as many pixels as"),
    ("conv", {"y_pixels": nth(2, lambda runs: runs.long())}, r"runs of y must be contiguous int32 \[R, 3\]"),
    ("conv", {"y_pixels": nth(2, lambda runs: runs[:-1])}, "start of y must end with the number of runs"),
    ("conv", {"y_pixels": nth(4, lambda runs: runs[:-1])}, "start of y must end with the number of runs"),
    ("upsample", {"skip": lambda x: x.double()}, "skip must have the dtype of x"),
    ("upsample", {"skip": lambda x: x[1:]}, "skip must be contiguous"),
    ("upsample", {"x_pixels": nth(1, lambda start: start[:-1])}, r"start of x must be contiguous int32 \[9\]"),
    ("upsample", {"lateral": lambda w: w[:, 1:]}, r"lateral must be \[4, 4, 1, 1\]"),
    ("residual_units", {"stride": lambda _: 3}, "stride must be 1 or 2, got 3"),
    ("residual_units", {"stride": lambda _: 2}, "without projection must keep the shape"),
    ("residual_units", {"channels": lambda _: 0}, "channels must be 1 to 65536, got 0"),
    ("residual_units", {"channels": lambda _: 65_537}, "channels must be 1 to 65536, got 65537"),
    ("residual_units", {"weights": lambda w: w[:-1]}, "7 tensors per unit"),
    ("residual_units", {"weights": lambda w: []}, "7 tensors per unit"),
    ("residual_units", {"weights": lambda w: w + w[:-1] + [w[1]]}, "only the first unit may have a projection"),
    ("residual_units", {"weights": nth(4, lambda n: n[:, 1:])}, "conv_norm must be"),
    ("voxel_conv", {"bits": lambda b: b.int()}, r"bits must be contiguous int64"),
    ("voxel_conv", {"bits": lambda b: b | 8}, "bits are beyond channel 2"),
    ("voxel_conv", {"last": lambda v: v[1:]}, "last must be contiguous float32"),
    ("voxel_conv", {"channels": lambda _: 65}, "channels must be 2 to 64, got 65"),
    ("voxel_conv", {"weight": lambda w: w[..., :4]}, r"weight must be contiguous \[9, 4, 16\]"),
    ("voxel_conv", {"like": lambda x: x.int()}, "must be float32"),
]


@pytest.mark.parametrize(("name", "changes", "named"), WRONG, ids=[f"{name}: {named:.40}" for name, _, named in WRONG])
def test_a_wrong_argument_of_a_kernel_is_named(name, changes, named):
    with pytest.raises(RuntimeError, match=f"^{name}: .*{named}"):
        run(name, changed(name, **changes))


def test_channels_whose_square_is_beyond_32_bits_are_counted_right():
    pixels, wide = Pixels.all((1, 1, 1)), 46_341
    nothing = torch.empty(1, dtype=torch.uint8)
    for side, digits in ((1, 10), (3, 11)):
        arguments = (pixels.lists, pixels.size, pixels.lists, side, True, nothing, torch.ones(2, wide))
        with pytest.raises(RuntimeError, match=f"weight must be [0-9]{{{digits}}} packed bytes"):
            run("conv", (torch.ones(1, wide), *arguments))


@pytest.mark.parametrize(
    ("shape", "dtype", "named"),
    [
        ((2, 4, 5, 5), torch.float32, r"weight must be \[N, K, 1, 1\], .* got Float \[2, 4, 5, 5\]"),
        ((1, 2, 3), torch.float32, r"weight must be \[N, K, 1, 1\]"),
        ((0, 4, 1, 1), torch.float32, "weight must have 1 to 65536 input and output channels"),
        ((1, 65_537, 1, 1), torch.float32, "weight must have 1 to 65536 input and output channels"),
        ((1, 2, 1, 1), torch.float64, "weight must be Float, got Double"),
        ((1, 2, 1, 1), torch.bfloat16, "weight must be Float, got BFloat16"),
    ],
)
def test_weights_that_no_kernel_reads_are_not_packed(shape, dtype, named):
    with pytest.raises(RuntimeError, match=f"^pack_weights: {named}"):
        torch.ops.sbnet.pack_weights(torch.ones(shape, dtype=dtype), torch.empty(0))


@pytest.mark.skipif("SBNET_OPS" in os.environ, reason="the address sanitizer needs more memory than the limit")
@pytest.mark.parametrize("threads", [1, 3])
def test_too_little_memory_for_a_thread_is_an_error_that_says_so(threads):
    arguments = list(arguments_of("residual_units", torch.float32, (2, 2, 512), (1, 3, 2**18), (1, 2**18), (1.0, 1.0)))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, threads_before = resource.getrlimit(resource.RLIMIT_AS), torch.get_num_threads()
    torch.set_num_threads(threads)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    try:
        with pytest.raises(RuntimeError, match=r"out of memory: a layer needs [0-9]{10} bytes of scratch memory"):
            run("residual_units", arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        torch.set_num_threads(threads_before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_packed_for_another_shape_or_with_a_wrong_word_are_refused(dtype):
    pack, like = torch.ops.sbnet.pack_weights, torch.empty(0, dtype=dtype)
    numbers, pixels = torch.promote_types(dtype, torch.float32), Pixels.all((1, 2, 2))

    def computed(weight, outputs=4, inputs=8):
        maps = torch.ones(4, inputs, dtype=dtype), pixels.lists, pixels.size, pixels.lists
        return run("conv", (*maps, 1, False, weight, torch.ones(2, outputs, dtype=numbers)))

    right = pack(torch.ones(4, 8, 1, 1, dtype=numbers), like)
    assert (computed(right) == 9).all()
    others = [pack(torch.ones(n, k, 1, 1, dtype=numbers), like) for n, k in ((8, 4), (4, 7), (2, 16))]
    beyond = right.clone()
    beyond[-8:] = 255  # the last word: a bit for each step of inputs
    unaligned = torch.cat([right.new_zeros(1), right])[1:]
    for wrong in (*others, torch.zeros_like(right), torch.full_like(right, 255), beyond, unaligned):
        bytes_of = wrong.new_zeros(right.numel())
        bytes_of[: wrong.numel()] = wrong[: right.numel()]
        with pytest.raises(RuntimeError, match=r"weight must be what pack_weights makes of \[4, 8, 1, 1\]"):
            computed(wrong if wrong.numel() == right.numel() else bytes_of)
