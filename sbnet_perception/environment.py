"""What the variables of a shell would do to ROS and to the detector, found before either is imported.

ROS says little of a variable that it cannot use: it ends the process at import, raises from deep within, logs nothing
any more, or goes on without what was asked for. Source: each tried with Kilted's wheels (rclpy 9.1.2, Fast DDS 3.2.3).
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from sbnet_perception.errors import UserError

Variables = Mapping[str, str]
Changes = Mapping[str, "str | None"]

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS looks for its profile; the second name is Humble's and Jazzy's."""
HIGHEST_DOMAIN = 232
"""DDS computes its UDP ports from the domain; those of higher ones do not exist."""
EPHEMERAL_DOMAINS = range(102, 215)
"""Their ports may be taken by any program: they lie in Linux's ephemeral range, 32768 to 60999."""
LONGEST_PEER, MOST_PEERS = 255, 32
SECRETS = (
    "cert.pem",
    "key.pem",
    "governance.p7s",
    "permissions.p7s",
    "identity_ca.cert.pem",
    "permissions_ca.cert.pem",
)

_NO_LOG = "ROS does not start, or logs nothing"
_INSTRUCTION_SETS = ("baseline", "avx2", "avx512", "avx512bf16", "amx")
WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "SBNET_ISA": (_INSTRUCTION_SETS, "the detector does not start"),
    "RCUTILS_LOGGING_USE_STDOUT": (("0", "1"), _NO_LOG),
    "RCUTILS_LOGGING_BUFFERED_STREAM": (("0", "1"), _NO_LOG),
    "RCUTILS_COLORIZED_OUTPUT": (("0", "1"), _NO_LOG),
    "ROS_LOCALHOST_ONLY": (("0", "1"), "it counts as 0: the node talks to other machines"),
    "ROS_AUTOMATIC_DISCOVERY_RANGE": (
        ("SUBNET", "LOCALHOST", "SYSTEM_DEFAULT", "OFF"),
        "it counts as LOCALHOST: nodes on other machines are not found",
    ),
    "ROS_SUPER_CLIENT": (("0", "1", "TRUE", "True", "true", "FALSE", "False", "false"), "it is passed over"),
    "ROS_DISABLE_LOANED_MESSAGES": (("0", "1"), "it is passed over"),
    "ROS_SECURITY_ENABLE": (("true", "false"), "security is off: only the word true turns it on"),
    "ROS_SECURITY_STRATEGY": (("Enforce", "Permissive"), "it counts as Permissive: nodes start without security"),
    "RMW_FASTRTPS_PUBLICATION_MODE": (("SYNCHRONOUS", "ASYNCHRONOUS", "AUTO"), "it counts as SYNCHRONOUS"),
    "RMW_FASTRTPS_USE_QOS_FROM_XML": (("0", "1"), "it is passed over"),
    "FASTDDS_BUILTIN_TRANSPORTS": (
        ("DEFAULT", "DEFAULTv6", "SHM", "UDPv4", "UDPv6", "LARGE_DATA", "LARGE_DATAv6", "P2P"),
        "it is passed over, or nothing is sent",
    ),
}
"""Variable -> the words that it may hold, and what becomes of another one."""


@dataclass(frozen=True)
class Problem:
    """A variable that does harm.

    Attributes:
        variable: its name.
        found: what it is and what that does.
        remedy: what to do about it, in a shell.
        ends: ROS or the detector would not start, or could not say anything.
        state: how bad it is where it does not end anything.
        mended: changes under which the program works as it should all the same, wherever it runs.
        at_desk: further changes, right only where a program has its DDS to itself.
    """

    variable: str
    found: str
    remedy: str
    ends: bool = False
    state: Literal["WARN", "FAIL"] = "WARN"
    mended: Changes = field(default_factory=dict)
    at_desk: Changes = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.variable} {self.found}. Remedy: {self.remedy}"


