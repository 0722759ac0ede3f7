"""Every way in which things go wrong has a test that provokes it, and docs/reliability.md is made of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from faults import FAULTS, rows_of, table

HERE = Path(__file__).resolve().parent


def provoked() -> dict[int, set[str]]:
    """Row -> the tests of this folder that say they provoke it."""
    found: dict[int, set[str]] = {row: set() for row in FAULTS}
    for path in HERE.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [mark for mark in node.decorator_list if ast.unparse(mark).startswith("pytest.mark.fault(")]
                for row in rows_of(node.name, [ast.literal_eval(arg) for mark in marks for arg in mark.args]):
                    found[row].add(f"{path.name}::{node.name}")
    return found


def test_every_row_is_provoked_by_a_test_and_stands_in_the_document_with_it() -> None:
    rows = provoked()
    assert [row for row, tests in rows.items() if not tests] == []
    lines = re.findall(r"^\| (\d+) \|.*\| (.*) \| (.*) \|$", (HERE.parent / "docs/reliability.md").read_text(), re.M)
    assert [int(row) for row, _, _ in lines] == list(FAULTS)
    for row, verdict, names in lines:
        listed = set(re.findall(r"`(.*?)`", names))
        assert listed == rows[int(row)], f"row {row}: run make reliability"
        assert verdict == "held", f"row {row} is {verdict}"


def test_the_table_says_what_was_seen() -> None:
    text = table({1: {"test/a.py::test_1_x": {"passed"}}, 2: {"test/a.py::test_2_y": {"passed", "failed"}}})
    assert re.search(r"^\| 1 \|.*\| held \| `a.py::test_1_x` \|$", text, re.M)
    assert re.search(r"^\| 2 \|.*\| \*\*failed\*\* \|", text, re.M)
    assert re.search(r"^\| 3 \|.*\| not run here \| none \|$", text, re.M)
