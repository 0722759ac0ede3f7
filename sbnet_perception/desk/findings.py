"""What the doctor finds, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

State = Literal["OK", "WARN", "FAIL"]
STYLES = {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the table; `remedy` is empty where nothing needs doing."""

    state: State
    what: str
    found: str
    remedy: str = ""


def show(console: Console, findings: Iterable[Finding]) -> bool:
    """Prints the findings as a table, once all are there; whether none of them fails."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    good = True
    for finding in findings:
        state = f"[{STYLES[finding.state]}]{finding.state}[/]"
        remedy = f"\n[cyan]remedy: {escape(finding.remedy)}[/]" if finding.remedy else ""
        table.add_row(state, escape(finding.what), escape(finding.found) + remedy)
        good &= finding.state != "FAIL"
    console.print(table)
    return good