def problems(variables: Variables) -> list[Problem]:
    """All that is wrong with an environment, the worst first."""
    checks = (_middleware, _domain, _words, _reach, _profile, _configuration, _security, _logs, _format, _machine)
    found = [problem for check in checks for problem in check(variables)]
    return sorted(found, key=lambda problem: (not problem.ends, problem.state != "FAIL"))


def prepare_node(variables: MutableMapping[str, str]) -> list[str]:
    """Mends what is safe to mend for a node among others.

    Returns:
        A line for each problem that the node lives with.

    Raises:
        UserError: the rest would keep it from starting.
    """
    found = problems(variables)
    for problem in found:
        apply(variables, problem.mended)
    if fatal := [str(problem) for problem in found if problem.ends and not problem.mended]:
        raise UserError("; ".join(fatal))
    return [f"{problem}{_instead(problem.mended)}" for problem in found]


def prepare_desk(variables: MutableMapping[str, str]) -> list[str]:
    """Mends all that can be mended for programs that have their DDS to themselves.

    Returns:
        A line for each change.

    Raises:
        UserError: the rest would keep ROS from starting.
    """
    found = problems(variables)
    changes = [(problem, {**problem.mended, **problem.at_desk}) for problem in found]
    for _, change in changes:
        apply(variables, change)
    if fatal := [str(problem) for problem, change in changes if problem.ends and not change]:
        raise UserError("; ".join(fatal))
    return [f"{problem}{_instead(change)}" for problem, change in changes if change]


def apply(variables: MutableMapping[str, str], changes: Changes) -> None:
    """Sets variables; those whose value is None are taken away."""
    for name, value in changes.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value


def _instead(changes: Changes) -> str:
    if not changes:
        return ""
    parts = [f"{name} is left out" if value is None else f"{name} is now {value}" for name, value in changes.items()]
    return f" (here {', '.join(parts)})"


# The checks: each takes the variables and yields what is wrong ---------------------------------------------


def _middleware(variables: Variables) -> Iterator[Problem]:
    """ROS ends the process at import with code 102 where the middleware named is another than it has."""
    for variable in ("RMW_IMPLEMENTATION", "RCL_ASSERT_RMW_ID_MATCHES"):
        name = variables.get(variable, "")
        if name and not any((folder / f"lib{name}.so").is_file() for folder in _libraries(variables)):
            yield Problem(
                variable,
                f"is {name}, which is not installed here: ROS ends the process",
                f"unset {variable}, or install {name.replace('_', '-')} for this ROS",
                ends=True,
                at_desk={variable: None},
            )


def _libraries(variables: Variables) -> list[Path]:
    named = variables.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    prefixes = [*variables.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    return [Path(name) for name in named if name] + [Path(prefix) / "lib" for prefix in prefixes if prefix]


def _domain(variables: Variables) -> Iterator[Problem]:
    text = variables.get("ROS_DOMAIN_ID", "").strip()
    if not text:
        return
    remedy = "set it to a number from 0 to 101, the same for all nodes, or unset it"
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) > HIGHEST_DOMAIN:
        found = f"is {text[:40]!r}; a whole number from 0 to {HIGHEST_DOMAIN} is needed"
        yield Problem("ROS_DOMAIN_ID", found, remedy, ends=True)
    elif int(text) in EPHEMERAL_DOMAINS:
        yield Problem("ROS_DOMAIN_ID", f"is {text}, whose UDP ports other programs may have taken", remedy)


def _words(variables: Variables) -> Iterator[Problem]:
    for variable, (words, otherwise) in WORDS.items():
        value = variables.get(variable, "")
        if value and value.partition("?")[0] not in words:
            found = f"is {value[:40]!r}, none of {', '.join(words)}: {otherwise}"
            ends = variable.startswith(("RCUTILS_", "SBNET_"))
            yield Problem(
                variable, found, f"set it to one of these, or unset {variable}", ends, at_desk={variable: None}
            )


