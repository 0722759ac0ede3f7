"""Arrays for compiled operations."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """The array as a tensor, copied only where torch cannot share its memory."""
    steps = all(step >= 0 and step % array.itemsize == 0 for step in array.strides)
    return torch.from_numpy(array if steps and array.flags.writeable else array.copy())
