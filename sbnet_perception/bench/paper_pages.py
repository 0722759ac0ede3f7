"""The pages of `sbnet reproduce`: rows of a bench as tables in the paper's form, in Markdown.

A column with the paper's own figures is missing: its tables could not be read when this was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbnet_perception.bench.cases import Case
from sbnet_perception.bench.measure import Row, warnings
from sbnet_perception.bench.screen import column, markdown_table, milliseconds, spread_of


def page(title: str, table: Sequence[str], written: Mapping[str, Any], command: str, picture: str) -> str:
    """A title, the table, the picture if there is one, and what the figures depend on.

    Args:
        title: what is in the table.
        table: its lines.
        written: the bench's machine and rows, as `write_rows` has them.
        command: that measured them.
        picture: name of its file, or empty.
    """
    here, rows = written["machine"], written["rows"]
    machine = f"{here['cpu']}, {here['threads']} threads, {here['flags']}, torch {here['torch']}, {here['date']}"
    drawn = [f"![{title}]({picture})", ""] if picture else []
    warned = [line for warning in warnings(rows) for line in (warning, "")]
    about = [f"{machine}. Measured by", "", f"`{command}`", ""]
    return "\n".join([f"**{title}**", "", *table, "", *drawn, *warned, *about])


def layers(rows: Sequence[Row]) -> list[str]:
    """A line per layer: one mask, inside a stage as the detector runs it, the mask's reduction included."""
    dtypes, names = _distinct(rows, "dtype"), _distinct(rows, "layer")
    head = ["layer", "map", "pixels left out"]
    for dtype in dtypes:
        head += [f"{what}{_suffix(dtype, dtypes)}" for what in ("dense, ms", "sparse, ms", "times faster [95 %]")]
    lines = []
    for name in names:
        case = Case.named(name, dtypes[0])
        of = {str(row["dtype"]): row for row in rows if row["layer"] == name}
        line = [name, f"{case.size[0]} x {case.size[1]} x {case.channels}", _percent(of[dtypes[0]]["pixel_sparsity"])]
        for dtype in dtypes:
            row = of[dtype]
            line += [milliseconds(row["dense_ms"]), milliseconds(row["sparse_ms"]), _faster(row)]
        lines.append(line)
    return markdown_table(head, lines)


def sweep(rows: Sequence[Row]) -> list[str]:
    """A line per sparsity, a column per layer: times faster than dense."""
    dtypes = _distinct(rows, "dtype")
    columns = [(layer, dtype) for dtype in dtypes for layer in _distinct(rows, "layer")]
    of: dict[tuple[str, str], list[Row]] = {
        one: [row for row in rows if (row["layer"], row["dtype"]) == one] for one in columns
    }
    lines = []
    for number, first in enumerate(of[columns[0]]):
        faster = (f"{float(of[one][number]['speedup'] or 0):.2f}" for one in columns)
        lines.append([_percent(first["pixel_sparsity"]), *faster])
    return markdown_table(["pixels left out", *(f"{name}{_suffix(dtype, dtypes)}" for name, dtype in columns)], lines)


def masks(rows: Sequence[Row]) -> list[str]:
    """A line per mask, over its frames: means and deviations; medians of times."""
    dtypes = _distinct(rows, "dtype")
    head = (
        "mask", "pixels left out", "tiles skipped", "dense, ms", "sparse, ms", "times faster",
        "making the mask, ms", "as share of dense", "times faster with it",
    )  # fmt: skip
    lines = []
    for mask, dtype in dict.fromkeys((str(row["mask"]), str(row["dtype"])) for row in rows):
        of = [row for row in rows if (row["mask"], row["dtype"]) == (mask, dtype)]
        skipped = (_percent(column(of, key).mean()) for key in ("pixel_sparsity", "tile_sparsity"))
        dense, sparse = (float(np.median(column(of, key))) for key in ("dense_ms", "sparse_ms"))
        line = [f"{mask}{_suffix(dtype, dtypes)}", *skipped, milliseconds(dense), milliseconds(sparse)]
        lines.append([*line, spread_of(column(of, "speedup")), *_making(of, dense)])
    return markdown_table(head, lines)


def _making(rows: Sequence[Row], dense: float) -> list[str]:
    """Of a mask that an expression makes; true boxes and rectangles cost nothing."""
    if rows[0]["mask_ms"] is None:
        return [""] * 3
    making = float(np.median(column(rows, "mask_ms")))
    return [milliseconds(making), _percent(making / dense), spread_of(column(rows, "speedup_with_mask"))]


def _faster(row: Row) -> str:
    low, high = (1 / float(row[key] or 1) for key in ("ratio_high", "ratio_low"))
    return f"{float(row['speedup'] or 0):.1f} [{low:.1f}, {high:.1f}]"


def _distinct(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _suffix(dtype: str, dtypes: Sequence[str]) -> str:
    """Names the dtype where there are several."""
    return f", {dtype}" if len(dtypes) > 1 else ""


def _percent(share: float | str | None) -> str:
    return f"{100 * float(share or 0):.1f} %"