def _reach(variables: Variables) -> Iterator[Problem]:
    """Who finds whom."""
    if variables.get("ROS_AUTOMATIC_DISCOVERY_RANGE") == "OFF":
        variable = "ROS_AUTOMATIC_DISCOVERY_RANGE"
        found = "is OFF: the node finds no other node, not even on this machine"
        yield Problem(variable, found, "set it to SUBNET or LOCALHOST", state="FAIL", at_desk={variable: "LOCALHOST"})
    peers = variables.get("ROS_STATIC_PEERS", "")
    if problem := _peers_problem([peer for peer in peers.split(";") if peer]):
        remedy = "name machines that exist, with ; between them, or unset ROS_STATIC_PEERS"
        yield Problem("ROS_STATIC_PEERS", problem, remedy, ends=True, at_desk={"ROS_STATIC_PEERS": None})
    if server := variables.get("ROS_DISCOVERY_SERVER", ""):
        found = f"is {server[:60]!r}: nodes are found through this server only, while it runs"
        remedy = "start it (fastdds discovery) and set the same for every node, or unset ROS_DISCOVERY_SERVER"
        yield Problem("ROS_DISCOVERY_SERVER", found, remedy, at_desk={"ROS_DISCOVERY_SERVER": None})


def _peers_problem(peers: list[str]) -> str:
    if len(peers) > MOST_PEERS:
        return f"names {len(peers)} machines; ROS takes {MOST_PEERS}"
    for peer in peers:
        if len(peer) > LONGEST_PEER:
            return f"has a name of {len(peer)} characters; {LONGEST_PEER} are possible"
        try:
            socket.getaddrinfo(peer, None)
        except (OSError, UnicodeError):
            return f"names {peer[:60]!r}, which is no machine that can be found: ROS refuses to start"
    return ""


def _profile(variables: Variables) -> Iterator[Problem]:
    """Fast DDS goes on without a profile that it cannot read, and then loses large clouds."""
    if not variables.get("RMW_IMPLEMENTATION", "rmw_fastrtps").startswith("rmw_fastrtps"):
        return
    for variable in PROFILE_VARIABLES:
        file = variables.get(variable, "")
        if file and (problem := _profile_problem(Path(file))):
            found = f"is {file}, {problem}: Fast DDS goes on without it, and clouds above 512 KB may be lost silently"
            remedy = f"export {variable}=SBNET/config/fastdds.xml, for every process, the driver too; or unset it"
            yield Problem(variable, found, remedy, state="FAIL", at_desk={variable: None})
    if variables.get(PROFILE_VARIABLES[0]) and variables.get("ROS_DISTRO") in ("humble", "jazzy"):
        old = PROFILE_VARIABLES[1]
        if not variables.get(old):
            found = f"is not read by the Fast DDS of {variables['ROS_DISTRO']}"
            yield Problem(PROFILE_VARIABLES[0], found, f"export {old} instead")


def _profile_problem(file: Path) -> str:
    try:
        root = ElementTree.parse(file).getroot().tag.rsplit("}", 1)[-1]
    except OSError as error:
        return f"which cannot be read ({error.strerror})"
    except ElementTree.ParseError as error:
        return f"which is no XML ({error})"
    return "" if root in ("dds", "profiles") else f"whose root is {root} and not dds"


def _configuration(variables: Variables) -> Iterator[Problem]:
    """The files of other middlewares."""
    for variable, rmw in (("CYCLONEDDS_URI", "rmw_cyclonedds"), ("ZENOH_SESSION_CONFIG_URI", "rmw_zenoh")):
        if not variables.get("RMW_IMPLEMENTATION", "").startswith(rmw):
            continue
        for name in variables.get(variable, "").split(","):
            if name and not name.lstrip().startswith("<") and not Path(name.removeprefix("file://")).is_file():
                yield Problem(
                    variable, f"names {name}, which is not there", f"correct it, or unset {variable}", ends=True
                )


