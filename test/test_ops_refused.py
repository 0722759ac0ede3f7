"""What the block operations refuse, on every device and in plain PyTorch, and how they say so."""

from __future__ import annotations

import pytest
import torch
from devices import moved

from sbnet_perception.blocks import block_ops as ops
from sbnet_perception.blocks import block_plain, sparse_gather, sparse_scatter, sparse_scatter_

COMPILED = torch.ops.sbnet

BLOCK = {"block_size": (2, 2), "block_stride": (2, 2), "block_offset": (0, 0)}
INDICES = torch.zeros(1, 3, dtype=torch.int32)
IMAGE = torch.ones(1, 2, 4, 4)
RIGHT = {
    "reduce_mask": {"mask": torch.ones(1, 4, 4), "block_count": (2, 2), **BLOCK, "tol": 0.5},
    "sparse_gather": {"x": IMAGE, "indices": INDICES, **BLOCK, "block_dilation": (1, 1)},
    "sparse_scatter": {"blocks": torch.ones(1, 2, 2, 2), "indices": INDICES, "base": IMAGE, **BLOCK}
    | {"block_dilation": (1, 1), "add": False},
}
META = torch.device("meta")
WRONG_GEOMETRY = [
    ({"block_size": (0, 2)}, r"block_size .* got \(0, 2\)"),
    ({"block_stride": (2, -1)}, r"block_stride .* got \(2, -1\)"),
    ({"block_offset": (0, 2**40)}, "block_offset"),
    ({"block_size": (1, 2, 3)}, "block_size must be 2 integers"),
]
WRONG_BLOCKS = [
    *WRONG_GEOMETRY,
    ({"block_dilation": (0, 1)}, r"block_dilation .* got \(0, 1\)"),
    ({"indices": INDICES.long()}, r"indices must be int32 \[B, 3\]"),
    ({"indices": INDICES[:, :2]}, r"indices must be int32 \[B, 3\]"),
    ({"indices": INDICES[0]}, r"indices must be int32 \[B, 3\]"),
    ({"indices": INDICES.to(META)}, "indices must be on the device"),
]
WRONG = {
    "reduce_mask": [
        *WRONG_GEOMETRY,
        ({"mask": torch.ones(4, 4)}, r"mask must be .*\[N, H, W\], got .*4, 4"),
        ({"mask": torch.ones(1, 4, 4, dtype=torch.uint8)}, "mask must be bool.*float.* got"),
        ({"block_count": (-1, 2)}, r"block_count .* got \(-1, 2\)"),
    ],
    "sparse_gather": [
        *WRONG_BLOCKS,
        ({"x": IMAGE[0]}, "x must be .*float.* got .*2, 4, 4"),
        ({"x": IMAGE.long()}, "x must be .*float"),
    ],
    "sparse_scatter": [
        *WRONG_BLOCKS,
        ({"base": IMAGE[0]}, "base must be .*float"),
        ({"blocks": IMAGE[0, :, :2, :2]}, "blocks must be .*float"),
        ({"blocks": torch.ones(1, 2, 3, 2)}, "blocks must be .*2, 2, 2.* got .*1, 2, 3, 2"),
        ({"blocks": torch.ones(2, 2, 2, 2)}, "blocks must be"),
        ({"blocks": torch.ones(1, 2, 2, 2).double()}, "blocks must be .*[fF]loat"),
        ({"blocks": torch.ones(1, 2, 2, 2, device=META)}, "blocks must be on the device"),
    ],
}
WRONG["sparse_scatter_"] = [*WRONG["sparse_scatter"], ({"base": IMAGE[:, :1].expand(1, 2, 4, 4)}, "base .* expanded")]
RIGHT["sparse_scatter_"] = RIGHT["sparse_scatter"]
OWN = {"reduce_mask": {"avg": False}, "sparse_gather": {"channels_last": True}}
CALLS = [(name, changed, named) for name, rows in WRONG.items() for changed, named in rows]


def arguments_on(device, name, **changed):
    """The right arguments of an operation, some of them changed, on the device (or on none, as they are)."""

    def on_device(value):
        return moved(value, device) if isinstance(value, torch.Tensor) and not value.is_meta else value

    return {key: on_device(value) for key, value in (RIGHT[name] | changed).items()}


