"""Several processes that train one network together, as ``torchrun`` starts them; of a single one nothing changes."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sbnet_perception.errors import UserError

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: they may simulate for hours. One that ends is noticed at once."""
_POLL_S, _POLLS = 0.05, 40
Value = TypeVar("Value")


def together() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process; the first, 0, writes and speaks for all."""
    return dist.get_rank() if together() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if together() else 1


def on_this_machine() -> tuple[int, int]:
    """The number of this process among those of its machine, and how many these are."""
    if not together():
        return 0, 1
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def own_device(device: torch.device) -> torch.device:
    """``cuda`` without a number is the GPU with the number of this process, where torchrun has started it."""
    if str(device) != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        raise UserError(f"this machine has {there} GPUs; start torchrun with --nproc-per-node {there} at most")
    return torch.device("cuda", number)


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Meets the other processes where torchrun has started any; gloo joins CPUs, nccl GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, number, size = next(dist.rendezvous("env://", timeout=PATIENCE))
    store = dist.PrefixStore(_round(store, number, size), store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _round(store: dist.Store, number: int, size: int) -> str:
    """A name that those who live now agree on in a store which may still hold what others wrote before they died.

    torchrun hands the store on to the processes that it starts instead (PyTorch 2.13), with the addresses of the dead.
    The first process calls those whose names it finds, until all whom it called answer.
    """
    own = uuid.uuid4().hex
    store.set(f"name/{number}", own)
    while True:
        if number == 0:
            store.wait([f"name/{other}" for other in range(size)], PATIENCE)
            called = [store.get(f"name/{other}").decode() for other in range(size)]
            store.set("call", json.dumps([uuid.uuid4().hex, called]))
        if not store.check(["call"]):
            time.sleep(_POLL_S)
            continue
        name, called = json.loads(store.get("call"))
        if called[number:] and called[number] == own:
            store.set(f"{name}/{number}", own)
            answers = [f"{name}/{other}" for other in range(len(called))]
            for _ in range(_POLLS):
                if store.check(answers):
                    return str(name)
                time.sleep(_POLL_S)
        time.sleep(_POLL_S)


def wait() -> None:
    """Until all processes have come here."""
    if together():
        dist.barrier()


def summed(values: Tensor) -> Tensor:
    """The sum of all processes' values, which are of one shape. Its gradient is the sum of theirs."""
    return _Sum.apply(values) if together() else values


def averaged(values: Tensor) -> Tensor:
    """`summed`, divided by the number of processes."""
    return summed(values) / count()


def of_first(make: Callable[[], Value]) -> Value:
    """What the first process makes, in all of them.

    Raises:
        UserError: the first one's.
    """
    if not together():
        return make()
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = make()
        except UserError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    made: Value = answer[0]
    return made


def check_equal(value: str, what: str) -> None:
    """Raises UserError in all processes where ``value`` is not the same in all; ``what`` names it."""
    if not together():
        return
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    for number, other in enumerate(values):
        if other != values[0]:
            raise UserError(
                f"{what} of process {number} is {other}, of process 0 {values[0]}: install the same version on all "
                "machines, and give all the same options and files"
            )


class _Sum(torch.autograd.Function):
    """All-reduce by addition, forward and backward."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total