def _security(variables: Variables) -> Iterator[Problem]:
    if variables.get("ROS_SECURITY_ENABLE") != "true":
        return
    store = variables.get("ROS_SECURITY_KEYSTORE", "")
    enclave = variables.get("ROS_SECURITY_ENCLAVE_OVERRIDE", "").strip("/")
    folder = Path(store, "enclaves", enclave)
    if not store:
        lack = "is not set"
    elif not folder.is_dir():
        lack = f"is {store}, which has no folder {Path('enclaves', enclave)}"
    elif enclave and (missing := [name for name in SECRETS if not (folder / name).is_file()]):
        lack = f"is {store}, whose enclave {enclave} has no {missing[0]}"
    else:
        return
    enforced = variables.get("ROS_SECURITY_STRATEGY") == "Enforce"
    then = "ROS refuses to start" if enforced else "nodes start without security"
    remedy = "set it to your keystore (ros2 security create_keystore FOLDER), or unset ROS_SECURITY_ENABLE"
    found = f"{lack}, but ROS_SECURITY_ENABLE is true: {then}"
    yield Problem("ROS_SECURITY_KEYSTORE", found, remedy, ends=enforced)


def _logs(variables: Variables) -> Iterator[Problem]:
    """ROS does not start where it cannot write its log."""
    variable = next((name for name in ("ROS_LOG_DIR", "ROS_HOME") if variables.get(name)), "HOME")
    value = variables.get(variable, "")
    home = variables.get("HOME", "")
    if variable == "HOME" and not home:
        found = "is not set, and ROS keeps its log below it"
    else:
        below = {"ROS_LOG_DIR": "", "ROS_HOME": "log", "HOME": ".ros/log"}[variable]
        folder = Path(re.sub(r"^~(?=/|$)", home, value), below)
        if _writable(folder):
            return
        found = f"is {value}, and ROS cannot write its log to {folder}"
    own = Path(tempfile.gettempdir(), f"sbnet-{os.getuid()}")
    mended = {"ROS_LOG_DIR": str(own / "log")} if _writable(own / "log") else {}
    # Matplotlib, at a desk, keeps its table of fonts below HOME too, and would make it anew each time.
    plots = {"MPLCONFIGDIR": str(own)} if variable == "HOME" and mended and not variables.get("MPLCONFIGDIR") else {}
    yield Problem(variable, found, "export ROS_LOG_DIR=A_WRITABLE_FOLDER", ends=True, mended=mended, at_desk=plots)


def _writable(folder: Path) -> bool:
    """As ROS does it: the folder is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _format(variables: Variables) -> Iterator[Problem]:
    variable = "RCUTILS_CONSOLE_OUTPUT_FORMAT"
    value = variables.get(variable, "")
    if value and "{message}" not in value:
        found = f"is {value[:40]!r}, without {{message}}: the log does not say anything"
        yield Problem(variable, found, f"put {{message}} into it, or unset {variable}", at_desk={variable: None})


def _machine(variables: Variables) -> Iterator[Problem]:
    threads = variables.get("OMP_NUM_THREADS", "").strip()
    if threads and not re.fullmatch(r"[1-9][0-9]{0,3}(,[1-9][0-9]{0,3})*", threads):
        found = f"is {threads[:40]!r}, no number of threads: it is passed over"
        yield Problem("OMP_NUM_THREADS", found, f"set it to {os.cpu_count()} or less, or unset it")
    folder = variables.get("TMPDIR", "")
    if folder and not os.access(folder, os.W_OK | os.X_OK):
        yield Problem("TMPDIR", f"is {folder}, which cannot be written: /tmp is used", "set it to a folder that can")
    library = variables.get("SBNET_OPS", "")
    if library and not Path(library).is_file():
        found = f"is {library}, which is not there"
        remedy = "unset SBNET_OPS: the library that was built beside the package is used"
        yield Problem("SBNET_OPS", found, remedy, state="FAIL", mended={"SBNET_OPS": None})
