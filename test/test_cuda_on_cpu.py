"""The header that runs CUDA kernels on the CPU: it catches what it promises to, in small kernels and in ours.

That the kernels compute what they should is tested where their operations are, on the device ``shim``; here, that they
compute no less exactly than those of the CPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from devices import KERNELS, ROOT, SHIM, compile_all, operations_on

from sbnet_perception.blocks import reduce_mask, sparse_scatter
from sbnet_perception.detector.boxes import Found

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
MODES = {
    "asan": ["-fsanitize=address", "-O1", "-g"],
    "tsan": ["-fsanitize=thread", "-O1", "-g"],
    "portable": ["-DCUDA_ON_CPU_PORTABLE", "-O1"],  # as on other processors
}
FOLDER = ROOT / "build" / "cuda_on_cpu"


def run(program: Path, *arguments: str) -> str:
    """What a program says."""
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"}
    options = {"capture_output": True, "text": True, "check": False, "timeout": 120}
    done = subprocess.run([program, *arguments], env=environment, **options)
    said = done.stdout + done.stderr
    if "unexpected memory mapping" in said:
        pytest.skip("this kernel places memory where ThreadSanitizer of this g++ does not expect it")
    return said


@pytest.mark.parametrize(
    ("mistake", "mode", "said"),
    [
        ("with_syncwarp", "tsan", "no complaint, 31"),
        ("with_syncwarp", "portable", "no complaint, 31"),
        ("without_syncwarp", "tsan", "data race"),
        ("blocks_race", "tsan", "data race"),
        ("barrier_in_a_branch", "asan", "threads of a block wait at different barriers"),
        ("ballot_in_a_branch", "asan", "threads wait for ever"),
        ("between_arrays", "asan", "use-after-poison"),
        ("never_written", "asan", "no complaint, 0"),  # NaN is not equal to itself
    ],
)
def test_what_cuda_forbids_is_caught_whatever_the_schedule(mistake, mode, said):
    program = compile_all(FOLDER / mode, [SHIM / "mistakes.cpp"], MODES[mode], [], "mistakes")
    assert all(said in run(program, mistake, schedule) for schedule in ("1", "2", "3"))


def test_no_kernel_races_or_touches_what_is_not_its_own_and_results_do_not_depend_on_the_schedule():
    def results(mode: str) -> set[str]:
        program = compile_all(FOLDER / mode, [*KERNELS, SHIM / "kernels.cpp"], MODES[mode], [], "kernels")
        return {run(program, schedule) for schedule in (("1", "2", "3") if mode == "asan" else ("1",))}

    with ThreadPoolExecutor(2) as pool:
        found = set().union(*pool.map(results, ("asan", "tsan")))
    assert len(found) == 1 and len(found.pop().split()) == 2 * 7


MUTANTS = {
    "sums_read_too_early": (
        *("reduce_mask.cu", "__syncthreads();\n    // and that", "// and that"),
        *("tsan", "data race"),
    ),
    "sums_overwritten": (
        *("reduce_mask.cu", "__syncthreads();  // the next", "// the next"),
        *("tsan", "data race"),
    ),
    "too_little_shared_memory": (
        *("reduce_mask.cu", "warp_sum = arena.take<int>(kThreads / kWarp)", "warp_sum = arena.take<int>(4)"),
        *("asan", "use-after-poison"),
    ),
    "right_border": ("gather.cu", "column < placed.width", "column <= placed.width", "asan", "heap-buffer-overflow"),
    "votes_read_too_early": ("detect.cu", "__syncwarp();  // votes are", "// votes are", "tsan", "data race"),
    "overlaps_without_atomics": (
        *("detect.cu", "atomicOr(round.overlaps + pair.candidate,", "(round.overlaps[pair.candidate] |="),
        *("tsan", "data race"),
    ),
    "numbers_read_too_early": (
        *("scan.cu", "  __syncthreads();\n  Sums", "  Sums"),
        *("tsan", "data race"),
    ),
    "products_before_their_rows_are_found": (
        *("products.cu", "count, rows);\n      __syncwarp();", "count, rows);"),
        *("tsan", "data race"),
    ),
    "wide_channels_read_too_early": (
        *("unit.cu", "__syncthreads();  // and so are", "// and so are"),
        *("tsan", "data race"),
    ),
    "unit_without_an_end": ("unit.cu", "pixel >= 0 && pixel < count", "pixel >= 0", "asan", "heap-buffer-overflow"),
    "bits_read_too_early": ("dilate.cu", "__syncthreads();  // other", "// other", "tsan", "data race"),
    "linked_without_atomics": (
        *("scatter.cu", "next[pixel] = atomicExch(first + ", "Link& head = *(first + "),
        *("tsan", "data race"),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_put_into_a_kernel_is_caught(name):
    source, right, wrong, mode, said = MUTANTS[name]
    text = (ROOT / "ops" / "cuda" / source).read_text()
    assert text.count(right) == 1
    text = text.replace(right, wrong)
    if name == "linked_without_atomics":
        text = text.replace("+ x, static_cast<Link>(pixel + 1));", "+ x); next[pixel] = head; head = pixel + 1;")
    mutant = FOLDER / "mutants" / f"{name}.cu"
    mutant.parent.mkdir(parents=True, exist_ok=True)
    if not mutant.exists() or mutant.read_text() != text:
        fresh = mutant.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(mutant)
    others = [path for path in KERNELS if path.name != source]
    program = compile_all(FOLDER / mode, [mutant, *others, SHIM / "kernels.cpp"], MODES[mode], [], name)
    assert said in run(program, "1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_sums_are_those_of_the_cpu_bit_by_bit(dtype):
    generator, results = torch.Generator().manual_seed(0), []
    x = torch.randn(2, 8, 40, 50, generator=generator).to(dtype)
    # Blocks of every bit pattern of 16 bits, or as large numbers as there are; sums overflow and get denormal.
    bits = torch.randint(-(2**15), 2**15, (500, 8, 3, 4), generator=generator, dtype=torch.int16)
    blocks = bits.view(dtype).nan_to_num(0) if dtype.itemsize == 2 else bits.to(dtype).remainder(250).sub(140).exp2()
    indices = torch.randint(0, 20, (500, 3), generator=generator, dtype=torch.int32) % torch.tensor([2, 20, 20])
    for device in ("cpu", "shim"):
        with operations_on(device):
            sums = sparse_scatter(blocks, indices.int(), x, (3, 4), (2, 2), (-1, -1), (2, 3), add=True)
            results.append((sums, reduce_mask(x[:, 0], (19, 24), (3, 3), (2, 2), (-1, 0), 0.1, "avg")))
    assert torch.equal(results[0][0].nan_to_num(1, 2, 3), results[1][0].nan_to_num(1, 2, 3))
    assert torch.equal(results[0][1], results[1][1]) and 100 < len(results[0][1]) < 800


@pytest.mark.parametrize("limit", [500, 20])
def test_boxes_are_those_of_the_cpu_bit_by_bit(limit):
    # a crowd: many of each object, equal scores, outputs that are not finite, rows that are no pixels
    generator = torch.Generator().manual_seed(0)
    rows, flat = torch.randn(1500, 11, generator=generator), torch.arange(1500)
    rows[:, :3] = rows[:, :3].round()
    rows[:, 3:6] = torch.tensor([1.4, 0.6, 0.5]) + 0.1 * rows[:, 3:6]
    rows[::89, 0], rows[::97, 9], rows[::61, 4] = torch.nan, torch.nan, torch.inf
    flat[5::50] = -1

    def found(device: str) -> Found:
        with operations_on(device):
            place = (0.0, -20.0, 0.8)
            return torch.ops.sbnet.detect(rows, flat, 64, place, (0.3, 0.2, 0.5), (0, 1, 0), 0.1, limit)

    (boxes, *others), (ours, *our_others) = found("cpu"), found("shim")
    assert torch.equal(ours.nan_to_num(1, 2, 3), boxes.nan_to_num(1, 2, 3))
    assert all(map(torch.equal, our_others, others))
    assert int(others[-1]) == 20 if limit == 20 else 100 < int(others[-1]) < 500
