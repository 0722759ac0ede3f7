"""Whether the files that a command is asked for can be written, said before it begins its work."""

from __future__ import annotations

from pathlib import Path

from sbnet_perception.errors import UserError

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_writable(option: str, path: Path | None) -> None:
    """Raises UserError, before anything is measured, where ``path`` cannot be written."""
    if path is not None and not path.resolve().parent.is_dir():
        raise UserError(f"{option} is {path}, but there is no folder {path.parent}; create it first")


def check_plot(option: str, path: Path | None) -> None:
    """Raises UserError, before anything is measured, where no picture can be written to ``path``."""
    if path is not None and path.suffix not in PLOT_SUFFIXES:
        raise UserError(f"{option} is {path}; its name must end in one of {', '.join(PLOT_SUFFIXES)}")
    check_writable(option, path)
