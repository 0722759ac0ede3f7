"""How an operation of ``torch.ops.sbnet`` is made: schema, plain form, fake kernel and gradient stand in one place.

The plain form, in PyTorch, runs on every device without a kernel of its own, and is the oracle of the tests. Kernels
come from the compiled library of ops/, which registers them for the same names. Without the library, or on another
device, everything works, only slower.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from sbnet_perception.errors import UserError

# `make sanitize` names another library.
LIBRARY = Path(os.environ.get("SBNET_OPS") or Path(__file__).resolve().parent / "_ops.so")
_library = torch.library.Library("sbnet", "FRAGMENT")


def _load_library() -> str:
    """Load the compiled kernels; returns why not, or an empty string.

    Raises UserError if SBNET_ISA names no instruction set of this machine.
    """
    if not LIBRARY.exists():
        return f"{LIBRARY.name} is not built (run 'python setup.py build_ext --inplace', needs g++)"
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        return f"{LIBRARY.name} cannot be loaded: {error}"
    try:
        torch.ops.sbnet.isa()
    except RuntimeError as error:  # a wrong SBNET_ISA is an error here, not at the first layer
        raise UserError(f"{error}; set it to one of these or unset it") from None
    return ""


def register(
    schema: str,
    plain: Callable[..., Any],
    fake: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> Any:
    """Define ``sbnet::<schema>``; kernels of the compiled library go before ``plain``.

    ``sbnet::<name>_plain`` is the plain form whatever the device: for kernels that leave it some dtypes.

    Args:
        schema: as torch writes it, ``name(Tensor x, int k) -> Tensor``.
        plain: the operation in PyTorch, for any device. It raises ValueError for wrong arguments.
        fake: shape, dtype and device of its results, for tracing; sizes that depend on data are `dynamic_size`.
        backward, setup_context: its gradient, as `torch.library.register_autograd` takes them; both or none.

    Returns:
        The overload; call it through `call`.
    """
    name = schema.partition("(")[0]
    for defined in (name, f"{name}_plain"):
        _library.define(schema.replace(name, defined, 1))
        _library.impl(defined, plain, "CompositeExplicitAutograd")
    torch.library.register_fake(f"sbnet::{name}", fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(f"sbnet::{name}", backward, setup_context=setup_context, lib=_library)
    return getattr(torch.ops.sbnet, name).default


def override(name: str, function: Callable[..., Any], key: str) -> None:
    """Put ``function`` before the kernels of an operation, at a key of torch's dispatcher."""
    _library.impl(name, function, key)


def call(operation: Callable[..., Any], *arguments: Any) -> Any:
    """``operation(*arguments)``; what a kernel or the schema finds wrong with an argument is a ValueError."""
    try:
        return operation(*arguments)
    except RuntimeError as error:
        # Their messages begin with the name of an operation; other errors are not about arguments.
        name = re.match(r"(?:sbnet::)?(\w+)(?:\(\)|: )", str(error))
        if name and hasattr(torch.ops.sbnet, name[1]):
            raise ValueError(str(error)) from None
        raise


def recomputed(plain: Callable[..., Tensor]) -> tuple[Callable[..., Any], Callable[..., None]]:
    """The gradient of an operation of one result: that of its plain form, which is computed again."""

    def is_leaf(value: Any) -> bool:
        return not isinstance(value, (list, tuple)) or not any(isinstance(item, (Tensor, list)) for item in value)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        values, ctx.tree = tree_flatten(inputs, is_leaf)
        ctx.others = [None if isinstance(value, Tensor) else value for value in values]
        ctx.save_for_backward(*(value for value in values if isinstance(value, Tensor)))

    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        again = torch.is_grad_enabled()  # somebody will differentiate the gradient too
        with torch.enable_grad():
            # Views, since a tensor may come twice, or be made from another of them.
            saved = (tensor.view_as(tensor) for tensor in ctx.saved_tensors)
            values = [next(saved) if other is None else other for other in ctx.others]
            wanted = [value for value in values if isinstance(value, Tensor) and value.requires_grad]
            y = plain(*tree_unflatten(values, ctx.tree))
        gradients = torch.autograd.grad(y, wanted, gradient, allow_unused=True, create_graph=again)
        found = dict(zip(map(id, wanted), gradients, strict=True))
        return tuple(tree_unflatten([found.get(id(value)) for value in values], ctx.tree))

    return backward, setup_context


def dynamic_size() -> Any:
    """In a fake kernel: a size that only the data will tell."""
    return torch.library.get_ctx().new_dynamic_size()


UNAVAILABLE = _load_library()
"""Why the compiled kernels are not in use; empty when they are."""
CUDA_KERNELS = hasattr(torch.ops.sbnet, "cuda_problem")
"""The compiled library has kernels for a GPU."""
if UNAVAILABLE:
    warnings.warn(f"operations run in plain PyTorch: {UNAVAILABLE}", RuntimeWarning, stacklevel=2)
