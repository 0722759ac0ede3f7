"""The report of `sbnet reproduce table5`: JSON, a table in markdown, and the same on the screen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from sbnet_perception.bench.measure import Row, machine
from sbnet_perception.bench.screen import markdown_table, table_of
from sbnet_perception.learning.train_config import TrainConfig

Figures = dict[tuple[str, int], list[dict[str, Any]]]
"""By line and seed: a `SimulatedResult` for each protocol."""

HEADINGS = (
    "AP, IoU 0.5", "AP, IoU 0.7", "of all vehicles: AP 0.5", "AP 0.7", "vehicle pixels computed", "tiles skipped",
    "network faster by", "with its mask", "seeds", "the paper's AP, faster by",
)  # fmt: skip
PAPER = {
    "Dense": "75.2, 1",
    "Dense, loss on the road only": "74.1, 1",
    "SBNet + road": "77.0",
    "SBNet + predicted": "73.8, 3.08",
}
"""Average precision in % on the authors' own data, and times faster than dense on their GPU (Table 5)."""


def report(figures: Figures, speed: Sequence[Row], base: TrainConfig, folder: Path, measured_on: str = "") -> Table:
    """Write table5.json and table5.md into the folder; the table for the screen."""
    lines = {line: _cells(figures, speed, line) for line in dict.fromkeys(line for line, _ in figures)}
    rows = [{"line": line, "seed": seed, **result} for (line, seed), of in figures.items() for result in of]
    about = {"machine": machine(), "training": asdict(base), "measured_on": measured_on}
    content = {**about, "rows": rows, "speed": list(speed)}
    (folder / "table5.json").write_text(json.dumps(content, indent=1) + "\n")
    written = markdown_table(["", *HEADINGS], ([line, *cells] for line, cells in lines.items()))
    (folder / "table5.md").write_text("\n".join(written) + "\n")
    where = measured_on or "held-out simulated drives"
    table = table_of(f"{where}, vehicles on the road unless it says all", "", _broken(HEADINGS))
    for line, cells in lines.items():
        table.add_row(line, *cells)
    return table


def _cells(figures: Figures, speed: Sequence[Row], line: str) -> list[str]:
    """The cells of a line: means over its seeds, with the deviation where there are several."""
    of_seed = [results for (name, _), results in figures.items() if name == line]
    road, everywhere = ([r for of in of_seed for r in of if r["asked"] == asked] for asked in ("on the road", "all"))
    found = [_mean([float(one[key]) for one in results]) for results in (road, everywhere) for key in ("ap50", "ap70")]
    computed = np.mean([result["pixel_recall"] for result in road])
    skipped = np.mean([result["mean_sparsity"]["conv-3"] for result in road])
    faster = _speed_up(speed, str(road[0]["mask"]))
    shares = [f"{100 * computed:.1f} %", f"{100 * skipped:.1f} %"]
    return [*found, *shares, *faster, str(len(of_seed)), PAPER.get(line, "")]


def _mean(values: Sequence[float]) -> str:
    deviation = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{deviation}"


def _speed_up(speed: Sequence[Row], mask: str) -> tuple[str, str]:
    """Of the network alone, and with the making of the mask; means over frames."""
    rows = [row for row in speed if row["mask"] == mask]
    if not rows:
        return ("1", "1") if mask == "everywhere" else ("", "")
    dense, network, making = (
        np.array([float(row[key] or 0) for row in rows]) for key in ("dense_ms", "network_ms", "mask_ms")
    )
    alone, whole = dense / network, dense / (network + making)
    return f"{alone.mean():.2f} ± {alone.std(ddof=1):.2f}", f"{whole.mean():.2f} ± {whole.std(ddof=1):.2f}"


def _broken(headings: Sequence[str]) -> list[str]:
    return [heading.replace(", ", ",\n").replace(": ", ":\n") for heading in headings]
