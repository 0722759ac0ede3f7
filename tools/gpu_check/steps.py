"""A step of the check: what it says, how it ended, and that it ends at its limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OK, FAILED, LATE, SKIPPED = "ok", "FAILED", "stopped at its limit", "skipped"
NOISE = "USDT:"
"""Begins lines of PyTorch's profiler."""


class StepError(Exception):
    """A step cannot go on; says why in one line."""


class SkippedError(Exception):
    """What a step needs is not there; says what in one line."""


class LateError(StepError):
    """A command was ended at the step's limit."""


@dataclass
class Outcome:
    """What came of a step.

    Attributes:
        state: `OK`, `FAILED`, `LATE` or `SKIPPED`.
        summary: one line.
        found: all of it, for the JSON file.
    """

    name: str
    state: str
    summary: str
    seconds: float
    found: dict[str, Any]


@dataclass
class Step:
    """Where commands of a step run, and for how long.

    Attributes:
        name: of the step, and of its log in ``folder``.
        until: monotonic seconds at which whatever still runs is ended.
        found: what the step has found so far; stays where it fails.
    """

    name: str
    folder: Path
    root: Path
    until: float
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def run(
        self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None, good: Collection[int] = (0,)
    ) -> str:
        """What a command printed, errors included; all of it also goes to the log.

        Raises:
            LateError: the limit came first.
            StepError: its code is none of the good ones; the last line that it printed.
        """
        words = list(map(str, command))
        with self.log.open("a+b") as log:
            log.write(f"$ {' '.join(words)}\n".encode())
            log.flush()
            begin = log.tell()
            # Else what a program printed comes behind the error that ended it.
            env = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {})
            process = subprocess.Popen(
                words, cwd=self.root, env=env,
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            late = False
            try:
                code = process.wait(max(self.until - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                late, code = True, -1
            finally:
                _end(process)
            log.seek(begin)
            said = log.read().decode(errors="replace")
        if late:
            raise LateError(f"{words[0].rpartition('/')[2]} was still running")
        if code not in good:
            raise StepError(f"{last_line(said) or words[0]} (code {code})")
        return said


def last_line(said: str) -> str:
    """The last line with words in it."""
    lines = [line.strip() for line in without_noise(said).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def without_noise(said: str) -> str:
    """Without lines that say nothing."""
    return "\n".join(line for line in said.splitlines() if not line.startswith(NOISE))


def perform(step: Step, body: Callable[[Step], str]) -> Outcome:
    """Runs a step, whatever comes of it; ``body`` returns its summary."""
    start = time.monotonic()
    try:
        state, summary = OK, body(step)
    except SkippedError as reason:
        state, summary = SKIPPED, str(reason)
    except LateError as reason:
        state, summary = LATE, str(reason)
    except Exception as error:  # the steps that follow run all the same
        state, summary = FAILED, str(error).partition("\n")[0] or type(error).__name__
    return Outcome(step.name, state, summary, time.monotonic() - start, step.found)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
