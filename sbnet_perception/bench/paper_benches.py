"""`sbnet reproduce table1` and the like: a bench with fixed options, its rows, and a page of them like the paper's."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sbnet_perception.errors import UserError

UNITS = tuple(f"conv-{number}" for number in range(2, 6))
CONVOLUTIONS = tuple(f"{unit}-3x3" for unit in UNITS)


@dataclass(frozen=True)
class PaperBench:
    """A table or figure of the paper that a bench measures.

    Attributes:
        title: as the paper calls it.
        subject: what is in it.
        bench: which of `sbnet bench`.
        fixed: options of the bench that make it this table.
        rounds: alternating rounds, so that it takes minutes.
        page: function of `paper_pages` that makes a table of the rows.
        drawn: whether the bench draws its picture.
    """

    title: str
    subject: str
    bench: str
    fixed: tuple[str, ...]
    rounds: int
    page: str
    drawn: bool = False


_TOP_LEFT, _ROAD = "a rectangle at the top left, 90 % of the pixels off", "a road mask, 90 % of the pixels off"
PAPER_BENCHES = {
    "table1": PaperBench(
        "Table 1", f"3x3 convolutions under {_TOP_LEFT}",
        "units", ("--mask", "topleft", "--only", *CONVOLUTIONS), 30, "layers",
    ),
    "table2": PaperBench(
        "Table 2", f"residual units under {_TOP_LEFT}", "units", ("--mask", "topleft", "--only", *UNITS), 20, "layers"
    ),
    "table3": PaperBench(
        "Table 3", f"3x3 convolutions under {_ROAD}", "units", ("--mask", "road", "--only", *CONVOLUTIONS), 30, "layers"
    ),
    "table4": PaperBench(
        "Table 4", f"residual units under {_ROAD}", "units", ("--mask", "road", "--only", *UNITS), 20, "layers"
    ),
    "table6": PaperBench(
        "Table 6", "the network under masks of a mask network and under others, and what making a mask costs",
        "network", ("simulated", "--only", "expressions", "boxes"), 1, "masks",
    ),
    "figure6": PaperBench(
        "Figure 6", "units and 3x3 convolutions over the share of pixels left out", "units", ("--sweep",), 10, "sweep",
        drawn=True,
    ),
    "figure7": PaperBench(
        "Figure 7", "the network over the share of pixels left out, a dot per frame and mask",
        "network", ("simulated",), 1, "masks", drawn=True,
    ),
}  # fmt: skip
"""Under the name of `sbnet reproduce NAME`."""


def add_arguments(command: argparse.ArgumentParser, name: str) -> None:
    """The options of `sbnet reproduce NAME`: what may differ from machine to machine."""
    paper, out = PAPER_BENCHES[name], Path("build") / name
    files = f"{name}.json of the rows, {name}.md of the table" + (f" and the picture {name}.png" if paper.drawn else "")
    command.description = (
        f"{paper.title}: {paper.subject}. Runs 'sbnet {shlex.join(['bench', paper.bench, *paper.fixed])}' and writes "
        f"{files}. Takes minutes; measure on a quiet machine: the page says where other programs were busy."
    )
    command.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=f"where they go (default {out})")
    command.add_argument("--dtype", default="float32", help="float32, bfloat16 or both (default float32)")
    rounds = f"alternating rounds (default {paper.rounds})"
    command.add_argument("--rounds", type=int, default=paper.rounds, help=rounds)
    command.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice)")
    if paper.bench == "network":
        network = "of 'sbnet train --mask-network', for masks that name predicted (default: the shipped ones)"
        command.add_argument("--mask-weights", default="", metavar="FILE", help=network)
        command.add_argument("--grid", default="paper", help="compact or paper (default paper)")
        command.add_argument("--frames", type=int, default=10, help="simulated frames, each perturbed (default 10)")


def run(arguments: argparse.Namespace) -> int:
    """Runs the bench and writes its page.

    Raises:
        UserError: the folder cannot be made, or an option is impossible.
    """
    name, paper, out = arguments.kind, PAPER_BENCHES[arguments.kind], arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be a folder: {error.strerror}; name another") from None
    rows, page = out / f"{name}.json", out / f"{name}.md"
    page.unlink(missing_ok=True)  # it would not be of these rows, should the bench be interrupted
    words = [paper.bench, *paper.fixed, *_given(arguments, paper)]
    files = ["--json", str(rows), *(["--plot", str(out / f"{name}.png")] if paper.drawn else [])]
    if code := _bench([*words, *files]):
        return code
    pages = importlib.import_module("sbnet_perception.bench.paper_pages")
    table: Callable[..., list[str]] = getattr(pages, paper.page)
    written = json.loads(rows.read_text())
    page.write_text(
        pages.page(
            f"{paper.title}: {paper.subject}",
            table(written["rows"]),
            written,
            shlex.join(["sbnet", "bench", *words]),
            f"{name}.png" if paper.drawn else "",
        )
    )
    print(f"wrote {page} and {rows}")
    return 0


def _given(arguments: argparse.Namespace, paper: PaperBench) -> list[str]:
    """What the user may choose, as options of the bench."""
    names = ["dtype", "rounds", "threads"] + (["grid", "frames"] if paper.bench == "network" else [])
    words = [word for name in names for word in (f"--{name}", str(getattr(arguments, name)))]
    weights = getattr(arguments, "mask_weights", "")
    return words + (["--mask-weights", weights] if weights else [])


def _bench(words: Sequence[str]) -> int:
    """`sbnet bench` with these words."""
    bench = importlib.import_module("sbnet_perception.bench.command")
    parser = argparse.ArgumentParser(prog="sbnet bench")
    bench.add_arguments(parser)
    return int(bench.run(parser.parse_args(words)))
