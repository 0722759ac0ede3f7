"""What the node does when things go wrong, row by row, and docs/reliability.md made of what the tests saw.

A test belongs to the rows in its name (``test_14_26_...``) and to those of the marker ``fault``. `pytest --reliability
FILE` runs these tests alone and writes the file.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

FAULTS: dict[int, tuple[str, str]] = {
    1: ("a cloud is cut off: data shorter than height x row_step", "rejected before anything is computed"),
    2: ("point_step 0, a field beyond point_step; padding behind rows", "rejected; padding is honoured"),
    3: ("x, y or z is missing or not floating point", "rejected, and the fields that are there are listed"),
    4: ("intensity is missing", "rejected, or taken as 0 with a warning: missing_intensity"),
    5: ("intensity of another type or scale", "converted; a warning where the scale looks wrong"),
    6: ("big-endian points", "decoded; the message is not changed"),
    7: ("NaN or infinite coordinates", "those points are left out, whatever is_dense says"),
    8: ("no point, or none within the region", "an empty array with the cloud's stamp, and no complaint"),
    9: ("millions of points; width x height beyond 32 bits", "thinned evenly with a warning; memory is bounded"),
    10: ("a point exactly on the edge of the region", "within a cell or left out, never beside the raster"),
    11: ("the layout changes from cloud to cloud", "every message is checked by itself"),
    12: ("frame_id empty, stamp invalid", "rejected"),
    13: ("a stamp that came already, or a late one", "dropped and counted"),
    14: ("time jumps back or far forward", "what belongs to the old time is forgotten, one line, and on it goes"),
    15: ("no road mask has come", "the road counts as everywhere, with a warning; or refused: without_road_mask"),
    16: ("the road mask is too old, or lies beside the grid", "as without one; the status has its age"),
    17: ("the mask is in another frame, turned, or of other cells", "placed at each cloud; a touched cell is road"),
    18: ("the mask contradicts itself", "rejected; the last good one stays in use"),
    19: ("a transform is missing or late", "waited for outside the callback, then dropped; never taken as none"),
    20: ("a parameter out of its range or of the wrong type", "refused by its name; a set of them all or none"),
    21: ("weights missing, damaged, of another shape or other classes", "configure fails and names both sides"),
    22: ("a GPU is asked for and not there", "configure fails with the remedy"),
    23: ("no memory on the GPU; the GPU is lost", "tried once more with memory released; exit code 1 for respawn"),
    24: ("clouds come faster than they are processed", "the newest count; warning, then error; recovers by itself"),
    25: ("nobody reads a topic", "its messages are not made"),
    26: ("Ctrl-C, once or twice, at any time", "an orderly end, exit code 0, no traceback"),
    27: ("the sensor falls silent", "an error until it is back"),
    28: ("the disk is full while recording", "one warning; what was written can be read; detection goes on"),
    29: ("the network says boxes that are none", "never published; counted as errors"),
    30: ("a hostile parameter file, bag, message or weights file", "one line; nothing in it is executed"),
    31: ("the external mask is missing, old, small or malformed", "as the road's; or refused: without_external_mask"),
}
"""Row -> the case, and what the node does."""
_GUIDE = (
    "# When things go wrong\n\n"
    "Each row is provoked by tests, most of them over DDS against the node in a process of its own. This file is made "
    "of what they saw: `make reliability`. A row is *held* where at least one of its tests ran and none failed.\n\n"
    "| | case | what the node does | seen | tests |\n|---|---|---|---|---|\n"
)


def rows_of(name: str, marked: Iterable[int] = ()) -> list[int]:
    """The rows that a test function provokes."""
    numbers = re.match(r"test_((?:\d+_)+)", name)
    return sorted({*marked, *(int(number) for number in (numbers[1].split("_")[:-1] if numbers else ()))})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", type=Path, help="run what provokes the faults, and write the table there")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(row, ...): provokes these rows of test/faults.py")
    if config.getoption("--reliability") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Writer(config.getoption("--reliability")), "reliability")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Notes the rows of each test; they travel with its report, from other processes too."""
    for item in items:
        marked = [row for marker in item.iter_markers("fault") for row in marker.args]
        item.user_properties += [("fault", row) for row in rows_of(getattr(item, "originalname", item.name), marked)]
    if config.getoption("--reliability"):
        items[:] = [item for item in items if item.user_properties]


class _Writer:
    """Collects outcomes and writes the table at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[int, dict[str, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        for key, row in report.user_properties:
            if key == "fault":
                self._seen[int(str(row))][report.nodeid.split("[")[0]].add(report.outcome)

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(table(self._seen))


def table(seen: dict[int, dict[str, set[str]]]) -> str:
    """docs/reliability.md: row -> test -> outcomes of its cases."""
    lines = []
    for row, (case, reaction) in FAULTS.items():
        tests = seen.get(row, {})
        outcomes = set().union(*tests.values()) if tests else set()
        verdict = "**failed**" if "failed" in outcomes else "held" if "passed" in outcomes else "not run here"
        names = "<br>".join(f"`{name.removeprefix('test/')}`" for name in sorted(tests))
        lines.append(f"| {row} | {case} | {reaction} | {verdict} | {names or 'none'} |\n")
    return _GUIDE + "".join(lines)
