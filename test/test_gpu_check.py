"""`tools/gpu_check` and `sbnet bench gpu`, as far as they go without a GPU: with its kernels on the CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import gpu_bench_on_cpu
import pytest
import results
import torch
from devices import ROOT
from steps import FAILED, LATE, OK, Step, perform
from wrappers import compare, values_of

from sbnet_perception.bench import gpu_frame
from sbnet_perception.bench.chips import CHIPS, chip_of
from sbnet_perception.bench.gpu_units import _model
from sbnet_perception.cli import main
from sbnet_perception.detector.boxes import Detections

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")


def gpu_check(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "gpu_check"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """A folder with what a dry run of two steps left, and what it printed."""
    folder = tmp_path_factory.mktemp("found")
    done = gpu_check("--dry-run", "--out", folder, "--only", "wrappers", "--only", "network")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@needs_compiler
def test_a_dry_run_leaves_all_that_it_found_as_json_and_as_a_table(dry):
    folder, printed = dry
    found = json.loads((folder / "gpu_check.json").read_text())
    assert found["environment"]["torch"] == torch.__version__
    wrappers, network = found["steps"]
    assert (wrappers["name"], wrappers["state"], network["name"], network["state"]) == ("wrappers", OK, "network", OK)
    assert all(entry["different"] == 0 and entry["values"] > 0 for entry in wrappers["found"]["wrappers"])
    masks = {row["mask"] for row in network["found"]["rows"]}
    assert masks == {"road", "occupancy", "shadow", "road and occupancy", "road and shadow", "everywhere"}
    assert printed.endswith((folder / "gpu_check.txt").read_text()) and "road and occupancy" in printed


@needs_compiler
def test_the_dense_and_the_sparse_network_that_are_timed_compute_the_same(dry):
    for row in json.loads((dry[0] / "network.json").read_text())["rows"]:
        assert max(row["error"], row["dense_eager_error"], row["dense_compile_error"]) < 0.02
        assert row["speedup"] == pytest.approx(min(row["dense_eager_ms"], row["dense_compile_ms"]) / row["sparse_ms"])


@needs_compiler
def test_what_wrappers_are_expected_to_give_is_what_pytorch_gives(dry):
    program = ROOT / "build" / "gpu_check" / "wrappers_on_cpu"
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    values = {name: torch.tensor([int(bits, 16) for bits in found]) for name, found in values_of(said).items()}

    def floats(name):
        return values[name].to(torch.int32).view(torch.float32)

    patterns = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    halves = patterns.view(torch.float16).float()
    assert torch.equal(floats("half_to_float"), halves.where(~halves.isnan(), 0.125))
    assert torch.equal(values["bfloat16 to float"] >> 16, torch.arange(1 << 16))
    # Alone, then as the high half of a pair whose low half is the number before.
    for name, dtype in (("to half", torch.float16), ("to bfloat16", torch.bfloat16)):
        alone, pair = values[name].view(-1, 2).unbind(1)
        high, low, same = pair >> 16 & 0xFFFF, pair & 0xFFFF, alone.roll(1)
        whole = (high > 3) | (low > 3)  # not what stands for a NaN
        assert torch.equal(high[whole], alone[whole]) and torch.equal(low[whole][1:], same[whole][1:])
        numbers = hard_numbers()
        rounded = numbers.to(dtype).view(torch.int16).long() & 0xFFFF
        assert torch.equal(alone, rounded.where(~numbers.isnan(), 1))


def hard_numbers():
    """As ``wrappers.cu`` makes them."""
    lows = (0, 1, 0xFFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x3001, 0x5000, 0x7000)
    lows += (0x7FFF, 0x8000, 0x8001, 0xF000, 0xF001, 0xFFFF)
    bits = [high << 23 | middle << 16 | low for high in range(512) for middle in (0, 0x15, 0x2A, 0x7F) for low in lows]
    return torch.tensor(bits).to(torch.int32).view(torch.float32)


def test_a_value_that_differs_or_is_missing_is_named():
    said = "to half[0] 1 2\nto half[2] 3\nbits[0] a"
    assert [(d.name, d.values, d.different, d.first) for d in compare("to half[0] 1 5\nto half[2] 3\n", said)] == [
        ("to half", 3, 1, (1, "5", "2")),
        ("bits", 1, 1, (0, None, "a")),
    ]
    assert [d.different for d in compare(said, said)] == [0, 0]


def test_a_step_ends_at_its_limit_with_all_that_it_started_and_the_next_one_follows(tmp_path):
    mark = tmp_path / "later"
    code = f"sleep 4; touch {mark}"
    body = {
        "late": lambda step: step.run(["sh", "-c", f"echo begun; ({code}) & {code}"]),
        "wrong": lambda step: step.run([sys.executable, "-c", "print('so far'); raise ValueError('no GPU')"]),
        "good": lambda step: step.run(["echo", "done"]).strip(),
    }
    limits = {"late": 2, "wrong": 60, "good": 60}
    start = time.monotonic()
    ended = [perform(Step(n, tmp_path, tmp_path, time.monotonic() + limits[n]), body[n]) for n in body]
    assert [(one.state, one.summary) for one in ended] == [
        (LATE, "sh was still running"),
        (FAILED, "ValueError: no GPU (code 1)"),
        (OK, "done"),
    ]
    assert "begun" in (tmp_path / "late.log").read_text() and "so far" in (tmp_path / "wrong.log").read_text()
    time.sleep(max(start + 4.5 - time.monotonic(), 0))
    assert not mark.exists()


def test_tests_are_counted_with_workers_and_without_and_to_where_they_came():
    alone = "test/a.py::one[cuda] PASSED [ 50%]\ntest/a.py::two[cuda-x y] FAILED [100%]\n"
    workers = "[gw0] [ 50%] PASSED test/a.py::one[cuda] \n[gw1] [100%] FAILED test/a.py::two[cuda-x y] \n"
    reason = "FAILED test/a.py::two[cuda-x y] - AssertionError: 1 == 2\n"
    for said in (alone + reason, workers + reason):
        found = results.tests(said)
        assert (found["passed"], found["failed"], found["error"], found["skipped"]) == (1, 1, 0, 0)
        assert found["failures"] == {"test/a.py::two[cuda-x y]": "AssertionError: 1 == 2"}
    assert results.tests(workers.splitlines()[0])["passed"] == 1
    found = results.tests(alone + "ERROR test/b.py - ImportError: no shapely\nERROR test/c.py\n")
    assert found["error"] == 2 and found["failures"]["test/b.py"] == "ImportError: no shapely"


@pytest.mark.parametrize(
    ("said", "errors"),
    [
        ("========= COMPUTE-SANITIZER\nsums 0123456789abcdef\n========= ERROR SUMMARY: 0 errors\n", 0),
        ("========= Invalid __global__ read of size 4 bytes\n========= ERROR SUMMARY: 1 error\n", 1),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n", 2),
        ("========= Error: Target application terminated before first instrumented API call\n", None),
    ],
)
def test_a_sanitizer_that_says_nothing_has_not_found_nothing(said, errors):
    found = results.sanitizer(said)
    assert found["errors"] == errors and (found["first"] == []) == (errors in (0, 2))


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch has CUDA")
def test_without_cuda_it_says_so_in_one_sentence(tmp_path):
    done = gpu_check("--out", tmp_path)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"PyTorch {torch.__version__} is built without CUDA; gpu_check needs" in done.stderr


@pytest.mark.parametrize("part", ["units", "frame", "kernels"])
@needs_compiler
def test_a_part_of_the_bench_has_rows(part, tmp_path, capsys):
    assert gpu_bench_on_cpu.run(part, "--json", str(tmp_path / "rows.json")) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    if part == "units":
        assert [row["pixel_sparsity"] for row in rows] == [0, pytest.approx(0.9, abs=0.02)]
        assert all(row["unit_speedup"] == pytest.approx(row["dense_ms"] / row["unit_ms"]) for row in rows)
    elif part == "frame":
        steps = {row["step"]: row for row in rows}
        of_steps = sum(steps[step]["ms"] for step in gpu_frame.STEPS)
        assert of_steps == pytest.approx(steps["all on the device"]["ms"])
        assert steps["boxes"]["same_mask"] and steps["boxes"]["same_pixels"]
        assert steps["boxes"]["found"] == steps["boxes"]["found_by_cpu"] == steps["boxes"]["same"]
    else:
        assert {"sbnet_shim::residual_units", "sbnet_shim::detect"} < {row["kernel"] for row in rows}
    assert results.measured(part, rows) and part.removesuffix("s") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("units --device cpu", "--device is 'cpu', which has no kernels of a GPU"),
        ("units --dense best", "--dense is 'best'; name some of eager,compile,autotune,tensorrt"),
        ("frame --frames 0", "--frames is 0; it must be at least 1"),
    ],
)
def test_an_impossible_option_of_the_bench_is_named_before_anything_is_measured(capsys, options, says):
    assert main(["bench", "gpu", *options.split()]) == 2
    assert says in capsys.readouterr().err


def test_boxes_of_two_detectors_are_one_where_their_centres_are_close():
    def boxes(*x):
        rows = torch.zeros(len(x), 7)
        rows[:, 0] = torch.tensor(x)
        return Detections(rows.numpy(), torch.ones(len(x)).numpy(), torch.zeros(len(x), dtype=torch.int64).numpy())

    assert gpu_frame._pairs(boxes(0.0, 5.0, 9.0), boxes(5.3, 0.1, 20.0)) == [(0, 1), (1, 0)]
    assert gpu_frame._pairs(boxes(0.0, 0.1), boxes(0.05)) == [(0, 0)]


def test_the_model_of_a_unit_is_that_of_the_chip_that_cuda_names():
    chip = chip_of("NVIDIA H100 80GB HBM3")
    assert chip is CHIPS["h100-sxm"] and chip_of("NVIDIA GeForce RTX 4090") is None
    (dense, sparse), (same, everything) = (_model("conv-2", sparsity, chip) for sparsity in (0.9, 0.0))
    assert dense == same and 0 < sparse < everything
