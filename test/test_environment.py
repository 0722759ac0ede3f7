"""Each variable of a shell that does harm is named, with a remedy of its own, before ROS is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sbnet_perception import sourced_ros
from sbnet_perception.environment import WORDS, Problem, prepare_desk, prepare_node, problems
from sbnet_perception.errors import UserError
from sbnet_perception.resources import resource


@pytest.fixture
def good(tmp_path: Path) -> dict[str, str]:
    """An environment without a problem."""
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}


def only(variables: dict[str, str]) -> Problem:
    (problem,) = problems(variables)
    return problem


def test_an_ordinary_environment_has_no_problem_and_is_left_as_it_is(good: dict[str, str]) -> None:
    usual = {
        "ROS_DOMAIN_ID": " 7", "ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "TMPDIR": "/tmp",
        "ROS_STATIC_PEERS": "127.0.0.1;::1;", "FASTRTPS_DEFAULT_PROFILES_FILE": str(resource("config/fastdds.xml")),
        "RCUTILS_CONSOLE_OUTPUT_FORMAT": "{severity} {message}", "OMP_NUM_THREADS": "2,1",
        "ROS_SECURITY_ENABLE": "false", "ROS_SECURITY_STRATEGY": "Enforce", "CYCLONEDDS_URI": "file:///nowhere",
        "FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA?max_msg_size=1MB", "LC_ALL": "xx_YY", "COLUMNS": "many",
        "RMW_IMPLEMENTATION": "", "ROS_DISTRO": "jazzy", "RCUTILS_COLORIZED_OUTPUT": "0",
    }  # fmt: skip
    for variables in (good, good | usual, good | dict.fromkeys(usual, "")):
        before = dict(variables)
        assert problems(variables) == prepare_desk(variables) == prepare_node(variables) == []
        assert variables == before


# (variables, the one that is named, what is said of it, whether it ends ROS, whether programs at a desk mend it)
HARM = [
    ({"RMW_IMPLEMENTATION": "rmw_nowhere_cpp"}, "", "not installed here", True, True),
    ({"RCL_ASSERT_RMW_ID_MATCHES": "rmw_nowhere_cpp"}, "", "not installed here", True, True),
    ({"ROS_DOMAIN_ID": "seven"}, "", "a whole number from 0 to 232", True, False),
    ({"ROS_DOMAIN_ID": "233"}, "", "a whole number from 0 to 232", True, False),
    ({"ROS_DOMAIN_ID": "-1"}, "", "a whole number from 0 to 232", True, False),
    ({"ROS_DOMAIN_ID": "1.5"}, "", "a whole number from 0 to 232", True, False),
    ({"ROS_DOMAIN_ID": "9" * 5000}, "", "a whole number from 0 to 232", True, False),
    ({"ROS_DOMAIN_ID": "150"}, "", "ports other programs may have taken", False, False),
    ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "", "finds no other node", False, True),
    ({"ROS_STATIC_PEERS": "127.0.0.1, 127.0.0.2"}, "", "no machine that can be found", True, True),
    ({"ROS_STATIC_PEERS": "x" * 300}, "", "300 characters", True, True),
    ({"ROS_STATIC_PEERS": ";".join(["127.0.0.1"] * 33)}, "", "33 machines", True, True),
    ({"ROS_DISCOVERY_SERVER": "127.0.0.1:11811"}, "", "through this server only", False, True),
    ({"FASTDDS_DEFAULT_PROFILES_FILE": "/nowhere.xml"}, "", "cannot be read", False, True),
    ({"FASTRTPS_DEFAULT_PROFILES_FILE": "/"}, "", "cannot be read", False, True),
    ({"FASTRTPS_DEFAULT_PROFILES_FILE": __file__}, "", "no XML", False, True),
    ({"CYCLONEDDS_URI": "file:///nowhere", "RMW_IMPLEMENTATION": "rmw_cyclonedds_x"}, "CYCLONEDDS_URI", "is not there",
     True, False),
    ({"RCUTILS_CONSOLE_OUTPUT_FORMAT": "{text}"}, "", "without {message}", False, True),
    ({"ROS_SECURITY_ENABLE": "true"}, "ROS_SECURITY_KEYSTORE", "nodes start without security", False, False),
    ({"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce"}, "ROS_SECURITY_KEYSTORE", "refuses to start",
     True, False),
    ({"ROS_LOG_DIR": "/proc/nowhere"}, "", "cannot write its log to /proc/nowhere", True, True),
    ({"ROS_HOME": "/dev/null"}, "", "cannot write its log to /dev/null/log", True, True),
    ({"HOME": ""}, "", "is not set", True, True),
    ({"HOME": "/proc/nowhere"}, "", "cannot write its log to /proc/nowhere/.ros/log", True, True),
    ({"OMP_NUM_THREADS": "many"}, "", "no number of threads", False, False),
    ({"OMP_NUM_THREADS": "0"}, "", "no number of threads", False, False),
    ({"TMPDIR": "/nowhere"}, "", "cannot be written", False, False),
    ({"SBNET_OPS": "/nowhere.so"}, "", "is not there", False, True),
    *(({name: "nonsense"}, "", f"'nonsense', none of {words[0]}", name.startswith(("RCUTILS", "SBNET")), True)
      for name, (words, _) in WORDS.items() if name != "ROS_SECURITY_ENABLE"),
    ({"ROS_SECURITY_ENABLE": "True"}, "", "only the word true turns it on", False, True),
]  # fmt: skip


@pytest.mark.parametrize(("variables", "named", "said", "ends", "mended"), HARM, ids=lambda value: str(value)[:60])
def test_a_harmful_variable_is_named_with_its_remedy_refused_where_it_ends_ros_and_mended_at_a_desk(
    good: dict[str, str], variables: dict[str, str], named: str, said: str, ends: bool, mended: bool
) -> None:
    shell = good | variables
    named = named or next(iter(variables))
    found = {problem.variable: problem for problem in problems(shell)}
    problem = found[named]
    assert said in problem.found and problem.remedy and problem.ends == ends
    assert len(str(problem)) < 600 and "\n" not in str(problem)

    at_node = dict(shell)
    if ends and not problem.mended:
        with pytest.raises(UserError, match=named):
            prepare_node(at_node)
    else:
        assert any(line.startswith(named) for line in prepare_node(at_node))

    at_desk = dict(shell)
    if ends and not mended:
        with pytest.raises(UserError, match=named):
            prepare_desk(at_desk)
    else:
        assert any(line.startswith(named) for line in prepare_desk(at_desk)) == mended
        assert named not in {problem.variable for problem in problems(at_desk)} or not mended


def test_each_problem_of_a_shell_with_many_is_told_and_none_hides_another(good: dict[str, str]) -> None:
    many = {"ROS_DOMAIN_ID": "seven", "RMW_IMPLEMENTATION": "rmw_nowhere_cpp", "HOME": "", "OMP_NUM_THREADS": "0"}
    found = [problem.variable for problem in problems(good | many)]
    assert set(found) == set(many) and found[-1] == "OMP_NUM_THREADS"


def test_a_keystore_is_good_once_its_enclave_has_what_ros_asks_for(good: dict[str, str], tmp_path: Path) -> None:
    secure = {"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(tmp_path)}
    assert "no folder enclaves" in only(good | secure).found
    (tmp_path / "enclaves" / "sbnet").mkdir(parents=True)
    assert problems(good | secure) == []
    assert "has no cert.pem" in only(good | secure | {"ROS_SECURITY_ENCLAVE_OVERRIDE": "/sbnet"}).found


def test_a_middleware_is_installed_where_its_library_lies_in_the_path_of_libraries(
    good: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "librmw_some_cpp.so").touch()
    assert problems(good | {"RMW_IMPLEMENTATION": "rmw_some_cpp", "LD_LIBRARY_PATH": f"/nowhere:{tmp_path}"}) == []


def test_only_what_belongs_to_another_ros_is_taken_from_the_paths(tmp_path: Path) -> None:
    ros, mine = tmp_path / "ros", tmp_path / "mine"
    (ros / "python" / "rclpy").mkdir(parents=True)
    (ros / "lib").mkdir()
    (ros / "lib" / "librcl.so").touch()
    mine.mkdir()
    own = str(Path(sys.prefix, "lib"))
    shell = {
        "PYTHONPATH": f"{ros / 'python'}:{mine}", "LD_LIBRARY_PATH": f"{own}:{ros / 'lib'}:{mine}",
        "ROS_DISTRO": "jazzy", sourced_ros.GUARD: "1", "HOME": "/home",
    }  # fmt: skip
    kept, left = sourced_ros.without_sourced_ros(shell)
    assert left == ["PYTHONPATH", "LD_LIBRARY_PATH"]
    assert kept == {"PYTHONPATH": str(mine), "LD_LIBRARY_PATH": f"{own}:{mine}", "HOME": "/home"}
    # What lies below a sourced prefix goes too; begun anew, the program finds nothing to leave out.
    assert sourced_ros.without_sourced_ros({"PYTHONPATH": str(mine), "AMENT_PREFIX_PATH": str(tmp_path)})[1] == [
        "PYTHONPATH"
    ]
    done = kept | {sourced_ros.GUARD: "1"}
    assert sourced_ros.without_sourced_ros(done) == (done, [])


@pytest.mark.parametrize(("guard", "times"), [("1", 1), ("", 0)])
def test_a_program_begins_anew_at_most_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, guard: str, times: int
) -> None:
    """Without the wheels' own mark it would not know that it has."""
    begun: list[dict[str, str]] = []
    environ = {"PYTHONPATH": str(tmp_path), "AMENT_PREFIX_PATH": str(tmp_path)} | (
        {sourced_ros.GUARD: guard} if guard else {}
    )
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(os, "execve", lambda program, words, variables: begun.append(variables))
    monkeypatch.setattr(sourced_ros, "has_own_ros", lambda: True)
    sourced_ros.leave_out()
    assert begun == [{"PYTHONPATH": ""}] * times


