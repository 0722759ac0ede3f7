"""`sbnet reproduce table1` and the like: the benches that they run, and the pages that they write of the rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch

from sbnet_perception.bench import cases, command, paper_benches, paper_pages, units
from sbnet_perception.bench.cases import CONVOLUTIONS, UNITS, Case, top_left
from sbnet_perception.bench.measure import Row
from sbnet_perception.bench.paper_benches import PAPER_BENCHES
from sbnet_perception.cli import main

LAYERS = {"table1": CONVOLUTIONS, "table2": UNITS, "table3": CONVOLUTIONS, "table4": UNITS}


def cells(lines: list[str]) -> list[list[str]]:
    """Those of a table's lines, without the one below the head."""
    head, below, *others = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert set(below) == {"---"} and all(len(line) == len(head) for line in (below, *others))
    return [head, *others]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that the bench is called with; it measures nothing and its rows are none."""
    given: list[str] = []

    def bench(line: list[str]) -> int:
        given.extend(line)
        rows = Path(line[line.index("--json") + 1])
        machine = {"cpu": "a CPU", "threads": 2, "flags": "avx2", "torch": "2", "date": "2026-11-26"}
        rows.write_text(json.dumps({"machine": machine, "rows": []}))
        return 0

    monkeypatch.setattr(paper_benches, "_bench", bench)
    for page in ("layers", "sweep", "masks"):
        monkeypatch.setattr(paper_pages, page, lambda rows: ["| a table |"])
    return given


@pytest.mark.parametrize("name", PAPER_BENCHES)
def test_every_table_runs_a_bench_that_takes_its_options_and_writes_into_the_folder(
    words: list[str], tmp_path: Path, name: str
) -> None:
    assert main(["reproduce", name, "--out", str(tmp_path / "made"), "--dtype", "both", "--rounds", "7"]) == 0
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    asked, paper = parser.parse_args(words), PAPER_BENCHES[name]
    assert (asked.dtype, asked.rounds, asked.json) == ("both", 7, tmp_path / "made" / f"{name}.json")
    assert asked.plot == (tmp_path / "made" / f"{name}.png" if name.startswith("figure") else None)
    if name in LAYERS:
        assert (tuple(asked.only), asked.mask) == (LAYERS[name], "topleft" if name < "table3" else "road")
    elif asked.kind == "network":
        assert (asked.grid, asked.frames, asked.input) == ("paper", 10, "simulated")
        assert asked.only == (["expressions", "boxes"] if name == "table6" else None)
    else:
        assert asked.sweep and asked.only is None
    page = (tmp_path / "made" / f"{name}.md").read_text()
    assert page.startswith(f"**{paper.title}: ") and "| a table |" in page and "a CPU, 2 threads" in page
    assert (f"]({name}.png)" in page) == paper.drawn


def test_an_interrupted_bench_leaves_no_page_of_other_rows(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["reproduce", "table1", "--out", str(tmp_path)]) == 0 and (tmp_path / "table1.md").exists()

    def stopped(line: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(paper_benches, "_bench", stopped)
    assert main(["reproduce", "table1", "--out", str(tmp_path)]) == 130 and not (tmp_path / "table1.md").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("table1 --rounds 0", "--rounds is 0; it must be at least 1"),
        ("figure6 --dtype half", "--dtype is 'half'; use one of float32, bfloat16, both"),
        ("table6 --grid huge", "--grid is 'huge'; use one of compact, paper"),
        ("table6 --mask-weights nowhere.safetensors", "there is no file nowhere.safetensors"),
        ("table2 --out made/of_file/a", "--out is made/of_file/a, which cannot be a folder: Not a directory"),
    ],
)
def test_an_impossible_option_is_named_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "of_file").write_text("")
    assert main(["reproduce", *options.split()]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["table1", "figure7"])
def test_the_help_says_what_is_run_and_what_is_written(capsys: pytest.CaptureFixture[str], name: str) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", name, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"sbnet bench {PAPER_BENCHES[name].bench}" in text and f"{name}.json of the rows, {name}.md" in text


def test_a_table_of_layers_is_measured_and_written_as_the_paper_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "STAGES", dict.fromkeys(UNITS, ((10, 20), 16)))
    monkeypatch.setattr(units, "with_steady_memory", lambda: None)
    monkeypatch.setattr(Case, "masks", lambda case, names: {name: top_left(case.size, 0.9) for name in names})
    with torch.compiler.set_stance("force_eager"):
        assert main(["reproduce", "table1", "--out", str(tmp_path), "--rounds", "1"]) == 0
    rows = json.loads((tmp_path / "table1.json").read_text())["rows"]
    assert [(row["layer"], row["mask"], row["dtype"]) for row in rows] == [
        (layer, "topleft", "float32") for layer in CONVOLUTIONS
    ]
    table = [line for line in (tmp_path / "table1.md").read_text().splitlines() if line.startswith("|")]
    head, *lines = cells(table)
    assert head == ["layer", "map", "pixels left out", "dense, ms", "sparse, ms", "times faster [95 %]"]
    assert [line[:2] for line in lines] == [[layer, "10 x 20 x 4"] for layer in CONVOLUTIONS]
    for line, row in zip(lines, rows, strict=True):
        assert line[-1].startswith(f"{row['speedup']:.1f} [") and line[2] == f"{100 * row['pixel_sparsity']:.1f} %"


def row_of(mask: str, dtype: str, sparse: float, making: float | None) -> Row:
    with_mask = None if making is None else 100 / (sparse + making)
    return {
        "mask": mask, "dtype": dtype, "pixel_sparsity": 0.9, "tile_sparsity": 0.8, "dense_ms": 100.0,
        "sparse_ms": sparse, "speedup": 100 / sparse, "mask_ms": making, "speedup_with_mask": with_mask,
    }  # fmt: skip


def test_a_table_of_masks_has_the_speed_with_and_without_the_making_of_the_mask() -> None:
    rows = [row_of("predicted", "float32", sparse, 5.0) for sparse in (20.0, 25.0)]
    rows += [row_of("boxes + 0 m", "float32", 10.0, None)]
    head, predicted, boxes = cells(paper_pages.masks(rows))
    named = dict(zip(head, predicted, strict=True))
    assert (named["times faster"], named["times faster with it"]) == ("4.5 ± 0.5", "3.7 ± 0.3")
    assert (named["making the mask, ms"], named["as share of dense"]) == ("5.00", "5.0 %")
    assert (named["pixels left out"], named["tiles skipped"]) == ("90.0 %", "80.0 %")
    assert boxes[5:] == ["10.0 ± 0.0", "", "", ""]
    both = cells(paper_pages.masks([*rows, row_of("predicted", "bfloat16", 10.0, 5.0)]))
    assert [line[0] for line in both[1:]] == ["predicted, float32", "boxes + 0 m, float32", "predicted, bfloat16"]


def test_a_sweep_has_a_line_for_each_sparsity_and_a_column_for_each_layer() -> None:
    rows: list[Row] = [
        {"layer": layer, "dtype": "float32", "pixel_sparsity": sparsity, "speedup": speedup}
        for layer, speedup in (("conv-2", 2.0), ("conv-3", 3.0))
        for sparsity in (0.0, 0.5)
    ]
    assert cells(paper_pages.sweep(rows)) == [
        ["pixels left out", "conv-2", "conv-3"], ["0.0 %", "2.00", "3.00"], ["50.0 %", "2.00", "3.00"],
    ]  # fmt: skip
