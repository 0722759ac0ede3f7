"""`sbnet doctor`: what it finds on this machine, and what it says about a machine that is not right."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
import torch

from sbnet_perception import cli, operation
from sbnet_perception.desk import machine
from sbnet_perception.desk.findings import Finding
from sbnet_perception.desk.machine import examine
from sbnet_perception.desk.session import Session
from sbnet_perception.detector import device
from sbnet_perception.node.launching import profile_variable
from sbnet_perception.resources import resource

SHIPPED, LOCALHOST = (str(resource(f"config/{name}.xml")) for name in ("fastdds", "fastdds_localhost"))


def finding(what: str) -> Finding:
    return next(found for found in examine(with_dds=False) if found.what.strip() == what)


def test_this_machine_has_everything_that_the_node_needs() -> None:
    found = {item.what.strip(): item for item in examine(with_dds=False)}
    assert not [item for item in found.values() if item.state == "FAIL"]
    assert {"Python", "torch", "CPU", "compiled ops", "ROS 2", "message packages", "middleware", "tf2_ros"} <= set(
        found
    )


def test_a_gpu_is_judged_by_whether_pytorch_and_the_compiled_ops_run_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert finding("GPU").state == "OK"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Some GPU")
    monkeypatch.setattr(device, "problem_of", lambda index: None)
    for there, state in ((True, "OK"), (False, "WARN")):
        monkeypatch.setattr(operation, "CUDA_KERNELS", there)
        assert finding("GPU 0").state == state
    monkeypatch.setattr(device, "problem_of", lambda index: device.Problem("it is too old", "take another"))
    assert finding("GPU 0") == Finding("WARN", "GPU 0", "it is too old", "take another")


def test_a_two_megabyte_cloud_makes_the_round_trip_between_two_processes_with_the_shipped_profile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(profile_variable(os.environ), SHIPPED)
    (trip,) = machine._round_trips()
    assert trip.state == "OK", trip
    assert trip.found.startswith("10 of 10 came back")


def test_the_profile_is_judged_by_its_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    none = finding("Fast DDS profile")
    assert none.state == "WARN"
    assert f"{profile_variable(os.environ)}={SHIPPED}" in none.remedy
    monkeypatch.setenv(profile_variable(os.environ), SHIPPED)
    assert finding("Fast DDS profile").state == "OK"
    small = tmp_path / "small.xml"
    small.write_text(Path(SHIPPED).read_text().replace("<segment_size>16777216", "<segment_size>524288"))
    monkeypatch.setenv(profile_variable(os.environ), str(small))
    assert "524288" in finding("Fast DDS profile").found
    assert finding("Fast DDS profile").state == "WARN"
    monkeypatch.setenv(profile_variable(os.environ), str(tmp_path / "nowhere.xml"))
    assert finding(profile_variable(os.environ)).state == "FAIL"


def test_a_missing_message_package_fails_with_a_remedy_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "MESSAGE_PACKAGES", ("sensor_msgs", "no_such_msgs"))
    assert finding("no_such_msgs").state == "FAIL"
    assert cli.main(["doctor", "--no-dds"]) == 1
    said = capsys.readouterr().out
    assert "FAIL" in said
    assert "ros-DISTRIBUTION-no-such-msgs" in said.replace("\n", "").replace(" ", "")


def test_a_domain_that_is_no_number_fails_and_sessions_of_one_moment_get_different_domains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Session() as one, Session() as other:
        assert one.domain_id != other.domain_id
        assert one.environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        assert one.environment[profile_variable(os.environ)] == LOCALHOST
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    with Session() as users:
        assert users.domain_id == 7
    monkeypatch.setenv("ROS_DOMAIN_ID", "seven")
    assert finding("ROS_DOMAIN_ID").state == "FAIL"


@pytest.mark.parametrize(
    ("distribution", "variable", "alone"),
    [("humble", "FASTRTPS_DEFAULT_PROFILES_FILE", ("ROS_LOCALHOST_ONLY", "1")),
     ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE", ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")),
     ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE", ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")),
     ("", "FASTDDS_DEFAULT_PROFILES_FILE", ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST"))],
)  # fmt: skip
def test_a_session_keeps_to_this_machine_in_the_words_that_its_distribution_knows(
    monkeypatch: pytest.MonkeyPatch, distribution: str, variable: str, alone: tuple[str, str]
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    with Session() as session:
        assert session.environment[variable] == LOCALHOST
        named = ("ROS_LOCALHOST_ONLY", "ROS_AUTOMATIC_DISCOVERY_RANGE")
        assert [(name, session.settings[name]) for name in named if name in session.settings] == [alone]
    monkeypatch.setenv(alone[0], "0" if alone[1] == "1" else "SUBNET")
    with Session() as users:
        assert users.environment[variable] == SHIPPED


def test_a_hostile_environment_is_told_apart_and_the_other_checks_run_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hostile = {"RMW_IMPLEMENTATION": "rmw_nowhere_cpp", "HOME": "/proc/nowhere", "RCUTILS_COLORIZED_OUTPUT": "yes"}
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    found = list(examine(with_dds=False))
    failed = {item.what: item.remedy for item in found if item.state == "FAIL"}
    assert set(failed) == set(hostile)
    assert len(set(failed.values())) == 3 and "unset RMW_IMPLEMENTATION" in failed["RMW_IMPLEMENTATION"]
    assert {"weights", "middleware", "ROS 2"} <= {item.what for item in found}
    assert {name: os.environ.get(name) for name in hostile} == hostile
    monkeypatch.setenv("ROS_DOMAIN_ID", "seven")
    assert ("DDS", "not tried, because of ROS_DOMAIN_ID") in {(item.what, item.found) for item in examine()}


def test_shared_memory_whose_process_has_ended_is_found_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    for name in ("fastdds_1", "fastdds_2", "fastdds_1_el", "fastdds_2_el"):
        (tmp_path / name).touch()
    with (tmp_path / "fastdds_2_el").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert machine.stale_segments(tmp_path) == [tmp_path / "fastdds_1"]
