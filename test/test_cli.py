"""The program ``sbnet``: what a user gets wrong is answered in one sentence."""

from __future__ import annotations

import pytest

from sbnet_perception.cli import COMMANDS, main


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("evaluate --grid huge", "--grid is 'huge'; use one of compact, paper"),
        ("evaluate --real nowhere", "no frames (*.npz) in nowhere"),
        ("evaluate --worst here", "--worst is for real frames: name their folder with --real"),
        ("evaluate --real . --curves picture.txt", "--curves is picture.txt; its name must end in one of .png"),
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