@pytest.mark.parametrize(("name", "changed", "named"), CALLS, ids=lambda value: str(value)[:24])
def test_a_wrong_argument_is_named_by_the_function_the_op_and_the_plain_form(device, name, changed, named):
    arguments, own = arguments_on(device, name, **changed), OWN.get(name, {})
    with pytest.raises(ValueError, match=named):
        getattr(ops, name)(**arguments)
    # On the meta device the fake kernel answers.
    on_meta = any(isinstance(value, torch.Tensor) and value.is_meta for value in arguments.values())
    with pytest.raises(ValueError if on_meta else RuntimeError, match=named):
        getattr(COMPILED, name)(**arguments, **own)
    with pytest.raises(ValueError, match=named):
        getattr(block_plain, name)(**arguments, **own)


@pytest.mark.parametrize(
    ("name", "changed", "named"),
    [
        ("reduce_mask", {"block_count": (2**31 - 1, 2**31 - 1)}, "block_count is too large"),
        ("reduce_mask", {"block_count": (2**20, 2**31 - 1)}, "block_count is too large"),
        ("sparse_gather", {"block_size": (2**31 - 1, 2**31 - 1)}, "block_size is too large"),
        ("sparse_gather", {"block_size": (2**24, 2**24)}, "block_size is too large"),
        ("sparse_gather", {"x": torch.ones(1, 0, 2**31, 1)}, "x is too large"),
        ("sparse_gather", {"block_size": (2.5, 2)}, "block_size"),
        ("reduce_mask", {"block_offset": (2**70, 2)}, "block_offset"),
        ("reduce_mask", {"mode": "min"}, "mode must be 'max' or 'avg', got 'min'"),
        ("sparse_gather", {"memory_format": torch.preserve_format}, "memory_format must be"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_does_not_fit_in_memory_or_is_of_another_type_is_named(device, name, changed, named):
    with pytest.raises(ValueError, match=named):
        getattr(ops, name)(**arguments_on(device, name, **changed))


@pytest.mark.parametrize("image", [-1, 1])
@pytest.mark.parametrize("name", ["sparse_gather", "sparse_scatter", "sparse_scatter_"])
def test_an_image_that_is_not_there_is_refused_or_by_kernels_of_a_gpu_which_do_not_wait_taken_as_outside(
    device, request, name, image
):
    indices = torch.tensor([[image, 0, 0]], dtype=torch.int32)
    arguments, own = arguments_on(device, name, indices=indices), OWN.get(name, {})
    if "blocks" in arguments:
        arguments |= {"blocks": arguments["blocks"] + 1, "base": arguments["base"].clone()}
    named = "indices name .* outside the batch of 1"
    with pytest.raises(ValueError, match=named):
        getattr(block_plain, name)(**arguments, **own)
    if request.node.callspec.params["device"] == "cpu":
        with pytest.raises(ValueError, match=named):
            getattr(ops, name)(**arguments)
        with pytest.raises(RuntimeError, match=named):
            getattr(COMPILED, name)(**arguments, **own)
        return
    result = getattr(ops, name)(**arguments)
    assert torch.equal(result, IMAGE.to(device)) if name != "sparse_gather" else not result.any()


def test_other_errors_are_left_as_they_are(device):
    leaf = torch.ones(1, 2, 4, 4, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        sparse_scatter_(torch.ones(1, 2, 2, 2, device=device), INDICES.to(device), leaf, (2, 2), (2, 2))


def test_positions_at_the_ends_of_32_bits_lie_outside_the_image(device):
    low, high = -(2**31), 2**31 - 1
    indices = torch.tensor([[0, low, high], [0, high, low], [0, 0, high]], dtype=torch.int32, device=device)
    image = IMAGE.to(device)
    for offset in ((low, low), (high, high)):
        geometry = ((3, 3), (high, high), offset, (high, high))
        assert not sparse_gather(image, indices, *geometry).any()
        blocks = torch.zeros(3, 2, 3, 3, device=device)
        assert torch.equal(sparse_scatter(blocks, indices, image, *geometry), image)
        assert torch.equal(sparse_scatter(blocks, indices, image, *geometry, add=True), image)
