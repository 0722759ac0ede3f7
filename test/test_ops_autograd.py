"""Gradients of the block operations, torch.compile and torch.export, and the package without its compiled library."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from devices import on_cpu
from torch._dynamo.testing import CompileCounterWithBackend

from sbnet_perception.blocks import (
    block_plain,
    reduce_mask,
    sparse_gather,
    sparse_scatter,
    sparse_scatter_,
)

COMPILED = torch.ops.sbnet
FORMATS = [torch.channels_last, torch.contiguous_format]
# Blocks that overlap, repeat, lie beside the image and come in no order, with dilation.
INDICES = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0], [1, -1, 2], [0, 0, 1]], dtype=torch.int32)
GEOMETRY = ((3, 2), (2, 1), (-1, 0), (1, 2))


def image_and_blocks(device, memory_format=torch.contiguous_format, dtype=torch.float64, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 2, 5, 4, generator=generator).to(device, dtype).contiguous(memory_format=memory_format)
    blocks = torch.randn(6, 2, 3, 2, generator=generator).to(device, dtype).contiguous(memory_format=memory_format)
    return x.requires_grad_(requires_grad), blocks.requires_grad_(requires_grad)


# --- gradients ---


def assert_gradients_are_those_of_the_function(kernels, device, memory_format):
    x, blocks = image_and_blocks(device, memory_format)
    indices = INDICES.to(device)

    def gather(x):
        return kernels.sparse_gather(x, indices, *GEOMETRY, memory_format == torch.channels_last)

    def scatter(blocks, x, add):
        return kernels.sparse_scatter(blocks, indices, x, *GEOMETRY, add)

    def scatter_(blocks, x, add):
        y = x * 1
        kernels.sparse_scatter_(blocks, indices, y, *GEOMETRY, add)
        return y

    assert torch.autograd.gradcheck(gather, x) and torch.autograd.gradgradcheck(gather, x)
    for function in (scatter, scatter_):
        for add in (False, True):
            assert torch.autograd.gradcheck(function, (blocks, x, add))
            assert torch.autograd.gradgradcheck(function, (blocks, x, add))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradients_of_both_orders_are_those_of_the_function(device, memory_format):
    assert_gradients_are_those_of_the_function(COMPILED, device, memory_format)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_gradients_of_the_plain_form_are_those_of_the_function(memory_format):
    assert_gradients_are_those_of_the_function(block_plain, torch.device("cpu"), memory_format)


def test_a_block_that_loses_every_pixel_has_no_gradient_and_the_base_where_nothing_is_written(device):
    blocks = torch.ones(3, 1, 2, 2, device=device, requires_grad=True)
    base = torch.zeros(1, 1, 4, 4, device=device, requires_grad=True)
    indices = torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.int32, device=device)
    sparse_scatter(blocks, indices, base, (2, 2), (1, 1)).sum().backward()
    # The third block covers the first, and one pixel of the second.
    assert blocks.grad.flatten(1).tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert base.grad[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]


@on_cpu
@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_gradient_of_overlapping_blocks_is_the_same_with_any_number_of_threads(memory_format):
    x = torch.randn(2, 16, 120, 130).contiguous(memory_format=memory_format)
    indices = reduce_mask(torch.rand(2, 120, 130) > 0.9, (24, 26), (9, 9), (5, 5), (-2, -2))
    threads, gradients = torch.get_num_threads(), []
    for count in (1, 4):
        torch.set_num_threads(count)
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        sparse_gather(leaf, indices, (9, 9), (5, 5), (-2, -2)).sin().sum().backward()
        gradients.append(leaf.grad)
    torch.set_num_threads(threads)
    assert torch.equal(*gradients)
    assert gradients[0].is_contiguous(memory_format=memory_format)
    leaf = x.clone().requires_grad_()
    block_plain.sparse_gather(leaf, indices, (9, 9), (5, 5), (-2, -2), (1, 1), True).sin().sum().backward()
    torch.testing.assert_close(gradients[0], leaf.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_half_precision_are_summed_in_float32(device, dtype):
    x = torch.zeros(1, 1, 1, 1, dtype=dtype, device=device, requires_grad=True)
    sparse_gather(x, torch.zeros(3000, 3, dtype=torch.int32, device=device), (1, 1), (1, 1)).sum().backward()
    assert x.grad.item() == torch.tensor(3000.0).to(dtype)


def test_autograd_sees_what_a_scatter_in_place_overwrites(device):
    base, blocks = torch.ones(1, 1, 4, 4, device=device), torch.ones(1, 1, 2, 2, device=device)
    weight = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
    product = weight * base
    sparse_scatter_(blocks, torch.zeros(1, 3, dtype=torch.int32, device=device), base, (2, 2), (2, 2))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_only_what_asks_for_a_gradient_gets_one(device):
    x, blocks = image_and_blocks(device, requires_grad=False)
    indices = INDICES.to(device)
    assert not sparse_scatter(blocks, indices, x, *GEOMETRY).requires_grad
    for wanted, other in ((blocks, x), (x, blocks)):
        wanted.requires_grad_()
        sparse_scatter(blocks, indices, x, *GEOMETRY).sum().backward()
        assert wanted.grad is not None and other.grad is None
        wanted.requires_grad_(False)
        wanted.grad = None


# --- torch.compile and torch.export ---


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_ops_are_registered_as_torch_demands(device, memory_format, requires_grad):
    x, blocks = image_and_blocks(device, memory_format, torch.float32, requires_grad)
    mask, indices = torch.rand(2, 9, 9, generator=torch.Generator().manual_seed(0)).to(device), INDICES.to(device)
    torch.library.opcheck(COMPILED.reduce_mask, (mask, (3, 3), (3, 3), (3, 3), (0, 0), 0.5, requires_grad))
    torch.library.opcheck(COMPILED.sparse_gather, (x, indices, *GEOMETRY, memory_format == torch.channels_last))
    for add in (False, True):
        torch.library.opcheck(COMPILED.sparse_scatter, (blocks, indices, x, *GEOMETRY, add))
        torch.library.opcheck(COMPILED.sparse_scatter_, (blocks, indices, x.detach().clone(), *GEOMETRY, add))


def network(x, indices):
    """Gathers, computes, scatters in place and not, with overlapping blocks."""
    geometry = ((4, 4), (3, 3), (-1, -1))
    blocks = sparse_gather(x, indices, *geometry)
    y = sparse_scatter_(blocks.relu() * 2, indices, x.clone(), *geometry, add=True)
    return sparse_scatter(blocks, indices, y, *geometry)


def masked_network(x, mask):
    return network(x, reduce_mask(mask, (3, 3), (4, 4), (3, 3), (-1, -1)))


def random_indices(count):
    indices = torch.randint(0, 3, (count, 3), dtype=torch.int32)
    indices[:, 0] = 0
    return indices


def assert_equal_with_gradient(compiled, plain, x, argument):
    results = []
    for function in (compiled, plain):
        leaf = x.clone().requires_grad_()
        y = function(leaf, argument)
        (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
        results.append((y.detach(), gradient))
    torch.testing.assert_close(*results)


def test_compiled_functions_serve_any_number_of_blocks(device):
    torch._dynamo.reset()
    torch.manual_seed(0)
    x = torch.randn(1, 3, 9, 9, device=device)
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=backend)
    for count in (4, 7, 2, 9):
        assert_equal_with_gradient(compiled, network, x, random_indices(count).to(device))
    assert backend.frame_count == 1
    # Where the mask decides within the function, no block and one block are numbers like others.
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(masked_network, fullgraph=True, backend=backend)
    for density in (0.1, 0.0, 0.01, 1.0):
        assert_equal_with_gradient(compiled, masked_network, x, (torch.rand(1, 9, 9) < density).to(device))
    assert backend.frame_count == 1


@on_cpu
def test_an_exported_function_serves_any_number_of_blocks():
    class Network(torch.nn.Module):
        def forward(self, x, mask):
            return masked_network(x, mask)

    torch.manual_seed(0)
    x = torch.randn(1, 3, 9, 9)
    exported = torch.export.export(Network(), (x, torch.rand(1, 9, 9) < 0.1)).module()
    for density in (0.0, 0.05, 1.0):
        mask = torch.rand(1, 9, 9) < density
        torch.testing.assert_close(exported(x, mask), masked_network(x, mask))


# --- without the compiled library ---

FALLBACK = """
import sys, warnings, torch
def refuse(path): raise OSError("made for another machine")
torch.ops.load_library = refuse
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from sbnet_perception.blocks import reduce_mask, sparse_gather, sparse_scatter_
    x = torch.ones(1, 2, 6, 6, requires_grad=True)
    indices = reduce_mask(torch.ones(1, 6, 6), (2, 2), (4, 4), (2, 2))
    blocks = sparse_gather(x, indices, (4, 4), (2, 2))
    y = sparse_scatter_(blocks, indices, torch.zeros(1, 2, 6, 6), (4, 4), (2, 2), add=True)
    y.sum().backward()
    from sbnet_perception.blocks import ConvUnit, ResidualUnit, SparseMap, Tiles
    tiles = Tiles.from_mask(torch.rand(1, 6, 6) < 0.5, (2, 3))
    for layer in (ConvUnit(2, 4).eval(), ResidualUnit(2, 4).eval()):
        torch.testing.assert_close(layer(x, tiles), layer(x) * tiles.mask()[:, None])
        stored = SparseMap.from_dense(x, tiles)
        assert torch.equal(layer.prepare(x.dtype)(stored, tiles).values, layer(stored, tiles).values)
print([str(warning.message) for warning in caught if "plain PyTorch" in str(warning.message)])
print(x.grad[0, 0].int().tolist())
"""


def test_without_the_library_plain_pytorch_computes_the_same_and_says_so_once():
    done = subprocess.run([sys.executable, "-c", FALLBACK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, gradient = map(eval, done.stdout.splitlines())
    assert len(said) == 1 and said[0].endswith("cannot be loaded: made for another machine")
    edge, middle = [1, 1, 2, 2, 1, 1], [2, 2, 4, 4, 2, 2]
    assert gradient == [edge, edge, middle, middle, edge, edge]
