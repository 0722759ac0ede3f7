"""Jobs for workers on the machines of a Ray cluster; a job whose worker dies is done again by another."""

from __future__ import annotations

import collections
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from sbnet_perception.errors import UserError

TRIES = 3
"""Workers that may die of one job before it counts as the cause; and of those wanted, how often each may die as it
starts before none of them is."""
START_S = 300.0
"""How long the cluster may take to start the first worker."""
Work = Callable[[Any], Any]


@dataclass(frozen=True)
class Needs:
    """What the workers take of a cluster: CPU cores and GPUs each, and their number (0: as many as fit)."""

    cpus: int = 1
    gpus: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in (("cpus", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least {least}")


@dataclass(frozen=True)
class Answer:
    """What came of a job.

    Attributes:
        job: as it was given.
        worker: host and process that did it; empty where all that tried died.
        value: what the work returned; None where it failed.
        error: why it failed, one sentence; otherwise empty.
    """

    job: Any
    worker: str
    value: Any = None
    error: str = ""


class Pool:
    """Workers of a cluster; a context manager.

    Args:
        address: of the cluster, ``auto`` for the one of this machine; None starts one here, which ends with the block.
        make: makes the work, once in each worker, which keeps it (a network, say); it travels there by pickle.
        needs: of the workers.

    Raises:
        UserError: no cluster answers at the address, or it has too little for one worker.
    """

    def __init__(self, address: str | None, make: Callable[[], Work], needs: Needs) -> None:
        self._make, self._needs = make, needs
        _connect(address)
        try:
            there = ray.cluster_resources()
            fit = int(there.get("CPU", 0)) // needs.cpus
            fit = min(fit, int(there.get("GPU", 0)) // needs.gpus) if needs.gpus else fit
            if not fit:
                has = f"the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
                raise UserError(f"{has}, a worker needs {needs.cpus} and {needs.gpus}: give less with --cpus")
            self._wanted = needs.workers or fit
            self._actor = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0)(_Worker)
        except BaseException:
            ray.shutdown()
            raise

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        ray.shutdown()

    def run(self, jobs: Sequence[Any]) -> Iterator[Answer]:
        """The answers, in the order in which they come; one for each job.

        Raises:
            UserError: no worker can start.
        """
        waiting, died = collections.deque(jobs), collections.Counter[int]()
        # Of workers that died as they started, since the last one that started: the first line of each error.
        stillborn: list[str] = []
        most_stillborn = TRIES * self._wanted
        # References to answers of Ray -> the worker, and the job that it does.
        starting: dict[Any, Any] = {}
        busy: dict[Any, tuple[Any, str, Any]] = {}
        started = time.monotonic()
        for _ in range(min(self._wanted, len(waiting))):
            self._start(starting)
        while waiting or busy:
            patience = None if busy else max(0.0, started + START_S - time.monotonic())
            done, _ = ray.wait([*starting, *busy], timeout=patience)
            if not done:
                raise UserError(f"no worker started within {START_S:g} s: 'ray status' shows what the cluster lacks")
            job = None
            if (reference := done[0]) in busy:
                worker, name, job = busy.pop(reference)
            else:
                worker, name = starting.pop(reference), ""
            try:
                answer = ray.get(reference)
            # Of the worker, its process or its machine nothing is left, or nothing can be heard.
            except ray.exceptions.RayError as error:
                ray.kill(worker)
                if job is not None:
                    died[id(job)] += 1
                    if died[id(job)] < TRIES:
                        waiting.appendleft(job)
                    else:
                        yield Answer(job, "", error=f"{TRIES} workers died of it, the last: {_first_line(error)}")
                else:
                    stillborn.append(_first_line(error))
                    if len(stillborn) >= most_stillborn and not busy:
                        died_so = f"{len(stillborn)} workers in a row died as they started"
                        raise UserError(f"{died_so}, the first: {stillborn[0]}") from error
                # Where others work, no more is tried than that.
                again = len(stillborn) < most_stillborn or not (starting or busy)
                if again and len(starting) + len(busy) < len(waiting):
                    self._start(starting)
                    started = time.monotonic()
                continue
            if job is not None:
                yield Answer(job, name, *answer)
            else:
                name, problem = answer
                stillborn.clear()
                if problem:
                    raise UserError(f"{problem} (worker {name})")
            if waiting:
                following = waiting.popleft()
                busy[worker.do.remote(following)] = worker, name, following
            else:
                ray.kill(worker)

    def _start(self, starting: dict[Any, Any]) -> None:
        worker = self._actor.remote(self._make)
        starting[worker.ready.remote()] = worker


class _Worker:
    """What runs in the processes of the cluster."""

    def __init__(self, make: Callable[[], Work]) -> None:
        self._make = make

    def ready(self) -> tuple[str, str]:
        """Its name, and why it cannot work."""
        try:
            self._work = self._make()
        except Exception as error:
            return _name(), _said(error)
        return _name(), ""

    def do(self, job: Any) -> tuple[Any, str]:
        """The value, and why there is none."""
        try:
            return self._work(job), ""
        except Exception as error:
            return None, _said(error)


def _name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _connect(address: str | None) -> None:
    # A cluster of one's own tells nobody that it is used.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    about = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **about)
    except (ConnectionError, RuntimeError, ValueError) as error:
        remedy = "start one with 'ray start --head', or leave out --address for this machine alone"
        raise UserError(f"no Ray cluster at {address!r} ({_first_line(error)}): {remedy}") from error
