"""A private DDS session (domain, discovery, transport) and the node running in it as a process of its own."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from sbnet_perception.errors import UserError
from sbnet_perception.node.launching import fast_dds_profile
from sbnet_perception.resources import resource

# DDS computes its UDP ports from the domain; above 101 they meet Linux's ephemeral ports.
HIGHEST_DOMAIN = 101
NODE = "/sbnet"
"""The fully qualified name of the node that `start_node` starts."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Session:
    """Environment under which processes of one replay find each other, and nobody else.

    Attributes:
        domain_id: ROS_DOMAIN_ID; the user's own when the environment has one, otherwise a free one.
        environment: complete environment for a process of the session.
    """

    def __init__(self, domain_id: int | None = None) -> None:
        chosen = os.environ.get("ROS_DOMAIN_ID", "").strip() if domain_id is None else str(domain_id)
        self._claim: socket.socket | None = None
        if chosen:
            if not chosen.isdigit():
                raise UserError(f"ROS_DOMAIN_ID is {chosen!r}; set it to a whole number from 0 to 232, or unset it")
            self.domain_id = int(chosen)
        else:
            self.domain_id, self._claim = _claim_free_domain()
        self.settings = dds_settings(self.domain_id)
        self.environment = {**os.environ, **self.settings}

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """This process's environment holds the session's settings: create context and node inside."""
        before = {name: os.environ.get(name) for name in self.settings}
        os.environ.update(self.settings)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def close(self) -> None:
        """Gives the domain back."""
        if self._claim is not None:
            self._claim.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def dds_settings(domain_id: int) -> dict[str, str]:
    """Environment variables for DDS on this machine; what the user has set already stays as it is."""
    # Humble knows nothing of the second name, and what came after Jazzy complains of the first.
    alone = {"ROS_LOCALHOST_ONLY": "1"} if os.environ.get("ROS_DISTRO") == "humble" else {}
    alone = alone or {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    settings = {"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp", "PYTHONUNBUFFERED": "1", **alone}
    kept = {name: os.environ[name] for name in settings if os.environ.get(name)}
    settings |= kept
    profile = fast_dds_profile({**os.environ, **settings}, resource("config"))
    return {**settings, **profile, "ROS_DOMAIN_ID": str(domain_id)}


def _claim_free_domain() -> tuple[int, socket.socket]:
    """A domain whose first participant's port is free, and the socket that keeps it ours.

    The claim is an abstract Unix socket named after the domain: two sessions starting at the same
    moment never get the same one, and it vanishes with the process.
    """
    for domain in random.SystemRandom().sample(range(1, HIGHEST_DOMAIN + 1), HIGHEST_DOMAIN):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0sbnet-domain-{domain}")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            claim.close()
            continue
        return domain, claim
    raise UserError("every ROS domain from 1 to 101 is in use on this machine; set ROS_DOMAIN_ID to one yourself")


class ChildProcess:
    """A Python process of a session whose last output lines are kept, and which never outlives its parent."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
        kept_lines: int = 200,
    ) -> None:
        self._lines: collections.deque[str] = collections.deque(maxlen=kept_lines)
        self._on_line = on_line
        # A session of its own: Ctrl-C in the terminal reaches only the parent, which ends the child in order.
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent if _LIBC is not None else None,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_lines(self, count: int = 12) -> str:
        """The end of what it has printed, indented for an error message."""
        if self.exit_code is not None:
            self._reader.join(timeout=1.0)
        lines = list(self._lines)[-count:]
        return "\n".join(f"    {line}" for line in lines) or "    (it printed nothing)"

    def stop(self, patience: float = 5.0) -> int:
        """SIGINT, then SIGTERM, then SIGKILL, each after `patience` seconds; its exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        code = self._process.wait()
        self._reader.join(timeout=10.0)
        return code

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        with stream:
            for raw in stream:
                line = raw.rstrip()
                self._lines.append(line)
                if self._on_line is not None:
                    self._on_line(line)


def start_node(
    session: Session,
    parameters: Mapping[str, object],
    params_file: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> ChildProcess:
    """Starts the detector node with sim time; `parameters` win over the file."""
    arguments = ["-m", "sbnet_perception.node.node", "--ros-args"]
    if params_file is not None:
        if not params_file.is_file():
            raise UserError(f"--params-file {params_file}: there is no such file")
        arguments += ["--params-file", str(params_file)]
    for name, value in {"use_sim_time": True, **parameters}.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        arguments += ["-p", f"{name}:={text}"]
    return ChildProcess(arguments, session.environment, on_line)


def _die_with_parent() -> None:
    """Runs in the child before exec: the kernel interrupts it when the parent dies."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
