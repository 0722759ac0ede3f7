"""`sbnet doctor`: what it finds on this machine, and what it says about a machine that is not right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sbnet_perception import cli, operation
from sbnet_perception.desk import doctor
from sbnet_perception.desk.doctor import Finding, examine
from sbnet_perception.desk.session import PROFILE_VARIABLES, Session
from sbnet_perception.detector import device
from sbnet_perception.resources import resource

SHIPPED = str(resource("config/fastdds.xml"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROFILE_VARIABLES, "ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.delenv(name, raising=False)


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
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", SHIPPED)
    (trip,) = doctor._round_trips()
    assert trip.state == "OK", trip
    assert trip.found.startswith("10 of 10 came back")


def test_the_profile_is_judged_by_its_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    none = finding("Fast DDS profile")
    assert none.state == "WARN"
    assert f"FASTDDS_DEFAULT_PROFILES_FILE={SHIPPED}" in none.remedy
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", SHIPPED)
    assert finding("Fast DDS profile").state == "OK"
    small = tmp_path / "small.xml"
    small.write_text(Path(SHIPPED).read_text().replace("<segment_size>16777216", "<segment_size>524288"))
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(small))
    assert "524288" in finding("Fast DDS profile").found
    assert finding("Fast DDS profile").state == "WARN"
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(tmp_path / "nowhere.xml"))
    assert finding("Fast DDS profile").state == "FAIL"


def test_a_missing_message_package_fails_with_a_remedy_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "MESSAGE_PACKAGES", ("sensor_msgs", "no_such_msgs"))
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
        assert one.environment["FASTDDS_DEFAULT_PROFILES_FILE"] == SHIPPED
    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    with Session() as users:
        assert users.domain_id == 7
    monkeypatch.setenv("ROS_DOMAIN_ID", "seven")
    assert finding("ROS_DOMAIN_ID").state == "FAIL"
