"""What the benches of the detector share on screen and in their options."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sbnet_perception.bench.measure import Row, machine, warnings
from sbnet_perception.errors import UserError


def at_least_one(arguments: argparse.Namespace, *names: str) -> None:
    """Raises UserError for a number that is given and not positive."""
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")


def progress_bar(console: Console) -> Progress:
    """Redrawn once a second, so that it costs what is measured nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, refresh_per_second=1)


def table_of(title: str, left: str, right: Sequence[str]) -> Table:
    """An empty table with a title; one column of words, then numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
    table.add_column(left, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]


def milliseconds(value: float | str | None) -> str:
    """Three digits."""
    return "" if value is None else f"{float(value):.2f}" if float(value) < 10 else f"{float(value):.1f}"


def column(rows: Sequence[Row], key: str) -> NDArray[np.float64]:
    """A number of each row, NaN where it has none."""
    return np.array([np.nan if row[key] is None else float(row[key] or 0) for row in rows])


def spread_of(values: NDArray[np.float64]) -> str:
    """Mean ± standard deviation."""
    return f"{values.mean():.1f} ± {values.std():.1f}"


def closing(rows: Sequence[Row], console: Console) -> None:
    """The machine, and what the user should know about these times."""
    here = machine()
    text = f"{here['cpu']}, {here['threads']} threads, {here['flags']}, torch {here['torch']}"
    console.print(text, highlight=False)
    for warning in warnings([row for row in rows if "page_faults" in row]):
        console.print(warning, style="yellow", highlight=False)