@pytest.mark.skipif(not sourced_ros.has_own_ros(), reason="the ROS of this machine is the one that is sourced")
def test_the_program_leaves_a_sourced_ros_out_and_mends_the_rest_of_a_hostile_shell(tmp_path: Path) -> None:
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").write_text("raise ImportError('the wrong ROS')")
    hostile = {
        "PYTHONPATH": f"{tmp_path}:{Path(__file__).parent.parent}", "AMENT_PREFIX_PATH": str(tmp_path),
        "RMW_IMPLEMENTATION": "rmw_nowhere_cpp", "ROS_LOG_DIR": "/proc/nowhere", "RCUTILS_COLORIZED_OUTPUT": "yes",
    }  # fmt: skip
    command = [sys.executable, "-m", "sbnet_perception.cli", "replay", str(tmp_path / "no.mcap")]
    done = subprocess.run(command, env={**os.environ, **hostile}, capture_output=True, text=True, check=False)
    first, *mended, last = done.stderr.splitlines()
    assert first.startswith("sbnet: PYTHONPATH of a sourced ROS is left out")
    assert {line.split()[1] for line in mended} == {"RMW_IMPLEMENTATION", "ROS_LOG_DIR", "RCUTILS_COLORIZED_OUTPUT"}
    assert (last, done.returncode) == (f"sbnet replay: there is no bag at {tmp_path / 'no.mcap'}", 2)


@pytest.mark.skipif(not sourced_ros.has_own_ros(), reason="the middleware of this machine is another one")
def test_the_node_refuses_in_one_line_what_ros_would_end_it_for() -> None:
    command = [sys.executable, "-m", "sbnet_perception.node.node"]
    shell = {**os.environ, "RMW_IMPLEMENTATION": "rmw_nowhere_cpp"}
    done = subprocess.run(command, env=shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("sbnet: cannot start: RMW_IMPLEMENTATION is rmw_nowhere_cpp, which is not installed")


def test_a_ros_of_another_python_and_no_ros_at_all_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "rclpy"
    package.mkdir()
    (package / "_rclpy_pybind11.cpython-39-x86_64-linux-gnu.so").touch()
    found = SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match=f"PYTHONPATH names {tmp_path}, the ROS of another Python"):
        sourced_ros.check()
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(UserError, match="is not made for this Python"):
        sourced_ros.check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="no ROS 2 is sourced"):
        sourced_ros.check()
