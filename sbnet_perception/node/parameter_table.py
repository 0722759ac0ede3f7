"""The table of parameters in docs/interface.md, from the typed configuration.

    python -m sbnet_perception.node.parameter_table docs/interface.md

writes it anew into the page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sbnet_perception.node.parameters import SPECIFICATIONS, Specification

BEGIN, END = "<!-- parameters: begin -->\n", "<!-- parameters: end -->\n"


def table() -> str:
    """Markdown: a row for each parameter, with its default, its range and its help."""
    rows = ["| parameter | default | range | |", "|---|---|---|---|", *map(_row, SPECIFICATIONS.values())]
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """The page with the table of today between its two marks."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}{table()}{END}{after}"


def _row(spec: Specification) -> str:
    limits = "" if spec.range is None else f"{spec.range[0]:g} to {spec.range[1]:g}"
    return f"| `{spec.name}` | `{_shown(spec.default)}` | {limits} | {spec.description} |"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text()))
