"""The program ``sbnet``: what a user gets wrong is answered in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sbnet_perception.cli import COMMANDS, main


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evaluate --grid huge", "--grid is 'huge'; use one of compact, paper"),
        ("evaluate --data nowhere", "there is no nowhere; name a data set as [NAME:]FOLDER[:SPLIT]"),
        ("evaluate --worst here", "--worst is for a data set: name it with --data"),
        ("evaluate --data . --curves picture.txt", "--curves is picture.txt; its name must end in one of .png"),
        ("evaluate --weights nowhere.safetensors", "no file nowhere.safetensors"),
        ("bench network --rounds 0", "--rounds is 0"),
        ("bench network --threads -1", "--threads is -1"),
    ],
)
def test_an_impossible_option_is_named_without_a_traceback(capsys, line, says):
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"sbnet {line.split()[0]}: ") and says in error and error.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: sbnet {command}" in capsys.readouterr().out


def test_every_command_that_the_documents_name_exists():
    root = Path(__file__).resolve().parent.parent
    texts = [path.read_text() for path in (*root.glob("*.md"), *root.glob("docs/*.md"))]
    named = {command for text in texts for command in re.findall(r"(?m)(?:^|`)sbnet ([a-z]+)", text)}
    assert {"replay", "soak", "bench"} < named <= set(COMMANDS)


@pytest.mark.parametrize(
    ("package", "says"),
    [
        ("rich", "pip install rich matplotlib"),
        ("PIL", "the Python package PIL is missing: sbnet needs more than the node does"),
        ("rosbags.typesys", "the Python package rosbags is missing"),
        ("safetensors", "pip install safetensors"),
        ("vision_msgs", "sudo apt install ros-DISTRIBUTION-vision-msgs"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(capsys, monkeypatch, package, says):
    def without(*arguments):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("sbnet_perception.cli.build_parser", without)
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sbnet doctor: ") and says in error and error.count("\n") == 1


def test_a_module_of_our_own_that_is_missing_is_no_users_error(monkeypatch):
    def without(*arguments):
        raise ModuleNotFoundError("No module named 'sbnet_perception.nowhere'", name="sbnet_perception.nowhere")

    monkeypatch.setattr("sbnet_perception.cli.build_parser", without)
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])
